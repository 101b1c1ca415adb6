"""
Reads from the daemon's files. What the daemon has said of a file (its blocks are there) holds for the file it said it of,
so each read checks that this is still the one: its size, and its guard when it is a user's own file (a file "in place").
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys
import threading

from . import _fork, _scope
from ._limits import READ_BYTES_MAX, no_more_files
from ._scope import Scope
from ._types import OpenFile
from .errors import DiskError, ModelNotFoundError, ShoalError, SourceChangedError, UsageError

_ANY_WRITE = 0o222
# Without waiting: in place of a user's file there may be a pipe by now.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK

# Python names it since 3.11; the value is Linux's (mman-common.h).
_MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class NotSealedError(Exception):
    """A file that was complete is open for writing: the daemon removed it, and somebody loads it again."""


class LocalFiles:
    """The files of one open model."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._lock = threading.Lock()
        self._maps: dict[str, tuple[mmap.mmap, int]] = {}
        _fork.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def read_into(self, file: OpenFile, offset: int, into: memoryview, *, sealed: bool) -> None:
        """
        Fills `into` from `offset` on. `sealed`: the file is known as complete, so the daemon has closed it against
        writing. Throws NotSealedError when it has not, SourceChangedError, ModelNotFoundError, DiskError.
        """
        path = local_path(file)
        try:
            descriptor = os.open(path, _FLAGS)
            try:
                _check(file, os.fstat(descriptor), sealed)
                done = 0
                while done < len(into):
                    _scope.check(self._scope)
                    count = os.preadv(descriptor, [into[done : done + READ_BYTES_MAX]], offset + done)
                    if count == 0:
                        raise _changed(file, "it was cut short")
                    done += count
                if file.guard is not None:
                    _check(file, os.fstat(descriptor), sealed)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _explained(file, error) from error

    def map(self, file: OpenFile) -> mmap.mmap:
        """
        All of a complete file, mapped: nothing is read before it is used, and the pages are shared with whoever else
        uses the file. A private mapping: writing to it changes no file. Throws as `read_into` does with `sealed`.
        """
        path = local_path(file)
        try:
            descriptor = os.open(path, _FLAGS)
            try:
                facts = os.fstat(descriptor)
                _check(file, facts, sealed=True)
                with self._lock:
                    held = self._maps.get(path)
                    if held is None or held[1] != facts.st_ino:
                        # Not counted against the memory of the machine: hardly a page of it is ever written.
                        flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
                        held = (_mapped(descriptor, file.size, flags, mmap.PROT_READ | mmap.PROT_WRITE), facts.st_ino)
                        self._maps[path] = held
                    return held[0]
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _explained(file, error) from error

    def close(self) -> None:
        """Forgets the mappings; those that arrays still look into live on with them."""
        with self._lock:
            self._maps.clear()


def _mapped(descriptor: int, size: int, flags: int, prot: int) -> mmap.mmap:
    """Before 3.13 Python keeps a descriptor for each mapping, for as long as there are tensors in it."""
    if sys.version_info >= (3, 13):
        return mmap.mmap(descriptor, size, flags=flags, prot=prot, trackfd=False)
    return mmap.mmap(descriptor, size, flags=flags, prot=prot)


def local_path(file: OpenFile) -> str:
    if file.local_path is None:
        raise UsageError(f"the daemon holds {file.path} in memory only; files are read from disk, so start the daemon with a data directory")
    return file.local_path


def _check(file: OpenFile, facts: os.stat_result, sealed: bool) -> None:
    if not stat.S_ISREG(facts.st_mode):
        raise _changed(file, "it is no regular file")
    if facts.st_size != file.size:
        raise _changed(file, f"it has {facts.st_size} bytes and should have {file.size}")
    guard = file.guard
    if guard is None:
        if sealed and facts.st_mode & _ANY_WRITE:
            raise NotSealedError
        return
    seconds, nanoseconds = divmod(facts.st_mtime_ns, 1_000_000_000)
    # In the same steps as the daemon's runtime, so that both have the same double.
    mtime_ms = seconds * 1000.0 + nanoseconds / 1_000_000
    for what, was, now in (("size", guard.size, facts.st_size), ("mtime", guard.mtime_ms, mtime_ms), ("inode", guard.inode, facts.st_ino)):
        if was != now:
            raise _changed(file, f"its {what} was {was} when it was added and is {now}")


def _changed(file: OpenFile, why: str) -> SourceChangedError:
    return SourceChangedError(
        f"{file.local_path or file.path} changed since the daemon vouched for it: {why}; add the model again, or load it again from the swarm"
    )


def _explained(file: OpenFile, error: OSError) -> ShoalError:
    where = file.local_path or file.path
    if isinstance(error, ShoalError):
        return error
    if isinstance(error, FileNotFoundError):
        return ModelNotFoundError(f"{where} is gone: the model was removed or evicted; open it again to load it anew, and pin what must stay")
    if error.errno == errno.EMFILE:
        kept = "" if sys.version_info >= (3, 13) else " (before Python 3.13 each file that tensors were taken from stays open as long as they live)"
        return DiskError(f"cannot open {where}: {no_more_files()}{kept}")
    return DiskError(f"cannot read {where}: {error}")
