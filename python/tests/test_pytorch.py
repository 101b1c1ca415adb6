"""A torch.nn model is saved on one node, loaded on another, and gives the same outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from daemon import Daemon
from torch import nn

import shoal
from shoal import errors


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    layer = nn.TransformerEncoderLayer(d_model=256, nhead=4, dim_feedforward=1024, batch_first=True)
    return nn.Sequential(nn.Embedding(1000, 256), nn.TransformerEncoder(layer, 3), nn.LayerNorm(256), nn.Linear(256, 1000)).eval()


def outputs(module: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return module(torch.arange(64).reshape(2, 32) % 1000)


@pytest.mark.parametrize("format", ["safetensors", "torch"])
def test_equal_outputs_on_another_node(format: str, publisher: Daemon, reader: Daemon) -> None:
    ours, theirs = network(1), network(2)
    assert not torch.equal(outputs(ours), outputs(theirs))
    cid = shoal.save_model(f"nets/{format}", ours.state_dict(), format=format, socket=publisher.socket)
    theirs.load_state_dict(shoal.load_model(cid, socket=reader.socket))
    assert torch.equal(outputs(ours), outputs(theirs))
    assert cid == shoal.save_model(None, ours.state_dict(), format=format, socket=publisher.socket) or format == "torch"


def test_files_that_others_have_written(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    ours, theirs = network(3), network(4)
    (tmp_path / "m").mkdir()
    state = ours.state_dict()
    names = sorted(state)
    safetensors.torch.save_file({name: state[name] for name in names[::2]}, tmp_path / "m" / "model-00001-of-00002.safetensors")
    safetensors.torch.save_file({name: state[name] for name in names[1::2]}, tmp_path / "m" / "model-00002-of-00002.safetensors")
    cid = shoal.save_model(None, tmp_path / "m", socket=publisher.socket)
    theirs.load_state_dict(shoal.load_model(cid, socket=reader.socket))
    assert torch.equal(outputs(ours), outputs(theirs))
    with safetensors.safe_open(shoal.load(cid, socket=reader.socket) / "model-00001-of-00002.safetensors", "pt") as opened:
        assert torch.equal(opened.get_tensor(names[0]), state[names[0]])


def test_only_what_changed_moves(publisher: Daemon, reader: Daemon) -> None:
    torch.manual_seed(5)
    state = {f"layer.{index}.weight": torch.randn(1024, 1024) for index in range(6)}  # 4 MiB each
    first = shoal.save_model("nets/tuned", state, socket=publisher.socket)
    shoal.load(first, socket=reader.socket)
    state["layer.3.weight"] = state["layer.3.weight"] + 1
    state["layer.9.weight"] = torch.randn(1024, 1024)
    second = shoal.update_model("nets/tuned", state, socket=publisher.socket)
    assert second != first
    assert [link.cid for link in shoal.links(socket=publisher.socket) if link.repo == "nets/tuned"] == [second]
    with shoal.open(second, socket=reader.socket) as model:
        result = model.wait(60)
        assert all(torch.equal(model.tensor(name), value) for name, value in state.items())
    # Two tensors, the header, and what shares a block with it.
    assert 8 * 2**20 <= result.fetched_bytes < 9 * 2**20, result
    assert result.reused_bytes >= 20 * 2**20
    assert torch.equal(shoal.load_model(first, socket=reader.socket)["layer.3.weight"] + 1, state["layer.3.weight"])


def test_numpy_and_what_is_no_model(publisher: Daemon, tmp_path: Path) -> None:
    cid = shoal.save_model(None, {"w": torch.ones(2, 2)}, format="torch", socket=publisher.socket)
    assert shoal.load_model(cid, framework="numpy", socket=publisher.socket)["w"].tolist() == [[1, 1], [1, 1]]
    (tmp_path / "readme.txt").write_text("no weights")
    with pytest.raises(errors.UsageError, match="readme.txt"):
        shoal.load_model(shoal.save_model(None, tmp_path / "readme.txt", socket=publisher.socket), socket=publisher.socket)


def test_pickles_run_no_code(publisher: Daemon, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"w": Evil()}, tmp_path / "pytorch_model.bin")
    cid = shoal.save_model(None, tmp_path / "pytorch_model.bin", socket=publisher.socket)
    with pytest.raises(Exception, match="weights_only|Unsupported|Weights only"):
        shoal.load_model(cid, socket=publisher.socket)
    assert not (tmp_path / "ran").exists()
