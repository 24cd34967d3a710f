"""Choose which slices of a model are watched: the first to appear in the ledger, up to a cap, and `__other__`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec
import numpy as np

from detectors.base import Ints
from streams.config.resolved import OTHER
from streams.ledger.records import Coded, Scalar


class Stream(msgspec.Struct, frozen=True):
    """Hold a slice: one value of one dimension. The first stream of a model is the overall one, with no dimension."""

    dimension: str
    value: Scalar

    def describe(self) -> dict[str, Scalar] | None:
        """Return the slice as decisions print it; None for the overall stream."""
        return {self.dimension: self.value} if self.dimension else None


class SliceTable(msgspec.Struct, dict=True):
    """Number the streams of a model in the order of their appearance; number 0 is overall.

    Values beyond the cap go to the dimension's `__other__`, which is counted but has no share in the alarm.
    """

    dimensions: list[str]
    cap: int
    streams: list[Stream]
    named: int = 0

    def encode(self, dimension: int, column: Coded) -> Ints:
        """Return the stream number of each entry of a column, -1 where the prediction has no such slice."""
        if not column.values:
            return column.codes
        # The last is that of code -1.
        numbers = np.array([*[self._number(dimension, value) for value in column.values], -1], np.int64)
        return numbers[column.codes]

    def find(self, dimension: int, column: Coded) -> Ints:
        """Return the stream number of each entry of a column, -1 where it has none: no value gets a place by this."""
        name, numbers = self.dimensions[dimension], self._numbers
        other = numbers.get((name, str, OTHER), -1) if self.named >= self.cap else -1
        found = [numbers.get((name, type(value), value), other) for value in column.values]
        return np.array([*found, -1], np.int64)[column.codes]

    def known(self, dimension: int, values: Sequence[Scalar]) -> list[int] | None:
        """Return the stream numbers of values, None if one of them has none yet."""
        name, numbers = self.dimensions[dimension], self._numbers
        other = numbers.get((name, str, OTHER)) if self.named >= self.cap else None
        found = [numbers.get((name, type(value), value), other) for value in values]
        return None if None in found else [number for number in found if number is not None]

    def _number(self, dimension: int, value: Scalar) -> int:
        name, numbers = self.dimensions[dimension], self._numbers
        known = numbers.get((name, type(value), value))
        if known is None and self.named >= self.cap:
            value = OTHER
            known = numbers.get((name, str, value))
        if known is not None:
            return known
        self.named += value != OTHER
        numbers[name, type(value), value] = len(self.streams)
        self.streams.append(Stream(name, value))
        return len(self.streams) - 1

    @cached_property
    def _numbers(self) -> dict[tuple[str, type, Scalar], int]:
        """Return the number of each stream; a type is part of a value: true, 1 and "1" are three slices."""
        return {(stream.dimension, type(stream.value), stream.value): i for i, stream in enumerate(self.streams)}


def slice_table(dimensions: list[str], cap: int) -> SliceTable:
    """Return a table that knows only the overall stream.

    >>> table = slice_table(["country"], 1)
    >>> table.encode(0, Coded(["DE", "FR"], np.array([0, 1, -1]))).tolist()
    [1, 2, -1]
    >>> [stream.describe() for stream in table.streams]
    [None, {'country': 'DE'}, {'country': '__other__'}]
    """
    return SliceTable(dimensions, cap, [Stream("", "")])
