"""How a load ended, for those that wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from . import _fork
from ._types import LoadResult
from .errors import ModelClosedError, ShoalError


class Outcome:
    """
    Told once, by the thread that follows the load. Threads wait for it, and event loops leave a function that wakes them. A
    forked child has no such thread: whoever waits there for what was not told before is told that.
    """

    def __init__(self, cid: str) -> None:
        self._cid = cid
        self._lock = threading.Lock()
        self._told = threading.Event()
        self._wakes: set[Callable[[], None]] = set()
        self.result: LoadResult | None = None
        self.error: ShoalError | None = None
        _fork.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._told = threading.Event()
        self._told.set()  # as it is now it stays
        self._wakes = set()  # the parent's loops

    def tell(self, ended: LoadResult | ShoalError) -> None:
        with self._lock:
            if isinstance(ended, ShoalError):
                self.error = ended
            else:
                self.result = ended
            self._told.set()
            wakes, self._wakes = self._wakes, set()
        for wake in wakes:
            wake()

    def wait(self, timeout: float | None) -> bool:
        """True when it was told."""
        return self._told.wait(timeout)

    def get(self) -> LoadResult:
        """Once it was told. Throws what ended the load."""
        if self.error is not None:
            raise self.error
        if self.result is None:
            raise ModelClosedError(f"{self._cid} was still loading when this process was forked, and the load is its parent's; open the model again in this process")
        return self.result

    def when_told(self, wake: Callable[[], None]) -> None:
        """Calls it then, in whatever thread; now when it was told already."""
        with self._lock:
            if not self._told.is_set():
                self._wakes.add(wake)
                return
        wake()

    def forget(self, wake: Callable[[], None]) -> None:
        with self._lock:
            self._wakes.discard(wake)
