"""The rows of a generation as one array of records, which may lie outside memory; how is a driver's matter.

A record is written once when its prediction is read, and a second time when its label is. So from any later state the
rows at a corner can be had again: those that were added afterwards, and the labels whose positions are behind it, are
left out. `checksum` shows whether what remains is what was written.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[Any]
_Words: TypeAlias = NDArray[np.uint64]

ROW: Final = np.dtype([
    ("high", "<u8"), ("low", "<u8"), ("position", "<i8"), ("at", "<i8"), ("output", "<f8"), ("score", "<f8"),
    ("cell", "<i4"), ("kind", "u1"), ("zero", "u1"), ("unit", "<u2"),
    ("label_position", "<i8"), ("label_at", "<i8"), ("truth", "<f8"),
    ("source", "<i4"), ("truth_kind", "u1"), ("named", "?"), ("__", "V2"),
])  # fmt: skip
"""A prediction in 56 bytes and its label in 32: all that is read or written of one lies on one page, mostly.

`zero` is always that. Outside memory it is written ahead of a row that will be written anyway: so its page alone is
brought into memory, once, where reading it first would bring those around it, and writing it then take as long again.
"""

_PREDICTION: Final = slice(0, 7)
_LABEL: Final = slice(7, 11)
_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class DamagedRows(Exception):
    """Rows are not those that were stored."""


class Kept(NamedTuple):
    """Rows outside memory, and the name by which they are found again."""

    name: str
    rows: Rows


class RowStore(Protocol):
    """Keeps rows outside memory."""

    def keep(self, rows: Rows, used: int) -> Kept | None:
        """Return a copy of rows outside memory, of which so many are used; None if there is no room.

        All of it can be written.
        """

    def kept(self, name: str) -> Kept:
        """Return rows that an earlier run kept.

        Raises:
            DamagedRows: They are gone, or are no rows.
        """

    def touched(self, rows: int) -> None:
        """Note that so many rows, of any place, were read or written."""


def new_rows(rows: int) -> Rows:
    """Return rows in memory."""
    return np.zeros(rows, ROW)


def checksum_of_predictions(rows: Rows, begin: int, end: int) -> int:
    """Return the checksum of the predictions of a range; those of parts of a range add up, modulo 2^64."""
    return _sum(_words(rows[begin:end]), _PREDICTION, np.arange(begin, end))


def checksum_of_labels(rows: Rows, numbers: NDArray[np.int64]) -> int:
    """Return the checksum of the labels of some rows; those of different rows add up, modulo 2^64."""
    return _sum(_words(rows)[numbers], _LABEL, numbers)


def _words(rows: Rows) -> _Words:
    return rows.view("<u8").reshape(rows.size, ROW.itemsize // 8)


def _sum(words: _Words, columns: slice, numbers: NDArray[np.int64]) -> int:
    """Return the sum over rows of a mixture of each row's number and its words, in their order."""
    mixed = numbers.astype(np.uint64) + np.uint64(columns.stop)
    for word in words[:, columns].T:
        mixed = _mixed(mixed * _STEP + word)
    return int(np.add.reduce(mixed))


def _mixed(words: _Words) -> _Words:
    """Mix the bits of words: the last steps of SplitMix64 (Steele, Lea and Flood, 2014), in place."""
    for shift, factor in ((30, _MIX[0]), (27, _MIX[1])):
        words ^= words >> np.uint64(shift)
        words *= factor
    words ^= words >> np.uint64(31)
    return words
