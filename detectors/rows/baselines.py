"""Keep the rows of one version: a table of streams by variants for each loss, and where each row's baseline is from."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Floats, Ints, rounded
from detectors.betting import predictive_mean
from detectors.rows.bank import (
    BASELINE_CAP,
    BASELINE_LEAST,
    BLOCK,
    LEARN,
    Bank,
    BankState,
    Run,
    add_capped,
    copy_variant,
    empty_bank,
    reshaped,
    run_of,
)
from detectors.rows.types import EARLIER, FIRST, PREVIOUS, REFERENCE, Baselines, Entries, StatedReference

OVERALL = np.zeros(1, np.int64)
"""The row of all requests and all label sources, alone."""


class Rows(msgspec.Struct):
    """Hold rows of detectors: `streams` (overall and slices) by `variants` (all label sources, and each left out).

    There is a bank for each loss; `basis` has by (loss, row) where a baseline comes from. `references` holds what the
    deployment stated for each loss, and what the overall row has if that turns out to be implausible;
    `first_outcomes` counts, by loss, the first outcomes and their losses, shape (2, losses). `fixed` is whether the
    rows have been given their first baselines.
    """

    streams: int
    variants: int
    banks: list[Bank]
    basis: NDArray[np.int64]
    first_outcomes: NDArray[np.float64]
    references: dict[int, StatedReference] = {}
    fixed: bool = False

    @property
    def learning(self) -> bool:
        """Return whether the overall row of the primary loss has no baseline yet."""
        return bool(self.banks[0].learning[0])

    def row(self, stream: int, variant: int = 0) -> int:
        """Return the number of a row; variant 0 has all sources, variant j + 1 leaves source j out."""
        return stream * self.variants + variant

    def baseline(self, loss: int, row: int) -> tuple[float, float]:
        """Return the mean and the number of outcomes of a row's baseline (Krichevsky-Trofimov mean)."""
        bank = self.banks[loss]
        return float(predictive_mean(bank.k[row : row + 1], bank.n[row : row + 1])[0]), float(bank.n[row])

    def fit(self, streams: int, sources: int) -> None:
        """Make room for streams and sources that have appeared. A version without source variants passes 0 sources."""
        variants = 1 if sources < 2 else 1 + sources
        if streams <= self.streams and variants <= self.variants:
            return
        old, new = (self.streams, self.variants), (max(streams, self.streams), max(variants, self.variants))
        # Leaving out a source without labels leaves out nothing. While there was one source, it was the first.
        copied = old[1] if old[1] > 1 else 2
        for i, bank in enumerate(self.banks):
            self.banks[i] = grown = reshaped(bank, old, new)
            for variant in range(copied, new[1]):
                copy_variant(grown, new, 0, variant)
        losses = len(self.banks)
        basis = np.zeros((losses, *new), np.int64)
        basis[:, : old[0], : old[1]] = self.basis.reshape(losses, *old)
        basis[:, :, copied:] = basis[:, :, :1]
        self.basis = basis.reshape(losses, -1)
        self.streams, self.variants = new

    def fix(
        self, reference: dict[int, tuple[float, float]], earlier: Baselines | None, previous: Baselines | None
    ) -> None:
        """Give each row the first baseline that exists: reference, own earlier one, the previous version's outcomes.

        Args:
            reference: loss number -> (mean, outcomes) as measured before the deployment; for the overall row only.
            earlier: what this version left behind when it was last live and healthy.
            previous: what the version before it left behind.
        """
        self.fixed = True
        for loss, bank in enumerate(self.banks):
            for basis, source in ((PREVIOUS, previous), (EARLIER, earlier)):
                if source is not None:
                    n, k = (source.n, source.k) if basis == EARLIER else (source.own_n, source.own_k)
                    count, losses = self._fitted(n[loss]), self._fitted(k[loss])
                    rows = np.flatnonzero(count >= BASELINE_LEAST)
                    bank.replace(rows, count, losses)
                    self.basis[loss, rows] = basis
            if loss in reference and self.basis[loss, 0] != EARLIER:
                mean, size = reference[loss]
                if size >= BASELINE_LEAST:
                    instead = (0.0, 0.0, FIRST) if bank.learning[0] else (float(bank.n[0]), float(bank.k[0]), PREVIOUS)
                    self.references[loss] = StatedReference(mean, size, *instead)
                    size = min(size, BASELINE_CAP)
                    bank.replace(OVERALL, np.array([size]), np.array([mean * size]))
                    self.basis[loss, 0] = REFERENCE

    def _fitted(self, table: Floats) -> Floats:
        """Return an older table of (streams, variants) laid out as the present rows."""
        fitted = np.zeros((self.streams, self.variants))
        streams, variants = min(table.shape[0], self.streams), min(table.shape[1], self.variants)
        fitted[:streams, :variants] = table[:streams, :variants]
        if table.shape[1] < self.variants:
            first = variants if variants > 1 else 2
            fitted[:streams, first:] = table[:streams, :1]
        return fitted.reshape(-1)

    def forget_source(self, source: int) -> None:
        """Let leaving a source out make no difference: another one has its place now, without labels so far."""
        variant = source + 1
        if variant >= self.variants:
            return
        for bank in self.banks:
            copy_variant(bank, (self.streams, self.variants), 0, variant)
        basis = self.basis.reshape(len(self.banks), self.streams, self.variants)
        basis[:, :, variant] = basis[:, :, 0]

    def leave(self, version: str, degraded: bool, mix: Floats, by_source: Floats) -> Baselines:
        """Return what the version leaves behind; `mix` is its record of the requests, `by_source` that of sources."""
        shape = (len(self.banks), self.streams, self.variants)
        n = np.stack([np.where(bank.learning, 0.0, bank.n) for bank in self.banks])
        return Baselines(
            version=version,
            healthy=not degraded and not self.learning,
            n=n.reshape(shape),
            k=np.stack([bank.k for bank in self.banks]).reshape(shape),
            own_n=np.stack([bank.own_n for bank in self.banks]).reshape(shape),
            own_k=np.stack([bank.own_k for bank in self.banks]).reshape(shape),
            mix=mix.copy(),
            by_source=by_source,
        )

    def learn(self) -> None:
        """Let rows that have seen enough outcomes take them as their baseline."""
        for loss, bank in enumerate(self.banks):
            learned = bank.learn()
            if learned.size:
                self.basis[loss, learned] = FIRST

    def count_first(self, losses: Floats) -> None:
        """Count outcomes, shape (losses, outcomes), against which references are checked."""
        for loss in self.references:
            column = losses[loss]
            room = int(LEARN - self.first_outcomes[0, loss])
            if room > 0:
                some = column[~np.isnan(column)][:room]
                self.first_outcomes[:, loss] += some.size, some.sum()

    def check_references(self, worse_by: float) -> int:
        """Drop references that the version's own first outcomes contradict; return how many were dropped now.

        A stated mean that is far too bad would hide every decay. The overall row then has the baseline that it would
        have had without the reference, and the outcomes of this period that have joined it.
        """
        dropped = 0
        for loss, stated in self.references.items():
            if stated.ignored or self.first_outcomes[0, loss] < LEARN:
                continue
            n, k = self.first_outcomes[:, loss].tolist()
            if rounded(stated.mean - k / n) <= rounded(worse_by):
                continue
            self.references[loss] = msgspec.structs.replace(stated, ignored=True)
            dropped += 1
            bank = self.banks[loss]
            if stated.instead == FIRST:
                bank.drop_inherited(0, stated.instead_n, stated.instead_k)
            else:
                bank.replace(OVERALL, np.array([stated.instead_n]), np.array([stated.instead_k]))
            add_capped(bank.n[:1], bank.k[:1], bank.own_n[:1], bank.own_k[:1])
            self.basis[loss, 0] = stated.instead
        return dropped

    def put(self, states: list[BankState], learned: list[Ints]) -> None:
        """Take states of the banks that were computed before, and the rows that have learned their baseline."""
        for loss, (bank, state, ready) in enumerate(zip(self.banks, states, learned, strict=True)):
            bank.put(state)
            if ready.size:
                bank.know(ready)
                self.basis[loss, ready] = FIRST

    @property
    def settled(self) -> bool:
        """Return whether no reference can be dropped any more."""
        return all(stated.ignored or self.first_outcomes[0, loss] >= LEARN for loss, stated in self.references.items())

    def stepped(self, entries: Entries, start: int) -> Run:
        """Return the run of all entries from outcome `start` on, sorted by row and then position."""
        streams, variants = entries.streams[:, start:], self.variants
        size, unused = streams.shape[1], self.streams * variants
        row = streams * variants if variants > 1 else streams
        lacking = row < 0
        if np.count_nonzero(lacking):
            row = np.where(lacking, unused, row)
        if variants > 1:
            row = row + np.arange(variants)[:, None, None]
            left_out = entries.source[start:] == np.arange(variants - 1)[:, None]
            row.transpose(0, 2, 1)[1:][left_out] = unused
        # Sorting small integers is much cheaper. A row belongs to one dimension and one variant, where the positions
        # rise already.
        narrow = np.uint16 if unused + variants < 65_536 else np.int64
        row = row.reshape(-1)
        order = row.astype(narrow).argsort(kind="stable")
        row = row[order]
        used = int(row.searchsorted(unused))
        positions = order[:used] % size
        positions += start
        return run_of(row[:used], positions, start, -(-entries.source.size // BLOCK) - start // BLOCK)

    def forget(self, window: Floats) -> None:
        """Take the outcomes of a window, (2 x losses, streams, sources), out of the baselines."""
        losses = len(self.banks)
        for loss, bank in enumerate(self.banks):
            bank.forget(self._by_row(window[loss]), self._by_row(window[losses + loss]))

    def _by_row(self, cells: Floats) -> Floats:
        """Return sums by (stream, source) as sums by row."""
        everything = cells.sum(axis=1, keepdims=True)
        table = np.repeat(everything, self.variants, axis=1)
        if self.variants > 1:
            table[:, 1:] -= cells[:, : self.variants - 1]
        return table.reshape(-1)


def new_rows(binary: list[bool], streams: int) -> Rows:
    """Return rows that all learn, for losses that are binary or not.

    >>> new_rows([True, False], 3).learning
    True
    """
    banks = [empty_bank(kind, streams) for kind in binary]
    return Rows(streams, 1, banks, np.zeros((len(binary), streams), np.int64), np.zeros((2, len(binary))))
