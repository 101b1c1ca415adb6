"""The daemon's API, one method a route (/v1/openapi.json lists them)."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ._http import Request
from ._limits import PROVIDER_TIMEOUT_MAX
from ._paths import socket_path
from ._scope import Scope
from ._types import AddResult, Link, OnProgress, Order, RemoveResult, add_progress, add_result, remove_result
from .errors import ApiError, UsageError


class Client:
    """
    Speaks with the daemon on one socket. Holds nothing open: each call has its own connection, so it may be used from
    several threads and after a fork. Every method throws what the daemon threw, and DaemonUnreachableError.
    """

    def __init__(self, socket: str | os.PathLike[str] | None = None) -> None:
        self.socket = socket_path(socket)

    def load(self, cid: str, *, include: Sequence[str] | None, order: Order | None, provider_timeout: float | None, scope: Scope, on_demand: bool = False) -> Request:
        """
        Opens a model and loads what is missing, or what is waited for. The load lasts as long as the request is open; while it is, the
        model is not evicted, after `done` either.
        """
        body: dict[str, Any] = {"hold": True}
        if include is not None:
            body["include"] = list(include)
        if order is not None:
            body["order"] = order
        if on_demand:
            body["onDemand"] = True
        if provider_timeout is not None:
            body["providerTimeoutMs"] = _milliseconds(provider_timeout)
        return Request(self.socket, "POST", f"{_model(cid)}/load", body, scope)

    def wait(self, cid: str, file: str, offset: int, length: int, scope: Scope) -> None:
        """Returns when the range is verified and on disk; moves it to the front of the fetch."""
        self._json("POST", f"{_model(cid)}/wait", {"path": file, "offset": offset, "length": length}, scope)

    def add(self, path: str, *, in_place: bool, follow: bool, replicas: int | None, on_progress: OnProgress | None) -> AddResult:
        body: dict[str, Any] = {"path": path, "inPlace": in_place, "follow": follow}
        if replicas is not None:
            body["replicas"] = replicas
        with Request(self.socket, "POST", "/v1/models", body) as request:
            for message in request.lines():
                if message["type"] == "progress" and on_progress is not None:
                    on_progress(add_progress(message))
                elif message["type"] == "done":
                    return add_result(message)
        raise ApiError("the daemon ended without a result; is it of another version?")

    def remove(self, cid: str) -> RemoveResult:
        """
        Deletes a model here: what no other model here has, but for files in place, which are the user's. Other nodes keep
        theirs. Throws InvalidCidError, ModelNotFoundError, ModelInUseError while it is loaded or read, DiskError.
        """
        return remove_result(self._object("DELETE", _model(cid)))

    def models(self) -> list[dict[str, Any]]:
        """The models held here, as the API tells them."""
        found = self._json("GET", "/v1/models")
        if not isinstance(found, list):
            raise ApiError("the daemon told models that are no list; is it of another version?")
        return found

    def status(self) -> Mapping[str, Any]:
        """
        The node in short, as `shoal status --json` has it: sizes in bytes, rates in bytes per second, times in milliseconds since
        1970, `uptimeSeconds` in seconds. `problems`: what an operator should look at, in words, most serious first.
        """
        return self._object("GET", "/v1/status")

    def links(self) -> list[Link]:
        """The names that stand for models on this node."""
        found = self._json("GET", "/v1/links")
        try:
            return [Link(str(each["repo"]), str(each["revision"]), str(each["cid"])) for each in found]
        except (KeyError, TypeError) as error:
            raise ApiError(f"the daemon told links that this client does not understand ({error}); use client and daemon of the same version") from error

    def link(self, repo: str, revision: str, cid: str) -> None:
        """Makes a name stand for a model, whatever it stood for before."""
        self._json("PUT", "/v1/links", {"repo": repo, "revision": revision, "cid": cid})

    def unlink(self, repo: str, revision: str) -> None:
        self._json("DELETE", f"/v1/links?repo={quote(repo, safe='')}&revision={quote(revision, safe='')}")

    def _object(self, method: str, target: str) -> Mapping[str, Any]:
        found = self._json(method, target)
        if not isinstance(found, dict):
            raise ApiError("the daemon answered with something else than an object; is it of another version?")
        return found

    def _json(self, method: str, target: str, body: dict[str, Any] | None = None, scope: Scope | None = None) -> Any:
        with Request(self.socket, method, target, body, scope) as request:
            return request.json()


def _milliseconds(provider_timeout: object) -> int:
    # What numpy has for a number is one too; no number at all is as wrong as one out of bounds.
    seconds = float(provider_timeout) if isinstance(provider_timeout, numbers.Real) and not isinstance(provider_timeout, bool) else -1
    if not 0 <= seconds <= PROVIDER_TIMEOUT_MAX:
        raise UsageError(f"provider_timeout is a number of seconds, 0 to {PROVIDER_TIMEOUT_MAX}, not {provider_timeout!r}")
    return max(1, round(seconds * 1000))  # the daemon takes no 0


def _model(cid: str) -> str:
    return f"/v1/models/{quote(cid, safe='')}"
