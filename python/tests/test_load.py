"""Loading and reading, on real nodes."""

from __future__ import annotations

import gc
import os
import tempfile
import threading
import time
from pathlib import Path

import pytest
from conftest import StartDaemon
from daemon import Daemon
from models import MIB, same_files, write_files

import shoal
from shoal import _names, errors
from shoal._client import Client

NOWHERE = "bafyr4ihcsvbyvd54yonr3mzc4tklpcbqd5ttrxqbnvigmoy2kbgcjmbq2u"


def loads(daemon: Daemon) -> int:
    return len(daemon.shoal("ps"))


def until(what: str, true: "callable[[], bool]", seconds: float = 10) -> None:  # type: ignore[valid-type]
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def test_load_by_cid_on_another_node(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    source = write_files(tmp_path / "model", 1)
    cid = shoal.save_model(None, source, socket=publisher.socket)
    told: list[shoal.Progress] = []
    path = shoal.load(cid, progress=told.append, socket=reader.socket)
    assert same_files(source, path)
    assert told[-1].phase == "done" and told[-1].bytes_done == told[-1].bytes_total
    assert any(each.phase == "loading" and each.peers > 0 for each in told)
    assert shoal.load(cid, socket=reader.socket) == path
    assert cid in {model["cid"] for model in shoal.Client(reader.socket).models()}


def test_the_environment_says_where_the_daemon_is(reader: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_DATA", str(reader.data))
    cid = shoal.save_model(None, write_files(tmp_path / "model", 2, megabytes=2))
    assert same_files(tmp_path / "model", shoal.load(cid))


def test_reads_before_all_is_here(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    source = write_files(tmp_path / "model", 3)
    content = (source / "b.bin").read_bytes()
    cid = shoal.save_model(None, source, socket=publisher.socket)
    with shoal.open(cid, order="sequential", socket=reader.socket) as model:
        assert [file.path for file in model.files] == ["a.bin", "b.bin", "config.json", "sub/note.txt"]
        file = model.file("b.bin")
        assert file.read(11 * MIB, 1000) == content[11 * MIB : 11 * MIB + 1000]  # far behind what is fetched first
        assert not model.file("a.bin").complete, "the range did not come first, or the load was too fast to tell"
        assert file.read() == content
        assert file.read(5, 0) == b""
        assert model.file("sub/note.txt").read() == b"seed 3\n"
        result = model.wait(60)
        assert file.complete and model.progress.phase == "done"
        assert result.fetched_bytes >= 24 * MIB and len(result.peers) == 1
        assert file.read(file.size - 3, 3) == content[-3:]
        assert same_files(source, model.path())
        for offset, length in ((-1, 1), (0, file.size + 1), (file.size, 1), (3, -1)):
            with pytest.raises(ValueError):
                file.read(offset, length)
        with pytest.raises(errors.FileNotFoundError):
            model.file("missing")
    with pytest.raises(errors.ModelClosedError):
        file.read(0, 1)


def test_on_demand_nothing_is_fetched_but_what_is_read(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    source = write_files(tmp_path / "model", 30)
    content = (source / "b.bin").read_bytes()
    cid = shoal.save_model(None, source, socket=publisher.socket)

    def held() -> int:
        return next(int(model["presentBytes"]) for model in Client(reader.socket).models() if model["cid"] == cid)

    with shoal.open(cid, on_demand=True, socket=reader.socket) as model:
        file = model.file("b.bin")
        assert file.read(11 * MIB, 1000) == content[11 * MIB : 11 * MIB + 1000]
        time.sleep(0.5)
        assert 1000 <= held() <= 8 * MIB and loads(reader) == 1
        with pytest.raises(TimeoutError):
            model.wait(0.05)  # asks for all of it, and goes on
        assert model.wait(60).bytes == sum(each.size for each in model.files)
        assert file.complete and file.read() == content and model.progress.phase == "done"
        assert same_files(source, model.path())
    until("the node leaves the load", lambda: loads(reader) == 0)
    with shoal.open(cid, on_demand=True, socket=reader.socket) as model:  # all of it is here
        assert same_files(source, model.path())


def test_closing_what_is_open_on_demand_ends_what_waits_for_all(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    cid = shoal.save_model(None, write_files(tmp_path / "model", 31, megabytes=64), socket=publisher.socket)
    model = shoal.open(cid, on_demand=True, socket=reader.socket)
    threading.Timer(0.5, model.close).start()
    with pytest.raises(errors.ModelClosedError):
        model.wait()
    with pytest.raises(errors.ModelClosedError):
        model.wait()
    until("the node leaves the load", lambda: loads(reader) == 0)


def test_include_leaves_the_rest_where_it_is(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    cid = shoal.save_model(None, write_files(tmp_path / "model", 4), socket=publisher.socket)
    path = shoal.load(cid, include=["*.json", "sub/*"], socket=reader.socket)
    assert sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()) == ["config.json", "sub/note.txt"]
    with shoal.open(cid, include=["*.json"], socket=reader.socket) as model:
        model.wait(30)
        assert not model.file("a.bin").wanted
        with pytest.raises(errors.UsageError, match="left out"):
            model.file("a.bin").read(0, 1)


def test_names(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    first = shoal.save_model("acme/tiny", write_files(tmp_path / "one", 5, megabytes=2), socket=publisher.socket)
    second = shoal.save_model("acme/tiny@v2", write_files(tmp_path / "two", 6, megabytes=2), socket=publisher.socket)
    assert {(link.repo, link.revision, link.cid) for link in shoal.links(socket=publisher.socket)} >= {("acme/tiny", "main", first), ("acme/tiny", "v2", second)}
    assert same_files(tmp_path / "one", shoal.load("acme/tiny", socket=publisher.socket))
    assert same_files(tmp_path / "two", shoal.load("acme/tiny@v2", socket=publisher.socket))
    assert same_files(tmp_path / "two", shoal.load(f"cid/{second}", socket=reader.socket))
    third = shoal.update_model("acme/tiny", tmp_path / "two", socket=publisher.socket)
    assert third == second
    assert same_files(tmp_path / "two", shoal.load("acme/tiny", socket=publisher.socket))
    with pytest.raises(errors.LinkNotFoundError):
        shoal.load("acme/tiny", socket=reader.socket)  # links are the node's own
    shoal.link("here/too", "cid/" + first, socket=reader.socket)
    assert same_files(tmp_path / "one", shoal.load("here/too", socket=reader.socket))
    shoal.unlink("here/too", socket=reader.socket)
    for name in ("here/too", "acme/tiny@v3", "nobody/nothing"):
        with pytest.raises(errors.LinkNotFoundError):
            shoal.load(name, socket=reader.socket)
    with pytest.raises(errors.LinkNotFoundError):
        shoal.unlink("here/too", socket=reader.socket)
    with pytest.raises(errors.LinkNotFoundError):
        shoal.update_model("acme/typo", tmp_path / "one", socket=publisher.socket)
    with pytest.raises(errors.InvalidRepoNameError):
        shoal.link("../etc", first, socket=reader.socket)
    with pytest.raises(errors.InvalidCidError):
        shoal.link("a/b", "x" * 50, socket=reader.socket)


NO_NAMES = [
    "", "my model", "a/b/c", "-a/b", "a/b.", "a--b", "a..b", "a/b.git", "a/" + "b" * 97, "api/b", "Models/x", "a/resolve", "a/b@", "a/b@-x", "a/b@x..y", "a/b@x.lock",
    "a/b@" + "f" * 40, "a/b@x//y", "a/b@x y", "a/b@e\u0301", "a/b@" + "x" * 201, "a/b@\ud800",
]  # fmt: skip
NAMES = ["a/b", "a", "_a/b_c.d-e", "a/b@v1.0", "a/b@feature/x+y=z@1", "a/b@\u00e9", "a/b@_", "a/b@\u0939\u093f"]


@pytest.mark.parametrize("name", [*NO_NAMES, *NAMES])
def test_names_are_looked_at_before_anything_is_added(name: str, reader: Daemon, tmp_path: Path) -> None:
    """By the rules that the daemon has."""
    said: list[str] = []
    for call in (lambda: shoal.Client(reader.socket).link(*_names.split(name), NOWHERE), lambda: shoal.save_model(name, tmp_path / "missing", socket=reader.socket)):
        try:
            call()
            said.append("linked")
        except errors.ShoalError as error:
            said.append(error.name)
    if name in NAMES:
        assert said == ["linked", "UnreadableSourceError"]
    else:
        assert said[0] in ("InvalidRepoNameError", "UsageError") and said[1] == "InvalidRepoNameError"


@pytest.mark.parametrize("name", [NOWHERE, f"cid/{NOWHERE}", 7])
def test_a_cid_is_no_name(name: str, publisher: Daemon, tmp_path: Path) -> None:
    cid = shoal.save_model(None, write_files(tmp_path / "m", 12, megabytes=1), socket=publisher.socket)
    before = publisher.shoal("links")
    for call in (shoal.update_model, shoal.save_model):
        with pytest.raises(errors.UsageError):
            call(name, tmp_path / "m", socket=publisher.socket)
    with pytest.raises(errors.UsageError):
        shoal.link(name, cid, socket=publisher.socket)
    with pytest.raises(errors.UsageError):
        shoal.update_model(cid, tmp_path / "m", socket=publisher.socket)
    assert publisher.shoal("links") == before


@pytest.mark.parametrize("seconds", ["x", -1, float("nan"), float("inf"), True, 86_401])
def test_a_timeout_that_is_none(seconds: object, tmp_path: Path) -> None:
    """Is told before anybody is asked."""
    for call in (shoal.load, shoal.open, shoal.load_model):
        with pytest.raises(errors.UsageError, match="provider_timeout is a number of seconds, 0 to 86400, not "):
            call(NOWHERE, provider_timeout=seconds, socket=tmp_path / "none.sock")  # type: ignore[operator]


def test_an_order_that_is_none(reader: Daemon) -> None:
    with pytest.raises(errors.UsageError, match="order must be rarest or sequential"):
        shoal.load(NOWHERE, order="x", socket=reader.socket)  # type: ignore[arg-type]


def test_removing_tells_what_the_swarm_goes_on_keeping(publisher: Daemon, tmp_path: Path) -> None:
    client = shoal.Client(publisher.socket)
    for replicas in (2, 0):
        cid = shoal.save_model(None, write_files(tmp_path / f"m{replicas}", 40 + replicas, megabytes=1), replicas=replicas, socket=publisher.socket)
        removed = client.remove(cid)
        assert (removed.cid, removed.replicas) == (cid, replicas or None)
        assert removed.freed_bytes >= 1_000_000
        with pytest.raises(errors.ModelNotFoundError):
            client.remove(cid)
    with pytest.raises(errors.InvalidCidError):
        client.remove("x")


def test_what_is_not_there(reader: Daemon, tmp_path: Path) -> None:
    with pytest.raises(errors.NoProviderError) as nobody:
        shoal.load(NOWHERE, provider_timeout=0.3, socket=reader.socket)
    assert nobody.value.retryable and nobody.value.kind == "not-found"
    with pytest.raises(errors.InvalidCidError):
        shoal.load(NOWHERE[:-1] + "1", socket=reader.socket)
    with pytest.raises(errors.UsageError):
        shoal.load("", socket=reader.socket)
    with pytest.raises(errors.DaemonUnreachableError, match="shoal daemon"):
        shoal.load(NOWHERE, socket=tmp_path / "none.sock")
    (tmp_path / "plain").write_text("")
    with pytest.raises(errors.DaemonUnreachableError):
        shoal.load(NOWHERE, socket=tmp_path / "plain")
    with pytest.raises(errors.ShoalError):
        shoal.save_model(None, tmp_path / "missing", socket=reader.socket)


def test_closing_ends_what_waits(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    cid = shoal.save_model(None, write_files(tmp_path / "model", 7, megabytes=48), socket=publisher.socket)
    model = shoal.open(cid, socket=reader.socket)
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            model.path()
        except BaseException as error:
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until("the load runs", lambda: loads(reader) == 1)
    model.close()
    waiting.join(5)
    assert [type(each) for each in ended] == [errors.ModelClosedError]
    until("the node leaves the load", lambda: loads(reader) == 0)

    # One that nobody has any more leaves it too.
    model = shoal.open(cid, socket=reader.socket)
    until("the load runs", lambda: loads(reader) == 1)
    del model, waiting, wait
    gc.collect()
    until("the node leaves the load", lambda: loads(reader) == 0)


def test_a_daemon_that_dies(publisher: Daemon, start_daemon: StartDaemon, tmp_path: Path) -> None:
    cid = shoal.save_model(None, write_files(tmp_path / "model", 8, megabytes=24), socket=publisher.socket)
    victim = start_daemon("victim", join=publisher.invite())
    with shoal.open(cid, socket=victim.socket) as model:
        killer = threading.Timer(0.2, victim.kill)
        killer.start()
        with pytest.raises(errors.DaemonUnreachableError):
            model.file("b.bin").read()
        with pytest.raises(errors.DaemonUnreachableError):
            model.path()
    killer.join()
    victim.start()
    # What had arrived is kept, and the same call goes on from there.
    assert same_files(tmp_path / "model", shoal.load(cid, socket=victim.socket))
    victim.stop()


def test_a_bar_is_drawn_where_it_is_asked_for_and_nowhere_else(publisher: Daemon, reader: Daemon, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    cid = shoal.save_model(None, write_files(tmp_path / "model", 32), socket=publisher.socket, progress=False)
    shoal.load(cid, progress=True, socket=reader.socket)
    drawn = capfd.readouterr().err
    assert cid in drawn and "100%" in drawn and "24.0M/24.0M" in drawn, drawn
    shoal.load(cid, socket=reader.socket)  # standard error is no terminal
    assert capfd.readouterr().err == ""


def test_a_progress_function_that_fails_ends_the_load(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    cid = shoal.save_model(None, write_files(tmp_path / "model", 9), socket=publisher.socket)

    def fail(progress: shoal.Progress) -> None:
        raise ZeroDivisionError

    with pytest.raises((errors.AbortError, ZeroDivisionError)):
        shoal.load(cid, progress=fail, socket=reader.socket)
    assert same_files(tmp_path / "model", shoal.load(cid, socket=reader.socket))


def test_files_in_place_are_read_only_while_they_are_what_was_added(reader: Daemon, tmp_path: Path) -> None:
    source = write_files(tmp_path / "model", 10, megabytes=2)
    cid = shoal.save_model(None, source, in_place=True, socket=reader.socket)
    with shoal.open(cid, socket=reader.socket) as model:
        assert model.path() == source
        assert model.file("a.bin").local_path == source / "a.bin"
        assert model.file("a.bin").read() == (source / "a.bin").read_bytes()
        (source / "a.bin").write_bytes(b"\0" * MIB)
        with pytest.raises(errors.SourceChangedError):
            model.file("a.bin").read(0, 10)
        (source / "b.bin").unlink()
        with pytest.raises(errors.ModelNotFoundError):
            model.file("b.bin").read(0, 10)


def test_nothing_is_left_open(reader: Daemon, tmp_path: Path) -> None:
    """Of opened, read, failed and closed models: no descriptor, no thread, no temporary file."""
    cid = shoal.save_model(None, write_files(tmp_path / "model", 11, megabytes=2), socket=reader.socket)

    def use() -> None:
        with shoal.open(cid, socket=reader.socket) as model:
            model.wait()
            model.file("a.bin").read(0, 100)
        with pytest.raises(errors.NoProviderError):
            shoal.load(NOWHERE, provider_timeout=0.01, socket=reader.socket)
        with pytest.raises(errors.FileNotFoundError), shoal.open(cid, socket=reader.socket) as model:
            model.file("missing")

    use()
    gc.collect()
    before = len(os.listdir("/proc/self/fd")), {path.name for path in Path(tempfile.gettempdir()).glob("shoal-save-*")}
    for _ in range(20):
        use()
    until("threads end", lambda: not [thread for thread in threading.enumerate() if thread.name == "shoal-load"])
    gc.collect()
    assert (len(os.listdir("/proc/self/fd")), {path.name for path in Path(tempfile.gettempdir()).glob("shoal-save-*")}) == before
