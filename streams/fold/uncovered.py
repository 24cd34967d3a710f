"""From batches to outcomes: what a batch holds that was not applied yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Ints
from streams.evaluation.outcomes import Outcomes
from streams.ledger.coverage import Coverage
from streams.ledger.places import offsets_of
from streams.ledger.records import Batch, Coded, Counted, OutcomeRows, PairRows, Part, UnlabelledRows

OFFSET_BITS: Final = 48
"""A partition's number is put above the places in it: outcomes of one time are in the order of both, as one number."""

Mask: TypeAlias = NDArray[np.bool_]
Use: TypeAlias = Mask | slice
EVERYTHING: Final = slice(None)


def outcomes_of(part: Part, batch: Batch, coverage: Coverage, width: int, clock: int) -> Outcomes:
    """Return the part's outcomes that were not applied yet.

    Args:
        part: What the batch has of one model.
        batch: The batch it is in.
        coverage: What was applied of the batch's partition before.
        width: Width of the model's cohorts in milliseconds, 0 without a maturity.
        clock: The source clock after the batch.
    """
    rows, pairs, unlabelled = part.outcomes, part.pairs, part.unlabelled
    above = batch.partition << OFFSET_BITS
    partly = coverage if coverage.is_beyond(batch.base) else None
    # The usual case is that all is new, in batches of few outcomes: then nothing is picked out, which would be copied.
    some_pairs: Use = EVERYTHING
    if partly is not None:
        rows = _some_rows(rows, partly.fresh(rows.position, rows.labelled_by))
        if pairs is not None:
            some_pairs = partly.fresh(pairs.later, pairs.labelled_by)
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
        _predictions(part, partly, width),
        None if pairs is None else _some_pairs(pairs, some_pairs, above),
        None if unlabelled is None else _some_unlabelled(unlabelled, partly, above),
    )


def _predictions(part: Part, coverage: Coverage | None, width: int) -> list[tuple[int, int, int]]:
    """Return how many new predictions each arm made in each cohort: (arm, cohort, count)."""
    seen = part.seen if part.unlabelled is None else part.unlabelled
    arm, predicted_at = seen.arm, seen.predicted_at
    if coverage is not None:
        new = _unread(seen.position, coverage)
        arm, predicted_at = arm[new], predicted_at[new]
    if not arm.size:
        return []
    cohort = predicted_at // width if width else np.zeros_like(arm)
    first, arms = int(np.minimum.reduce(cohort)), len(part.arms)
    counts = np.bincount((cohort - first) * arms + arm)
    found = counts.nonzero()[0]
    by_key = zip(found.tolist(), counts[found].tolist(), strict=True)
    return [(key % arms, first + key // arms, count) for key, count in by_key]


def counts_of(counted: Counted, coverage: Coverage) -> Iterator[tuple[str, int]]:
    """Yield the new changes of counts: (reason, change)."""
    new = coverage.fresh(counted.prediction, counted.feedback)
    # What comes from neither log has no place; the reader of its own log counts it once.
    new |= (counted.prediction < 0) & (counted.feedback < 0)
    for code, change in zip(counted.reason.codes[new].tolist(), counted.change[new].tolist(), strict=True):
        yield str(counted.reason.values[code]), change


def _unread(positions: Ints, coverage: Coverage) -> Mask:
    """Return which predictions were not read yet: of one log alone a single prefix was."""
    return offsets_of(positions) >= coverage.predictions


def _some_rows(rows: OutcomeRows, use: Mask) -> OutcomeRows:
    return OutcomeRows(
        arm=rows.arm[use],
        predicted_at=rows.predicted_at[use],
        labelled_at=rows.labelled_at[use],
        position=rows.position[use],
        labelled_by=rows.labelled_by[use],
        losses=rows.losses[:, use],
        slices=[_some(column, use) for column in rows.slices],
        source=_some(rows.source, use),
    )


def _some(column: Coded, use: Use) -> Coded:
    return Coded(column.values, column.codes[use])


def _some_pairs(pairs: PairRows, use: Use, above: int) -> PairRows:
    return msgspec.structs.replace(
        pairs,
        shadow=pairs.shadow[use],
        live=pairs.live[use],
        predicted_at=pairs.predicted_at[use],
        position=pairs.position[use] + above,
        later=pairs.later[use],
        labelled_by=pairs.labelled_by[use],
        excess=pairs.excess[:, use],
        slices=[_some(column, use) for column in pairs.slices],
    )


def _some_unlabelled(rows: UnlabelledRows, coverage: Coverage | None, above: int) -> UnlabelledRows:
    pairs = rows.pairs
    use: Use = EVERYTHING if coverage is None else _unread(rows.position, coverage)
    if pairs is not None:
        pairs = _some_pairs(pairs, EVERYTHING if coverage is None else _unread(pairs.later, coverage), above)
    return UnlabelledRows(
        arm=rows.arm[use],
        predicted_at=rows.predicted_at[use],
        position=rows.position[use] + above,
        losses=rows.losses[:, use],
        slices=[_some(column, use) for column in rows.slices],
        pairs=pairs,
    )
