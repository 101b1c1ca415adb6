"""One open model: what the daemon tells of it, and reading it while it loads."""

from __future__ import annotations

import functools
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import _fork, _safetensors, _scope
from ._client import Client
from ._files import LocalFiles, NotSealedError
from ._http import Request
from ._limits import WAITS_MAX
from ._outcome import Outcome
from ._scope import Scope
from ._tensors import framework_or_default, item_bytes, tensor_from
from ._types import Framework, LoadResult, OnProgress, OpenFile, Order, Progress, TensorInfo, load_progress, load_result, open_file
from .errors import AbortError, ApiError, FileNotFoundError, InvalidSafetensorsError, ModelClosedError, ShoalError, TensorNotFoundError, UsageError

# How often a wait for the load looks at whether its own task was cancelled.
_LOOK_SECONDS = 0.05


class ModelFile:
    """One file of an open model."""

    def __init__(self, model: Model, file: OpenFile) -> None:
        self._model = model
        self._file = file

    def __repr__(self) -> str:
        return f"<shoal file {self.path}, {self.size} bytes>"

    @property
    def path(self) -> str:
        """Within the model, with `/` between names."""
        return self._file.path

    @property
    def size(self) -> int:
        """Bytes."""
        return self._file.size

    @property
    def sha256(self) -> str:
        """Of the whole content, in hex."""
        return self._file.sha256

    @property
    def wanted(self) -> bool:
        """False when `include` left it out."""
        return self._file.wanted

    @property
    def complete(self) -> bool:
        """True when all of it is known to be here."""
        return self._model._is_complete(self._file)

    @property
    def local_path(self) -> Path | None:
        """The file on disk, with holes while it is incomplete."""
        return None if self._file.local_path is None else Path(self._file.local_path)

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """
        `length` bytes from `offset` on (default: all the rest), as soon as they are verified and on disk; the fetch turns
        to them first. Throws ValueError beyond the file's end, ModelClosedError, UsageError for a file that was left
        out, SourceChangedError, ModelNotFoundError, DiskError, and what ended the load.
        """
        return bytes(self._model._read(self._file, offset, self.size - offset if length is None else length))


class Model:
    """
    A model that `shoal.open` opened. It keeps the load going until it is complete or closed, so close it, or use `with`.
    Its methods may be called from several threads; `close` from another thread ends those that wait. A forked child may read
    from it as long as its parent keeps it open; waiting for all of it there throws ModelClosedError, unless it was complete.
    """

    def __init__(
        self,
        client: Client,
        cid: str,
        include: Sequence[str] | None,
        order: Order | None,
        provider_timeout: float | None,
        on_progress: OnProgress | None,
        on_demand: bool = False,
    ) -> None:
        #: As it was given, names resolved.
        self.cid = cid
        self._client = client
        self._scope = Scope()
        self._local = LocalFiles(self._scope)
        self._waits = threading.BoundedSemaphore(WAITS_MAX)
        self._outcome = Outcome(cid)
        # Of the load of all that is wanted, where that was opened on demand and is asked for after all.
        self._all: Outcome | None = None
        self._all_lock = threading.Lock()
        self._load_all = functools.partial(client.load, cid, include=include, order=order, provider_timeout=provider_timeout, scope=self._scope)
        self._on_demand = on_demand
        self._tensor_lock = threading.Lock()
        self._tensors: list[TensorInfo] | None = None
        self._named: dict[str, list[TensorInfo]] = {}
        self._on_progress = on_progress
        self._progress = Progress("finding", 0, 0)
        request = self._load_all(on_demand=on_demand)
        messages = request.lines()
        try:
            message = self._first(messages)
            self._directory: str | None = message.get("path")
            self._opened = [open_file(each) for each in message["files"]]
        except BaseException:
            request.close()
            raise
        self._files = {file.path: ModelFile(self, file) for file in self._opened}
        wanted = [file for file in self._opened if file.wanted]
        self._progress = Progress("loading", sum(file.size for file in wanted if file.complete), sum(file.size for file in wanted))
        # Without a reference to this: a model that nobody has any more leaves its load, as if it had been closed.
        weakref.finalize(self, self._scope.end, ModelClosedError(f"nobody has {cid} open any more"))
        self._follow(request, messages, self._outcome)
        _fork.watch(self)

    def after_fork(self) -> None:
        self._waits = threading.BoundedSemaphore(WAITS_MAX)
        self._tensor_lock = threading.Lock()
        self._all_lock = threading.Lock()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<shoal model {self.cid}, {len(self._opened)} files, {self._progress.bytes_done} of {self._progress.bytes_total} bytes>"

    @property
    def files(self) -> tuple[ModelFile, ...]:
        """Sorted by path."""
        return tuple(self._files.values())

    @property
    def progress(self) -> Progress:
        return self._progress

    def file(self, name: str) -> ModelFile:
        """Throws FileNotFoundError."""
        found = self._files.get(name)
        if found is None:
            raise FileNotFoundError(f"{self.cid} has no file {name!r}; see its files with: shoal show {self.cid}")
        return found

    def wait(self, timeout: float | None = None) -> LoadResult:
        """
        Returns when all wanted files are complete; on demand, asks for all of them. Throws what ended the load, and TimeoutError
        after `timeout` seconds.
        """
        return self._wait_for_end(self._whole(), timeout)

    def _wait_for_end(self, outcome: Outcome, timeout: float | None) -> LoadResult:
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            _scope.check()
            left = None if ends is None else max(0.0, ends - time.monotonic())
            # A call that nobody can cancel has nothing to look at.
            turn = left if _scope.current.get() is None else _LOOK_SECONDS if left is None else min(left, _LOOK_SECONDS)
            if outcome.wait(turn):
                return outcome.get()
            if ends is not None and time.monotonic() >= ends:
                raise TimeoutError(f"{self.cid} was not complete within {timeout} seconds; it goes on loading")

    def path(self, timeout: float | None = None) -> Path:
        """
        The directory of the complete files, when all wanted ones are. Throws UsageError for files that were added in
        place from several directories, and as `wait` does.
        """
        return self._directory_of(self.wait(timeout))

    def _directory_of(self, result: LoadResult) -> Path:
        directory = result.path or self._directory or _common_directory([file for file in self._opened if file.wanted])
        if directory is None:
            raise UsageError(f"the files of {self.cid} do not lie in one directory; place them in one with: shoal get {self.cid} --output DIR")
        return Path(directory)

    def tensors(self) -> list[TensorInfo]:
        """The tensors of all wanted safetensors files, by file and offset, as soon as the headers are here. Throws InvalidSafetensorsError."""
        return list(self._all_tensors())

    def _all_tensors(self) -> list[TensorInfo]:
        """By name too, from then on."""
        with self._tensor_lock:
            if self._tensors is None:
                found: list[TensorInfo] = []
                for file in self._opened:
                    if file.path.lower().endswith(".safetensors") and (file.wanted or self._is_complete(file)):
                        try:
                            found += _safetensors.read_tensors(file.path, file.size, lambda offset, length, file=file: bytes(self._read(file, offset, length)))  # type: ignore[misc]
                        except InvalidSafetensorsError as error:
                            raise InvalidSafetensorsError(f"{self.cid}: {error}") from error
                for info in found:
                    self._named.setdefault(info.name, []).append(info)
                self._tensors = found
            return self._tensors

    def tensor(self, name: str, framework: Framework | None = None) -> Any:
        """
        One tensor, as soon as its own blocks are here: of torch where that is installed, else of numpy, or as `framework`
        says. Over memory that is mapped from the file once that is complete, else a copy. Changing its values changes no
        file. What numpy has no dtype for (BF16, FP8) comes as of ml_dtypes where that is installed, else as raw uint16
        or uint8; `tensors()` tells the dtype. Throws TensorNotFoundError, and as `read` does.
        """
        self._all_tensors()
        same = self._named.get(name, [])
        if len(same) == 0:
            raise TensorNotFoundError(f"{self.cid} has no tensor {name!r}; tensors() lists those it has")
        if len(same) > 1:
            raise TensorNotFoundError(f"{self.cid} has the tensor {name!r} in {same[0].file} and in {same[1].file}; read it with file(name).read()")
        return self._tensor(same[0], framework_or_default(framework))

    def iter_tensors(self, framework: Framework | None = None, files: Sequence[str] | None = None) -> Iterator[tuple[str, Any]]:
        """Names and tensors in the order of the files (default: all that are wanted), each as soon as it is here."""
        chosen = framework_or_default(framework)
        for info in self.tensors():
            if files is None or info.file in files:
                yield info.name, self._tensor(info, chosen)

    def close(self) -> None:
        """Ends what still waits and leaves the load. Tensors that were given out stay. Idempotent."""
        self._scope.end(ModelClosedError(f"{self.cid} was closed; open it again to read from it"))
        self._local.close()

    def _whole(self) -> Outcome:
        """How the load of all that is wanted ends. On demand it begins now, with room for all of it."""
        if not self._on_demand or self._outcome.result is not None or self._outcome.error is not None:
            return self._outcome
        with self._all_lock:
            if self._all is None or self._all.error is not None:
                request = self._load_all()
                self._all = Outcome(self.cid)
                self._follow(request, request.lines(), self._all)
            return self._all

    def _follow(self, request: Request, messages: Iterator[dict[str, Any]], outcome: Outcome) -> None:
        threading.Thread(target=_follow, args=(weakref.ref(self), request, messages, outcome, self._scope), name="shoal-load", daemon=True).start()

    def _first(self, messages: Iterator[dict[str, Any]]) -> dict[str, Any]:
        for message in messages:
            if message["type"] == "files" and isinstance(message.get("files"), list):
                return message
            if message["type"] == "progress":
                self._tell(load_progress(message))
        raise ApiError(f"the daemon opened {self.cid} without telling its files; is it of another version?")

    def _tell(self, progress: Progress) -> None:
        if self._progress.phase == "done":
            return  # what was opened on demand hears of the load of all of it twice
        self._progress = progress
        if self._on_progress is not None:
            self._on_progress(progress)

    def _is_complete(self, file: OpenFile) -> bool:
        return file.complete or (file.wanted and (self._outcome.result is not None or (self._all is not None and self._all.result is not None)))

    def _tensor(self, info: TensorInfo, framework: Framework) -> Any:
        file = self._files[info.file]._file
        if self._is_complete(file) and info.length > 0 and info.offset % item_bytes(info) == 0:
            _scope.check(self._scope)
            try:
                return tensor_from(info, self._local.map(file), info.offset, framework)
            except NotSealedError:
                pass  # it was complete once; `_read` asks the daemon what it is now
        return tensor_from(info, self._read(file, info.offset, info.length), 0, framework)

    def _read(self, file: OpenFile, offset: int, length: int) -> bytearray:
        _scope.check(self._scope)
        if offset < 0 or length < 0 or offset + length > file.size:
            raise ValueError(f"{file.path} has {file.size} bytes; {length} bytes from {offset} on are not in it")
        into = bytearray(length)
        if length == 0:
            return into
        self._wait_for(file, offset, length)
        try:
            self._local.read_into(file, offset, memoryview(into), sealed=self._is_complete(file))
        except NotSealedError:
            self._ask(file, offset, length)
            self._local.read_into(file, offset, memoryview(into), sealed=False)
        return into

    def _wait_for(self, file: OpenFile, offset: int, length: int) -> None:
        """Returns when the range is verified and on disk."""
        if self._is_complete(file):
            return
        if not file.wanted:
            raise UsageError(f"{file.path} was left out by the include globs and is not here; open the model with a glob that matches it")
        if self._outcome.error is not None:
            raise self._outcome.error  # what ended the load
        try:
            self._ask(file, offset, length)
        except UsageError:
            # The daemon says that nobody loads it: the load has just ended; how, is about to be told.
            self._wait_for_end(self._outcome, None)

    def _ask(self, file: OpenFile, offset: int, length: int) -> None:
        while not self._waits.acquire(timeout=_LOOK_SECONDS):
            _scope.check(self._scope)
        try:
            self._client.wait(self.cid, file.path, offset, length, self._scope)
        finally:
            self._waits.release()


def _follow(model: weakref.ref[Model], request: Request, messages: Iterator[dict[str, Any]], outcome: Outcome, scope: Scope) -> None:
    """Takes the daemon's messages to their end, in a thread of its own."""
    try:
        with request:
            for message in messages:
                if message["type"] == "progress" and (told := model()) is not None:
                    told._tell(load_progress(message))
                    del told
                elif message["type"] == "done":
                    result = load_result(message)
                    if (told := model()) is not None:
                        told._tell(Progress("done", result.bytes, result.bytes, seconds_left=0))
                    outcome.tell(result)
                    request.until_closed()  # meanwhile the daemon evicts nothing of it
                    return
        raise ApiError("the load ended without a result; is the daemon of another version?")
    except ShoalError as error:
        outcome.tell(scope.error or error)
    except BaseException as error:  # what a progress function of the user's threw
        outcome.tell(AbortError(f"the progress function failed: {error!r}"))


def _common_directory(files: Sequence[OpenFile]) -> str | None:
    """Files in place lie where their user keeps them: the directory under which all stand by their paths, if there is one."""
    common: str | None = None
    for file in files:
        if file.local_path is None or not file.local_path.endswith("/" + file.path):
            return None
        directory = file.local_path[: -len(file.path) - 1]
        if common not in (None, directory):
            return None
        common = directory
    return common
