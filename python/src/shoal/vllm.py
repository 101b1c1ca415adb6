"""
vLLM: `--load-format shoal`, with a model that is given as a CID or as a name linked to one.

    vllm serve bafyr4i... --load-format shoal
    vllm serve org/name --load-format shoal --revision v2

The entry point `vllm.general_plugins` calls `register` in each of vLLM's processes. The engine first gets the small files
(configuration, tokenizer); its workers then take the weights from the node tensor by tensor, in the order of the files,
while the rest loads. What it needs of vLLM, read in 0.33: `register_model_loader`, `BaseModelLoader`, and that
`ModelConfig.model_weights` says where weights are when `model` is a local directory.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import json
import os
from collections.abc import Iterator
from typing import Any

from . import _api, _names, _weights
from ._client import Client
from ._model import Model
from ._progress import Reporter
from .errors import UsageError

LOAD_FORMAT = "shoal"
INDEX_FILE = _weights.SAFETENSORS_INDEX
#: What an engine reads besides weights: configuration, tokenizers, templates, code of the model's.
SMALL_FILES = tuple(f"**/*.{ending}" for ending in ("json", "txt", "model", "py", "jinja", "tiktoken", "spm", "vocab", "yaml", "yml"))


def register() -> None:
    """The entry point. May be called any number of times in a process."""
    loaders = importlib.import_module("vllm.model_executor.model_loader")
    known = getattr(loaders, "_LOAD_FORMAT_TO_MODEL_LOADER", {})
    if LOAD_FORMAT not in known:
        base = importlib.import_module("vllm.model_executor.model_loader.base_loader").BaseModelLoader
        loaders.register_model_loader(LOAD_FORMAT)(loader_class(base))
    arguments = importlib.import_module("vllm.engine.arg_utils").EngineArgs
    # vLLM reads the configuration before it asks for a loader, and has no seam for where from: the two methods that do
    # so find a local directory in `model`, as for its own object stores.
    for method in ("create_engine_config", "create_model_config"):
        original = getattr(arguments, method)
        if not hasattr(original, "_shoal"):
            setattr(arguments, method, _localized(original))


def loader_class(base: type) -> type:
    """The loader, on vLLM's BaseModelLoader."""
    return type("ShoalModelLoader", (_ShoalLoader, base), {"__doc__": "Takes weights from the Shoal node on this machine."})


class _ShoalLoader:
    """`model_loader_extra_config` may name the daemon's socket: `{"socket": "/run/shoal/api.sock"}`."""

    load_config: Any

    def __init__(self, load_config: Any) -> None:
        super().__init__(load_config)  # type: ignore[call-arg]
        self._socket = _socket_of(load_config.model_loader_extra_config)

    def download_model(self, model_config: Any) -> None:
        """All of the model onto this machine."""
        _api.load(_weights_of(model_config), socket=self._socket)

    def load_weights(self, model: Any, model_config: Any) -> None:
        """Into a model that is there. Throws ValueError when the model says that it got some of its parameters and not all."""
        loaded = model.load_weights(self.weights(model_config, model))
        if loaded is None or model_config.quantization is not None:
            return
        missing = {name for name, _ in model.named_parameters()} - set(loaded)
        if missing:
            raise ValueError(f"these weights are not in {_weights_of(model_config)}: {', '.join(sorted(missing)[:8])}")

    def weights(self, model_config: Any, model: Any = None) -> Iterator[tuple[str, Any]]:
        """Names and torch tensors, in the order of the files, each as soon as its blocks are here."""
        unused = getattr(model, "is_unused_checkpoint_weight", None)
        name = _weights_of(model_config)
        with Reporter(None if self.load_config.use_tqdm_on_load else False, "Loading weights") as reporter:
            opened = _api.open(name, order="sequential", progress=reporter.on_progress or False, socket=self._socket)
            with opened:
                files = weight_files(opened, self.load_config.ignore_patterns)
                for tensor, value in opened.iter_tensors("torch", files):
                    if unused is None or not unused(tensor):
                        yield tensor, value


def weight_files(model: Model, ignore: str | list[str] = ()) -> list[str]:  # type: ignore[assignment]
    """
    The safetensors files to load: those of the index where there is one, so that a consolidated copy beside them is not
    loaded too. Throws UsageError when there is none, FileNotFoundError when the index names one that is not there.
    """
    patterns = [ignore] if isinstance(ignore, str) else list(ignore)
    found = [
        file.path
        for file in model.files
        if file.path.endswith(".safetensors") and "/" not in file.path and not any(fnmatch.fnmatch(file.path, pattern) for pattern in patterns)
    ]
    if not found:
        raise UsageError(f"{model.cid} has no safetensors files, the only ones that --load-format {LOAD_FORMAT} reads; give vLLM the directory that `shoal get` prints")
    if len(found) > 1 and any(file.path == INDEX_FILE for file in model.files):
        named = _weights.names_in(model, INDEX_FILE, found)
        found = [path for path in found if path in named]
    return found


def localize(arguments: Any) -> None:
    """Of engine arguments that ask for us: gets the small files, and makes `model` their directory and `model_weights` the CID."""
    if str(arguments.load_format).lower() != LOAD_FORMAT or getattr(arguments, "model_weights", None):
        return
    if not hasattr(arguments, "model_weights"):
        raise UsageError(f"this vLLM is too old for --load-format {LOAD_FORMAT}: its arguments have no model_weights")
    asked = arguments.model
    if os.path.isdir(asked):
        raise UsageError(f"--load-format {LOAD_FORMAT} takes a CID or a linked name; {asked} is a directory, which vLLM loads by itself")
    socket = _socket_of(arguments.model_loader_extra_config)
    # Resolved once: all ranks load the same state, whatever the name stands for later.
    cid = _names.resolve(Client(socket), f"{asked}@{arguments.revision}" if arguments.revision else asked)
    directory = str(_api.load(cid, include=SMALL_FILES, progress=False, socket=socket))
    if arguments.served_model_name is None:
        arguments.served_model_name = asked
    if arguments.tokenizer in (None, asked):
        arguments.tokenizer = directory
        arguments.tokenizer_revision = None
    arguments.model, arguments.model_weights, arguments.revision = directory, cid, None


def _localized(original: Any) -> Any:
    @functools.wraps(original)
    def create(self: Any, *args: Any, **kwargs: Any) -> Any:
        localize(self)
        return original(self, *args, **kwargs)

    create._shoal = True  # type: ignore[attr-defined]
    return create


def _weights_of(model_config: Any) -> str:
    return str(getattr(model_config, "model_weights", "") or model_config.model)


def _socket_of(extra: Any) -> str | None:
    if not extra:
        return None
    if isinstance(extra, str):
        extra = json.loads(extra)
    if not isinstance(extra, dict) or set(extra) != {"socket"} or not isinstance(extra["socket"], str):
        raise UsageError(f"model_loader_extra_config of --load-format {LOAD_FORMAT} may hold a socket and nothing else, not {extra!r}")
    return extra["socket"]
