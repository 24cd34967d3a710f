"""Step many e-detectors as rows of arrays: one row for each stream, all stepped together.

A stream (a slice, a loss, one label source left out) is a row and nothing else, so a new kind of stream costs no code
here. Outcomes come in blocks of at most 32: a block multiplies its betting factors into the row's evidence at once,
which keeps the guarantee of the e-detector (`detectors.e_detector`) and makes the work of thousands of rows a few array
operations.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Floats, Ints
from detectors.betting import GRID_BINARY, GRID_LOW_VARIANCE, advance, factors, predictive_mean, total

BLOCK = 32
#: Blocks whose factors are computed at once: few enough to stay in the processor's cache.
BLOCKS_AT_ONCE = 128
#: Newest-weighted outcomes that a baseline remembers; older ones fade.
BASELINE_CAP = 20_000.0
#: Fewer outcomes than this are no baseline, wherever they are from.
BASELINE_LEAST = 500.0
#: Outcomes after which a row without any other baseline takes its own.
LEARN = 1_000.0
NO_ROWS = np.zeros(0, np.int64)


class Blocks(msgspec.Struct, frozen=True):
    """Hold blocks of outcomes in the order they are stepped: by chunk, then by row.

    `starts[c]` to `starts[c + 1]` are the blocks of chunk c; `factor` has shape (blocks, bets).
    """

    starts: Ints
    row: Ints
    count: Floats
    factor: Floats


class Bank(msgspec.Struct):
    """Hold rows of e-detectors for one loss.

    `n` and `k` are the baseline (outcomes and sum of losses, what grew healthily included), `own_n` and `own_k` the
    outcomes of this bank's own version alone. A learning row counts but gathers no evidence. Arrays have shape (rows,),
    `evidence` has (rows, bets), and `totals` is its sum over the bets.
    """

    binary: bool
    evidence: NDArray[np.float64]
    totals: NDArray[np.float64]
    n: NDArray[np.float64]
    k: NDArray[np.float64]
    own_n: NDArray[np.float64]
    own_k: NDArray[np.float64]
    learning: NDArray[np.bool_]

    @property
    def grid(self) -> Floats:
        """The bets."""
        return GRID_BINARY if self.binary else GRID_LOW_VARIANCE

    def blocks(
        self, rows: Ints, positions: Ints, losses: Floats, worse_by: float, growing: bool, once: bool = False
    ) -> Blocks:
        """Return the blocks of a run of outcomes, given the baselines as they are before it.

        Args:
            rows: shape (e,), sorted; the row each entry steps. An outcome has one entry for each row it belongs to.
            positions: shape (e,), rising inside each row: the outcome's place in the run; 32 places are a chunk.
            losses: shape (e,), the outcome's loss; NaN where it has none.
            worse_by: the rise of the mean loss that does not matter.
            growing: whether each outcome joins the baseline of those after it.
            once: whether every row has one entry, all of them in the same chunk.
        """
        use = ~(np.isnan(losses) | self.learning[rows])
        if not use.all():
            rows, positions, losses = rows[use], positions[use], losses[use]
        if not rows.size:
            return Blocks(np.zeros(1, np.int64), rows, np.zeros(0), np.zeros((0, self.grid.size)))
        n, k = self.n[rows], self.k[rows]
        if once:
            # Nothing precedes an outcome in its row, and there are no factors to multiply.
            starts = np.zeros(int(positions[0]) // BLOCK + 2, np.int64)
            starts[-1] = rows.size
            factor = factors(losses, predictive_mean(k, n, worse_by), self.grid)
            return Blocks(starts, rows, np.ones(rows.size), factor)
        begins = np.ones(rows.size, np.bool_)
        begins[1:] = rows[1:] != rows[:-1]
        if growing:
            first = begins.nonzero()[0][begins.cumsum() - 1]
            before = losses.cumsum() - losses
            n = n + (np.arange(rows.size) - first)
            k = k + (before - before[first])
        mean = predictive_mean(k, n, worse_by)
        chunk = positions // BLOCK
        begins[1:] |= chunk[1:] != chunk[:-1]
        edges = begins.nonzero()[0]
        ends = np.append(edges[1:], rows.size)
        product = np.empty((edges.size, self.grid.size))
        for block in range(0, edges.size, BLOCKS_AT_ONCE):
            some = slice(block, block + BLOCKS_AT_ONCE)
            part = slice(edges[block], ends[some][-1])
            factor = factors(losses[part], mean[part], self.grid)
            with np.errstate(over="ignore"):
                np.multiply.reduceat(factor, edges[some] - edges[block], axis=0, out=product[some])
        count = (ends - edges).astype(np.float64)
        last = int(chunk.max())
        if not last:
            return Blocks(np.array([0, edges.size]), rows[edges], count, product)
        order = np.argsort(chunk[edges], kind="stable")
        starts = np.searchsorted(chunk[edges][order], np.arange(last + 2))
        return Blocks(starts.astype(np.int64), rows[edges][order], count[order], product[order])

    def step(self, blocks: Blocks, chunk: int, growth: Floats | None) -> None:
        """Step the rows of one chunk; `growth` replaces the outcome counts where the promise is a span of time
        (rows,)."""
        if chunk + 1 >= blocks.starts.size:
            return
        start, end = blocks.starts[chunk], blocks.starts[chunk + 1]
        if start == end:
            return
        rows = blocks.row[start:end]
        grown = blocks.count[start:end] if growth is None else growth[rows]
        after = advance(self.evidence[rows], grown, blocks.factor[start:end])
        self.evidence[rows] = after
        self.totals[rows] = total(after)

    def count(self, rows: Ints, losses: Floats, growing: bool) -> None:
        """Add outcomes to the baselines and to the version's own; those of an unhealthy version are no baseline."""
        if not growing:
            return
        use = ~np.isnan(losses)
        if not use.all():
            rows, losses = rows[use], losses[use]
        n = np.bincount(rows, minlength=self.n.size).astype(np.float64)
        k = np.bincount(rows, weights=losses, minlength=self.n.size).astype(np.float64)
        add_capped(self.own_n, self.own_k, n, k)
        add_capped(self.n, self.k, n, k)

    def replace(self, use: NDArray[np.bool_], n: Floats, k: Floats) -> None:
        """Give some rows another baseline; they learn no more."""
        self.n[use], self.k[use], self.learning[use] = n[use], k[use], False

    def learn(self) -> Ints:
        """Let rows that have seen enough outcomes take them as their baseline; return these rows."""
        if not self.learning.any():
            return NO_ROWS
        ready = self.learning & (self.n >= LEARN)
        self.learning[ready] = False
        return np.flatnonzero(ready)

    def restart(self, row: int) -> None:
        """Start a row's evidence afresh."""
        self.evidence[row] = 0.0
        self.totals[row] = 0.0

    def forget(self, n: Floats, k: Floats) -> None:
        """Take outcomes out of the baselines again: those since a change turned out to be not healthy."""
        for count, losses in ((self.n, self.k), (self.own_n, self.own_k)):
            take_out(count, losses, n, k)


def take_out(count: Floats, losses: Floats, n: Floats, k: Floats) -> None:
    """Take the newest `n` outcomes with losses `k` out of counts that fade at the cap, in place.

    What fades with age has faded among the outcomes to take out as well.
    """
    share = np.where(count >= BASELINE_CAP, -BASELINE_CAP * np.expm1(-n / BASELINE_CAP), n)
    np.maximum(count - share, 0.0, out=count)
    losses[:] = np.minimum(np.maximum(losses - share * k / np.maximum(n, 1.0), 0.0), count)


def add_capped(count: Floats, losses: Floats, n: Floats | float, k: Floats | float) -> None:
    """Add outcomes and their losses to counts that fade at the cap, in place."""
    count += n
    losses += k
    if count.max() > BASELINE_CAP:
        over = count > BASELINE_CAP
        scale = BASELINE_CAP / count[over]
        count[over] = BASELINE_CAP
        losses[over] *= scale


def empty_bank(binary: bool, rows: int) -> Bank:
    """Return a bank whose rows all learn.

    >>> empty_bank(True, 3).evidence.shape
    (3, 12)
    """
    bets = (GRID_BINARY if binary else GRID_LOW_VARIANCE).size
    return Bank(
        binary=binary,
        evidence=np.zeros((rows, bets)),
        totals=np.zeros(rows),
        n=np.zeros(rows),
        k=np.zeros(rows),
        own_n=np.zeros(rows),
        own_k=np.zeros(rows),
        learning=np.ones(rows, np.bool_),
    )


def reshaped(bank: Bank, old: tuple[int, int], new: tuple[int, int]) -> Bank:
    """Return a bank whose rows form a larger table; new cells learn from nothing.

    Args:
        bank: rows laid out as `old`, (streams, variants).
        old: the table's present shape.
        new: its shape afterwards, at least as large in both directions.
    """
    grown = empty_bank(bank.binary, new[0] * new[1])
    for name in ("evidence", "totals", "n", "k", "own_n", "own_k", "learning"):
        source = getattr(bank, name)
        target = getattr(grown, name).reshape(*new, *source.shape[1:])
        target[: old[0], : old[1]] = source.reshape(*old, *source.shape[1:])
    return grown


def copy_variant(bank: Bank, shape: tuple[int, int], source: int, target: int) -> None:
    """Copy one variant of every stream over another: leaving out a source without labels makes no difference."""
    for name in ("evidence", "totals", "n", "k", "own_n", "own_k", "learning"):
        table = getattr(bank, name)
        view = table.reshape(*shape, *table.shape[1:])
        view[:, target] = view[:, source]
