"""Name the classes that were answered and that turned out true, as pairs: what a ledger record has of either side.

A record names a limited number of pairs, and long names are cut, with a digest that keeps different ones apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np

from detectors.base import Ints
from streams.losses.classes import classes_of_numbers
from streams.losses.columns import Scalars, class_name, class_of

ClassName: TypeAlias = int | str | None
"""A class as it is compared; None is a value that is no class, or a missing one."""

PAIRS_MAX: Final = 64
"""So many different pairs are named in a record of one model."""

NAME_BYTES: Final = 48
_CUT_BYTES, _DIGITS = 24, 16


def class_text(value: Any, kind: str) -> str | None:
    """Return the name of a class, None for a value that is none or where the target has no classes.

    >>> class_text(0.7, "binary"), class_text(2.5, "binary"), class_text("ok", "multiclass"), class_text([1], "ranking")
    ('1', None, 'ok', None)
    """
    if isinstance(value, list) or kind not in ("binary", "multiclass"):
        return None
    name = _binary_name(value) if kind == "binary" else _name(value)
    return None if name is None else str(name)


def pairs_of(answers: Scalars, truths: Scalars, kind: str) -> tuple[Ints, list[tuple[ClassName, ClassName]]]:
    """Return the number of each row's pair (answer, truth), and the pairs.

    >>> from streams.losses.columns import scalars
    >>> pairs_of(scalars(["ok", 1, "ok"]), scalars([0, 1.0, 0]), "binary")
    (array([0, 1, 0]), [('ok', 0), (1, 1)])
    """
    if kind == "binary" and answers.numeric and truths.numeric:
        return _of_numbers(answers, truths)
    name = _binary_name if kind == "binary" else _name
    known: dict[tuple[ClassName, ClassName], int] = {}
    rows = zip(_named(answers, name), _named(truths, name), strict=True)
    codes = [known.setdefault(pair, len(known)) for pair in rows]
    return np.array(codes, np.int64), list(known)


_NUMBERS: Final[tuple[ClassName, ...]] = (0, 1, None)
_OF_NUMBERS: Final = [(answer, truth) for answer in _NUMBERS for truth in _NUMBERS]


def _of_numbers(answers: Scalars, truths: Scalars) -> tuple[Ints, list[tuple[ClassName, ClassName]]]:
    columns = [np.nan_to_num(classes_of_numbers(column), nan=2.0) for column in (answers, truths)]
    return (3 * columns[0] + columns[1]).astype(np.int64), _OF_NUMBERS


def _named(column: Scalars, name: Callable[[Any], ClassName]) -> list[ClassName]:
    known: dict[tuple[type, Any], ClassName] = {}
    found: list[ClassName] = []
    for value in column:
        if isinstance(value, list):
            found.append(None)
            continue
        key = value.__class__, value
        if key not in known:
            known[key] = name(value)
        found.append(known[key])
    return found


def _binary_name(value: Any) -> ClassName:
    name = class_of(value)
    return _cut(name) if isinstance(name, str) else name


def _name(value: Any) -> ClassName:
    return None if value is None else _cut(class_name(value))


def _cut(name: str) -> str:
    """Return a name of limited length.

    >>> _cut("ok"), _cut("x" * 100)
    ('ok', 'xxxxxxxxxxxxxxxxxxxxxxxx…09ecb6ebc8bcefc7')
    """
    data = name.encode()
    if len(data) <= NAME_BYTES:
        return name
    return f"{data[:_CUT_BYTES].decode(errors='ignore')}…{hashlib.sha256(data).hexdigest()[:_DIGITS]}"
