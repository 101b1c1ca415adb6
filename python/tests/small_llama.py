"""A tiny random LLaMA with its tokenizer, made here and never fetched, and a loader of the shape of vLLM's models for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = "<unk> <s> </s> the a shoal of fish has no leader and survives loss any".split()


def write(directory: Path, *, seed: int = 1, shard: str = "50MB", dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """Writes model and tokenizer as transformers does, and returns the model."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=4, vocab_size=2048, bos_token_id=1, eos_token_id=2
    )
    model = LlamaForCausalLM(config).to(dtype).eval()
    model.save_pretrained(directory, max_shard_size=shard)
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>").save_pretrained(directory)
    return model


def generated(model: Any) -> list[int]:
    with torch.no_grad():
        return model.generate(torch.tensor([[1, 3, 5, 7]]), max_new_tokens=8, do_sample=False)[0].tolist()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[1, 3, 5, 7, 9, 11]])).logits
