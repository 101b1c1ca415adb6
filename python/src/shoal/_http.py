"""Requests to the daemon: HTTP over its Unix socket, one connection each, answers in JSON or in lines of it."""

from __future__ import annotations

import errno
import http.client
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from . import _fork, _scope
from ._limits import ANSWER_BYTES_MAX, LINE_BYTES_MAX, no_more_files
from ._scope import Scope
from .errors import ApiError, DaemonUnreachableError, ShoalError, from_json

_UNREACHABLE = {errno.ECONNREFUSED, errno.ENOENT, errno.ENOTSOCK, errno.ENOTDIR, errno.EPROTOTYPE}
_FORBIDDEN = {errno.EACCES, errno.EPERM}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")  # the Host header; the daemon answers to no other
        self._path = path
        self.sock: socket.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def connect(self) -> None:
        self.sock.connect(self._path)


class Request:
    """One request and its answer. It owns its connection and ends it: with `close`, or when a scope ends."""

    def __init__(self, path: str, method: str, target: str, body: dict[str, Any] | None = None, scope: Scope | None = None) -> None:
        self._path = path
        self._scope = scope
        try:
            self._connection = _UnixConnection(path)
        except OSError as error:
            raise DaemonUnreachableError(f"cannot connect to {path}: {no_more_files() if error.errno == errno.EMFILE else error}") from error
        _fork.watch(self)
        self._entered = _scope.entered(self._connection.sock, scope)
        self._entered.__enter__()
        try:
            _scope.check(scope)
            self._answer = self._send(method, target, body)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Request:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def after_fork(self) -> None:
        """It is the parent's: while a child held the connection too, the daemon would not see the parent leave it."""
        if self._connection.sock is not None and self._connection.sock.fileno() >= 0:
            os.close(self._connection.sock.detach())

    def close(self) -> None:
        self._entered.__exit__(None, None, None)
        self._connection.close()
        self._connection.sock = None  # type: ignore[assignment]

    def json(self) -> Any:
        """The whole answer. Throws what the daemon threw, DaemonUnreachableError and ApiError."""
        return _parse(self._all())

    def lines(self) -> Iterator[dict[str, Any]]:
        """The messages of a stream up to and with `done`; an `error` message is thrown."""
        while True:
            try:
                line = self._answer.readline(LINE_BYTES_MAX + 1)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise self._gone(error) from error
            if len(line) > LINE_BYTES_MAX:
                raise ApiError(f"the daemon sent a line of more than {LINE_BYTES_MAX} bytes")
            if line == b"":
                raise self._gone(None)
            if line == b"\n":
                continue
            try:
                message = _parse(line)
            except ApiError:
                if line.endswith(b"\n"):
                    raise
                raise self._gone(None) from None  # it was cut off
            if not isinstance(message, dict) or not isinstance(message.get("type"), str):
                raise ApiError("the daemon sent a line that is no message; is it of another version?")
            if message["type"] == "error":
                raise from_json(message.get("error"))
            yield message
            if message["type"] == "done":
                return

    def until_closed(self) -> None:
        """Returns when this is closed, a scope ends, or the daemon goes."""
        try:
            while self._answer.readline(LINE_BYTES_MAX) != b"":
                pass
        except (OSError, http.client.HTTPException, ValueError):
            pass

    def _send(self, method: str, target: str, body: dict[str, Any] | None) -> http.client.HTTPResponse:
        text = None if body is None else json.dumps(body).encode()
        headers = {} if text is None else {"content-type": "application/json"}
        try:
            self._connection.connect()
            _scope.check(self._scope)  # it may have ended before there was a connection to shut
            self._connection.request(method, target, text, headers)
            answer = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from error
        self._answer = answer
        if 200 <= answer.status < 300:
            return answer
        content = _parse(self._all())
        raise from_json(content.get("error") if isinstance(content, dict) else None)

    def _all(self) -> bytes:
        try:
            content = self._answer.read(ANSWER_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._gone(error) from error
        if len(content) > ANSWER_BYTES_MAX:
            raise ApiError(f"the answer of the daemon is larger than {ANSWER_BYTES_MAX} bytes")
        return content

    def _gone(self, error: BaseException | None) -> ShoalError:
        for scope in (_scope.current.get(), self._scope):
            if scope is not None and scope.error is not None:
                return scope.error
        code = error.errno if isinstance(error, OSError) else None
        if code in _FORBIDDEN:
            return DaemonUnreachableError(f"no permission to use {self._path}; run as the user that started the daemon")
        if code in _UNREACHABLE:
            return DaemonUnreachableError(f"no daemon listens on {self._path}; start one with: shoal daemon")
        why = "" if error is None else f" ({error or type(error).__name__})"
        return DaemonUnreachableError(
            f"the daemon on {self._path} went away before it had answered{why}; see its log, and start it again with: shoal daemon"
        )


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ApiError(f"the daemon answered with something that is no JSON: {content[:100]!r}; is it of another version?") from error
