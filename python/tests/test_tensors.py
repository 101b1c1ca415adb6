"""Tensors of real safetensors files, of each dtype, while they load and from mapped memory."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy
import odd_tensors
import pytest
import safetensors.torch
import torch
from daemon import ROOT, Daemon
from models import MIB

import shoal
from shoal import _safetensors, _spool, _tensors, errors

TORCH_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "C64": torch.complex64,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz, "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}  # fmt: skip


def of_each_dtype() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    tensors = {}
    for name, dtype in TORCH_DTYPES.items():
        raw = torch.randint(0, 2 if name == "BOOL" else 120, (6 * dtype.itemsize,), dtype=torch.uint8)
        tensors[name] = raw.view(dtype).reshape(2, 3)
    return {**tensors, "empty": torch.empty(0, 4), "scalar": torch.tensor(2.5)}


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(bits(one), bits(other))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_dtypes_of_the_reference_implementation(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    made = of_each_dtype()
    (tmp_path / "m").mkdir()
    safetensors.torch.save_file({name: value for name, value in made.items()}, tmp_path / "m" / "model.safetensors")
    cid = shoal.save_model(None, tmp_path / "m", socket=publisher.socket)
    with shoal.open(cid, socket=reader.socket) as model:
        assert {info.name: info.dtype for info in model.tensors()} == {**{name: name for name in TORCH_DTYPES}, "empty": "F32", "scalar": "F32"}
        for complete in (False, True):  # read, then mapped
            for name, value in made.items():
                assert same(model.tensor(name), value), name
                array = model.tensor(name, "numpy")
                assert array.tobytes() == bytes(bits(value).tolist()), name
                assert tuple(array.shape) == tuple(value.shape)
            model.wait(30)
        assert mapped(model.file("model.safetensors").local_path)
        assert model.tensor("BF16", "numpy").dtype == ml_dtypes.bfloat16
        assert model.tensor("F8_E4M3", "numpy").dtype == ml_dtypes.float8_e4m3fn
        with pytest.raises(errors.TensorNotFoundError):
            model.tensor("missing")
        with pytest.raises(errors.UsageError):
            model.tensor("F32", "jax")  # type: ignore[arg-type]


def test_without_ml_dtypes_numpy_gets_raw_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tensors.importlib.util, "find_spec", lambda name: None if name == "ml_dtypes" else object())
    for dtype, size, raw in (("BF16", 2, "uint16"), ("F8_E5M2", 1, "uint8")):
        info = shoal.TensorInfo("x", dtype, (3,), "f", 0, 3 * size)
        array = _tensors.tensor_from(info, bytearray(range(3 * size)), 0, "numpy")
        assert array.dtype == numpy.dtype(raw) and array.tobytes() == bytes(range(3 * size))


def test_a_mapped_tensor_can_be_written_and_changes_no_file(publisher: Daemon, tmp_path: Path) -> None:
    cid = shoal.save_model(None, {"w": torch.ones(1000)}, socket=publisher.socket)
    with shoal.open(cid, socket=publisher.socket) as model:
        before = model.file("model.safetensors").read()
        tensor, array = model.tensor("w"), model.tensor("w", "numpy")
        tensor += 1
        array[:10] = 7
    # It outlives the model it came from.
    assert tensor.sum() == 2000 - 20 + 70
    assert shoal.load(cid, socket=publisher.socket).joinpath("model.safetensors").read_bytes() == before
    with shoal.open(cid, socket=publisher.socket) as model:
        assert model.tensor("w").sum() == 1000


def test_tensors_come_before_the_load_is_done(publisher: Daemon, reader: Daemon) -> None:
    torch.manual_seed(2)
    state = {f"layer.{index:02}": torch.randn(512, 1024) for index in range(16)}  # 32 MiB
    cid = shoal.save_model(None, state, socket=publisher.socket)
    with shoal.open(cid, order="sequential", socket=reader.socket) as model:
        assert same(model.tensor("layer.14"), state["layer.14"])
        assert model.progress.bytes_done < 24 * MIB, "the tensor came only with the rest"
        assert not mapped(model.file("model.safetensors").local_path)
        names = []
        for name, tensor in model.iter_tensors():
            names.append(name)
            assert same(tensor, state[name])
        assert names == sorted(state)


def test_a_tensor_among_very_many(publisher: Daemon) -> None:
    """It is found without looking at them all."""
    state = {f"t{index:05}": numpy.zeros(1, dtype="u1") for index in range(50_000)}
    cid = shoal.save_model(None, state, socket=publisher.socket)
    with shoal.open(cid, socket=publisher.socket) as model:
        model.wait()
        assert len(model.tensors()) == 50_000
        started = time.process_time()
        for index in range(1_000):
            assert model.tensor(f"t{index:05}", "numpy").shape == (1,)
        assert time.process_time() - started < 1  # 13 s when each call looks at them all


def test_our_files_are_those_of_the_reference_implementation(tmp_path: Path) -> None:
    made = of_each_dtype()
    made["transposed"] = torch.arange(12.0).reshape(3, 4).t()
    made["name with \"quotes\" and \u00fcmlauts"] = torch.ones(1)
    from shoal._save import write_safetensors

    write_safetensors(made, tmp_path / "ours.safetensors")
    back = safetensors.torch.load_file(tmp_path / "ours.safetensors")
    assert set(back) == set(made) and all(same(back[name], made[name]) for name in made)
    with safetensors.safe_open(tmp_path / "ours.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    arrays = {"a": numpy.arange(6, dtype=">i4").reshape(2, 3), "b": numpy.ones(3, dtype=ml_dtypes.bfloat16), "c": numpy.float32([[1, 2], [3, 4]]).T}
    write_safetensors(arrays, tmp_path / "numpy.safetensors")
    with safetensors.safe_open(tmp_path / "numpy.safetensors", "pt") as opened:
        assert opened.get_tensor("a").tolist() == [[0, 1, 2], [3, 4, 5]]
        assert opened.get_tensor("b").dtype == torch.bfloat16
        assert opened.get_tensor("c").tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize("bad", [{"x": [1, 2]}, {1: torch.ones(1)}, {"__metadata__": torch.ones(1)}, {"x": numpy.array(["text"])}, {"x": torch.ones(2).to_sparse()}, 7, None])
def test_what_is_no_state_dict(bad: object, publisher: Daemon) -> None:
    with pytest.raises(errors.UsageError):
        shoal.save_model(None, bad, socket=publisher.socket)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad,said", [(1, "an int"), ("x", "a str"), (None, "a NoneType")])
def test_what_is_no_tensor_has_its_article(bad: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match=f"^'x' is {said}; a state dict maps names to torch tensors or numpy arrays$"):
        shoal.save_model(None, {"x": bad}, directory=tmp_path, socket=tmp_path / "none.sock")


def test_tensors_that_are_no_plain_memory(tmp_path: Path) -> None:
    """Refused, where their bytes would be wrong or the process would die; and nothing of them stays on the disk."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python" / "src")}
    done = subprocess.run([sys.executable, odd_tensors.__file__, tmp_path, *odd_tensors.VALUES], env=environment, capture_output=True, text=True, timeout=120)
    assert [line for line in done.stdout.splitlines() if "begun" not in line] == [f"{what}: refused" for what in odd_tensors.VALUES], done.stdout[-200:] + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_parameters_and_buffers_are_plain(publisher: Daemon) -> None:
    state = {"parameter": torch.nn.Parameter(torch.ones(2)), "buffer": torch.nn.Buffer(torch.ones(2)), "expanded": torch.ones(1).expand(2)}
    loaded = shoal.load_model(shoal.save_model(None, state, socket=publisher.socket), socket=publisher.socket)
    assert {name: value.tolist() for name, value in loaded.items()} == {name: [1, 1] for name in state}


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb", 7, "__metadata__"])
def test_what_cannot_be_a_name(name: object, tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="name of a tensor"):
        shoal.save_model(None, {name: torch.ones(1)}, directory=tmp_path, socket=tmp_path / "none.sock")  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_have_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing that another one still writes, that is being made, or that a user gave a similar name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with _spool.made(None, "/nowhere/api.sock") as held:
        killed = subprocess.Popen([sys.executable, "-c", f"""
import sys, tempfile, time; sys.path.insert(0, {str(ROOT / "python" / "src")!r}); tempfile.tempdir = {str(tmp_path)!r}
from shoal import _spool
with _spool.made(None, "/nowhere/api.sock") as path:
    open(path + "/model.safetensors", "w").write("x" * 1000)
    print(path, flush=True)
    time.sleep(60)
"""], stdout=subprocess.PIPE, text=True)  # fmt: skip
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().strip())
        for path in (held, left):
            os.utime(path, (0, 0))
        (tmp_path / "shoal-save-young").mkdir()
        (tmp_path / "shoal-save-file").write_text("")
        with _spool.made(None, "/nowhere/api.sock"):
            assert left.is_dir()
        killed.kill()
        killed.wait()
        killed.stdout.close()
        with _spool.made(None, "/nowhere/api.sock"):
            assert not left.exists() and Path(held).is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shoal-save-file", "shoal-save-young"]


def test_a_daemon_that_sees_no_temporary_directory_of_ours(publisher: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state dict is written in its data directory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "private"))
    cid = shoal.save_model(None, {"w": torch.ones(3)}, socket=publisher.socket)
    assert shoal.load_model(cid, socket=publisher.socket)["w"].tolist() == [1, 1, 1]
    assert not list(publisher.data.glob("shoal-save-*"))
    with pytest.raises(errors.UsageError, match="directory="):
        shoal.save_model(None, {"w": torch.ones(3)}, directory=tmp_path / "missing", socket=publisher.socket)


def test_where_a_state_dict_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for name in ("tmp", "run", "data", "own"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "version").write_text("1\n")
    for socket, directory, where, mode in (("data", None, "data", 0o700), ("run", None, "tmp", 0o700), ("data", tmp_path / "own", "own", 0o777)):
        umask = os.umask(0)
        try:
            with _spool.made(directory, str(tmp_path / socket / "api.sock")) as path:
                assert Path(path).parent == tmp_path / where and Path(path).stat().st_mode & 0o777 == mode
        finally:
            os.umask(umask)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with _spool.made(None, str(tmp_path / "data" / "api.sock")) as path:
        assert Path(path).parent == tmp_path / "tmp"


def test_a_child_that_was_forked_while_a_state_dict_was_written_leaves_it_there(tmp_path: Path) -> None:
    spool = _spool.made(tmp_path, "/nowhere/api.sock")
    path = Path(spool.__enter__())
    child = os.fork()
    if child == 0:
        spool.__exit__(None, None, None)
        os._exit(0)
    os.waitpid(child, 0)
    assert path.is_dir()
    spool.__exit__(None, None, None)
    assert not path.exists()


def test_a_child_process_may_use_what_its_parent_opened(publisher: Daemon) -> None:
    """Data loaders fork. What was complete stays readable there, and the parent's model is not closed by the child's end."""
    cid = shoal.save_model(None, {"w": torch.ones(1000)}, socket=publisher.socket)
    with shoal.open(cid, socket=publisher.socket) as model:
        model.wait()
        child = os.fork()
        if child == 0:
            try:
                good = float(model.tensor("w").sum()) == 1000 and float(shoal.load_model(cid, socket=publisher.socket)["w"].sum()) == 1000
            except BaseException:
                good = False
            os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert float(model.tensor("w").sum()) == 1000


@pytest.mark.parametrize("tracked", [False, True])
def test_more_files_than_may_be_open(tracked: bool, publisher: Daemon, tmp_path: Path) -> None:
    """Tensors of all of them stay; where Python keeps a descriptor for each, the error says how to have more."""
    (tmp_path / "m").mkdir()
    for index in range(40):
        safetensors.torch.save_file({f"t{index}": torch.full((2,), float(index))}, tmp_path / "m" / f"{index:02}.safetensors")
    cid = shoal.save_model(None, tmp_path / "m", socket=publisher.socket)
    script = f"""
import mmap, os, resource, sys; sys.path.insert(0, {str(ROOT / "python" / "src")!r})
import numpy
import shoal
from shoal import errors, _files
if {tracked}:
    _files._mapped = lambda descriptor, size, flags, prot: mmap.mmap(descriptor, size, flags=flags, prot=prot)
with shoal.open({cid!r}, socket={publisher.socket!r}) as model:
    model.wait()
    model.tensors()
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    state = {{}}
    try:
        for name, tensor in model.iter_tensors("numpy"):
            state[name] = tensor
        assert [float(state[f"t{{index}}"].sum()) for index in range(40)] == [2 * index for index in range(40)]
        print("all")
    except errors.DiskError as error:
        assert "ulimit -n" in str(error) and len(state) >= 15, error
        print("refused")
    held = []
    try:
        while True: held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError: pass
    try: shoal.links(socket={publisher.socket!r})
    except errors.DaemonUnreachableError as error: assert "ulimit -n" in str(error)
    else: raise AssertionError
    for each in held: os.close(each)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ("refused" if tracked or sys.version_info < (3, 13) else "all")


def header(content: object, rest: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + rest


X = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
LIES = [
    b"", b"1234567", struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 100) + b"{}", header(b"[]"), header(b"\xff{}"), header(b"{"), header(b" {}"),
    header({"x": X}), header({"x": X}, b"12345"), header({"x": {**X, "dtype": "U9"}}, b"1234"), header({"x": {**X, "shape": [5]}}, b"1234"),
    header({"x": {**X, "shape": [-4]}}, b"1234"), header({"x": {**X, "shape": [True] * 4}}, b"1234"), header({"x": {**X, "shape": [4.0]}}, b"1234"),
    header({"x": {**X, "data_offsets": [4, 0]}}, b"1234"), header({"x": {**X, "data_offsets": [0, 4, 4]}}, b"1234"), header({"x": {**X, "more": 1}}, b"1234"),
    header({"x": X, "y": X}, b"1234"), header({"x": {**X, "data_offsets": [4, 8]}}, b"12345678"), header(b'{"x":1,"x":1}'), header({"x": 7}),
    header({"__metadata__": {"a": 1}}), header({"__metadata__": 1}), header(b'{"x":' * 100_000), header({"x": {**X, "shape": [4] + [1] * 40}}, b"1234"),
    header(b'{"x": NaN}'), header({"x": {**X, "shape": [2**70, 0], "data_offsets": [0, 0]}}),
]  # fmt: skip


@pytest.mark.parametrize("content", LIES, ids=range(len(LIES)))
def test_headers_that_lie(content: bytes) -> None:
    with pytest.raises(errors.InvalidSafetensorsError):
        _safetensors.read_tensors("f", len(content), lambda offset, length: content[offset : offset + length])


def test_a_lying_file_in_a_model(publisher: Daemon, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a.safetensors").write_bytes(header({"x": {**X, "shape": [5]}}, b"1234"))
    cid = shoal.save_model(None, tmp_path / "m", socket=publisher.socket)
    with shoal.open(cid, socket=publisher.socket) as model, pytest.raises(errors.InvalidSafetensorsError, match="a.safetensors"):
        model.tensors()


def test_nothing_but_python_is_needed(publisher: Daemon, tmp_path: Path) -> None:
    """In a Python without any package: it imports, loads and reads; tensors say what they need."""
    cid = shoal.save_model(None, {"w": torch.ones(3)}, socket=publisher.socket)
    script = f"""
import sys; sys.path.insert(0, {str(ROOT / "python" / "src")!r})
import time; started = time.perf_counter()
import shoal, shoal.aio
took = time.perf_counter() - started
socket = {publisher.socket!r}
assert (shoal.load({cid!r}, socket=socket) / "model.safetensors").stat().st_size > 12
with shoal.open({cid!r}, socket=socket) as model:
    assert [tensor.dtype for tensor in model.tensors()] == ["F32"]
    assert model.file("model.safetensors").read(0, 8)
    try: model.tensor("w")
    except shoal.errors.UsageError as error: assert "shoal[torch]" in str(error)
    else: raise AssertionError
assert not [name for name in ("torch", "numpy", "tqdm") if name in sys.modules]
print(took)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1
