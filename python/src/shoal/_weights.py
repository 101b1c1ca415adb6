"""Which files of a model hold its weights, and which of those are to be read together."""

from __future__ import annotations

import fnmatch
import json
import posixpath
from collections.abc import Collection, Sequence

from ._limits import INDEX_BYTES_MAX
from ._model import Model
from .errors import FileNotFoundError, TensorNotFoundError, UsageError

SAFETENSORS_INDEX = "model.safetensors.index.json"
PICKLE_INDEX = "pytorch_model.bin.index.json"
# What trainers write beside the weights, by torch.save too.
_TRAINING = ("optimizer*", "scheduler*", "scaler*", "rng_state*", "training_args*")


def safetensors_files(model: Model) -> list[str]:
    """As `named_by_indexes` chooses."""
    found = [file.path for file in model.files if file.path.lower().endswith(".safetensors")]
    return named_by_indexes(model, found, ".safetensors.index.json", SAFETENSORS_INDEX)


def pickle_files(model: Model) -> list[str]:
    """Those of torch.save: pytorch_model*.bin, as `named_by_indexes` chooses, else *.pt and *.pth."""
    paths = [file.path for file in model.files]
    found = [path for path in paths if fnmatch.fnmatchcase(_name(path), "pytorch_model*.bin")]
    if found:
        return named_by_indexes(model, found, ".bin.index.json", PICKLE_INDEX)
    return [path for path in paths if path.lower().endswith((".pt", ".pth")) and not any(fnmatch.fnmatchcase(_name(path), pattern) for pattern in _TRAINING)]


def named_by_indexes(model: Model, found: Sequence[str], ending: str, usual: str) -> list[str]:
    """
    Of `found`, what an index in the model's directory names, or else, in each directory below, what an index there names; all
    where there is none. So a consolidated or half-precision copy beside the shards is not read too. Of several indexes in a
    directory the one with the usual name counts. Throws FileNotFoundError when one names what the model does not have.
    """
    indexes: dict[str, list[str]] = {}
    for file in model.files:
        if file.path.lower().endswith(ending):
            indexes.setdefault(posixpath.dirname(file.path), []).append(file.path)
    if len(found) < 2 or not indexes:
        return list(found)
    named: dict[str, set[str]] = {}
    for directory, paths in indexes.items():
        if directory == "" or "" not in indexes:
            named[directory] = set().union(*(names_in(model, path, found) for path in [each for each in paths if _name(each) == usual] or paths))
    if "" in named:
        return [path for path in found if path in named[""]]
    return [path for path in found if path in named.get(posixpath.dirname(path), (path,))]


def names_in(model: Model, index: str, found: Collection[str]) -> set[str]:
    """The files that an index of a sharded model names, by their paths. Throws UsageError, and FileNotFoundError for one that is not in `found`."""
    file = model.file(index)
    if file.size > INDEX_BYTES_MAX:
        raise UsageError(f"{index} of {model.cid} has {file.size} bytes; at most {INDEX_BYTES_MAX} are read")
    try:
        named = {posixpath.join(posixpath.dirname(index), name) for name in set(json.loads(file.read())["weight_map"].values())}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{index} of {model.cid} is no index of weights: {error!r}") from error
    if missing := named.difference(found):
        raise FileNotFoundError(f"{index} of {model.cid} names {min(missing)}, which the model does not have")
    return named


def twice(model: Model, tensor: str, one: str, other: str) -> TensorNotFoundError:
    return TensorNotFoundError(
        f"{model.cid} has the tensor {tensor!r} in {one} and in {other}, so its files are not one state dict; "
        f"read them one by one: safetensors with open(...).iter_tensors(files=[{one!r}]), others from the directory that load(...) returns"
    )


def _name(path: str) -> str:
    return posixpath.basename(path)
