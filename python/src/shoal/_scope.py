"""What a caller may end from outside: a closed model, a cancelled task. Ending shuts the sockets that wait inside it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from . import _fork
from .errors import ShoalError


class Scope:
    """Calls that run within it end with `error` once `end(error)` was called, those that wait at a socket at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._error: ShoalError | None = None
        _fork.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._sockets = set()  # shutting a connection ends it for the parent too

    @property
    def error(self) -> ShoalError | None:
        return self._error

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def end(self, error: ShoalError) -> None:
        with self._lock:
            if self._error is None:
                self._error = error
            sockets = list(self._sockets)
        for each in sockets:
            _shut(each)

    def add(self, each: socket.socket) -> None:
        with self._lock:
            self._sockets.add(each)
        if self._error is not None:
            _shut(each)

    def remove(self, each: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(each)


#: The call that runs now, where somebody may cancel it: set by shoal.aio around what it hands to a thread.
current: ContextVar[Scope | None] = ContextVar("shoal_scope", default=None)


def check(*scopes: Scope | None) -> None:
    """Throws what ended the call that runs now, or one of the scopes."""
    for scope in (current.get(), *scopes):
        if scope is not None:
            scope.check()


@contextmanager
def entered(each: socket.socket, *scopes: Scope | None) -> Iterator[None]:
    """While inside, the ending of any of them shuts the socket."""
    within = [scope for scope in (current.get(), *scopes) if scope is not None]
    for scope in within:
        scope.add(each)
    try:
        yield
    finally:
        for scope in within:
            scope.remove(each)


def _shut(each: socket.socket) -> None:
    try:
        each.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # not connected yet, or gone already
