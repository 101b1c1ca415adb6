"""transformers, with torch, loads and runs a LLaMA through HF_ENDPOINT; safetensors and the cache without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors
import small_llama
import torch
from daemon import Daemon
from huggingface_hub import HfApi, snapshot_download
from models import same_files
from transformers import AutoTokenizer, LlamaForCausalLM

import shoal

HERE = Path(__file__).parent


class Llama:
    def __init__(self, publisher: Daemon, directory: Path) -> None:
        self.directory = directory
        self.model = small_llama.write(directory, seed=21, shard="10MB")
        self.cid = shoal.save_model("acme/llama", directory, socket=publisher.socket)
        self.logits = small_llama.logits(self.model)


@pytest.fixture(scope="module")
def llama(publisher: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    return Llama(publisher, tmp_path_factory.mktemp("llama") / "m")


# What a user runs, with an environment variable and names.
USER = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
out, *names = sys.argv[1:]
import small_llama
told = []
for name in names:
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(name)
    words = tokenizer("a shoal of fish", return_tensors="pt")
    words.pop("token_type_ids", None)
    torch.save(small_llama.logits(model), f"{out}/{name.replace('/', '-')}.pt")
    told.append({"generated": model.generate(**words, max_new_tokens=8, do_sample=False)[0].tolist(), "words": words["input_ids"].tolist()})
print(json.dumps(told))
"""


def user(out: Path, *names: str, **env: str) -> list[dict[str, Any]]:
    """What the model said in a process of its own, for each name; its logits are in `out`."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), **env}
    done = subprocess.run([sys.executable, "-c", USER, str(out), *names], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_from_pretrained_runs_through_the_endpoint(llama: Llama, reader: Daemon, tmp_path: Path) -> None:
    """
    Of a node that does not hold the model: the swarm loads while transformers does. Then offline: from the cache that
    this has left, and from what `shoal export --hf-cache` has written into it under another name.
    """
    shoal.link("acme/llama", llama.cid, socket=reader.socket)
    (tmp_path / "online").mkdir()
    (online,) = user(tmp_path / "online", "acme/llama", HF_ENDPOINT=str(reader.ready["hf"]))
    assert torch.equal(torch.load(tmp_path / "online" / "acme-llama.pt"), llama.logits)
    words = torch.tensor(online["words"])
    with torch.no_grad():
        assert online["generated"] == llama.model.generate(words, max_new_tokens=8, do_sample=False)[0].tolist()
    assert online["words"][0][-3:] == [5, 6, 7]
    hub = Path(os.environ["HF_HOME"]) / "hub"
    assert not list(hub.rglob("*.incomplete"))
    reader.shoal("export", llama.cid, "--hf-cache", "--name", "acme/exported", "--cache-dir", str(hub))
    (tmp_path / "offline").mkdir()
    told = user(tmp_path / "offline", "acme/llama", "acme/exported", HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:1")
    assert told == [online, online]
    for name in ("llama", "exported"):
        assert torch.equal(torch.load(tmp_path / "offline" / f"acme-{name}.pt"), llama.logits)


def test_from_pretrained_of_a_path(llama: Llama, reader: Daemon) -> None:
    model = LlamaForCausalLM.from_pretrained(shoal.load(llama.cid, socket=reader.socket))
    assert torch.equal(small_llama.logits(model), llama.logits)
    state = shoal.load_model(llama.cid, socket=reader.socket)
    assert set(state) == set(llama.model.state_dict()) and all(torch.equal(state[name], value) for name, value in llama.model.state_dict().items())


def test_from_pretrained_after_an_update(llama: Llama, publisher: Daemon, reader: Daemon) -> None:
    """New weights for a name: configuration and tokenizer are those of before, the shards and their index are gone."""
    shoal.link("acme/tuned", llama.cid, socket=reader.socket)
    state = {name: value + 1 if name.endswith("norm.weight") else value for name, value in llama.model.state_dict().items()}
    cid = shoal.update_model("acme/tuned", state, socket=reader.socket)
    assert cid != llama.cid
    directory = shoal.load("acme/tuned", socket=reader.socket)
    others = {path.name for path in llama.directory.iterdir() if not path.name.endswith((".safetensors", ".index.json"))}
    assert {path.name for path in directory.iterdir()} == {"model.safetensors", *others} and "tokenizer.json" in others
    tuned, tokenizer = LlamaForCausalLM.from_pretrained(directory), AutoTokenizer.from_pretrained(directory)
    assert all(torch.equal(tuned.state_dict()[name], value) for name, value in state.items())
    assert tokenizer("a shoal of fish")["input_ids"][-3:] == [5, 6, 7]


def test_safetensors_of_the_cache(llama: Llama, publisher: Daemon, tmp_path: Path) -> None:
    at = str(publisher.ready["hf"])
    directory = Path(snapshot_download("acme/llama", endpoint=at, cache_dir=tmp_path))
    state = llama.model.state_dict()
    seen = set()
    for file in directory.glob("*.safetensors"):
        with safetensors.safe_open(file, "pt") as opened:
            for name in opened.keys():
                assert torch.equal(opened.get_tensor(name), state[name])
                seen.add(name)
    assert seen == set(state)
    # By ranges of the endpoint alone, without the files.
    metadata = HfApi(at).get_safetensors_metadata("acme/llama")
    assert set(metadata.weight_map) == set(state) and metadata.sharded


def test_exported_cache_is_what_a_download_leaves(llama: Llama, reader: Daemon) -> None:
    shoal.link("acme/llama", llama.cid, socket=reader.socket)
    hub = Path(os.environ["HF_HOME"]) / "hub"
    reader.shoal("export", llama.cid, "--hf-cache", "--cache-dir", str(hub))
    (snapshot,) = (hub / "models--acme--llama" / "snapshots").iterdir()
    assert same_files(llama.directory, snapshot)
    assert (hub / "models--acme--llama" / "refs" / "main").read_text() == snapshot.name == HfApi(str(reader.ready["hf"])).model_info("acme/llama").sha
    verify = [Path(sys.executable).with_name("hf"), "cache", "verify", "acme/llama", "--cache-dir", hub]
    done = subprocess.run(verify, env={**os.environ, "HF_ENDPOINT": str(reader.ready["hf"])}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    # A client that finds it there downloads nothing: it would have to write into what is the node's.
    assert snapshot_download("acme/llama", endpoint=str(reader.ready["hf"]), cache_dir=hub) == str(snapshot)


def test_a_downloaded_cache_is_published_in_place(llama: Llama, publisher: Daemon) -> None:
    hub = Path(os.environ["HF_HOME"]) / "hub"
    directory = Path(snapshot_download("acme/llama", endpoint=str(publisher.ready["hf"]), cache_dir=hub))
    assert same_files(directory, llama.directory)
    added = publisher.shoal("add", "--from-hf-cache", "acme/llama", env={"HF_HUB_CACHE": str(hub)})
    assert added["cid"] == llama.cid, "the same files have the same name, wherever they come from"
