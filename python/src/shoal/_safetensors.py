"""
The header of a safetensors file, read as strictly as the daemon does (src/model/safetensors.ts): no hole, no overlap, all
of the file covered, lengths that follow from shape and dtype, no key twice.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from ._limits import SAFETENSORS_HEADER_BYTES_MAX, SAFETENSORS_RANK_MAX, SAFETENSORS_TENSORS_MAX
from ._types import TensorInfo
from .errors import InvalidSafetensorsError

#: Bits of one element, for every dtype of the reference implementation.
DTYPE_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

_LENGTH_BYTES = 8
ReadAt = Callable[[int, int], bytes]


def read_tensors(file: str, size: int, read_at: ReadAt) -> list[TensorInfo]:
    """The tensors of a file of `size` bytes, by offset. Throws InvalidSafetensorsError and what `read_at` throws."""
    if size < _LENGTH_BYTES:
        raise _invalid(file, f"it has {size} bytes, too few for a header")
    (length,) = struct.unpack("<Q", read_at(0, _LENGTH_BYTES))
    if length > SAFETENSORS_HEADER_BYTES_MAX:
        raise _invalid(file, f"the header claims {length} bytes; at most {SAFETENSORS_HEADER_BYTES_MAX} are allowed")
    if _LENGTH_BYTES + length > size:
        raise _invalid(file, f"the header claims {length} bytes and the file has {size}")
    return parse_header(file, read_at(_LENGTH_BYTES, length), size)


def parse_header(file: str, header: bytes, file_size: int) -> list[TensorInfo]:
    if header[:1] != b"{":
        raise _invalid(file, "the header does not start with {")
    try:
        entries = json.loads(header.decode("utf-8"), object_pairs_hook=lambda pairs: _unique(file, pairs), parse_constant=_no_constant)
    except InvalidSafetensorsError:
        raise
    except (ValueError, RecursionError) as error:
        raise _invalid(file, f"the header is no JSON: {error}") from error
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _invalid(file, "__metadata__ is no map of strings")
    if len(entries) > SAFETENSORS_TENSORS_MAX:
        raise _invalid(file, f"it has {len(entries)} tensors; at most {SAFETENSORS_TENSORS_MAX} are allowed")
    start = _LENGTH_BYTES + len(header)
    tensors = sorted((_tensor(file, name, entry, start) for name, entry in entries.items()), key=lambda each: (each.offset, each.length, each.name))
    end = start
    for tensor in tensors:
        if tensor.offset != end:
            raise _invalid(file, f"the tensor {tensor.name!r} starts at byte {tensor.offset - start} of the data, and the one before ends at {end - start}")
        end = tensor.offset + tensor.length
    if end != file_size:
        raise _invalid(file, f"the tensors end at byte {end} and the file at {file_size}")
    return tensors


def _tensor(file: str, name: str, entry: Any, start: int) -> TensorInfo:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _invalid(file, f"the tensor {name!r} has other keys than dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _invalid(file, f"the tensor {name!r} has the unknown dtype {str(dtype)[:40]!r}")
    if not _counts(shape) or len(shape) > SAFETENSORS_RANK_MAX:
        raise _invalid(file, f"the tensor {name!r} has a shape that is no list of sizes")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _invalid(file, f"the tensor {name!r} has data_offsets that are not [begin, end]")
    bits = DTYPE_BITS[dtype]
    for size in shape:
        bits *= size
    length = offsets[1] - offsets[0]
    if bits != length * 8:
        raise _invalid(file, f"the tensor {name!r} of {dtype} {shape} needs {bits / 8:g} bytes and has {length}")
    return TensorInfo(name, dtype, tuple(shape), file, start + offsets[0], length)


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**53 for value in values)


def _unique(file: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _invalid(file, "a key stands twice in the header")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _invalid(file: str, why: str) -> InvalidSafetensorsError:
    return InvalidSafetensorsError(f"{file} is not a valid safetensors file: {why}")
