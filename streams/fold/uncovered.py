"""From batches to outcomes: what a batch holds that was not applied yet."""

from collections import Counter
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.ledger.coverage import Coverage
from streams.ledger.records import Batch, Coded, Counted, Outcomes, PairColumns, Part, Unlabelled

#: A partition's number stands above its offsets, so that places order by append time, partition and offset.
OFFSET_BITS = 48
Mask = NDArray[np.bool_]
Use = Mask | slice
EVERYTHING = slice(None)


def outcomes_of(part: Part, batch: Batch, coverage: Coverage, width: int, clock: int) -> Outcomes:
    """Return the part's new outcomes as one record.

    Args:
        part: what the batch has of one model.
        batch: the batch it is in.
        coverage: what was applied of the batch's partition before.
        width: width of the model's cohorts in milliseconds, 0 without a maturity.
        clock: the source clock after the batch.
    """
    outcomes, pairs, unlabelled = part.outcomes, part.outcomes.pairs, part.outcomes.unlabelled
    seen = part.seen if unlabelled is None else unlabelled
    # The usual case is that all is new, in batches of few outcomes: then nothing is picked out, which would be copied.
    new_seen: Use = EVERYTHING
    new: Use = EVERYTHING
    if coverage.is_beyond(batch.base):
        # What was read of one log alone is a single prefix.
        new_seen = seen.position >= coverage.predictions
        new = coverage.fresh(outcomes.position, part.answered)
        if pairs is not None:
            pairs = _some_pairs(pairs, coverage.fresh(part.pair_predictions, part.pair_answered))
        if unlabelled is not None:
            unlabelled = _some_unlabelled(unlabelled, new_seen, part.pair_seen >= coverage.predictions)
    arms, seen_at = seen.arm[new_seen].tolist(), seen.predicted_at[new_seen].tolist()
    counted = Counter((arm, at // width if width else 0) for arm, at in zip(arms, seen_at, strict=True))
    above = batch.partition << OFFSET_BITS
    if unlabelled is not None:
        raised = _raised(unlabelled.pairs, above)
        unlabelled = msgspec.structs.replace(unlabelled, position=unlabelled.position + above, pairs=raised)
    return msgspec.structs.replace(
        outcomes,
        clock=clock,
        arm=outcomes.arm[new],
        predicted_at=outcomes.predicted_at[new],
        labelled_at=outcomes.labelled_at[new],
        position=outcomes.position[new] + above,
        losses=outcomes.losses[:, new],
        slices=[_some(column, new) for column in outcomes.slices],
        source=_some(outcomes.source, new),
        predictions=[(arm, cohort, count) for (arm, cohort), count in counted.items()],
        pairs=_raised(pairs, above),
        unlabelled=unlabelled,
    )


def counts_of(counted: Counted, coverage: Coverage) -> Iterator[tuple[str, int]]:
    """Yield the new changes of counts: (reason, change)."""
    new = coverage.fresh(counted.prediction, counted.feedback)
    # What comes from neither log has no place; its log's reader sees to it that it is told once.
    new |= (counted.prediction < 0) & (counted.feedback < 0)
    for code, change in zip(counted.reason.codes[new].tolist(), counted.change[new].tolist(), strict=True):
        yield str(counted.reason.values[code]), change


def _raised(pairs: PairColumns | None, above: int) -> PairColumns | None:
    return None if pairs is None else msgspec.structs.replace(pairs, position=pairs.position + above)


def _some_unlabelled(unlabelled: Unlabelled, use: Mask, use_pairs: Mask) -> Unlabelled:
    return Unlabelled(
        arm=unlabelled.arm[use],
        predicted_at=unlabelled.predicted_at[use],
        position=unlabelled.position[use],
        losses=unlabelled.losses[:, use],
        slices=[_some(column, use) for column in unlabelled.slices],
        pairs=None if unlabelled.pairs is None else _some_pairs(unlabelled.pairs, use_pairs),
    )


def _some(column: Coded, use: Use) -> Coded:
    return Coded(column.values, column.codes[use])


def _some_pairs(pairs: PairColumns, use: Mask) -> PairColumns:
    return PairColumns(
        shadow=pairs.shadow[use],
        live=pairs.live[use],
        predicted_at=pairs.predicted_at[use],
        position=pairs.position[use],
        excess=pairs.excess[:, use],
        slices=[_some(column, use) for column in pairs.slices],
    )
