"""Names of models: a CID, `cid/CID`, or `ORG/NAME[@REVISION]` as it is linked on this node."""

from __future__ import annotations

import re
import unicodedata

from ._client import Client
from .errors import InvalidRepoNameError, LinkNotFoundError, UsageError

_DEFAULT_REVISION = "main"
# In any base a CID can be written in; the daemon looks closer. No name that is linked in practice is that long in one word.
_CID = re.compile(r"[A-Za-z0-9+=]{46,256}")

# What huggingface_hub takes, and what has a meaning of its own: as the daemon has it (src/model/repo-name.ts).
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_PART_MAX = 96
_RESERVED_NAMES = {"resolve", "raw", "tree", "blob", "revision", "refs", "commits", "paths-info"}
_RESERVED_ORGS = {"cid", "api", "models", "datasets", "spaces", "kernels", "buckets", "v2"}
_REVISION_BYTES_MAX = 200
_COMMIT = re.compile(r"[0-9A-Fa-f]{40}")


def is_cid(text: str) -> bool:
    return _CID.fullmatch(text) is not None


def split(name: str) -> tuple[str, str]:
    """`ORG/NAME@REVISION` as repo and revision."""
    repo, at, revision = name.partition("@")
    return repo, revision if at else _DEFAULT_REVISION


def to_link(name: str) -> tuple[str, str]:
    """
    Repo and revision of a name that a model can be linked to; so a call that takes long finds out first. The daemon looks
    closer. Throws InvalidRepoNameError, and UsageError for a CID.
    """
    if not isinstance(name, str):
        raise UsageError(f"a name is a string such as org/name, not {name!r}")
    if is_cid(name) or name.startswith("cid/"):
        raise UsageError(f"{name} names a model by its CID, which stands for the same files for ever; give a name such as org/name")
    repo, revision = split(name)
    parts = repo.split("/")
    good = len(parts) <= 2 and all(_PART.fullmatch(part) and len(part) <= _PART_MAX for part in parts)
    if not good or "--" in repo or ".." in repo or repo.endswith(".git"):
        raise InvalidRepoNameError(f"{repo!r} is no name of a model: it is ORG/NAME of letters, digits, _ - and ., such as meta/llama-3-8b")
    if parts[0].lower() in _RESERVED_ORGS or parts[-1].lower() in _RESERVED_NAMES:
        raise InvalidRepoNameError(f"{repo!r} is taken: it has a meaning of its own; give another name, such as meta/llama-3-8b")
    segments = revision.split("/")
    if not all(map(_is_segment, segments)) or _COMMIT.fullmatch(revision) or len(revision.encode(errors="replace")) > _REVISION_BYTES_MAX:
        raise InvalidRepoNameError(f"the revision {revision!r} is no name of a branch or tag; give it one such as main or v1.0")
    return repo, revision


def _is_segment(text: str) -> bool:
    """What Unicode has added since this Python passes."""
    if text == "" or text.endswith(".lock") or ".." in text or unicodedata.normalize("NFC", text) != text:
        return False
    first, *rest = (unicodedata.category(each) for each in text)
    begins = text[0] == "_" or first[0] in "LN" or first == "Cn"
    return begins and all(each in "_.+=@-" or category[0] in "LMN" or category == "Cn" for each, category in zip(text[1:], rest))


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
