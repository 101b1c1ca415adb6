"""Eight tokens by vLLM: `vllm_generate.py MODEL [LOAD_FORMAT SOCKET]`, printed as a line `tokens: [...]`."""

from __future__ import annotations

import json
import sys
from typing import Any


def main(model: str, load_format: str | None = None, socket: str | None = None) -> None:
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    how: dict[str, Any] = {} if load_format is None else {"load_format": load_format, "model_loader_extra_config": {"socket": socket}}
    engine = LLM(model=model, dtype="float32", max_model_len=64, max_num_seqs=1, enforce_eager=True, **how)
    (answer,) = engine.generate(TokensPrompt(prompt_token_ids=[1, 3, 5, 7]), SamplingParams(temperature=0, max_tokens=8, ignore_eos=True))
    print("\ntokens:", json.dumps([1, 3, 5, 7, *answer.outputs[0].token_ids]))


if __name__ == "__main__":  # vLLM starts its engine as a child that imports this
    main(*sys.argv[1:])
