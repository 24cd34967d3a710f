"""Ledger records as the bytes that a log holds; digests are of these bytes."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
from msgspec import UNSET

from detectors.base import Floats, Ints
from streams.ledger.encoding import pack, unpack
from streams.ledger.records import (
    Batch,
    Coded,
    OutcomeRows,
    PairRows,
    Pairs,
    Part,
    PredictionRows,
    Record,
    UnlabelledRows,
)
from unship.budgets.table import UNITS
from unship.errors import RecordingError


class EarlierLedger(RecordingError):
    """A ledger was written by an earlier version of the program, whose records this one does not read."""


class Entry(NamedTuple):
    """A ledger record with the bytes that the log holds of it."""

    record: Record
    value: bytes


def entry_of(record: Record) -> Entry:
    """Encode a record: MessagePack, with columns as little-endian bytes."""
    return Entry(record, pack(record))


def read_entry(value: bytes | None) -> Entry:
    """Read what `entry_of` encoded.

    Raises:
        EarlierLedger: The record is one of text, as earlier versions wrote them.
        RecordingError: The bytes do not fit, or their columns contradict each other.
    """
    data = value or b""
    if data[:1] == b"{":
        raise EarlierLedger(
            "the ledger was written by an earlier version of this program, which alone can go on with it or audit it; "
            "begin a new ledger, as docs/how-to/upgrade.md shows"
        )
    try:
        record = cast(Record, unpack(data, cast(Any, Record), writable=False))
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        raise RecordingError(f"a ledger record cannot be read: {error}") from error
    return Entry(checked(record), data)


def checked(record: Record) -> Record:
    """Return a record whose columns fit together.

    Raises:
        RecordingError: They contradict each other.
    """
    if isinstance(record, Batch) and not _batch_fits(record):
        raise RecordingError("a ledger record cannot be read: its columns contradict each other")
    return record


def _batch_fits(batch: Batch) -> bool:
    counted = batch.counted
    size = counted.change.size
    fits = counted.reason.codes.size == counted.prediction.size == counted.feedback.size == size
    fits = fits and _codes_fit(counted.reason.codes, len(counted.reason.values))
    fits = fits and batch.base[0] <= batch.end[0] and batch.base[1] <= batch.end[1]
    return fits and all(_part_fits(part) for part in batch.parts)


def _part_fits(part: Part) -> bool:
    rows, seen, unlabelled, arms = part.outcomes, part.seen, part.unlabelled, len(part.arms)
    fits = _rows_fit(rows, arms) and rows.labelled_at.size == rows.labelled_by.size == rows.arm.size
    fits = fits and rows.source.codes.size == rows.arm.size and _sources_fit(rows)
    fits = fits and (rows.classes is None or _classes_fit(rows.classes, rows.arm.size))
    fits = fits and seen.predicted_at.size == seen.position.size == seen.arm.size and _codes_fit(seen.arm, arms)
    fits = fits and all(_column_fits(column, seen.arm.size) for column in (*seen.slices, *_answer(seen)))
    fits = fits and _pairs_fit(part.pairs, arms)
    if unlabelled is not None:
        fits = fits and not seen.arm.size and _rows_fit(unlabelled, arms) and _pairs_fit(unlabelled.pairs, arms)
        fits = fits and unlabelled.losses.shape[0] == rows.losses.shape[0]
        fits = fits and len(unlabelled.slices) == len(rows.slices)
        fits = fits and all(_column_fits(column, unlabelled.arm.size) for column in _answer(unlabelled))
    return fits


def _rows_fit(rows: OutcomeRows | UnlabelledRows, arms: int) -> bool:
    size, losses = rows.arm.size, rows.losses
    if losses.ndim != 2 or not size == losses.shape[1] == rows.predicted_at.size == rows.position.size:
        return False
    if any(column.codes.size != size for column in rows.slices) or not _units_fit(rows):
        return False
    if not size:
        return True
    inside = _codes_fit(rows.arm, arms) and all(_coded_fits(column) for column in rows.slices)
    return inside and _bounded(losses) and int(np.minimum.reduce(rows.predicted_at)) >= 0


def _units_fit(rows: OutcomeRows | UnlabelledRows) -> bool:
    return rows.unit is UNSET or (rows.unit.size == rows.arm.size and _codes_fit(rows.unit, UNITS.limit + 1))


def _sources_fit(rows: OutcomeRows) -> bool:
    """Return whether each label has a source; only one that was taken back has none, and no loss either."""
    if _codes_fit(rows.source.codes, len(rows.source.values)):
        return True
    return _coded_fits(rows.source) and bool(np.isnan(rows.losses[:, rows.source.codes < 0]).all())


def _bounded(losses: Floats) -> bool:
    # NaN is neither.
    return not (np.count_nonzero(losses < 0) or np.count_nonzero(losses > 1))


def _pairs_fit(pairs: PairRows | None, arms: int) -> bool:
    if pairs is None:
        return True
    columns = (pairs.shadow, pairs.predicted_at, pairs.position, pairs.later, pairs.labelled_by)
    lengths = [*(column.size for column in columns), *(column.codes.size for column in pairs.slices)]
    if pairs.excess.ndim != 2 or any(length != pairs.live.size for length in (*lengths, pairs.excess.shape[1])):
        return False
    inside = _codes_fit(pairs.live, arms) and _codes_fit(pairs.shadow, arms)
    return inside and all(_coded_fits(column) for column in pairs.slices)


def _codes_fit(codes: Ints, size: int) -> bool:
    if codes.size < 2:
        # Most parts of a batch have at most one row, where the maximum of an array costs more than its item.
        return not codes.size or 0 <= codes.item() < size
    # Without a sign, what is below 0 is above everything else.
    return int(np.maximum.reduce(codes.view(np.uint64))) < size


def _answer(rows: PredictionRows | UnlabelledRows) -> list[Coded]:
    return [] if rows.answer is None else [rows.answer]


def _column_fits(column: Coded, size: int) -> bool:
    return column.codes.size == size and _coded_fits(column)


def _classes_fit(classes: Pairs, size: int) -> bool:
    return classes.codes.size == size and _codes_fit(classes.codes + 1, len(classes.pairs) + 1)


def _coded_fits(column: Coded) -> bool:
    return _codes_fit(column.codes + 1, len(column.values) + 1)
