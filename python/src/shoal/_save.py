"""Publishing: files as they are, or a state dict, which is written as safetensors (or by torch.save) first."""

from __future__ import annotations

import importlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from . import _scope, _spool
from ._limits import SAFETENSORS_HEADER_BYTES_MAX, SAFETENSORS_TENSORS_MAX
from ._safetensors import DTYPE_BITS
from ._tensors import described
from .errors import ShoalError, UnreadableSourceError, UsageError

Format = Literal["safetensors", "torch"]
FILE_NAMES: dict[Format, str] = {"safetensors": "model.safetensors", "torch": "pytorch_model.bin"}


@contextmanager
def as_files(
    source: Mapping[str, Any] | str | os.PathLike[str],
    format: Format,
    directory: str | os.PathLike[str] | None,
    socket: str,
    beside: Callable[[Path], str | None] | None = None,
) -> Iterator[str]:
    """
    An absolute path to add: what was given, or a state dict in a directory of its own, which is gone afterwards. `beside`
    writes what else shall be in that, and may tell how a safetensors file is to be named.
    """
    if isinstance(source, (str, os.PathLike)):
        yield os.path.abspath(os.fspath(source))
        return
    if not isinstance(source, Mapping):
        raise UsageError(f"a model is given as a path or a state dict, not as a {type(source).__name__}; of a torch module, pass module.state_dict()")
    if format not in FILE_NAMES:
        raise UsageError(f"a state dict is written as 'safetensors' or 'torch', not {format!r}")
    with _spool.made(directory, socket) as path:
        try:
            name = None if beside is None else beside(Path(path))
            if format == "torch":
                _torch_save(source, Path(path) / FILE_NAMES[format])
            else:
                write_safetensors(source, Path(path) / (name or FILE_NAMES[format]))
        except OSError as error:
            if isinstance(error, ShoalError):
                raise
            raise _spool.failed(path, error) from error
        try:
            yield path
        except UnreadableSourceError as error:
            raise _spool.unreadable(path, error) from error


def write_safetensors(tensors: Mapping[str, Any], file: Path) -> None:
    """
    One safetensors file, tensor by tensor, in the order the reference implementation writes: larger elements first, then
    by name. So the same state gives the same bytes, and a changed tensor moves no other. Throws UsageError.
    """
    found = []
    for name, value in tensors.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise UsageError(f"{name!r} cannot be the name of a tensor")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"{name!r} cannot be the name of a tensor: it holds half of a character (a surrogate)") from error
        found.append((name, *described(name, value)))
    if len(found) > SAFETENSORS_TENSORS_MAX:
        raise UsageError(f"the state dict has {len(found)} tensors; a safetensors file is read with at most {SAFETENSORS_TENSORS_MAX}")
    found.sort(key=lambda each: (-DTYPE_BITS[each[1]], each[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape, size, _ in found:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors are aligned in the file
    if len(text) > SAFETENSORS_HEADER_BYTES_MAX:
        raise UsageError(f"names and shapes of the state dict take {len(text)} bytes; a safetensors file is read with at most {SAFETENSORS_HEADER_BYTES_MAX}")
    with open(file, "xb") as out:
        out.write(struct.pack("<Q", len(text)))
        out.write(text)
        for _, _, _, _, content in found:
            _scope.check()
            out.write(content())


def _torch_save(tensors: Mapping[str, Any], file: Path) -> None:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise UsageError("format='torch' needs torch; install it: pip install 'shoal[torch]'") from error
    torch.save(dict(tensors), file)
