"""From batches to outcomes: what a batch holds that was not applied yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np

from detectors.base import Bools, Ints
from streams.evaluation.outcomes import Asked, Outcomes
from streams.ledger.coverage import Coverage
from streams.ledger.places import offsets_of
from streams.ledger.records import Batch, Counted, PairRows, Part, UnlabelledRows

OFFSET_BITS: Final = 48
"""A partition's number is put above the places in it: outcomes of one time are in the order of both, as one number."""


def outcomes_of(part: Part, batch: Batch, coverage: Coverage, width: int, clock: int) -> Outcomes:
    """Return the part's outcomes that were not applied yet.

    Args:
        part: What the batch has of one model.
        batch: The batch it is in.
        coverage: What was applied of the batch's partition before.
        width: Width of the intervals by which the model's predictions are counted, in milliseconds.
        clock: The source clock after the batch.
    """
    rows, pairs, unlabelled = part.outcomes, part.pairs, part.unlabelled
    above = above_places(batch.partition)
    partly = coverage if coverage.is_beyond(batch.base) else None
    # The usual case is that all is new, in batches of few outcomes: then nothing is picked out, which would be copied.
    if partly is not None:
        rows = rows.chosen(partly.fresh(rows.position, rows.labelled_by))
        if pairs is not None:
            pairs = pairs.chosen(partly.fresh(pairs.later, pairs.labelled_by))
        if unlabelled is not None:
            unlabelled = _unread_rows(unlabelled, partly)
    asked = _asked(part, partly)
    return Outcomes(
        part.model,
        clock,
        part.arms,
        rows.arm,
        rows.predicted_at,
        rows.labelled_at,
        rows.position + above,
        rows.losses,
        rows.slices,
        rows.source,
        _predictions(asked, len(part.arms), width),
        asked,
        None if pairs is None else _placed_pairs(pairs, above),
        None if unlabelled is None else _placed_unlabelled(unlabelled, above),
        rows.classes,
        rows.unit,
    )


def above_places(partition: int) -> int:
    """Return what is added to a place for its partition."""
    return partition << OFFSET_BITS


def _predictions(asked: Asked, arms: int, width: int) -> list[tuple[int, int, int]]:
    """Return how many new predictions each arm made in each cohort: (arm, cohort, count)."""
    if not asked.arm.size:
        return []
    cohort = asked.predicted_at // width
    first = int(np.minimum.reduce(cohort))
    counts = np.bincount((cohort - first) * arms + asked.arm)
    found = counts.nonzero()[0]
    by_key = zip(found.tolist(), counts[found].tolist(), strict=True)
    return [(key % arms, first + key // arms, count) for key, count in by_key]


def _asked(part: Part, coverage: Coverage | None) -> Asked:
    """Return the new predictions."""
    seen = part.seen if part.unlabelled is None else part.unlabelled
    asked = Asked(seen.arm, seen.predicted_at, seen.slices, seen.answer)
    return asked if coverage is None else asked.chosen(_unread(seen.position, coverage))


def counts_of(counted: Counted, coverage: Coverage) -> Iterator[tuple[str, int]]:
    """Yield the new changes of counts: (reason, change)."""
    new = coverage.fresh(counted.prediction, counted.feedback)
    # What comes from neither log has no place; the reader of its own log counts it once.
    new |= (counted.prediction < 0) & (counted.feedback < 0)
    for code, change in zip(counted.reason.codes[new].tolist(), counted.change[new].tolist(), strict=True):
        yield str(counted.reason.values[code]), change


def _unread(positions: Ints, coverage: Coverage) -> Bools:
    """Return which predictions were not read yet: of one log alone a single prefix was."""
    return offsets_of(positions) >= coverage.predictions


def _placed_pairs(pairs: PairRows, above: int) -> PairRows:
    return msgspec.structs.replace(pairs, position=pairs.position + above)


def _placed_unlabelled(rows: UnlabelledRows, above: int) -> UnlabelledRows:
    pairs = None if rows.pairs is None else _placed_pairs(rows.pairs, above)
    return msgspec.structs.replace(rows, position=rows.position + above, pairs=pairs)


def _unread_rows(rows: UnlabelledRows, coverage: Coverage) -> UnlabelledRows:
    pairs = None if rows.pairs is None else rows.pairs.chosen(_unread(rows.pairs.later, coverage))
    return rows.chosen(_unread(rows.position, coverage), pairs)
