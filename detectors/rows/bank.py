"""Step many e-detectors as rows of arrays: one row for each stream, all stepped together.

A stream (a slice, a loss, one label source left out) is a row and nothing else, so a new kind of stream costs no code
here. Outcomes come in blocks of at most 32: a block multiplies its betting factors into the row's evidence at once,
which keeps the guarantee of the e-detector (`detectors.e_detector`) and makes the work of thousands of rows a few array
operations. The factors of all blocks of a run are computed first, then the evidence goes through its chunks.

A row that inherited its baseline has two processes: for the growing one each healthy outcome joins the baseline, for
the kept one none does, so that a version that was bad from its first outcome on is not compared with itself. The kept
one does not know how far chance moved its baseline, so it takes the upper end of what is plausible. The row's evidence
is the weighted mean of both; a mean of e-detectors is an e-detector.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Bools, Floats, Ints
from detectors.betting import (
    GRID_BINARY,
    GRID_LOW_VARIANCE,
    LARGEST_EVIDENCE,
    LARGEST_MEAN,
    bet_products,
    constant_products,
    gains,
    predictive_mean,
    total,
    upper_mean,
)

BLOCK = 32
#: Newest-weighted outcomes that a baseline remembers; older ones fade.
BASELINE_CAP = 20_000.0
#: Fewer outcomes than this are no baseline, wherever they are from.
BASELINE_LEAST = 500.0
#: Outcomes after which a row without any other baseline takes its own.
LEARN = 1_000.0
#: Weights of the two processes of a row that inherited its baseline.
GROWING_SHARE, KEPT_SHARE = 0.75, 0.25
NO_ROWS = np.zeros(0, np.int64)
#: What a bank holds for each of its rows.
TABLES = ("evidence", "totals", "n", "k", "own_n", "own_k", "learning", "kept", "kept_evidence")


class Run(NamedTuple):
    """Hold which row each entry of a run of outcomes steps, and where its rows and blocks begin.

    An outcome has one entry for each row it belongs to. Entries are sorted by row and, inside it, by their outcome's
    place in the run; 32 places are a chunk, and the entries of one row in one chunk are a block.

    `rows` and `positions` have shape (e,). `own` are the rows that occur, `firsts` the entries that begin one; `number`
    is that of each entry's row among those, and `earlier` how many entries its row has before it. `edges` are the
    entries that begin a block, `sizes` the numbers of outcomes of blocks, and `chunk` their chunks, counted from the
    run's first, if it has several; `start` is the place of the run's first outcome, and `chunks` how many chunks it
    has. `parts` are what `where` returned.
    """

    rows: Ints
    positions: Ints
    own: Ints
    firsts: Ints
    number: Ints
    earlier: Ints
    edges: Ints
    sizes: Ints
    chunk: Ints
    start: int
    chunks: int
    parts: dict[bytes, Run]

    def where(self, use: Bools) -> Run:
        """Return the run of some entries alone; all banks of a version mostly lack the same ones."""
        key = use.tobytes()
        if key not in self.parts:
            self.parts[key] = run_of(self.rows[use], self.positions[use], self.start, self.chunks)
        return self.parts[key]


def run_of(rows: Ints, positions: Ints, start: int, chunks: int) -> Run:
    """Return a run whose first outcome has place `start`, as sorted entries.

    >>> run = run_of(np.array([0, 0, 3]), np.array([0, 40, 40]), 0, 2)
    >>> run.own.tolist(), run.edges.tolist(), run.sizes.tolist(), run.chunk.tolist()
    ([0, 3], [0, 1, 2], [1, 1, 1], [0, 1, 1])
    """
    begins = np.empty(rows.size, np.bool_)
    begins[:1] = True
    np.not_equal(rows[1:], rows[:-1], out=begins[1:])
    edges = firsts = begins.nonzero()[0]
    number = begins.cumsum()
    number -= 1
    earlier = np.arange(rows.size)
    earlier -= firsts[number]
    if chunks == 1:
        chunk = NO_ROWS
    else:
        chunk = positions // BLOCK
        chunk -= start // BLOCK
        begins[1:] |= chunk[1:] != chunk[:-1]
        edges = begins.nonzero()[0]
        chunk = chunk[edges]
    sizes = np.empty_like(edges)
    np.subtract(edges[1:], edges[:-1], out=sizes[:-1])
    if edges.size:
        sizes[-1] = rows.size - edges[-1]
    return Run(rows, positions, rows[firsts], firsts, number, earlier, edges, sizes, chunk, start, chunks, {})


class BankState(NamedTuple):
    """Hold what outcomes change of a bank; its rows that learn are elsewhere."""

    evidence: Floats
    totals: Floats
    n: Floats
    k: Floats
    own_n: Floats
    own_k: Floats
    kept_evidence: Floats


class Path(NamedTuple):
    """Hold the evidence of the rows that a run steps, after each of its chunks.

    `rows` are these rows; `evidence` has shape (chunks, rows, bets), `totals`, of shape (chunks, rows), has what the
    rows show, and `highest` is the largest of these. `kept_rows` are the rows with a kept process, and `kept_evidence`
    is that of it.
    """

    rows: Ints
    evidence: Floats
    totals: Floats
    highest: float
    kept_rows: Ints
    kept_evidence: Floats


class Bank(msgspec.Struct):
    """Hold rows of e-detectors for one loss.

    `n` and `k` are the baseline (outcomes and sum of losses, what grew healthily included), `own_n` and `own_k` the
    outcomes of this bank's own version alone. A learning row counts but gathers no evidence. Arrays have shape (rows,),
    `evidence` has (rows, bets), and `totals` is what each row shows. `kept` is the mean that an inherited baseline may
    plausibly have, 0 where a row inherited none, and `kept_evidence` is against that, (rows, bets).
    """

    binary: bool
    evidence: NDArray[np.float64]
    totals: NDArray[np.float64]
    n: NDArray[np.float64]
    k: NDArray[np.float64]
    own_n: NDArray[np.float64]
    own_k: NDArray[np.float64]
    learning: NDArray[np.bool_]
    kept: NDArray[np.float64]
    kept_evidence: NDArray[np.float64]

    @property
    def grid(self) -> Floats:
        """The bets."""
        return GRID_BINARY if self.binary else GRID_LOW_VARIANCE

    def path(
        self,
        run: Run,
        losses: Floats,
        worse_by: float,
        growing: bool,
        growth: Floats | None = None,
        whole: bool = False,
    ) -> Path:
        """Return the evidence after each chunk of a run of outcomes; nothing is changed. It may overflow on the way.

        Args:
            run: the entries.
            losses: shape (e,), the loss of each entry's outcome; NaN where it has none.
            worse_by: the rise of the mean loss that does not matter.
            growing: whether each outcome joins the baseline of those after it.
            growth: shape (chunks,), replaces the outcome counts where the promise is a span of time.
            whole: whether it is known that every outcome has a loss.
        """
        learning = np.count_nonzero(self.learning)
        if learning or not whole:
            use = ~(np.isnan(losses) | self.learning[run.rows])
            if (known := int(np.count_nonzero(use))) < use.size:
                run, losses = run.where(use) if known else run, losses[use]
        if not losses.size:
            nothing = np.zeros((run.chunks, 0, self.grid.size))
            return Path(NO_ROWS, nothing, nothing[..., 0], 0.0, NO_ROWS, nothing)
        gained = gains(losses, self.grid, run.edges)
        product = gained / bet_products(self._means(run, losses, worse_by, growing), self.grid, run.edges)
        before, inherited = self.evidence[run.own], self.kept[run.own] > 0.0
        number = np.count_nonzero(inherited)
        if not number:
            evidence, totals = _process(run, (product,), (before,), growth)
            return Path(run.own, evidence, totals[0], _highest(totals[0]), NO_ROWS, evidence[:, :0])
        steps = run
        if number < inherited.size:
            evidence, totals = _process(run, (product,), (before,), growth)
            steps, gained = run.where(inherited[run.number]), gained[:, inherited[run.number[run.edges]]]
        mean, kept_before = self.kept_means(worse_by)[steps.own], self.kept_evidence[steps.own]
        kept = gained / constant_products(mean, steps.number, self.grid, steps.edges, steps.sizes)
        if number < inherited.size:
            kept_evidence, kept_totals = _process(steps, (kept,), (kept_before,), growth)
            shown = totals[0]
            shown[:, inherited] = mixed(shown[:, inherited], kept_totals[0])
        else:
            # What both processes have in common is most of the work.
            both, totals = _process(run, (product, kept), (before, kept_before), growth)
            evidence, kept_evidence = both[..., : self.grid.size], both[..., self.grid.size :]
            shown = mixed(*totals)
        return Path(run.own, evidence, shown, _highest(shown), steps.own, kept_evidence)

    def kept_means(self, worse_by: float) -> Floats:
        """Return the mean that each row's kept process compares with, shape (rows,)."""
        return np.minimum(self.kept + worse_by, LARGEST_MEAN)

    def _means(self, run: Run, losses: Floats, worse_by: float, growing: bool) -> Floats:
        """Return the mean that each entry is compared with: its row's baseline, and what joined it before the entry."""
        n, k = self.n[run.rows], self.k[run.rows]
        if growing and run.firsts.size < losses.size:
            n += run.earlier
            before = losses.cumsum()
            before -= losses
            k += before - before[run.firsts][run.number]
        return predictive_mean(k, n, worse_by)

    def take(self, path: Path, chunk: int) -> None:
        """Take the evidence as it is after a chunk of a path."""
        self.evidence[path.rows] = path.evidence[chunk]
        self.totals[path.rows] = path.totals[chunk]
        self.kept_evidence[path.kept_rows] = path.kept_evidence[chunk]

    def put(self, state: BankState) -> None:
        """Take a state that was computed before."""
        self.evidence, self.totals, self.n, self.k, self.own_n, self.own_k, self.kept_evidence = state

    def detach(self) -> None:
        """Hold the present state alone, where it is a part of many that were computed together."""
        self.put(BankState(*(np.array(each) for each in self.state)))

    @property
    def state(self) -> BankState:
        """Return what outcomes change."""
        return BankState(self.evidence, self.totals, self.n, self.k, self.own_n, self.own_k, self.kept_evidence)

    def know(self, rows: Ints) -> None:
        """Let rows take their outcomes as their baseline."""
        self.learning[rows] = False

    def count(self, rows: Ints, losses: Floats, n: Ints | None = None) -> None:
        """Add healthy outcomes to the baselines and to the version's own; `n` is how many each row has, if known."""
        if n is None:
            use = ~np.isnan(losses)
            rows, losses = rows[use], losses[use]
            n = np.bincount(rows, minlength=self.n.size)
        k = np.bincount(rows, weights=losses, minlength=self.n.size)
        add_capped(self.own_n, self.own_k, n, k)
        add_capped(self.n, self.k, n, k)

    def replace(self, use: Ints | Bools, n: Floats, k: Floats) -> None:
        """Give some rows a baseline of outcomes from before, which they inherit; they learn no more."""
        self.n[use], self.k[use], self.learning[use] = n[use], k[use], False
        self.kept[use] = upper_mean(k[use], n[use])

    def drop_inherited(self, row: int, n: float, k: float) -> None:
        """Give a row a baseline of its own outcomes in place of the inherited one; what it shows goes on from there."""
        self.n[row], self.k[row] = n, k
        self.kept[row] = self.kept_evidence[row] = 0.0
        self.evidence[row] *= GROWING_SHARE
        self.totals[row] = total(self.evidence[row])

    def learn(self) -> Ints:
        """Let rows that have seen enough outcomes take them as their baseline; return these rows."""
        if not np.count_nonzero(self.learning):
            return NO_ROWS
        ready = self.learning & (self.n >= LEARN)
        self.learning[ready] = False
        return np.flatnonzero(ready)

    def restart(self, row: int) -> None:
        """Start a row's evidence afresh."""
        self.evidence[row] = self.kept_evidence[row] = 0.0
        self.totals[row] = 0.0

    def forget(self, n: Floats, k: Floats) -> None:
        """Take outcomes out of the baselines again: those since a change turned out to be not healthy."""
        for count, losses in ((self.n, self.k), (self.own_n, self.own_k)):
            take_out(count, losses, n, k)


def mixed(growing: Floats, kept: Floats) -> Floats:
    """Return what rows show whose growing and kept processes have these totals."""
    mixture: Floats = GROWING_SHARE * growing + KEPT_SHARE * kept
    return mixture


def _highest(totals: Floats) -> float:
    return float(np.maximum.reduce(totals, axis=None))


def _process(
    run: Run, product: tuple[Floats, ...], before: tuple[Floats, ...], growth: Floats | None
) -> tuple[Floats, list[Floats]]:
    """Return the evidence of one or two processes after each chunk, bet by bet, and the total of each process.

    Args:
        run: The entries.
        product: Of each process, shape (bets, blocks): the product of the betting factors of each block.
        before: Of each process, shape (rows, bets).
        growth: Shape (chunks,), as in `Bank.path`.

    Returns:
        Shape (chunks, rows, processes x bets), and a list of shape (chunks, rows).
    """
    bets = len(product[0])
    if growth is None:
        grown = run.sizes / bets
    else:
        grown = (growth[run.chunk] if run.chunks > 1 else growth.repeat(run.sizes.size)) / bets
    factor = np.concatenate(product) if len(product) > 1 else product[0]
    whole = np.concatenate(before, axis=1) if len(before) > 1 else before[0]
    for cut in (False, True):
        # Evidence that grows beyond all bounds is cut off after each chunk.
        evidence = _walk(run, whole, grown, factor, cut)
        totals = [total(evidence[..., first : first + bets]) for first in range(0, len(factor), bets)]
        if all(_highest(each) <= LARGEST_EVIDENCE for each in totals):
            break
    return evidence, totals


def _walk(run: Run, before: Floats, grown: Floats, product: Floats, cut: bool) -> Floats:
    """Return the evidence after each chunk, (chunks, rows, bets), from what it was before, (rows, bets).

    A block's factors are between 1e-84 and 1e84, as the bets are; `cut` is whether evidence could overflow.
    """
    if run.chunks == 1:
        after = before + grown[:, None]
        after *= product.T
        return (np.minimum(after, LARGEST_EVIDENCE, out=after) if cut else after)[None]
    return walked(before, run.chunk * len(before) + run.number[run.edges], run.chunks, grown, product, cut)


def walked(before: Floats, cell: Ints, chunks: int, grown: Floats, product: Floats, cut: bool) -> Floats:
    """Return the same of blocks each of which steps one `cell`: its chunk, times the number of rows, plus its row."""
    size = len(before)
    # A row without outcomes in a chunk has growth 0 and factor 1.
    growth, block = np.zeros((chunks, size)), np.full(chunks * size, cell.size)
    growth.reshape(-1)[cell] = grown
    block[cell] = np.arange(cell.size)
    factor = np.ones((cell.size + 1, len(product)))
    factor[:-1] = product.T
    path: Floats = factor.take(block, axis=0, mode="clip").reshape(chunks, *before.shape)
    increased = np.empty_like(before)
    for after, more in zip(path, growth[:, :, None], strict=True):
        np.add(before, more, out=increased)
        np.multiply(increased, after, out=after)
        if cut:
            np.minimum(after, LARGEST_EVIDENCE, out=after)
        before = after
    return path


def take_out(count: Floats, losses: Floats, n: Floats, k: Floats) -> None:
    """Take the newest `n` outcomes with losses `k` out of counts that fade at the cap, in place.

    What fades with age has faded among the outcomes to take out as well.
    """
    share = np.where(count >= BASELINE_CAP, -BASELINE_CAP * np.expm1(-n / BASELINE_CAP), n)
    np.maximum(count - share, 0.0, out=count)
    losses[:] = np.minimum(np.maximum(losses - share * k / np.maximum(n, 1.0), 0.0), count)


def add_capped(count: Floats, losses: Floats, n: Floats | Ints, k: Floats | Ints) -> None:
    """Add outcomes and their losses to counts that fade at the cap, in place."""
    count += n
    losses += k
    if np.maximum.reduce(count) > BASELINE_CAP:
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
        kept=np.zeros(rows),
        kept_evidence=np.zeros((rows, bets)),
    )


def reshaped(bank: Bank, old: tuple[int, int], new: tuple[int, int]) -> Bank:
    """Return a bank whose rows form a larger table; new cells learn from nothing.

    Args:
        bank: rows laid out as `old`, (streams, variants).
        old: the table's present shape.
        new: its shape afterwards, at least as large in both directions.
    """
    grown = empty_bank(bank.binary, new[0] * new[1])
    for name in TABLES:
        source = getattr(bank, name)
        target = getattr(grown, name).reshape(*new, *source.shape[1:])
        target[: old[0], : old[1]] = source.reshape(*old, *source.shape[1:])
    return grown


def copy_variant(bank: Bank, shape: tuple[int, int], source: int, target: int) -> None:
    """Copy one variant of every stream over another: leaving out a source without labels makes no difference."""
    for name in TABLES:
        table = getattr(bank, name)
        view = table.reshape(*shape, *table.shape[1:])
        view[:, target] = view[:, source]
