"""Processes that fork: data loaders, servers with workers. Each script is a process of its own, which dies when it hangs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import shoal
from daemon import ROOT, Daemon
from models import write_files

START = """
import asyncio, os, signal, sys, threading, time
sys.path.insert(0, {src!r})
import shoal
from shoal import aio, errors
cid, socket = {cid!r}, {socket!r}

def forked(function):
    # What a child's exit code says: 0 when the function returned.
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        function()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def run(script: str, cid: str, daemon: Daemon) -> None:
    start = START.format(src=str(ROOT / "python" / "src"), cid=cid, socket=daemon.socket)
    done = subprocess.run([sys.executable, "-c", start + script], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("end", ["pass", "model.close()", "del model; import gc; gc.collect()"])
def test_a_child_that_ends_or_closes_leaves_the_load_to_its_parent(end: str, publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    cid = shoal.save_model(None, write_files(tmp_path / "m", 30 + len(end), megabytes=24), socket=publisher.socket)
    script = f"""
model = shoal.open(cid, socket=socket)
def child():
    global model
    {end}
assert forked(child) == 0
assert model.progress.phase != "done", "the load was too fast to tell"
assert model.wait(60).bytes > 24_000_000
"""
    run(script, cid, reader)


def test_a_child_waits_for_nothing_that_nobody_tells_it(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    """Of a model that still loads it reads what its parent fetches; waiting for all of it throws. What it opens itself is its own."""
    cid = shoal.save_model(None, write_files(tmp_path / "m", 40, megabytes=24), socket=publisher.socket)
    script = """
model = shoal.open(cid, order="sequential", socket=socket)
def child():
    for wait in (model.wait, model.path, lambda: asyncio.run(aio.Model(model).wait())):
        try: wait()
        except errors.ModelClosedError as error: assert "open the model again" in str(error)
        else: raise AssertionError
    assert len(model.file("b.bin").read()) == 12 * 2**20
    with shoal.open(cid, socket=socket) as own:
        assert own.wait(60).bytes > 24_000_000
held = threading.Event()
def hold():
    with model._tensor_lock, model._scope._lock, model._local._lock, model._outcome._lock:
        held.set(); time.sleep(2)
threading.Thread(target=hold, daemon=True).start()
held.wait()
assert forked(child) == 0
assert model.wait(60).bytes > 24_000_000
def complete():
    assert model.wait().bytes > 24_000_000 and model.path().is_dir() and model.file("a.bin").complete
assert forked(complete) == 0
"""
    run(script, cid, reader)


def test_a_child_does_not_hold_its_parents_connections(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    cid = shoal.save_model(None, write_files(tmp_path / "m", 41, megabytes=64), socket=publisher.socket)
    script = """
model = shoal.open(cid, socket=socket)
def child():
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")]
    assert not [link for link in links if link.startswith("socket:")], links
assert forked(child) == 0
"""
    run(script, cid, reader)


def test_asyncio_in_a_child(publisher: Daemon, tmp_path: Path) -> None:
    cid = shoal.save_model(None, write_files(tmp_path / "m", 42, megabytes=1), socket=publisher.socket)
    script = """
async def use():
    await asyncio.gather(*(aio.links(socket=socket) for _ in range(20)))
    assert (await aio.load(cid, socket=socket)).is_dir()
asyncio.run(use())
assert forked(lambda: asyncio.run(aio.links(socket=socket))) == 0  # as many as threads were idle, so that none is made for it
assert forked(lambda: asyncio.run(aio.load(cid, socket=socket))) == 0
asyncio.run(use())
"""
    run(script, cid, publisher)
