"""The default detector over many rows at once, one outcome of each at a time: the definition, without any shortcut."""

from __future__ import annotations

import numpy as np

from detectors.base import Floats
from detectors.betting import advance, factors, predictive_mean


def step_rows(
    evidence: Floats,
    losses_sum: Floats,
    count: Floats,
    losses: Floats,
    grid: Floats,
    worse_by: float = 0.0,
    cap: float = 20_000.0,
) -> tuple[Floats, Floats, Floats]:
    """Judge one outcome of every row against the row's baseline, then let the outcome join the baseline.

    Rows are independent streams; a detector object is the case of one row.

    Args:
        evidence: shape (r, K).
        losses_sum: shape (r,), sum of the losses in the baseline.
        count: shape (r,), outcomes in the baseline.
        losses: shape (r,), one loss per row.
        grid: shape (K,).
        worse_by: the rise that does not matter.
        cap: most outcomes in a baseline; beyond it old ones fade so that the newest weigh most.

    Returns:
        The new evidence, sum and count.
    """
    mean = predictive_mean(losses_sum, count, worse_by)
    grown = advance(evidence, np.ones_like(losses), factors(losses, mean, grid))
    joined_sum, joined_count = _join_baseline(losses_sum, count, losses, cap)
    return grown, joined_sum, joined_count


def _join_baseline(losses_sum: Floats, count: Floats, losses: Floats, cap: float) -> tuple[Floats, Floats]:
    """Return sum and count of a baseline after one more outcome, faded to at most ``cap`` outcomes."""
    joined_sum = losses_sum + losses
    joined_count = count + 1.0
    faded_sum = np.where(joined_count > cap, joined_sum * (cap / joined_count), joined_sum)
    return faded_sum, np.minimum(joined_count, cap)
