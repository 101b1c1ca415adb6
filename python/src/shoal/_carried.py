"""What a state dict does not hold: configuration, tokenizer and whatever else stands beside the weights of the state before."""

from __future__ import annotations

import posixpath
from pathlib import Path

from ._client import Client
from ._limits import CARRIED_BYTES_MAX, READ_BYTES_MAX
from ._model import Model, ModelFile
from ._paths import within
from .errors import ShoalError, UsageError

#: How names of files end that hold weights, of whatever framework.
WEIGHTS = ("safetensors", "bin", "pt", "pth", "ckpt", "gguf", "onnx", "onnx_data", "h5", "msgpack")
# The configuration is small, so whoever has the model at all delivers it before that.
_PROVIDER_SECONDS = 60


def holds_weights(path: str) -> bool:
    """Or is an index that says which weights are where."""
    name = posixpath.basename(path).lower()
    return name.rpartition(".")[2] in WEIGHTS or _is_index(name)


def carry(client: Client, cid: str, into: Path) -> str | None:
    """
    Copies the files of a model that hold no weights, getting them first where they are not here. The name of its safetensors
    file, when that is the only one and has no index: what reads the model looks for it. Throws UsageError, and what a load does.
    """
    try:
        opened = Model(client, cid, [f"!**/*.{{{','.join(WEIGHTS)}}}"], None, _PROVIDER_SECONDS, None)
    except UsageError:
        return None  # no file matches: there is nothing beside the weights
    except ShoalError as error:
        raise _explained(error, cid)
    with opened:
        others = [file for file in opened.files if not holds_weights(file.path)]
        weights = [file.path for file in opened.files if holds_weights(file.path)]
        _check(cid, others, weights)
        try:
            for file in others:
                _copy(file, within(into, file.path))
        except ShoalError as error:
            raise _explained(error, cid)
    named = [path for path in weights if "/" not in path and (path.endswith(".safetensors") or _is_index(path))]
    return named[0] if len(named) == 1 and not _is_index(named[0]) else None


def _check(cid: str, others: list[ModelFile], weights: list[str]) -> None:
    if others and weights and all("/" in path for path in weights):
        raise UsageError(
            f"{cid} keeps weights in directories ({weights[0]}), and a state dict does not say in which; "
            "write it into a copy of the model and pass that directory"
        )
    size = sum(file.size for file in others)
    if size > CARRIED_BYTES_MAX:
        largest = max(others, key=lambda file: file.size)
        raise UsageError(
            f"{cid} has {size} bytes beside its weights ({largest.path} has {largest.size}), and at most {CARRIED_BYTES_MAX} are carried over to a new state; "
            "write the state dict into a copy of the model and pass that directory, or publish it alone with save_model"
        )


def _copy(file: ModelFile, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    with open(to, "xb") as out:
        for offset in range(0, file.size, READ_BYTES_MAX):
            out.write(file.read(offset, min(READ_BYTES_MAX, file.size - offset)))


def _explained(error: ShoalError, cid: str) -> ShoalError:
    error.message += f"; wanted were the files beside the weights of {cid}, for the new state: to publish a state dict without them, use save_model"
    return error


def _is_index(path: str) -> bool:
    name = path.lower()
    return name.endswith(".json") and any(f".{ending}.index." in name for ending in WEIGHTS)
