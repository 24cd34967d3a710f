"""Records of one source log as columns: what a driver passes to the join, without an object for each record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from detectors.base import Ints


class SourceRecords(msgspec.Struct, frozen=True):
    """Records of one log in the order of their offsets, which rise and may have gaps.

    `offsets` and `append_ts` (milliseconds) are int64, one for each of `values`.
    """

    offsets: Ints
    append_ts: Ints
    values: list[bytes | None]

    def __len__(self) -> int:
        """Return how many records these are."""
        return len(self.values)


def joined(parts: Sequence[SourceRecords]) -> SourceRecords:
    """Return all records of some parts of a log, which follow one another.

    >>> part = SourceRecords(np.array([4]), np.array([1_000]), [b"x"])
    >>> joined([part, SourceRecords(np.array([6]), np.array([1_002]), [None])]).values
    [b'x', None]
    """
    if len(parts) == 1:
        return parts[0]
    return SourceRecords(
        np.concatenate([part.offsets for part in parts]),
        np.concatenate([part.append_ts for part in parts]),
        [value for part in parts for value in part.values],
    )


def columns_of(records: Sequence[Any]) -> SourceRecords:
    """Return single records, each with an offset, a timestamp and a value, as columns."""
    return SourceRecords(
        np.array([record.offset for record in records], np.int64),
        np.array([record.timestamp for record in records], np.int64),
        [record.value for record in records],
    )
