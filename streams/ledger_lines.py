"""The ledger as lines of a recording: what makes a recording complete without its sources."""

import msgspec
import numpy as np

from streams.arrays import from_json, to_json
from streams.records import Batch, Coded, Ints, Outcomes, Part, Record
from unship.errors import RecordingError


class LedgerLine(msgspec.Struct, frozen=True, tag_field="type", tag="ledger"):
    """One ledger record with its offset."""

    offset: int
    record: Record


def ledger_line(offset: int, record: Record) -> bytes:
    """Return a ledger record as one line, without a line feed."""
    return to_json(LedgerLine(offset, record))


def read_ledger_line(line: bytes) -> LedgerLine:
    """Read what `ledger_line` wrote.

    Raises:
        RecordingError: if the line does not fit, or its columns contradict each other.
    """
    try:
        read: LedgerLine = from_json(line, LedgerLine)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RecordingError(f"a ledger line cannot be read: {error}") from error
    if isinstance(read.record, Outcomes):
        fits = _outcomes_fit(read.record)
    else:
        fits = not isinstance(read.record, Batch) or _batch_fits(read.record)
    if not fits:
        raise RecordingError(f"ledger record {read.offset}: its columns contradict each other")
    return read


def _batch_fits(batch: Batch) -> bool:
    counted = batch.counted
    size = counted.change.size
    fits = counted.reason.codes.size == counted.prediction.size == counted.feedback.size == size
    fits = fits and bool((counted.reason.codes >= 0).all()) and _coded_fits(counted.reason)
    fits = fits and batch.base[0] <= batch.end[0] and batch.base[1] <= batch.end[1]
    return fits and all(_part_fits(part) for part in batch.parts)


def _part_fits(part: Part) -> bool:
    seen, outcomes, pairs = part.seen, part.outcomes, part.outcomes.pairs
    count = 0 if pairs is None else pairs.live.size
    fits = part.answered.size == outcomes.arm.size and part.pair_predictions.size == part.pair_answered.size == count
    fits = fits and seen.predicted_at.size == seen.position.size == seen.arm.size
    return fits and _codes_fit(seen.arm, len(outcomes.arms)) and _outcomes_fit(outcomes)


def _outcomes_fit(record: Outcomes) -> bool:
    size, arms = record.arm.size, len(record.arms)
    lengths = [record.predicted_at.size, record.labelled_at.size, record.position.size, record.source.codes.size]
    lengths += [column.codes.size for column in record.slices]
    bounded = np.isnan(record.losses) | ((record.losses >= 0) & (record.losses <= 1))
    fits = record.losses.ndim == 2 and record.losses.shape[1] == size and all(length == size for length in lengths)
    fits = fits and bool(bounded.all()) and bool((record.predicted_at >= 0).all())
    inside = _codes_fit(record.arm, arms) and all(_coded_fits(column) for column in (*record.slices, record.source))
    counted = all(0 <= arm < arms and count >= 0 for arm, _, count in record.predictions)
    if record.pairs is not None:
        pairs = record.pairs
        columns = [
            pairs.shadow.size,
            pairs.predicted_at.size,
            pairs.position.size,
            *(c.codes.size for c in pairs.slices),
        ]
        fits = fits and pairs.excess.ndim == 2 and all(n == pairs.live.size for n in (*columns, pairs.excess.shape[1]))
        inside = inside and _codes_fit(pairs.live, arms) and _codes_fit(pairs.shadow, arms)
        inside = inside and all(_coded_fits(column) for column in pairs.slices)
    return fits and inside and counted


def _codes_fit(codes: Ints, size: int) -> bool:
    return bool((codes >= 0).all() and (codes < size).all())


def _coded_fits(column: Coded) -> bool:
    return bool((column.codes >= -1).all() and (column.codes < len(column.values)).all())
