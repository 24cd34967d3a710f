"""Hold the input of a loss: columns of answers and truths, and the loss's name and bound."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Floats
from unship.events import Scalar

Kinds: TypeAlias = NDArray[np.uint8]
Objects: TypeAlias = NDArray[np.object_]

INTEGER, BOOLEAN, FLOAT, NOTHING, OTHER = range(5)
_KIND_OF: Final = {int: INTEGER, bool: BOOLEAN, float: FLOAT, type(None): NOTHING}


class Scalars(Sequence[Any]):
    """A column of values as numbers and their kinds; a value of kind `OTHER`, text or a list, is in `others`.

    Integers of the contract have at most 53 bits, so the number of a value is the value. As a sequence it gives the
    values as they were decoded.

    >>> list(scalars([1, True, 0.5, None, "a"]))
    [1, True, 0.5, None, 'a']
    """

    __slots__ = ("kinds", "numbers", "others")

    def __init__(self, numbers: Floats, kinds: Kinds, others: Objects | None = None) -> None:
        self.numbers = numbers
        self.kinds = kinds
        self.others = others

    def __len__(self) -> int:
        """Return how many values there are."""
        return self.kinds.size

    def __getitem__(self, place: Any) -> Any:
        """Return one value."""
        other = None if self.others is None else self.others[place]
        return _value(float(self.numbers[place]), int(self.kinds[place]), other)

    def __iter__(self) -> Iterator[Any]:
        """Yield the values."""
        others = [None] * len(self) if self.others is None else self.others.tolist()
        return map(_value, self.numbers.tolist(), self.kinds.tolist(), others)

    @property
    def numeric(self) -> bool:
        """Return whether every value is a number, true or false."""
        return self.others is None and not (self.kinds == NOTHING).any()

    def part(self, index: Any) -> Scalars:
        """Return the entries of an index, a slice or a mask."""
        return Scalars(self.numbers[index], self.kinds[index], None if self.others is None else self.others[index])


def _value(number: float, kind: int, other: Any) -> Any:
    if kind == INTEGER:
        return int(number)
    if kind == BOOLEAN:
        return bool(number)
    return number if kind == FLOAT else other


def scalars(values: Sequence[Any]) -> Scalars:
    """Return a column of decoded values."""
    size, types = len(values), set(map(type, values))
    if len(types) == 1 and (kind := _KIND_OF.get(next(iter(types)), OTHER)) < NOTHING:
        return Scalars(np.fromiter(values, np.float64, size), np.full(size, kind, np.uint8))
    kinds = np.fromiter((_KIND_OF.get(type(value), OTHER) for value in values), np.uint8, size)
    known = [value if kind < NOTHING else 0.0 for value, kind in zip(values, kinds.tolist(), strict=True)]
    others = None
    if OTHER in kinds:
        others = objects([value if kind == OTHER else None for value, kind in zip(values, kinds.tolist(), strict=True)])
    return Scalars(np.array(known, np.float64), kinds, others)


def objects(values: Sequence[Any]) -> Objects:
    """Return an array of objects."""
    found = np.empty(len(values), np.object_)
    # One by one, because an array would take lists of one length for another dimension.
    for place, value in enumerate(values):
        found[place] = value
    return found


def scalars_joined(columns: Sequence[Scalars]) -> Scalars:
    """Return columns one after the other."""
    if len(columns) == 1:
        return columns[0]
    others = None
    if any(column.others is not None for column in columns):
        others = np.concatenate([_objects(column) for column in columns])
    numbers = np.concatenate([column.numbers for column in columns])
    return Scalars(numbers, np.concatenate([column.kinds for column in columns]), others)


def _objects(column: Scalars) -> Objects:
    return np.full(column.kinds.size, None, np.object_) if column.others is None else column.others


class LossSpec(msgspec.Struct, frozen=True):
    """Name a loss, with its bound if it needs one, and with the digest of its source if it is the user's own."""

    name: str
    bound: float = 1.0
    # Unset is not encoded, so the losses of this package are recorded without it.
    code_digest: str | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="source")

    @property
    def binary(self) -> bool:
        """Return whether the loss is always 0 or 1."""
        return self.name in ("zero_one", "latency") or self.partial

    @property
    def partial(self) -> bool:
        """Return whether the loss is defined on some of the outcomes only, so that most of a column may be NaN."""
        return self.name in ("precision", "recall")

    @property
    def of_engagement(self) -> bool:
        """Return whether the loss needs no truth, only how much the answer was used."""
        return self.name == "engagement"

    @property
    def of_use(self) -> bool:
        """Return whether an answer that nobody used is as wrong as one can be."""
        return self.name in ("engagement", "ranking")

    @property
    def of_latency(self) -> bool:
        """Return whether the loss needs no label, only how long the answer took."""
        return self.name == "latency"

    @property
    def of_scores(self) -> bool:
        """Return whether the loss judges stated probabilities instead of the answer."""
        return self.name in ("brier", "log")


class JoinedColumns(msgspec.Struct, frozen=True):
    """Hold columns of joined pairs, each of the same length: answers and truths.

    `engagements` and `latencies` are only read where a loss is of them.
    """

    outputs: Sequence[Any]
    scores: Sequence[float | None]
    class_scores: Sequence[dict[str, float] | None]
    truths: Sequence[Any]
    engagements: Sequence[float | None] = ()
    latencies: Sequence[float | None] = ()


def class_of(value: Any) -> int | str | None:
    """Return the class of an answer or a truth in a binary target: 0, 1 or a text; None for a value that is no class.

    A number from 0 to 1 is a probability, cut at one half; -1 is "no", as classifiers with a margin write it. Any other
    number is a margin, a percentage or an amount, and to compare these for equality would call every answer wrong.

    >>> [class_of(value) for value in (1, True, 0.7, "1.0", -1, "ok", 2.7, [1])]
    [1, 1, 1, 1, 0, 'ok', None, None]
    """
    if isinstance(value, str):
        name = _text_name(value)
        return _NUMBERED.get(name, name)
    if isinstance(value, bool | int | float):
        if 0 <= value <= 1:
            return int(value >= 0.5)
        return 0 if value == -1 else None
    return None


def class_name(value: Scalar) -> str:
    """Return the name by which classes are compared.

    So `3`, `3.0`, `"3"` and `"3.0"` are one class, and so are the composed and the decomposed form of one text.

    >>> [class_name(value) for value in (3, 3.0, "3.0", "2.50", 2.5, True, "True", "007")]
    ['3', '3', '3', '2.5', '2.5', 'true', 'true', '007']
    """
    if isinstance(value, str):
        return _text_name(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


_NUMBERED: Final = {"0": 0, "1": 1, "-1": 0}
_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+", re.ASCII)
_CAPITAL: Final = {"True": "true", "False": "false"}


def _text_name(text: str) -> str:
    if text.isascii():
        # What Python writes for a truth value, and a number that came through a column of floats.
        return text.rstrip("0").removesuffix(".") if _DECIMAL.fullmatch(text) else _CAPITAL.get(text, text)
    return unicodedata.normalize("NFC", text)
