"""The ledger as lines of a recording: what makes a recording complete without its sources."""

import msgspec
import numpy as np

from detectors.base import Floats, Ints
from streams.ledger.encoding import from_json, to_json
from streams.ledger.records import Batch, Coded, Outcomes, PairColumns, Part, Record
from unship.errors import RecordingError

UNPLACED = -1


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="ledger"):
    """One ledger record with its offset, which its writer may not know: then only its place in the log tells it."""

    offset: int = UNPLACED
    record: Record


def ledger_line(offset: int, record: Record) -> bytes:
    """Return a ledger record as one line, without a line feed."""
    return to_json(LedgerLine(offset=offset, record=record))


def ledger_value(record: Record) -> bytes:
    """Return a ledger record for a log that gives the offset only as it appends."""
    return ledger_line(UNPLACED, record)


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
    seen, outcomes, unlabelled = part.seen, part.outcomes, part.outcomes.unlabelled
    count = _size(outcomes.pairs)
    fits = part.answered.size == outcomes.arm.size and part.pair_predictions.size == part.pair_answered.size == count
    if unlabelled is not None:
        fits = fits and not seen.arm.size and part.pair_seen.size == _size(unlabelled.pairs)
    fits = fits and seen.predicted_at.size == seen.position.size == seen.arm.size
    return fits and _codes_fit(seen.arm, len(outcomes.arms)) and _outcomes_fit(outcomes)


def _outcomes_fit(record: Outcomes) -> bool:
    arms, found = len(record.arms), record.unlabelled
    fits = _rows_fit(record.arm, arms, record.predicted_at, record.position, record.losses, record.slices)
    fits = fits and record.labelled_at.size == record.source.codes.size == record.arm.size
    # A label has a source; without one a row would pass for a prediction without a label.
    fits = fits and _codes_fit(record.source.codes, len(record.source.values))
    fits = fits and all(0 <= arm < arms and count >= 0 for arm, _, count in record.predictions)
    fits = fits and _pairs_fit(record.pairs, arms)
    if found is not None:
        fits = fits and _rows_fit(found.arm, arms, found.predicted_at, found.position, found.losses, found.slices)
        fits = fits and found.losses.shape[0] == record.losses.shape[0] and len(found.slices) == len(record.slices)
        fits = fits and _pairs_fit(found.pairs, arms)
    return fits


def _rows_fit(arm: Ints, arms: int, predicted_at: Ints, position: Ints, losses: Floats, slices: list[Coded]) -> bool:
    lengths = [predicted_at.size, position.size, *(column.codes.size for column in slices)]
    if losses.ndim != 2 or any(length != arm.size for length in (*lengths, losses.shape[1])):
        return False
    if not arm.size:
        return True
    bounded = np.isnan(losses) | ((losses >= 0) & (losses <= 1))
    inside = _codes_fit(arm, arms) and all(_coded_fits(column) for column in slices)
    return inside and bool(bounded.all()) and bool((predicted_at >= 0).all())


def _size(pairs: PairColumns | None) -> int:
    return 0 if pairs is None else pairs.live.size


def _pairs_fit(pairs: PairColumns | None, arms: int) -> bool:
    if pairs is None:
        return True
    lengths = [pairs.shadow.size, pairs.predicted_at.size, pairs.position.size, *(c.codes.size for c in pairs.slices)]
    if pairs.excess.ndim != 2 or any(length != pairs.live.size for length in (*lengths, pairs.excess.shape[1])):
        return False
    inside = _codes_fit(pairs.live, arms) and _codes_fit(pairs.shadow, arms)
    return inside and all(_coded_fits(column) for column in pairs.slices)


def _codes_fit(codes: Ints, size: int, least: int = 0) -> bool:
    if codes.size < 2:
        # Parts of a batch have a row or none, as a rule, and asking arrays costs more than reading them.
        return not codes.size or least <= codes.item() < size
    return bool(codes.min() >= least and codes.max() < size)


def _coded_fits(column: Coded) -> bool:
    return _codes_fit(column.codes, len(column.values), -1)
