"""The directory in which a state dict becomes files, for as long as the daemon takes to copy them."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .errors import DiskError, OutOfSpaceError, UnreadableSourceError, UsageError

PREFIX = "shoal-save-"
# A directory that is being made is not locked yet.
_YOUNG_SECONDS = 60
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def made(directory: str | os.PathLike[str] | None, socket: str) -> Iterator[str]:
    """
    A new directory, which is gone afterwards: below `directory`, else beside the daemon's socket or in the system's temporary
    directory. From those two goes too what processes that were killed have left. Throws UsageError.
    """
    below = _usual(socket) if directory is None else os.path.abspath(os.fspath(directory))
    if directory is None:
        sweep(below)
    path = os.path.join(below, PREFIX + secrets.token_hex(8))
    try:
        # Where the user wants it, whoever may look there may look into it, as into any new directory: the daemon may be one of those.
        os.mkdir(path, 0o700 if directory is None else 0o777)
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


def _usual(socket: str) -> str:
    """
    A daemon with a temporary directory of its own (systemd's PrivateTmp, a container) cannot see ours, but its data directory,
    where its socket is by default; and files are copied faster within a disk. Not beside a socket that is elsewhere: /run is memory.
    """
    data = os.path.dirname(socket)
    if os.path.isfile(os.path.join(data, "version")) and os.access(data, os.W_OK | os.X_OK):
        return data
    return tempfile.gettempdir()


def unreadable(path: str, error: UnreadableSourceError) -> UnreadableSourceError:
    """When the daemon says that of a directory that was made here."""
    return UnreadableSourceError(
        f"the daemon cannot read {path}, where the state dict was written: it runs as another user, or has a file system of its own; "
        f"give with directory= one that it can read too, under the same path ({error.message})"
    )


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
