"""Choose which slices and label sources of a model are watched: the first to appear in the ledger, up to a cap, and
`__other__`."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from detectors.base import Ints
from streams.ledger.records import Coded, Scalar
from unship.budgets.table import LABEL_SOURCES

OTHER = "__other__"
LABEL_SOURCES_MAX = LABEL_SOURCES.limit


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


class SourceTable(msgspec.Struct):
    """Number the label sources of a model in the order of their appearance; after the eighth, all are `__other__`."""

    names: list[Any]

    def encode(self, column: Coded) -> Ints:
        """Return the source number of each entry."""
        if not column.values:
            return column.codes
        numbers = []
        for value in column.values:
            if value not in self.names and len(self.names) <= LABEL_SOURCES_MAX:
                self.names.append(value if len(self.names) < LABEL_SOURCES_MAX else OTHER)
            numbers.append(self.names.index(value) if value in self.names else LABEL_SOURCES_MAX)
        return np.array(numbers, np.int64)[column.codes]
