"""How many bytes joined rows take in a ledger record, and at which line a record would have more than it may.

A row counts as its numbers at eight bytes each and all of its text, and the first row of a model as the rest of its
part: that is never less than what is encoded. It adds up over lines, so where a record ends depends on the rows alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

import numpy as np

from detectors.base import Ints
from unship.budgets.table import LEDGER_RECORD

HEAD_BYTES: Final = 4_096
"""What a record has besides rows and counts; the fields of a batch, and the names of reasons."""

ROOM: Final = LEDGER_RECORD.limit - HEAD_BYTES

COUNT_BYTES: Final = 32
"""A change of a count: the numbers of its reason, its change and its place."""

FEW: Final = 16
"""So few rows fit in any record."""

Sizes = tuple[Ints, Ints, Ints]
"""Lines, bytes, and numbers of models of some rows; the number is -1 for a count, which is of no model."""


class RecordSizes:
    """The bytes of rows that are put into one record after the other: whether a record surely has room for its rows."""

    def __init__(self, rows: Sequence[Sizes], part_bytes: int) -> None:
        lines, sizes, models = (np.concatenate(column) for column in zip(*rows, strict=True))
        order = np.argsort(lines, kind="stable")
        self._lines: list[int] = lines[order].tolist()
        self._sums: list[int] = [0, *np.cumsum(sizes[order]).tolist()]
        self._parts = part_bytes * int((np.bincount(models) > 0).sum())
        self._begin = 0

    def fit(self, last: int, counts: int) -> bool:
        """Return whether one record has room for the next rows up to a line, and for so many changes of counts."""
        size = self._sums[bisect_right(self._lines, last)] - self._sums[self._begin]
        return size + self._parts + COUNT_BYTES * counts <= ROOM

    def cut(self, last: int) -> None:
        """Note that the rows up to a line are in a record."""
        self._begin = bisect_right(self._lines, last)


def line_beyond(rows: Sequence[Sizes], counts: int, part_bytes: int) -> int | None:
    """Return the first line of which a record has no room for all rows, None if there is none.

    A record has the rows of one line at least.

    Args:
        rows: Rows of several kinds; those of a kind in the order of lines.
        counts: Changes of counts that have no line.
        part_bytes: What the part of a model takes besides its rows.
    """
    if sum(lines.size for lines, _, _ in rows) <= FEW:
        return None
    lines, sizes, models = (np.concatenate(column) for column in zip(*rows, strict=True))
    room = ROOM - COUNT_BYTES * counts
    known = np.bincount(models + 1)
    if int(sizes.sum()) + part_bytes * int((known[1:] > 0).sum()) <= room:
        return None
    order = np.argsort(lines, kind="stable")
    lines, sizes, models = lines[order], sizes[order], models[order]
    _, first = np.unique(models, return_index=True)
    sizes[first[models[first] >= 0]] += part_bytes
    place = int(np.searchsorted(np.cumsum(sizes), room, side="right"))
    beyond = int(lines[min(place, lines.size - 1)])
    if beyond > lines[0]:
        return beyond
    place = int(np.searchsorted(lines, beyond, side="right"))
    return int(lines[place]) if place < lines.size else None
