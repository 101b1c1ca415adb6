"""The functions of the package; shoal.aio has them again for asyncio."""

from __future__ import annotations

import functools
import importlib
import os
import textwrap
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _carried, _names, _save, _weights
from ._client import Client
from ._model import Model
from ._progress import ProgressOption, Reporter
from ._save import Format
from ._tensors import a_kind, framework_or_default, numpy_of
from ._types import Framework, Link, Order, TensorInfo
from .errors import ShoalError, UsageError

SocketPath = str | os.PathLike[str] | None
Source = Mapping[str, Any] | str | os.PathLike[str]


def load(
    model: str,
    *,
    include: Sequence[str] | None = None,
    order: Order | None = None,
    provider_timeout: float | None = None,
    progress: ProgressOption = None,
    socket: SocketPath = None,
) -> Path:
    """
    Gets a model onto this machine and tells the directory of its files; at once when it is here.

    `model` is a CID, or a name linked to one (`ORG/NAME[@REVISION]`). `include`: only files whose path matches one of
    these globs. `order`: "rarest" (default) or "sequential". `provider_timeout`: seconds after which to give up when
    nobody has it, 0 to 86,400. `progress`: None for a bar where tqdm is installed and standard error is a terminal; True, False, or
    a function that takes a Progress. `socket`: the daemon's; default $SHOAL_API, else api.sock in $SHOAL_DATA, else in
    the XDG data directory's shoal.

    Throws UsageError, DaemonUnreachableError, InvalidCidError, LinkNotFoundError, NoProviderError and what else ended the load. The
    load ends when this is interrupted; what has arrived stays.
    """
    with Reporter(progress, model) as reporter:
        with _open(model, include, order, provider_timeout, reporter.on_progress, socket) as opened:
            return opened.path()


def open(
    model: str,
    *,
    include: Sequence[str] | None = None,
    order: Order | None = None,
    on_demand: bool = False,
    provider_timeout: float | None = None,
    progress: ProgressOption = False,
    socket: SocketPath = None,
) -> Model:
    """
    Opens a model and starts to load what is missing; returns when its files are known. `on_demand`: nothing is fetched, and
    room made for nothing, but what is read: tensor by tensor, in whole blocks of at most 4 MiB. Other arguments and errors
    as `load` has them. Use it with `with`, or close it: it keeps the load going.
    """
    if progress is not False and not callable(progress):
        raise UsageError("open() takes a function as progress; for a bar use load(), or draw what the function is told")
    return _open(model, include, order, provider_timeout, progress or None, socket, on_demand)


def save_model(
    name: str | None,
    source: Source,
    *,
    format: Format = "safetensors",
    in_place: bool = False,
    follow: bool = False,
    replicas: int | None = None,
    directory: str | os.PathLike[str] | None = None,
    progress: ProgressOption = None,
    socket: SocketPath = None,
) -> str:
    """
    Publishes a model and tells its CID.

    `name`: linked to it on this node, `ORG/NAME[@REVISION]`; None for no name. `source`: a file or directory, or a state
    dict of torch tensors or numpy arrays, written as `format` says: "safetensors" (model.safetensors) or "torch" (by
    torch.save, pytorch_model.bin), in a temporary directory under `directory`, which the daemon has to be able to read (default:
    the daemon's data directory when its socket is in that and this process may write there, else where Python puts those).
    `in_place`: reference the files instead of copying them. `follow`: follow symbolic links. `replicas`: how many the
    swarm keeps; 0: none; default: as the daemon is configured. `progress` and `socket` as in `load`.

    Throws UsageError, InvalidRepoNameError, UnreadableSourceError, OutOfSpaceError and others as the daemon throws them.
    """
    linked = None if name is None else _names.to_link(name)
    return _publish(Client(socket), linked, source, format, in_place, follow, replicas, directory, progress, None)


def update_model(
    name: str,
    source: Source,
    *,
    format: Format = "safetensors",
    in_place: bool = False,
    follow: bool = False,
    replicas: int | None = None,
    directory: str | os.PathLike[str] | None = None,
    progress: ProgressOption = None,
    socket: SocketPath = None,
) -> str:
    """
    Publishes a new state of the model that `name` stands for, and makes the name stand for it; tells the new CID.
    Options as `save_model` has them. A path is published as it is. A state dict takes the place of all weights: the other
    files of the old state (configuration, tokenizer; whatever is no *.safetensors, *.bin, *.pt or weights of other
    frameworks, and no index of such) are carried over, 512 MiB of them at most.

    Blocks are named by their content, so those that did not change are not sent to whoever has the old state. On disk each
    state has files of its own; the old one keeps its CID and stays until it is evicted or removed (`Client.remove`, `shoal
    rm`). Throws LinkNotFoundError when there is no such name, and as `save_model` does.
    """
    client, linked = Client(socket), _names.to_link(name)
    old = _names.resolve(client, name)
    return _publish(client, linked, source, format, in_place, follow, replicas, directory, progress, old)


def load_model(
    model: str,
    *,
    framework: Framework | None = None,
    progress: ProgressOption = None,
    provider_timeout: float | None = None,
    socket: SocketPath = None,
) -> dict[str, Any]:
    """
    The state dict of a model, as soon as all of it is here: names to torch tensors where torch is installed, else to
    numpy arrays, or as `framework` says, over memory that is mapped from the files. Of several safetensors files, those that
    model.safetensors.index.json names; of a model without any, what torch.save wrote into pytorch_model*.bin, or else into
    *.pt and *.pth (read with weights_only=True). Throws UsageError when it holds neither or they cannot be read,
    TensorNotFoundError when two files have a tensor of the same name, and as `load` does.
    """
    chosen = framework_or_default(framework)
    with Reporter(progress, model) as reporter, _open(model, None, None, provider_timeout, reporter.on_progress, socket) as opened:
        opened.wait()
        files = _weights.safetensors_files(opened)
        return _load_safetensors(opened, files, chosen) if files else _load_pickles(opened, chosen)


def link(name: str, model: str, *, socket: SocketPath = None) -> None:
    """Makes `ORG/NAME[@REVISION]` stand for a model on this node. Throws UsageError, InvalidRepoNameError, InvalidCidError."""
    client = Client(socket)
    client.link(*_names.to_link(name), _names.resolve(client, model))


def unlink(name: str, *, socket: SocketPath = None) -> None:
    """Throws LinkNotFoundError."""
    Client(socket).unlink(*_names.split(name))


def links(*, socket: SocketPath = None) -> list[Link]:
    """The names that stand for models on this node."""
    return Client(socket).links()


def _publish(
    client: Client,
    linked: tuple[str, str] | None,
    source: Source,
    format: Format,
    in_place: bool,
    follow: bool,
    replicas: int | None,
    directory: str | os.PathLike[str] | None,
    progress: ProgressOption,
    old: str | None,
) -> str:
    """`old`: the model whose other files go with a state dict."""
    if in_place and isinstance(source, Mapping):
        raise UsageError("a state dict has no files to reference; write it where it shall stay and add that path with in_place=True")
    beside = None if old is None else functools.partial(_carried.carry, client, old)
    label = "publishing" if linked is None else linked[0]
    with Reporter(progress, label) as reporter, _save.as_files(source, format, directory, client.socket, beside) as path:
        added = client.add(path, in_place=in_place, follow=follow, replicas=replicas, on_progress=reporter.on_progress)
    if linked is not None:
        try:
            client.link(*linked, added.cid)
        except ShoalError as error:
            error.message += f"; the model was added all the same, as {added.cid}"
            raise
    return added.cid


def _open(
    model: str, include: Sequence[str] | None, order: Order | None, provider_timeout: float | None, on_progress: Any, socket: SocketPath, on_demand: bool = False
) -> Model:
    client = Client(socket)
    return Model(client, _names.resolve(client, model), include, order, provider_timeout, on_progress, on_demand)


def _load_safetensors(opened: Model, files: list[str], framework: Framework) -> dict[str, Any]:
    found: dict[str, TensorInfo] = {}
    for info in opened.tensors():
        if info.file in files and (other := found.setdefault(info.name, info)) is not info:
            raise _weights.twice(opened, info.name, other.file, info.file)
    return dict(opened.iter_tensors(framework, files))


def _load_pickles(opened: Model, framework: Framework) -> dict[str, Any]:
    files = _weights.pickle_files(opened)
    if not files:
        raise UsageError(
            f"{opened.cid} has no *.safetensors, pytorch_model*.bin, *.pt or *.pth, where weights are looked for, but: "
            + ", ".join(file.path for file in opened.files[:8])
        )
    state: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for path in files:
        for name, value in _torch_load(opened, path).items():
            if origin.setdefault(name, path) != path:
                raise _weights.twice(opened, name, origin[name], path)
            state[name] = numpy_of(name, value) if framework == "numpy" else value
    return state


def _torch_load(opened: Model, path: str) -> dict[str, Any]:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise UsageError(f"{path} was written by torch.save, so reading it needs torch; install it: pip install 'shoal[torch]'") from error
    local = opened.file(path).local_path
    if local is None:
        raise UsageError(f"the daemon holds {path} in memory only; start it with a data directory")
    try:
        # Only what torch writes since 1.6, a zip, can be mapped.
        found = torch.load(local, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(local))
    except Exception as error:  # of whatever class pickle, zip reader and torch have for it
        why = textwrap.shorten(str(error) or type(error).__name__, 300)
        raise UsageError(f"{path} of {opened.cid} cannot be read as weights that torch.save wrote (nothing else in a pickle is run): {why}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds {a_kind(found)}, not a state dict")
    return found
