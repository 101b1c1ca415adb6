"""A torch.nn model is saved on one node, loaded on another, and gives the same outputs."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
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
    with pytest.raises(errors.UsageError, match="pytorch_model.bin.*(weights_only|Unsupported|Weights only)"):
        shoal.load_model(cid, socket=publisher.socket)
    assert not (tmp_path / "ran").exists()


def published(publisher: Daemon, directory: Path, files: dict[str, dict[str, object] | str]) -> str:
    """A model of these files: state dicts as safetensors or by torch.save, texts as they are."""
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif name.endswith(".safetensors"):
            safetensors.torch.save_file(content, path)  # type: ignore[arg-type]
        else:
            torch.save(content, path)
    return shoal.save_model(None, directory, socket=publisher.socket)


def filled(**values: float) -> dict[str, object]:
    return {name: torch.full((2,), value) for name, value in values.items()}


def index(**files: str) -> str:
    return json.dumps({"weight_map": files})


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_a_name_in_two_files_is_no_state_dict(ending: str, publisher: Daemon, tmp_path: Path) -> None:
    cid = published(publisher, tmp_path / "m", {f"text_encoder/model.{ending}": filled(w=1, a=1), f"text_encoder_2/model.{ending}": filled(w=2, b=2)})
    with pytest.raises(errors.TensorNotFoundError, match="'w' in text_encoder/model.* and in text_encoder_2/model"):
        shoal.load_model(cid, socket=publisher.socket)


@pytest.mark.parametrize("framework", ["torch", "numpy"])
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"model-1.safetensors": filled(a=1), "model-2.safetensors": filled(b=2), "consolidated.safetensors": filled(a=9, b=9), "sub/model.safetensors": filled(c=9),
          "model.safetensors.index.json": index(a="model-1.safetensors", b="model-2.safetensors")}, {"a": 1, "b": 2}),
        ({"unet/d-1.safetensors": filled(a=1), "unet/d-2.safetensors": filled(b=2), "unet/d.fp16.safetensors": filled(a=9, b=9), "vae/d.safetensors": filled(c=3),
          "unet/d.safetensors.index.json": index(a="d-1.safetensors", b="d-2.safetensors")}, {"a": 1, "b": 2, "c": 3}),
        ({"model.safetensors": filled(a=1), "pytorch_model.bin": filled(a=9), "model.safetensors.index.json": index(a="model-1.safetensors")}, {"a": 1}),
        ({"pytorch_model-1.bin": filled(a=1), "pytorch_model-2.bin": filled(b=2), "pytorch_model-old.bin": filled(a=9), "training_args.bin": filled(c=9), "optimizer.pt": filled(d=9),
          "pytorch_model.bin.index.json": index(a="pytorch_model-1.bin", b="pytorch_model-2.bin")}, {"a": 1, "b": 2}),
        ({"weights.pth": filled(a=1), "optimizer.pt": filled(a=9), "rng_state_0.pth": filled(b=9), "scheduler.pt": filled(b=9)}, {"a": 1}),
    ],
    ids=["an index", "an index in a directory", "one file", "an index of pickles", "training state"],
)  # fmt: skip
def test_the_files_that_are_the_model(framework: str, files: dict[str, dict[str, object] | str], expected: dict[str, int], publisher: Daemon, tmp_path: Path) -> None:
    cid = published(publisher, tmp_path / "m", files)
    state = shoal.load_model(cid, framework=framework, socket=publisher.socket)  # type: ignore[arg-type]
    assert {name: value.tolist() for name, value in state.items()} == {name: [value, value] for name, value in expected.items()}


def test_an_index_that_names_what_is_not_there(publisher: Daemon, tmp_path: Path) -> None:
    files: dict[str, dict[str, object] | str] = {"a.safetensors": filled(a=1), "b.safetensors": filled(b=1)}
    cid = published(publisher, tmp_path / "1", {**files, "model.safetensors.index.json": index(a="a.safetensors", c="c.safetensors")})
    with pytest.raises(errors.FileNotFoundError, match="c.safetensors"):
        shoal.load_model(cid, socket=publisher.socket)
    for number, text in enumerate(("{", "[]", '{"weight_map": [1]}', '{"weight_map": {"a": 7}}', '{"weight_map": {"a": ["x"]}}')):
        cid = published(publisher, tmp_path / f"bad{number}", {**files, "model.safetensors.index.json": text})
        with pytest.raises(errors.UsageError, match="no index of weights"):
            shoal.load_model(cid, socket=publisher.socket)


def test_pickles_of_each_kind_as_numpy(publisher: Daemon, tmp_path: Path) -> None:
    state = {
        "parameter": nn.Parameter(torch.ones(2)), "bf16": torch.full((2, 3), 1.5, dtype=torch.bfloat16), "fp8": torch.ones(4).to(torch.float8_e4m3fn),
        "scalar": torch.tensor(2.5, dtype=torch.bfloat16), "empty": torch.empty(0, 3, dtype=torch.bfloat16), "conjugated": torch.ones(2, dtype=torch.complex64).conj(),
    }  # fmt: skip
    torch.save(state, tmp_path / "pytorch_model.bin")
    loaded = shoal.load_model(shoal.save_model(None, tmp_path / "pytorch_model.bin", socket=publisher.socket), framework="numpy", socket=publisher.socket)
    assert loaded["bf16"].dtype == ml_dtypes.bfloat16 and loaded["fp8"].dtype == ml_dtypes.float8_e4m3fn
    assert {name: (value.shape, value.astype("complex64").tolist()) for name, value in loaded.items()} == {
        name: (tuple(value.shape), value.detach().to(torch.complex64).tolist()) for name, value in state.items()
    }


def test_pickles_from_before_zips_and_what_is_none(publisher: Daemon, tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert shoal.load_model(shoal.save_model(None, tmp_path / "pytorch_model.bin", socket=publisher.socket), socket=publisher.socket)["w"].tolist() == [1, 1]
    for number, content in enumerate((b"", b"no pickle", b"PK\x03\x04 no zip", b"\x80\x02N.")):
        (tmp_path / f"pytorch_model-{number}.bin").write_bytes(content)
        cid = shoal.save_model(None, tmp_path / f"pytorch_model-{number}.bin", socket=publisher.socket)
        with pytest.raises(errors.UsageError, match=f"pytorch_model-{number}.bin"):
            shoal.load_model(cid, socket=publisher.socket)


def paths(cid: str, publisher: Daemon) -> list[str]:
    with shoal.open(cid, socket=publisher.socket) as model:
        return [file.path for file in model.files]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"adapter_model.safetensors": filled(w=1), "adapter_config.json": "{}"}, ["adapter_config.json", "adapter_model.safetensors"]),
        ({"m-1-of-1.safetensors": filled(w=1), "m.safetensors.index.json": index(w="m-1-of-1.safetensors"), "a/vocab.index.json": "x"}, ["a/vocab.index.json", "model.safetensors"]),
        ({"pytorch_model.bin": filled(w=1), "training_args.bin": filled(c=1), "optimizer.PT": filled(c=1), ".gitattributes": "x"}, [".gitattributes", "model.safetensors"]),
        ({"model.safetensors": filled(w=1)}, ["model.safetensors"]),
        ({"config.json": "{}"}, ["config.json", "model.safetensors"]),
    ],
    ids=["one file of another name", "shards", "pickles", "weights alone", "no weights"],
)
def test_an_update_keeps_what_holds_no_weights(before: dict[str, dict[str, object] | str], after: list[str], publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    """Also of a state that is not here yet; and a path is published as it is."""
    first = published(publisher, tmp_path / "m", before)
    shoal.link("nets/kept", first, socket=reader.socket)
    second = shoal.update_model("nets/kept", filled(w=2), socket=reader.socket)
    assert paths(second, reader) == after
    for path in after:
        if isinstance(before.get(path), str):
            assert (shoal.load("nets/kept", socket=reader.socket) / path).read_text() == before[path]
    assert shoal.load_model("nets/kept", socket=reader.socket)["w"].tolist() == [2, 2]
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_text("{}")
    assert paths(shoal.update_model("nets/kept", tmp_path / "new", socket=reader.socket), reader) == ["config.json"]


def test_an_update_that_cannot_keep_the_rest(publisher: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shoal.link("nets/pipeline", published(publisher, tmp_path / "1", {"unet/model.safetensors": filled(w=1), "model_index.json": "{}"}), socket=publisher.socket)
    with pytest.raises(errors.UsageError, match="unet/model.safetensors"):
        shoal.update_model("nets/pipeline", filled(w=2), socket=publisher.socket)
    cid = published(publisher, tmp_path / "2", {"model.safetensors": filled(w=1), "dataset.csv": "x" * 1000})
    shoal.link("nets/large", cid, socket=publisher.socket)
    monkeypatch.setattr("shoal._carried.CARRIED_BYTES_MAX", 999)
    with pytest.raises(errors.UsageError, match="dataset.csv has 1000"):
        shoal.update_model("nets/large", filled(w=2), socket=publisher.socket)
    assert [link.cid for link in shoal.links(socket=publisher.socket) if link.repo == "nets/large"] == [cid]
    shoal.link("nets/nowhere", "bafyr4ihcsvbyvd54yonr3mzc4tklpcbqd5ttrxqbnvigmoy2kbgcjmbq2u", socket=publisher.socket)
    monkeypatch.setattr("shoal._carried._PROVIDER_SECONDS", 0.2)
    with pytest.raises(errors.NoProviderError, match="save_model"):
        shoal.update_model("nets/nowhere", filled(w=2), socket=publisher.socket)
