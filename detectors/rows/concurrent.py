"""Compare the live version with a holdback or a shadow, on outcomes of the same time: is that one better now?

One row for each stream and loss. Split traffic is compared in blocks of time: both arms of one sub-interval of a cohort
make a block; where one arm is still missing, the block goes on into the next sub-interval, because a block's size may
depend on counts but not on losses. A shadow answers the same requests, so it is compared request by request.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Bools, Floats, Ints
from detectors.betting import predictive_mean, total
from detectors.comparison import BETS, advance_comparison, pair_factors, two_sample_factors
from detectors.rows.bank import BLOCK
from detectors.rows.types import Entries, sums_by
from detectors.rows.units import UnitCounts, new_unit_counts, weights_of

SUB_INTERVALS = 6
#: A block that waits longer than this for its other arm is dropped: it would compare different times.
WAIT_MAX = 20 * SUB_INTERVALS
POOL_CAP = 20_000.0
#: How many outcomes, and how many intervals, may wait to be stepped.
WAITING_OUTCOMES_MAX = 1_024
WAITING_MAX = 64


class Interval(msgspec.Struct, frozen=True):
    """Hold the outcomes of both arms in one cohort that begins at `begin` and is `width` wide (ms)."""

    target: Entries
    candidate: Entries
    begin: int
    width: int


class Comparison(msgspec.Struct):
    """Hold evidence that the live version is worse than `target`, from the target's first outcome on.

    Arrays have shape (losses, streams); `evidence` has (losses, streams, bets). `open_block` arrays are the block being
    filled: counts and losses of the target, then of the candidate. `waiting` are intervals that are not stepped yet:
    the evidence is read only when something is wrong, and many cost little more than one. `units` is None as long as no
    outcome had a unit.
    """

    target: str
    role: str
    evidence: NDArray[np.float64]
    pooled_n: NDArray[np.float64]
    pooled_k: NDArray[np.float64]
    open_block: NDArray[np.float64]
    waited: NDArray[np.float64]
    waiting: list[Interval] = []
    waiting_outcomes: int = 0
    units: UnitCounts | None = None

    def fit(self, streams: int) -> None:
        """Make room for streams that have appeared."""
        missing = streams - self.evidence.shape[1]
        if missing <= 0:
            return
        self.evidence = np.pad(self.evidence, ((0, 0), (0, missing), (0, 0)))
        self.pooled_n = np.pad(self.pooled_n, ((0, 0), (0, missing)))
        self.pooled_k = np.pad(self.pooled_k, ((0, 0), (0, missing)))
        self.open_block = np.pad(self.open_block, ((0, 0), (0, 0), (0, missing)))
        self.waited = np.pad(self.waited, ((0, 0), (0, missing)))
        if self.units is not None:
            self.units.fit(streams)

    def value(self, loss: int, stream: int) -> float:
        """Return the present evidence of one row."""
        self.settle()
        return float(total(self.evidence[loss, stream]))

    def units_in(self, stream: int) -> tuple[int, int] | None:
        """Return how many units the target and the candidate answered in a stream, None if nobody named units."""
        self.settle()
        return None if self.units is None else self.units.count(stream)

    def add(self, target: Entries, candidate: Entries, begin: int, width: int) -> None:
        """Add one cohort that begins at `begin` and is `width` wide (ms); width 0 is a single block."""
        size = target.source.size + candidate.source.size
        if not size:
            return
        self.waiting.append(Interval(target, candidate, begin, width))
        self.waiting_outcomes += size
        if self.waiting_outcomes >= WAITING_OUTCOMES_MAX or len(self.waiting) >= WAITING_MAX:
            self.settle()

    def settle(self) -> None:
        """Step all rows with the intervals that wait, in their order."""
        if not self.waiting:
            return
        waiting, self.waiting, self.waiting_outcomes = self.waiting, [], 0
        subs = [SUB_INTERVALS if interval.width else 1 for interval in waiting]
        sums = np.zeros((2, sum(subs), 2, *self.waited.shape))
        for arm, name in zip(sums, ("target", "candidate"), strict=True):
            _add(arm, [getattr(interval, name) for interval in waiting], waiting, subs)
        self._count_units(waiting)
        # Shape (sub-intervals, arms x (counts, losses), losses, streams).
        blocks = sums.transpose(1, 0, 2, 3, 4).reshape(-1, *self.open_block.shape)
        steps = [step for block in blocks[blocks.any(axis=(1, 2, 3))] if (step := self._fill(block)) is not None]
        if not steps:
            return
        n_target, k_target, n_candidate, k_candidate = np.concatenate([step[1] for step in steps], axis=1)
        mean = np.concatenate([step[2] for step in steps])
        factor, first = two_sample_factors(n_target, k_target, n_candidate, k_candidate, mean), 0
        for ready, _, usual in steps:
            mine = factor[first : first + usual.size]
            self.evidence[ready] = advance_comparison(self.evidence[ready], mine)
            first += usual.size

    def _count_units(self, waiting: list[Interval]) -> None:
        """Count the units of intervals, from the first one on in which an outcome has a unit."""
        if self.units is None:
            named = [each.target.unit is not None or each.candidate.unit is not None for each in waiting]
            if not any(named):
                return
            self.units = new_unit_counts(self.waited.shape[1])
            waiting = waiting[named.index(True) :]
        self.units.add(0, [interval.target for interval in waiting])
        self.units.add(1, [interval.candidate for interval in waiting])

    def _fill(self, sums: Floats) -> tuple[Bools, Floats, Floats] | None:
        """Add one sub-interval, shape (arms x 2, losses, streams); return what steps, if some rows now have both arms.

        That is which rows, counts and losses of both arms in their blocks, and the mean of both before.
        """
        self.open_block += sums
        n_target, _, n_candidate, _ = self.open_block
        has_target, has_candidate = n_target > 0, n_candidate > 0
        ready = has_target & has_candidate
        self.waited += has_target | has_candidate
        step = None
        if np.count_nonzero(ready):
            arms = self.open_block[:, ready]
            n, k = self.pooled_n[ready], self.pooled_k[ready]
            step = ready, arms, predictive_mean(k, n)
            n += arms[0] + arms[2]
            k += arms[1] + arms[3]
            if np.maximum.reduce(n) > POOL_CAP:
                over = n > POOL_CAP
                k[over] *= POOL_CAP / n[over]
                n[over] = POOL_CAP
            self.pooled_n[ready], self.pooled_k[ready] = n, k
        done = ready | (self.waited >= WAIT_MAX)
        self.open_block[:, done] = 0.0
        self.waited[done] = 0.0
        return step

    def step_pairs(self, streams: Ints, excess: Floats) -> None:
        """Step all rows with requests that both versions answered.

        Args:
            streams: shape (1 + dimensions, pairs), -1 where there is none.
            excess: shape (losses, pairs), loss of the live version minus loss of the shadow.
        """
        for begin in range(0, excess.shape[1], BLOCK):
            part = streams[:, begin : begin + BLOCK]
            place = np.broadcast_to(np.arange(begin, begin + part.shape[1]), part.shape)
            for loss in range(excess.shape[0]):
                use = (part >= 0) & ~np.isnan(excess[loss, place])
                rows, order = part[use], np.argsort(part[use], kind="stable")
                if not rows.size:
                    continue
                rows = rows[order]
                edges = np.flatnonzero(np.diff(rows, prepend=-1))
                factor = np.multiply.reduceat(pair_factors(excess[loss, place[use][order]]), edges, axis=0)
                mine = rows[edges]
                self.evidence[loss, mine] = advance_comparison(self.evidence[loss, mine], factor)


def _add(sums: Floats, arm: list[Entries], waiting: list[Interval], subs: list[int]) -> None:
    """Write an arm's counts and losses by sub-interval, shape (sub-intervals, 2, losses, streams)."""
    size, streams = sums.shape[0] * sums.shape[3], sums.shape[3]
    first, blocks = 0, []
    for entries, interval, own in zip(arm, waiting, subs, strict=True):
        if own == 1:
            blocks.append(np.full(entries.source.size, first))
        else:
            sub = (entries.predicted_at - interval.begin) * SUB_INTERVALS // interval.width
            blocks.append(np.clip(sub, 0, own - 1) + first)
        first += own
    row = np.concatenate([entries.streams for entries in arm], axis=1)
    block = np.concatenate(blocks)
    known = (row >= 0).reshape(-1).nonzero()[0]
    place, stream = known % max(block.size, 1), row.reshape(-1)[known]
    cell = block[place] * streams + stream
    counts = np.bincount(cell, minlength=size)
    losses = np.concatenate([entries.losses for entries in arm], axis=1)
    if any(entries.unit is not None for entries in arm):
        columns = _sums_by_units(losses[:, place], cell, size, _numbers_of(arm, streams, stream, place))
    else:
        columns = sums_by(losses[:, place], cell, size, counts)
    sums[:] = np.reshape(columns, (2, -1, sums.shape[0], streams)).transpose(2, 0, 1, 3)


def _numbers_of(arm: list[Entries], streams: int, stream: Ints, place: Ints) -> tuple[Ints, Ints]:
    """Return the number of the interval and stream that each outcome of each stream is in, and that of its unit."""
    interval = np.repeat(np.arange(len(arm)), [entries.source.size for entries in arm])
    unit = [np.zeros(entries.source.size, np.int64) if entries.unit is None else entries.unit for entries in arm]
    return interval[place] * streams + stream, np.concatenate(unit)[place]


def _sums_by_units(losses: Floats, cell: Ints, size: int, numbers: tuple[Ints, Ints]) -> list[Floats]:
    """Return the counts and then the sums by cell of each row of losses, each unit once in an interval."""
    weights = weights_of(losses, *numbers)
    weighted = np.where(weights > 0, losses * weights, 0.0)
    found: list[Any] = [np.bincount(cell, weights=each, minlength=size) for each in (*weights, *weighted)]
    return found


def new_comparison(target: str, role: str, losses: int, streams: int) -> Comparison:
    """Return a comparison without evidence.

    >>> new_comparison("v41", "holdback", 1, 2).value(0, 0)
    0.0
    """
    shape = (losses, streams)
    return Comparison(
        target, role, np.zeros((*shape, BETS)), np.zeros(shape), np.zeros(shape), np.zeros((4, *shape)), np.zeros(shape)
    )
