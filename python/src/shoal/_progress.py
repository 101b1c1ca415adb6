"""Progress: a bar of tqdm's where there is one and somebody looks, or whatever function the caller gave."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from ._types import OnProgress, Progress
from .errors import UsageError

#: None: a bar when tqdm is installed and standard error is a terminal. True, False: always, never. Or a function.
ProgressOption = OnProgress | bool | None


class Reporter:
    """What progress is told to, between `__enter__` and `__exit__`."""

    def __init__(self, option: ProgressOption, label: str) -> None:
        self._function: OnProgress | None = None
        self._bar: Any = None
        if callable(option):
            self._function = option
            return
        if option is False or (option is None and not sys.stderr.isatty()):
            return
        if importlib.util.find_spec("tqdm") is None:
            if option:
                raise UsageError("a progress bar needs tqdm; install it: pip install 'shoal[progress]'")
            return
        tqdm = importlib.import_module("tqdm.auto" if "ipykernel" in sys.modules else "tqdm").tqdm
        self._bar = tqdm(desc=label, unit="B", unit_scale=True, unit_divisor=1024)

    @property
    def on_progress(self) -> OnProgress | None:
        return self._function or (None if self._bar is None else self._draw)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _draw(self, progress: Progress) -> None:
        bar = self._bar
        bar.total = progress.bytes_total or None
        bar.n = progress.bytes_done
        if progress.phase == "loading":
            bar.set_postfix_str(f"{progress.peers} peers", refresh=False)
        bar.refresh()
