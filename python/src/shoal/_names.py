"""Names of models: a CID, `cid/CID`, or `ORG/NAME[@REVISION]` as it is linked on this node."""

from __future__ import annotations

import re

from ._client import Client
from .errors import LinkNotFoundError, UsageError

_DEFAULT_REVISION = "main"
# In any base a CID can be written in; the daemon looks closer. No name that is linked in practice is that long in one word.
_CID = re.compile(r"[A-Za-z0-9+=]{46,256}")


def is_cid(text: str) -> bool:
    return _CID.fullmatch(text) is not None


def split(name: str) -> tuple[str, str]:
    """`ORG/NAME@REVISION` as repo and revision."""
    repo, at, revision = name.partition("@")
    return repo, revision if at else _DEFAULT_REVISION


def resolve(client: Client, name: str) -> str:
    """The model CID that is meant. Throws LinkNotFoundError for a name that is not linked."""
    if not isinstance(name, str) or name == "":
        raise UsageError(f"a model is named by its CID or by a name that is linked to it, not by {name!r}")
    if is_cid(name):
        return name
    repo, revision = split(name)
    if repo.startswith("cid/"):
        if "@" in name and revision != _DEFAULT_REVISION:
            raise UsageError(f"{name} names a model by its CID, which has no revisions")
        return repo.removeprefix("cid/")
    for link in client.links():
        if link.repo == repo and link.revision == revision:
            return link.cid
    raise LinkNotFoundError(f"nothing is linked as {name} here; see what is with: shoal links; link it with: shoal link {name} CID")
