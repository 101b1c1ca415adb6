"""Bytes as tensors, of torch or numpy, whichever there is; and tensors as bytes."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from typing import Any

from ._limits import SAFETENSORS_RANK_MAX
from ._types import Framework, TensorInfo
from .errors import UsageError

_TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "C64": "complex64", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "C64": "<c8", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip
# What numpy has no dtype for: ml_dtypes has, where it is installed; else raw, by the size of an element.
_ML_DTYPES = {
    "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
# Several elements in a byte: no framework can index into them.
_PACKED = {"F4", "F6_E2M3", "F6_E3M2"}


def framework_or_default(framework: str | None) -> Framework:
    """What was asked for, else torch where it is installed, else numpy. Throws UsageError."""
    if framework is None:
        for name in ("torch", "numpy"):
            if importlib.util.find_spec(name) is not None:
                framework = name
                break
        else:
            raise UsageError("tensors need torch or numpy; install one: pip install 'shoal[torch]' or 'shoal[numpy]'")
    if framework == "torch":
        return "torch"
    if framework == "numpy":
        return "numpy"
    raise UsageError(f"tensors come as 'torch' or 'numpy', not {framework!r}")


def tensor_from(info: TensorInfo, buffer: Any, offset: int, framework: Framework) -> Any:
    """A tensor over the bytes of `buffer` (writable, aligned) from `offset` on, without copying them."""
    return (_torch_from if framework == "torch" else _numpy_from)(info, buffer, offset)


def item_bytes(info: TensorInfo) -> int:
    """What an element has to be aligned to."""
    elements = math.prod(info.shape)
    return 1 if elements == 0 or info.dtype in _PACKED else max(1, info.length // elements)


def _torch_from(info: TensorInfo, buffer: Any, offset: int) -> Any:
    torch = _import("torch")
    if info.dtype in _PACKED:
        return torch.frombuffer(buffer, dtype=torch.uint8, count=info.length, offset=offset) if info.length else torch.empty(0, dtype=torch.uint8)
    dtype = getattr(torch, _TORCH[info.dtype], None)
    if dtype is None:
        raise UsageError(f"{info.name} is of {info.dtype}, which torch {torch.__version__} does not have; install a newer one")
    if info.length == 0:
        return torch.empty(info.shape, dtype=dtype)
    return torch.frombuffer(buffer, dtype=dtype, count=math.prod(info.shape), offset=offset).reshape(info.shape)


def _numpy_from(info: TensorInfo, buffer: Any, offset: int) -> Any:
    numpy = _import("numpy")
    if info.dtype in _PACKED:
        return numpy.frombuffer(buffer, dtype="u1", count=info.length, offset=offset)
    dtype = _NUMPY.get(info.dtype) or _ml_dtype(info.dtype) or f"<u{item_bytes(info)}"
    return numpy.frombuffer(buffer, dtype=dtype, count=math.prod(info.shape), offset=offset).reshape(info.shape)


def numpy_of(name: str, value: Any) -> Any:
    """A torch tensor as numpy array, over the same memory, of the dtypes that `tensor_from` gives. Throws UsageError."""
    torch = _import("torch")
    if not isinstance(value, torch.Tensor):
        raise UsageError(f"{name!r} is {a_kind(value)} and not a tensor; load it with framework='torch'")
    tensor = _plain(name, value.detach()).resolve_conj().resolve_neg().contiguous()
    dtype = _torch_dtypes().get(tensor.dtype)
    if dtype is None or dtype in _NUMPY:
        return tensor.numpy()
    raw = tensor.reshape(-1).view(torch.uint8).numpy()
    return raw.view(_ml_dtype(dtype) or f"<u{tensor.element_size()}").reshape(tuple(tensor.shape))


def a_kind(value: object) -> str:
    """What it is, with its article: `an int`, `a list`."""
    name = type(value).__name__
    return f"{'an' if name[:1] in 'aeioAEIO' else 'a'} {name}"


def _ml_dtype(dtype: str) -> Any:
    if dtype not in _ML_DTYPES or importlib.util.find_spec("ml_dtypes") is None:
        return None
    return getattr(_import("ml_dtypes"), _ML_DTYPES[dtype], None)


def described(name: str, value: Any) -> tuple[str, tuple[int, ...], int, Callable[[], memoryview]]:
    """
    Dtype, shape and size in bytes of a torch tensor or numpy array, and how to get its bytes in row-major order. Throws
    UsageError for what is neither.
    """
    if _is_of("torch", ("Tensor",), value):
        tensor = _plain(name, value).detach()
        dtype = _torch_dtypes().get(tensor.dtype)
        size, content = tensor.numel() * tensor.element_size(), lambda: _torch_bytes(name, tensor)
    elif _is_of("numpy", ("ndarray", "generic"), value):
        if _is_of("numpy.ma", ("MaskedArray",), value):
            raise UsageError(f"{name!r} has a mask, which safetensors files cannot hold; pass its filled()")
        dtype = _numpy_dtypes().get(value.dtype.newbyteorder("<") if value.dtype.itemsize > 1 and value.dtype.kind != "V" else value.dtype)
        size, content = value.nbytes, lambda: _numpy_bytes(value)
    else:
        raise UsageError(f"{name!r} is {a_kind(value)}; a state dict maps names to torch tensors or numpy arrays")
    if dtype is None:
        raise UsageError(f"{name!r} has the dtype {value.dtype}, which safetensors files cannot hold")
    if len(value.shape) > SAFETENSORS_RANK_MAX:
        raise UsageError(f"{name!r} has {len(value.shape)} dimensions; safetensors files are read with at most {SAFETENSORS_RANK_MAX}")
    return dtype, tuple(value.shape), size, content


def _is_of(module: str, names: tuple[str, ...], value: Any) -> bool:
    """Whether it is of one of these classes, without importing the module for it: nothing is of a module that nobody imported."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, tuple(getattr(loaded, name) for name in names))


def _plain(name: str, value: Any) -> Any:
    """
    A torch tensor whose memory may be read as it stands: what is wrapped, distributed, faked, masked or kept in another
    layout has a pointer that leads to something else, or nowhere. Throws UsageError for those.
    """
    torch = _import("torch")
    plain = {torch.Tensor, torch.nn.Parameter, getattr(torch.nn, "Buffer", None)}
    if type(value) not in plain:
        if hasattr(value, "full_tensor"):
            raise UsageError(f"{name!r} is {a_kind(value)}, of which this process may hold a part only; pass its full_tensor()")
        raise UsageError(f"{name!r} is {a_kind(value)}, a tensor with a meaning of its own; pass the plain torch.Tensor that has its values")
    if value.device.type == "meta":
        raise UsageError(f"{name!r} is on the meta device and has no values; load or initialize the module before it is saved")
    if value.layout is not torch.strided or value.is_nested:
        layout = "a nested tensor" if value.is_nested else f"of the layout {value.layout}"
        raise UsageError(f"{name!r} is {layout}, which safetensors files cannot hold; pass a dense one, as its to_dense() or to_padded_tensor() makes it")
    # An accelerator knows best what its tensors are; they are looked at as they come from it.
    return _in_memory(name, value) if value.device.type == "cpu" else value


def _in_memory(name: str, tensor: Any) -> Any:
    """Throws UsageError for a tensor that reaches beyond its memory: one that was freed (FSDP does), one that stands for zeros, one of torch.func."""
    try:
        held, pointer = tensor.untyped_storage().nbytes(), tensor.data_ptr()
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"{name!r} has no memory of its own: {error}") from error
    if tensor.numel() == 0:
        return tensor
    last = tensor.storage_offset() + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    if pointer == 0 or (last + 1) * tensor.element_size() > held:
        raise UsageError(f"{name!r} has no memory that holds all of its shape {list(tensor.shape)}: it was freed, or only stands for values; gather or clone() it first")
    return tensor


def _torch_bytes(name: str, tensor: Any) -> memoryview:
    whole = _in_memory(name, tensor.to("cpu").resolve_conj().resolve_neg().contiguous())
    size = whole.numel() * whole.element_size()
    if size == 0:
        return memoryview(b"")
    raw = (ctypes.c_ubyte * size).from_address(whole.data_ptr())
    raw._shoal_keeps = whole  # the memory lives as long as its view
    return memoryview(raw)


def _numpy_bytes(array: Any) -> memoryview:
    numpy = _import("numpy")
    whole = numpy.ascontiguousarray(array)
    if whole.dtype.byteorder == ">":
        whole = whole.astype(whole.dtype.newbyteorder("<"))
    return memoryview(whole.reshape(-1).view("u1")) if whole.nbytes else memoryview(b"")


def _torch_dtypes() -> dict[Any, str]:
    torch = _import("torch")
    return {getattr(torch, name): dtype for dtype, name in _TORCH.items() if hasattr(torch, name)}


def _numpy_dtypes() -> dict[Any, str]:
    numpy = _import("numpy")
    known = {numpy.dtype(name): dtype for dtype, name in _NUMPY.items()}
    for dtype in _ML_DTYPES:
        found = _ml_dtype(dtype)
        if found is not None:
            known[numpy.dtype(found)] = dtype
    return known


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"this needs {name}; install it: pip install 'shoal[{name}]'") from error
