"""The default detector over many rows at once: the definition without any shortcut, and rows of a release."""

from __future__ import annotations

import numpy as np

from detectors.base import Floats, Ints
from detectors.betting import advance, factors, predictive_mean, reaches
from detectors.rows.bank import BLOCK, empty_bank, run_of


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


def released(
    rng: np.random.Generator,
    inherited: int,
    rates: tuple[float, float],
    worse_by: float,
    promise: float,
    runs: int,
    limit: int,
) -> Ints:
    """Return after how many outcomes each run alarms, one more than `limit` where it does not.

    Args:
        rng: Source of the outcomes.
        inherited: How many outcomes the version inherits.
        rates: The rate of losses in these, and the version's own.
        worse_by: The rise that does not matter.
        promise: The evidence at which a run alarms.
        runs: How many rows are stepped.
        limit: Outcomes after which a run ends.
    """
    before, after = rates
    alarms, alive = np.full(runs, limit + 1), np.arange(runs)
    n = np.full(runs, float(inherited))
    bank = empty_bank(True, runs)
    bank.replace(alive, n, rng.binomial(inherited, before, runs).astype(np.float64))
    rows, places = np.repeat(np.arange(runs), BLOCK), np.tile(np.arange(BLOCK), runs)
    run, sizes = run_of(rows, places, 0, 1), np.full(runs, BLOCK)
    for seen in range(BLOCK, limit + 1, BLOCK):
        losses = (rng.random(runs * BLOCK) < after).astype(np.float64)
        with np.errstate(over="ignore", under="ignore"):
            bank.take(bank.path(run, losses, worse_by, True, whole=True), 0)
        bank.count(rows, losses, sizes)
        alarms[alive[reaches(bank.totals[alive], promise)]] = seen
        alive = np.flatnonzero(alarms > limit)
        if not alive.size:
            break
    return alarms
