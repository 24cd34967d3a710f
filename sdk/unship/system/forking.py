"""Call objects in a forked child, where no thread of the parent runs and locks may be held for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import MethodType
from typing import Final
from weakref import ref

_CALLS: Final[dict[ref[object], str]] = {}


def after_fork_in_child(method: Callable[[], None]) -> None:
    """Call a bound method in every child that this process forks, for as long as its object lives."""
    assert isinstance(method, MethodType), "a function would live for ever"
    # The dictionary's own method, because an object may die after the modules' names are gone, as the process ends.
    _CALLS[ref(method.__self__, _CALLS.pop)] = method.__name__


def _call_all() -> None:
    for found, name in tuple(_CALLS.items()):
        it = found()
        if it is not None:
            getattr(it, name)()


os.register_at_fork(after_in_child=_call_all)
