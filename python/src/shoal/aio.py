"""
The functions of the package for asyncio. They run in threads of pools of their own, those that are over in a moment in
another than those that may wait for a download; `Model.wait` and `Model.path` take none. Cancelling the task ends the call
in the daemon too, and returns when the thread has left it.

    from shoal import aio

    directory = await aio.load("org/name")
    async with await aio.open("org/name") as model:
        weight = await model.tensor("model.embed_tokens.weight")
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from . import _api, _scope
from ._limits import SHORT_CALLS_MAX, WAITS_MAX
from ._model import Model as _Model
from ._model import ModelFile as _ModelFile
from ._outcome import Outcome
from ._tensors import framework_or_default
from ._types import Framework, LoadResult, Progress, TensorInfo
from .errors import AbortError

_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Pools:
    """Their threads mostly wait at sockets; asyncio's own pool has a handful, and others wait for it too."""

    def __init__(self) -> None:
        self.after_fork()
        os.register_at_fork(after_in_child=self.after_fork)

    def after_fork(self) -> None:
        """Of the pools before the fork a child has no thread."""
        self.short = ThreadPoolExecutor(SHORT_CALLS_MAX, "shoal-aio-short")
        self.long = ThreadPoolExecutor(WAITS_MAX, "shoal-aio")


_pools = _Pools()


async def _run(function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    return await _run_in(_pools.long, function, *args, **kwargs)


async def _run_in(pool: ThreadPoolExecutor, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    scope = _scope.Scope()
    context = contextvars.copy_context()
    context.run(_scope.current.set, scope)
    begun = pool.submit(context.run, functools.partial(function, *args, **kwargs))
    running = asyncio.wrap_future(begun)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        scope.end(AbortError("the task was cancelled"))
        begun.cancel()  # where no thread has begun it; asyncio's own future would not wait for one that has
        await asyncio.wait([running])
        if not running.cancelled() and running.exception() is None and isinstance(result := running.result(), _Model):
            result.close()
        raise


class ModelFile:
    """One file of an open model; see shoal.ModelFile."""

    def __init__(self, file: _ModelFile) -> None:
        self._file = file

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def size(self) -> int:
        return self._file.size

    @property
    def sha256(self) -> str:
        return self._file.sha256

    @property
    def wanted(self) -> bool:
        return self._file.wanted

    @property
    def complete(self) -> bool:
        return self._file.complete

    @property
    def local_path(self) -> Path | None:
        return self._file.local_path

    async def read(self, offset: int = 0, length: int | None = None) -> bytes:
        return await _run(self._file.read, offset, length)


class Model:
    """An open model; see shoal.Model. Close it, or use `async with`."""

    def __init__(self, model: _Model) -> None:
        self._model = model

    async def __aenter__(self) -> Model:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def cid(self) -> str:
        return self._model.cid

    @property
    def files(self) -> tuple[ModelFile, ...]:
        return tuple(ModelFile(file) for file in self._model.files)

    @property
    def progress(self) -> Progress:
        return self._model.progress

    def file(self, name: str) -> ModelFile:
        return ModelFile(self._model.file(name))

    async def wait(self) -> LoadResult:
        return (await self._told()).get()

    async def path(self) -> Path:
        return self._model._directory_of((await self._told()).get())

    async def tensors(self) -> list[TensorInfo]:
        return await _run(self._model.tensors)

    async def tensor(self, name: str, framework: Framework | None = None) -> Any:
        return await _run(self._model.tensor, name, framework)

    async def iter_tensors(self, framework: Framework | None = None, files: Sequence[str] | None = None) -> AsyncIterator[tuple[str, Any]]:
        chosen = framework_or_default(framework)
        for info in await self.tensors():
            if files is None or info.file in files:
                yield info.name, await _run(self._model._tensor, info, chosen)

    def close(self) -> None:
        """Does not wait for anything."""
        self._model.close()

    async def _told(self) -> Outcome:
        """How the load has ended, when it has. Any number may wait, without a thread."""
        outcome = await _run_in(_pools.short, self._model._whole)
        loop, told = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(told.set)

        outcome.when_told(wake)
        try:
            await told.wait()
        finally:
            outcome.forget(wake)
        return outcome


def _awaitable(function: Callable[_P, _R]) -> Callable[_P, Coroutine[Any, Any, _R]]:
    @functools.wraps(function)
    async def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return await _run(function, *args, **kwargs)

    return call


def _short(function: Callable[_P, _R]) -> Callable[_P, Coroutine[Any, Any, _R]]:
    @functools.wraps(function)
    async def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return await _run_in(_pools.short, function, *args, **kwargs)

    return call


def _opening(function: Callable[_P, _Model]) -> Callable[_P, Coroutine[Any, Any, Model]]:
    @functools.wraps(function)
    async def call(*args: _P.args, **kwargs: _P.kwargs) -> Model:
        return Model(await _run(function, *args, **kwargs))

    return call


# With the arguments, results and errors of the functions of the package.
load = _awaitable(_api.load)
open = _opening(_api.open)
save_model = _awaitable(_api.save_model)
update_model = _awaitable(_api.update_model)
load_model = _awaitable(_api.load_model)
link = _short(_api.link)
unlink = _short(_api.unlink)
links = _short(_api.links)
