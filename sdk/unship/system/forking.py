"""Call objects in a forked child, where no thread of the parent runs and locks may be held for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final
from weakref import WeakMethod

_CALLS: Final[set[WeakMethod[Callable[[], None]]]] = set()


def after_fork_in_child(method: Callable[[], None]) -> None:
    """Call a bound method in every child that this process forks, for as long as its object lives."""
    _CALLS.add(WeakMethod(method, _CALLS.discard))


def _call_all() -> None:
    for call in tuple(_CALLS):
        method = call()
        if method is not None:
            method()


os.register_at_fork(after_in_child=_call_all)
