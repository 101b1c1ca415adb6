"""asyncio: the same calls; a cancelled task ends its call in the node too."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import StartDaemon
from daemon import Daemon
from models import same_files, write_files
from test_load import NOWHERE, loads, until

from shoal import _scope, aio, errors


def test_load_read_and_publish(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    async def run() -> None:
        cid = await aio.save_model("async/model", {f"t{index}": torch.full((1000,), float(index)) for index in range(100)}, socket=publisher.socket)
        assert [link.cid for link in await aio.links(socket=publisher.socket) if link.repo == "async/model"] == [cid]
        async with await aio.open(cid, socket=reader.socket) as model:
            # Many at once, more than there are threads.
            tensors = await asyncio.gather(*(model.tensor(f"t{index}") for index in range(100)))
            assert [float(tensor[0]) for tensor in tensors] == list(range(100))
            assert [name async for name, _ in model.iter_tensors()] == [info.name for info in await model.tensors()]
            assert len(await model.file("model.safetensors").read(0, 100)) == 100
            assert (await model.path()).is_dir()
            assert (await model.wait()).bytes == model.files[0].size
        state = await aio.load_model("async/model", socket=publisher.socket)
        assert float(state["t7"].sum()) == 7000
        assert await aio.update_model("async/model", write_files(tmp_path / "m", 20, megabytes=1), socket=publisher.socket) != cid
        assert same_files(tmp_path / "m", await aio.load("async/model", socket=publisher.socket))
        await aio.link("async/other", cid, socket=publisher.socket)
        await aio.unlink("async/other", socket=publisher.socket)
        with pytest.raises(errors.LinkNotFoundError):
            await aio.load("async/other", socket=publisher.socket)

    asyncio.run(run())


def test_on_demand(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    async def run() -> None:
        source = write_files(tmp_path / "m", 22, megabytes=48)
        cid = await aio.save_model(None, source, socket=publisher.socket)
        async with await aio.open(cid, on_demand=True, socket=reader.socket) as model:
            assert await model.file("b.bin").read(5, 1000) == (source / "b.bin").read_bytes()[5:1005]
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(model.wait(), 0.3)
            assert same_files(source, await model.path())
        until("the node leaves the load", lambda: loads(reader) == 0)

    asyncio.run(run())


def test_a_whole_load_that_failed_is_told_and_not_begun_anew(publisher: Daemon, start_daemon: StartDaemon, tmp_path: Path) -> None:
    async def run() -> None:
        small = start_daemon("small", join=publisher.invite(), sets={"storage.quota": "16MiB"})
        source = write_files(tmp_path / "m", 23, megabytes=24)
        cid = await aio.save_model(None, source, socket=publisher.socket)
        async with await aio.open(cid, on_demand=True, socket=small.socket) as model:
            assert await model.file("b.bin").read(5, 1000) == (source / "b.bin").read_bytes()[5:1005]
            requests = []
            model._model._load_all = functools.partial(_noted, requests, model._model._load_all)
            for attempt, wait in enumerate((model.wait, model.path), 1):
                with pytest.raises(errors.QuotaExceededError):
                    await wait()
                assert requests == ["shoal-aio-short"] * attempt, "a load was begun in another thread, or twice"
            assert await model.file("b.bin").read(5, 10) == (source / "b.bin").read_bytes()[5:15]

    asyncio.run(run())


def _noted(requests: list[str], function: Any, **options: Any) -> Any:
    requests.append(threading.current_thread().name.rsplit("_", 1)[0])
    return function(**options)


def test_cancelling_returns_when_the_thread_has_left() -> None:
    left = threading.Event()

    def work() -> None:
        while not _scope.current.get().error:  # type: ignore[union-attr]
            time.sleep(0.01)
        time.sleep(0.3)
        left.set()

    async def run() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(aio._run(work), 0.1)
        assert left.is_set()

    asyncio.run(run())


def test_cancelling_ends_the_load(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    async def run() -> None:
        cid = await aio.save_model(None, write_files(tmp_path / "m", 21, megabytes=64), socket=publisher.socket)
        for begin in (lambda: aio.load(cid, socket=reader.socket), lambda: aio.open(NOWHERE, socket=reader.socket)):
            started = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(begin(), 0.5)
            assert time.monotonic() - started < 2
            until("the node leaves the load", lambda: loads(reader) == 0)
        async with await aio.open(cid, socket=reader.socket) as model:
            reads = [asyncio.create_task(model.file("b.bin").read()) for _ in range(8)]
            await asyncio.sleep(0.2)
            for read in reads[1:]:
                read.cancel()
            assert all(isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*reads[1:], return_exceptions=True))
            # The others go on: a read of its own, and the load.
            assert await reads[0] == (tmp_path / "m" / "b.bin").read_bytes()
            assert same_files(tmp_path / "m", await model.path())

    asyncio.run(run())


def test_the_loop_is_never_blocked(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    async def run() -> None:
        cid = await aio.save_model(None, write_files(tmp_path / "m", 22, megabytes=24), socket=publisher.socket)
        longest, done = 0.0, False

        async def watch() -> None:
            nonlocal longest
            while not done:
                before = time.monotonic()
                await asyncio.sleep(0.01)
                longest = max(longest, time.monotonic() - before)

        watching = asyncio.create_task(watch())
        async with await aio.open(cid, socket=reader.socket) as model:
            await asyncio.gather(*(file.read() for file in model.files), model.path())
        done = True
        await watching
        assert longest < 0.5, f"the loop stood still for {longest} s"

    asyncio.run(run())


def test_waits_leave_room_for_other_calls(publisher: Daemon, reader: Daemon, tmp_path: Path) -> None:
    """However many wait for a model, or for one that nobody has; and they all end with it."""

    async def run() -> None:
        cid = await aio.save_model(None, write_files(tmp_path / "m", 23, megabytes=64), socket=publisher.socket)
        async with await aio.open(cid, socket=reader.socket) as model:
            waits = [asyncio.create_task(model.wait()) for _ in range(100)]
            loading = [asyncio.create_task(aio.load(NOWHERE, socket=reader.socket)) for _ in range(40)]
            await asyncio.sleep(0.2)
            await asyncio.wait_for(aio.links(socket=reader.socket), 2)
            assert len(await asyncio.wait_for(model.file("config.json").read(), 2)) > 10
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(model.wait(), 0.05)
            model.close()
            assert {type(each) for each in await asyncio.gather(*waits, return_exceptions=True)} == {errors.ModelClosedError}
            for each in loading:
                each.cancel()
            await asyncio.gather(*loading, return_exceptions=True)

    asyncio.run(run())
