"""
What a forked child has to make anew: locks, which a thread may hold that the child does not have, and connections, which
stay its parent's.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    def after_fork(self) -> None:
        """Called in the child, where no other thread runs yet."""


_known: weakref.WeakSet[Forked] = weakref.WeakSet()


def watch(each: Forked) -> None:
    """Its `after_fork` is called in each child for as long as there is a reference to it. Call it with what is complete."""
    _known.add(each)


def _in_child() -> None:
    for each in list(_known):
        each.after_fork()


os.register_at_fork(after_in_child=_in_child)
