"""Records of one source partition as a log holds them, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from detectors.base import Ints


class SourceRecords(NamedTuple):
    """Consecutive records: their offsets, their append times in milliseconds, and their values."""

    offsets: Ints
    append_ts: Ints
    values: list[bytes | None]

    def part(self, begin: int, end: int) -> SourceRecords:
        """Return the records of a range of places."""
        return SourceRecords(self.offsets[begin:end], self.append_ts[begin:end], self.values[begin:end])


def source_records(offsets: Sequence[int], append_ts: Sequence[int], values: list[bytes | None]) -> SourceRecords:
    """Return records from lists of numbers."""
    return SourceRecords(np.array(offsets, np.int64), np.array(append_ts, np.int64), values)
