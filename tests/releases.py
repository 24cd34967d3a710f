"""Runs of a version that was just released and is judged by what it inherited, as rows of one bank."""

from __future__ import annotations

import numpy as np

from detectors.base import Ints
from detectors.betting import reaches
from detectors.rows.bank import BLOCK, empty_bank, run_of


def first_alarms(
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
