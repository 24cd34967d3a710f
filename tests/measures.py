"""Measures that do not depend on the machine: how much an object holds, and how many calls a piece of work makes."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import msgspec
import numpy as np

ATOMS = (str, bytes, int, float, bool, type(None), type, FunctionType, MethodType, ModuleType)


def sizes_of(thing: object, leave: Iterable[type] = ()) -> Counter[str]:
    """Return how many entries collections hold, by path; those at equal places of many objects are taken together.

    Args:
        thing: Where to begin.
        leave: Types of objects that are not entered.
    """
    found = Counter[str]()
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", thing)]
    while waiting:
        path, each = waiting.pop()
        if isinstance(each, (*ATOMS, *leave)) or id(each) in seen:
            continue
        seen.add(id(each))
        size = _size(each)
        if size is not None:
            found[path] += size
        waiting += ((f"{path}{name}", value) for name, value in _inside(each))
    return found


def _size(thing: Any) -> int | None:
    if isinstance(thing, np.ndarray):
        return int(thing.size)
    return len(thing) if isinstance(thing, (dict, list, tuple, set, frozenset, deque, bytearray)) else None


def _inside(thing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, Mapping):
        yield from (("[]", value) for value in thing.values())
        yield from (("{}", key) for key in thing)
    elif isinstance(thing, (list, tuple, set, frozenset, deque)):
        names = getattr(thing, "_fields", None)
        yield from ((f".{names[i]}" if names else "[]", value) for i, value in enumerate(thing))
    if isinstance(thing, msgspec.Struct):
        yield from ((f".{name}", getattr(thing, name)) for name in thing.__struct_fields__)
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(thing, name) and name not in ("__weakref__", "__dict__"):
                yield f".{name}", getattr(thing, name)
    yield from ((f".{name}", value) for name, value in getattr(thing, "__dict__", {}).items())


def calls_of(work: Callable[[], object]) -> int:
    """Return how many functions were called, those of C included."""
    count = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count
