"""Step the outcomes of many small cohorts at once, as far as none of them raises an alarm.

What a cohort costs whatever its size is most of the work where cohorts are small. A driver that has read ahead knows
many of them, so their factors, baselines and evidence are computed together here, bit for bit what
`detectors.rows.watch.Health.judge` computes of one after the other. Nothing is changed by looking ahead: the state
after a cohort is taken only when that cohort is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from detectors.base import Bools, Floats, Ints
from detectors.betting import constant_products, factor_products, gains, predictive_mean, total
from detectors.rows.bank import BASELINE_CAP, BLOCK, LEARN, Bank, BankState, mixed, walked
from detectors.rows.baselines import Rows
from detectors.rows.types import Entries, Rules

CELLS_MAX = 262_144
"""So much evidence, rows by bets by chunks, is computed at once."""


class _Steps(NamedTuple):
    """The rows that the entries of all cohorts step, sorted by cohort, row and place.

    `begins` are the first entries of a cohort's row, and `chunk` counts on over all cohorts, of which each has
    `first_chunk`, the last of them being the number of chunks.
    """

    cohort: Ints
    row: Ints
    position: Ints
    chunk: Ints
    first_chunk: Ints

    def where(self, use: Ints) -> _Steps:
        return _Steps(self.cohort[use], self.row[use], self.position[use], self.chunk[use], self.first_chunk)


class _Counts(NamedTuple):
    """Numbers and losses of outcomes after each cohort, shape (1 + cohorts, losses, (own, baseline), rows)."""

    n: Floats
    k: Floats


class Foresight(msgspec.Struct):
    """Hold the state of every bank after each of some cohorts, and the rows that have a baseline of their own then."""

    cohorts: int
    states: list[list[BankState]]
    learned: list[list[Ints]]


def foresee(rows: Rows, entries: Entries, bounds: Ints, rules: Rules) -> Foresight | None:
    """Return what the first cohorts lead to, up to the one that may raise an alarm; None if nothing is foreseen.

    Args:
        rows: The rows as they are, none of the primary loss for all requests learning.
        entries: The outcomes of all cohorts, each with every loss.
        bounds: Where each cohort begins, and the end of the last; none is empty.
        rules: What an alarm takes.
    """
    sizes = np.diff(bounds)
    first_chunk = np.append(0, (-(-sizes // BLOCK)).cumsum())
    bets = max(bank.grid.size for bank in rows.banks)
    most = int(np.searchsorted(first_chunk, CELLS_MAX // (rows.streams * rows.variants * bets), side="right")) - 1
    if most < sizes.size:
        if most < 1:
            return None
        return foresee(rows, entries.part(0, int(bounds[most])), bounds[: most + 1], rules)
    steps = _steps(rows, entries, bounds, first_chunk)
    counts = _counts(rows, entries, steps, sizes.size)
    chunks = first_chunk[1:] - 1
    highest = np.full(first_chunk[-1], max(float(bank.totals.max()) for bank in rows.banks))
    states: list[list[BankState]] = []
    learned: list[list[Ints]] = []
    with np.errstate(over="ignore", under="ignore"):
        for number, bank in enumerate(rows.banks):
            ready = _learned(bank, counts.n[1:, number, 1])
            evidence = _evidence(bank, number, entries, steps, counts, ready, rules)
            totals = total(evidence)
            kept: Sequence[Floats] = [bank.kept_evidence] * chunks.size
            if np.count_nonzero(bank.kept):
                inherited = bank.kept > 0.0
                kept_evidence = _kept_evidence(bank, number, entries, steps, inherited, rules)
                totals[:, inherited] = mixed(totals[:, inherited], total(kept_evidence))
                table = np.zeros((chunks.size, *bank.kept_evidence.shape))
                table[:, inherited] = kept_evidence[chunks]
                kept = list(table)
            # NaN is below nothing.
            np.maximum(highest, totals.max(axis=1), out=highest)
            tables = (evidence[chunks], totals[chunks], *_tables(counts, number), kept)
            states.append([BankState(*state) for state in zip(*tables, strict=True)])
            learned.append(ready)
    quiet = np.maximum.reduceat(highest, first_chunk[:-1]) < rules.promise * (1 - 1e-6)
    cohorts = int(quiet.size if quiet.all() else quiet.argmin())
    return Foresight(cohorts, states, learned) if cohorts else None


def _tables(counts: _Counts, number: int) -> tuple[Floats, Floats, Floats, Floats]:
    n, k = counts.n[1:, number], counts.k[1:, number]
    return n[:, 1], k[:, 1], n[:, 0], k[:, 0]


def _steps(rows: Rows, entries: Entries, bounds: Ints, first_chunk: Ints) -> _Steps:
    variants, size, count = rows.variants, entries.source.size, bounds.size - 1
    unused = rows.streams * variants
    row = np.where(entries.streams < 0, unused, entries.streams * variants)
    if variants > 1:
        row = row + np.arange(variants)[:, None, None]
        left_out = entries.source == np.arange(variants - 1)[:, None]
        row.transpose(0, 2, 1)[1:][left_out] = unused
    row = row.reshape(-1)
    used = (row < unused).nonzero()[0]
    position = used % size
    key = np.repeat(np.arange(count), np.diff(bounds))[position] * unused + row[used]
    # A row belongs to one dimension and one variant, where the positions rise already. Sorting small integers is much
    # cheaper.
    order = (key.astype(np.uint16) if count * unused < 65_536 else key).argsort(kind="stable")
    position, (cohort, row) = position[order], np.divmod(key[order], unused)
    chunk = first_chunk[cohort] + (position - bounds[cohort]) // BLOCK
    return _Steps(cohort, row, position, chunk, first_chunk)


def _counts(rows: Rows, entries: Entries, steps: _Steps, count: int) -> _Counts:
    """Return the counts as `Bank.count` leaves them after each cohort."""
    size, losses = rows.streams * rows.variants, len(rows.banks)
    key, shape = steps.cohort * size + steps.row, (1 + count, losses, 2, size)
    n, k = np.empty(shape), np.empty(shape)
    for number, bank in enumerate(rows.banks):
        n[0, number], k[0, number] = (bank.own_n, bank.n), (bank.own_k, bank.k)
        more = np.bincount(key, weights=entries.losses[number, steps.position], minlength=count * size)
        k[1:, number] = more.reshape(count, 1, size)
    added = np.bincount(key, minlength=count * size).reshape(count, size)
    n[1:] = added[:, None, None]
    if not float((n[0] + added.sum(axis=0)).max(initial=0.0)) > BASELINE_CAP:
        return _Counts(np.add.accumulate(n, axis=0, out=n), np.add.accumulate(k, axis=0, out=k))
    for cohort in range(count):
        after = n[cohort] + n[cohort + 1]
        # Where nothing is beyond the cap this is 1.
        scale = BASELINE_CAP / np.maximum(after, BASELINE_CAP)
        np.multiply(k[cohort] + k[cohort + 1], scale, out=k[cohort + 1])
        np.minimum(after, BASELINE_CAP, out=n[cohort + 1])
    return _Counts(n, k)


def _learned(bank: Bank, n: Floats) -> list[Ints]:
    """Return the rows that take their own outcomes as their baseline after each cohort; `n` has those then."""
    found = [np.zeros(0, np.int64)] * len(n)
    for row in bank.learning.nonzero()[0].tolist():
        ready = n[:, row] >= LEARN
        if ready.any():
            cohort = int(ready.argmax())
            found[cohort] = np.append(found[cohort], row)
    return found


def _evidence(
    bank: Bank,
    number: int,
    entries: Entries,
    steps: _Steps,
    counts: _Counts,
    learned: list[Ints],
    rules: Rules,
) -> Floats:
    """Return the growing evidence after each chunk of all cohorts, (chunks, rows, bets)."""
    chunks, size = int(steps.first_chunk[-1]), bank.n.size
    if np.count_nonzero(bank.learning):
        # The first cohort in which each row gathers evidence.
        since = np.where(bank.learning, len(learned), 0)
        for cohort, ready in enumerate(learned):
            since[ready] = cohort + 1
        steps = steps.where((steps.cohort >= since[steps.row]).nonzero()[0])
    if not steps.row.size:
        return np.broadcast_to(bank.evidence, (chunks, *bank.evidence.shape))
    losses = entries.losses[number, steps.position]
    begins = np.append(True, (steps.row[1:] != steps.row[:-1]) | (steps.cohort[1:] != steps.cohort[:-1]))
    firsts, own = begins.nonzero()[0], begins.cumsum() - 1
    n, k = counts.n[steps.cohort, number, 1, steps.row], counts.k[steps.cohort, number, 1, steps.row]
    n += np.arange(losses.size) - firsts[own]
    before = _sums_in(steps.cohort, losses)
    before -= losses
    k += before - before[firsts][own]
    begins[1:] |= steps.chunk[1:] != steps.chunk[:-1]
    edges = begins.nonzero()[0]
    product = factor_products(losses, predictive_mean(k, n, rules.worse_by), bank.grid, edges)
    grown = np.diff(np.append(edges, losses.size)) / bank.grid.size
    return walked(bank.evidence, steps.chunk[edges] * size + steps.row[edges], chunks, grown, product, False)


def _kept_evidence(bank: Bank, number: int, entries: Entries, steps: _Steps, inherited: Bools, rules: Rules) -> Floats:
    """Return the kept evidence of the rows that inherited their baseline after each chunk, (chunks, rows, bets)."""
    chunks, before = int(steps.first_chunk[-1]), bank.kept_evidence[inherited]
    if not inherited.all():
        steps = steps.where(inherited[steps.row].nonzero()[0])
    if not steps.row.size:
        return np.broadcast_to(before, (chunks, *before.shape))
    losses, place = entries.losses[number, steps.position], inherited.cumsum() - 1
    begins = np.append(True, (steps.row[1:] != steps.row[:-1]) | (steps.chunk[1:] != steps.chunk[:-1]))
    edges = begins.nonzero()[0]
    sizes = np.diff(np.append(edges, losses.size))
    mean = bank.kept_means(rules.worse_by)[inherited]
    staked = constant_products(mean, place[steps.row], bank.grid, edges, sizes)
    product, grown = gains(losses, bank.grid, edges) / staked, sizes / bank.grid.size
    cell = steps.chunk[edges] * len(before) + place[steps.row[edges]]
    return walked(before, cell, chunks, grown, product, False)


def _sums_in(cohort: Ints, losses: Floats) -> Floats:
    """Return the sum of the losses of each entry's cohort up to it, added in order from the cohort's first entry."""
    sizes = np.bincount(cohort)
    place = np.arange(cohort.size) - (sizes.cumsum() - sizes)[cohort]
    table = np.zeros((sizes.size, int(sizes.max())))
    table[cohort, place] = losses
    sums: Floats = table.cumsum(axis=1)[cohort, place]
    return sums
