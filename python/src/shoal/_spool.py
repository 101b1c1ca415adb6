"""The directory in which a state dict becomes files, for as long as the daemon takes to copy them."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .errors import DiskError, OutOfSpaceError, UsageError

PREFIX = "shoal-save-"
# A directory that is being made is not locked yet.
_YOUNG_SECONDS = 60
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def made(directory: str | os.PathLike[str] | None) -> Iterator[str]:
    """
    A new directory below `directory`, which is gone afterwards. What processes that were killed have left in the system's
    temporary directory goes too. Throws UsageError, OutOfSpaceError and DiskError.
    """
    below = tempfile.gettempdir() if directory is None else os.path.abspath(os.fspath(directory))
    if directory is None:
        sweep(below)
    try:
        path = tempfile.mkdtemp(prefix=PREFIX, dir=below)
    except OSError as error:
        raise UsageError(f"cannot write a state dict below {below} ({error.strerror}); give with directory= one that can be written to") from error
    process = os.getpid()
    # Held by this process and, as long as they live, by its children.
    lock = os.open(path, _FLAGS)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield path
    finally:
        os.close(lock)
        if os.getpid() == process:  # and not a child that was forked meanwhile
            shutil.rmtree(path, ignore_errors=True)


def failed(path: str, error: OSError) -> OutOfSpaceError | DiskError:
    """Why the files could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutOfSpaceError(f"no room to write the state dict below {path} ({error.strerror}); give with directory= one that has")
    return DiskError(f"cannot write the state dict below {path}: {error}")


def sweep(directory: str) -> None:
    """Removes this user's directories of processes that were killed: nobody holds their lock."""
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with suppress(OSError):
                    _sweep(entry.path)


def _sweep(path: str) -> None:
    lock = os.open(path, _FLAGS)
    try:
        facts = os.fstat(lock)
        if facts.st_uid != os.geteuid() or time.time() - facts.st_mtime < _YOUNG_SECONDS:
            return
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(lock)
