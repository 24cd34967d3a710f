"""Compare the live version with a holdback or a shadow, on outcomes of the same time: is that one better now?

One row for each stream and loss. Split traffic is compared in blocks of time: both arms of one sub-interval of a cohort
make a block; where one arm is still missing, the block goes on into the next sub-interval, because a block's size may
depend on counts but not on losses. A shadow answers the same requests, so it is compared request by request.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Floats, Ints
from detectors.betting import predictive_mean, total
from detectors.comparison import BETS, advance_comparison, pair_factors, two_sample_factors
from detectors.rows.bank import BLOCK
from detectors.rows.types import Entries, sums_by

SUB_INTERVALS = 6
#: A block that waits longer than this for its other arm is dropped: it would compare different times.
WAIT_MAX = 20 * SUB_INTERVALS
POOL_CAP = 20_000.0


class Comparison(msgspec.Struct):
    """Hold evidence that the live version is worse than `target`, from the target's first outcome on.

    Arrays have shape (losses, streams); `evidence` has (losses, streams, bets). `open_block` arrays are the block being
    filled: counts and losses of the target, then of the candidate.
    """

    target: str
    role: str
    evidence: NDArray[np.float64]
    pooled_n: NDArray[np.float64]
    pooled_k: NDArray[np.float64]
    open_block: NDArray[np.float64]
    waited: NDArray[np.float64]

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

    def value(self, loss: int, stream: int) -> float:
        """Return the present evidence of one row."""
        return float(total(self.evidence[loss, stream]))

    def step_blocks(self, target: Entries, candidate: Entries, begin: int, width: int) -> None:
        """Step all rows with one cohort that begins at `begin` and is `width` wide (ms); width 0 is a single block."""
        if not target.source.size and not candidate.source.size:
            return
        subs = SUB_INTERVALS if width else 1
        sums = np.zeros((2, subs, 2, *self.waited.shape))
        for arm, entries in zip(sums, (target, candidate), strict=True):
            if entries.source.size:
                _add(arm, entries, begin, width)
        for sub in range(subs):
            if sums[:, sub, :2].any():
                self._step_block(sums[:, sub])

    def _step_block(self, sums: Floats) -> None:
        """Add one sub-interval, shape (arms, 2, losses, streams), and step the rows whose block now has both arms."""
        self.open_block += sums.reshape(self.open_block.shape)
        n_target, k_target, n_candidate, k_candidate = self.open_block
        filled = (n_target + n_candidate) > 0
        self.waited[filled] += 1
        ready = (n_target > 0) & (n_candidate > 0)
        if ready.any():
            arms = (n_target[ready], k_target[ready], n_candidate[ready], k_candidate[ready])
            mean = predictive_mean(self.pooled_k[ready], self.pooled_n[ready])
            self.evidence[ready] = advance_comparison(self.evidence[ready], two_sample_factors(*arms, mean))
            self.pooled_n[ready] += arms[0] + arms[2]
            self.pooled_k[ready] += arms[1] + arms[3]
            over = self.pooled_n > POOL_CAP
            self.pooled_k[over] *= POOL_CAP / self.pooled_n[over]
            self.pooled_n[over] = POOL_CAP
        done = ready | (self.waited >= WAIT_MAX)
        if done.any():
            self.open_block[:, done] = 0.0
            self.waited[done] = 0.0

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


def _add(sums: Floats, entries: Entries, begin: int, width: int) -> None:
    """Write counts and losses by sub-interval, shape (sub-intervals, 2, losses, streams)."""
    subs, _, _, streams = sums.shape
    cells = entries.streams
    known = cells >= 0
    if width:
        sub = np.clip((entries.predicted_at - begin) * SUB_INTERVALS // width, 0, subs - 1)
        cells = sub * streams + cells
    cell = cells[known]
    place = np.broadcast_to(np.arange(entries.source.size), known.shape)[known]
    size = subs * streams
    counts = np.bincount(cell, minlength=size)
    columns = list(sums_by(entries.losses[:, place], cell, size, counts))
    sums[:] = np.reshape(columns, (2, -1, subs, streams)).transpose(2, 0, 1, 3)


def new_comparison(target: str, role: str, losses: int, streams: int) -> Comparison:
    """Return a comparison without evidence.

    >>> new_comparison("v41", "holdback", 1, 2).value(0, 0)
    0.0
    """
    shape = (losses, streams)
    return Comparison(
        target, role, np.zeros((*shape, BETS)), np.zeros(shape), np.zeros(shape), np.zeros((4, *shape)), np.zeros(shape)
    )
