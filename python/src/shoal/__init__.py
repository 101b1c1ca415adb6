"""
AI model weights from the Shoal node on this machine.

    import shoal

    directory = shoal.load("bafyr4i...")                 # or a name: "org/name"
    with shoal.open("org/name") as model:                # read it while it loads
        weight = model.tensor("model.embed_tokens.weight")
    cid = shoal.save_model("org/name", module.state_dict())

Talks to the daemon's Unix socket (`shoal daemon`). Needs nothing but Python; tensors need torch or numpy. `shoal.aio` has
the same functions for asyncio, `shoal.errors` a class for each reason that something failed.
"""

from . import errors
from ._api import link, links, load, load_model, open, save_model, unlink, update_model
from ._client import Client
from ._model import Model, ModelFile
from ._types import AddResult, Link, LoadResult, Progress, RemoveResult, TensorInfo
from .errors import ShoalError

__version__ = "0.1.0"

__all__ = [
    "AddResult",
    "Client",
    "Link",
    "LoadResult",
    "Model",
    "ModelFile",
    "Progress",
    "RemoveResult",
    "ShoalError",
    "TensorInfo",
    "errors",
    "link",
    "links",
    "load",
    "load_model",
    "open",
    "save_model",
    "unlink",
    "update_model",
]
