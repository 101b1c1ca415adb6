"""What the daemon tells, checked once as it comes in, and what is told to the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import ApiError

Order = Literal["rarest", "sequential"]
Framework = Literal["torch", "numpy"]


@dataclass(frozen=True)
class Progress:
    """How far a load or an add is."""

    #: finding, loading, adding or done.
    phase: str
    #: Bytes verified and on disk, those that were here before included.
    bytes_done: int
    bytes_total: int
    #: Bytes per second over the last seconds; 0 while unknown.
    rate: float = 0.0
    #: Peers that have delivered lately.
    peers: int = 0
    #: None while unknown.
    seconds_left: float | None = None


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class LoadResult:
    """How a load went, once all that was wanted is verified and on disk. Sizes in bytes."""

    cid: str
    #: The directory of the complete files; None for files in place and nodes in memory.
    path: str | None
    #: Of the files that were wanted.
    bytes: int
    #: Wall time, from the opening on.
    seconds: float
    #: Came over the network for this load.
    fetched_bytes: int
    #: Was here before, or was copied from other local files.
    reused_bytes: int
    #: Came over the network and was thrown away: blocks that another peer was faster with, and what was cut off.
    duplicate_bytes: int
    #: Block bytes by the id of the peer that they came from.
    peers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class AddResult:
    """What was published. Sizes in bytes."""

    cid: str
    files: int
    bytes: int
    #: Bytes of blocks that were not here before: what has to travel when a model was updated.
    new_bytes: int
    seconds: float
    #: What was left out and why, in words.
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RemoveResult:
    """What deleting a model here did."""

    cid: str
    #: Of blocks that no other model here has.
    freed_bytes: int
    #: What this node asked the swarm to keep of it, which goes on: `shoal unpin CID` ends that. None when it asked for nothing.
    replicas: int | None = None


@dataclass(frozen=True)
class TensorInfo:
    """A tensor and where it stands."""

    name: str
    #: As safetensors names them: F32, BF16, F8_E4M3, ...
    dtype: str
    #: Elements.
    shape: tuple[int, ...]
    #: The file's path within the model.
    file: str
    #: Bytes from the start of the file.
    offset: int
    #: Bytes.
    length: int


@dataclass(frozen=True)
class Link:
    """A name that stands for a model on this node."""

    #: ORG/NAME, or NAME
    repo: str
    revision: str
    cid: str

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


@dataclass(frozen=True)
class Guard:
    """What a file in place must still look like."""

    size: int
    mtime_ms: float
    inode: int


@dataclass(frozen=True)
class OpenFile:
    path: str
    size: int
    sha256: str
    local_path: str | None
    complete: bool
    wanted: bool
    guard: Guard | None


def open_file(message: Any) -> OpenFile:
    try:
        guard = message.get("guard")
        return OpenFile(
            path=_text(message["path"]),
            size=_size(message["size"]),
            sha256=_text(message["sha256"]),
            local_path=_maybe_text(message.get("localPath")),
            complete=message["complete"] is True,
            wanted=message["wanted"] is True,
            guard=None if guard is None else Guard(_size(guard["size"]), float(guard["mtimeMs"]), int(guard["ino"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _strange("file", error) from error


def load_progress(message: Mapping[str, Any]) -> Progress:
    try:
        told = message["progress"]
        return Progress(
            str(told["phase"]), int(told["bytesDone"]), int(told["bytesTotal"]), float(told["rate"]), int(told["peers"]), told.get("secondsLeft")
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _strange("progress", error) from error


def add_progress(message: Mapping[str, Any]) -> Progress:
    try:
        told = message["progress"]
        return Progress("adding", int(told["bytesDone"]), int(told["bytesTotal"]))
    except (KeyError, TypeError, ValueError) as error:
        raise _strange("progress", error) from error


def load_result(message: Mapping[str, Any]) -> LoadResult:
    try:
        told = message["result"]
        peers = {str(peer): int(size) for peer, size in told["peers"].items()}
        return LoadResult(
            _text(told["cid"]), _maybe_text(told.get("path")), int(told["bytes"]), float(told["seconds"]), int(told["fetchedBytes"]), int(told["reusedBytes"]), int(told["duplicateBytes"]), peers
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _strange("result", error) from error


def add_result(message: Mapping[str, Any]) -> AddResult:
    try:
        told = message["result"]
        return AddResult(
            _text(told["cid"]), int(told["files"]), int(told["bytes"]), int(told["newBytes"]), float(told["seconds"]), tuple(map(str, told["warnings"]))
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _strange("result", error) from error


def remove_result(told: Mapping[str, Any]) -> RemoveResult:
    try:
        replicas = told.get("replicas")
        return RemoveResult(_text(told["cid"]), _size(told["freedBytes"]), None if replicas is None else _size(replicas))
    except (KeyError, TypeError) as error:
        raise _strange("result", error) from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _maybe_text(value: Any) -> str | None:
    return None if value is None else _text(value)


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{value!r} is no size")
    return value


def _strange(what: str, error: Exception) -> ApiError:
    return ApiError(f"the daemon told a {what} that this client does not understand ({error}); use client and daemon of the same version")
