"""Where the daemon's socket is: the same rules as the command line's (src/api/paths.ts)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ._limits import SOCKET_PATH_BYTES_MAX
from .errors import ApiError, ConfigError


def default_data_directory(environment: Mapping[str, str] | None = None) -> str:
    """$SHOAL_DATA, else the XDG data directory (specifications.freedesktop.org/basedir-spec). Absolute."""
    env = os.environ if environment is None else environment
    data = env.get("SHOAL_DATA", "")
    if data != "":
        return os.path.abspath(data)
    # The specification says to ignore a relative one.
    xdg = env.get("XDG_DATA_HOME", "")
    if xdg.startswith("/"):
        return os.path.join(xdg, "shoal")
    return os.path.join(str(Path.home()), ".local", "share", "shoal")


def within(directory: Path, path: str) -> Path:
    """Where a file of a model stands below a directory. Throws ApiError for a path that leads out of it, which no daemon tells."""
    if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise ApiError(f"the daemon told a file {path!r}, which no model can hold; is it of another version?")
    return directory / path


def socket_path(given: str | os.PathLike[str] | None = None, environment: Mapping[str, str] | None = None) -> str:
    """What was given, else $SHOAL_API, else `api.sock` in the data directory. Absolute. Throws ConfigError."""
    env = os.environ if environment is None else environment
    if given is not None:
        path = os.path.abspath(os.fspath(given))
    elif env.get("SHOAL_API", "") != "":
        path = os.path.abspath(env["SHOAL_API"])
    else:
        path = os.path.join(default_data_directory(env), "api.sock")
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_BYTES_MAX:
        raise ConfigError(
            f"the socket path {path} has {size} bytes and a Unix socket's may have {SOCKET_PATH_BYTES_MAX}; "
            "give a shorter one with socket= or $SHOAL_API"
        )
    if "\0" in path:
        raise ConfigError("a socket path cannot hold a NUL")
    return path
