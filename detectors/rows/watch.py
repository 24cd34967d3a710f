"""The health of one version in one role: its outcomes step rows of detectors, and an alarm latches.

Rows form a table: streams (overall and slices) by variants (all label sources, and each source left out), one table for
each loss. The alarm is on the weighted mean of the evidence of all streams, so one promise covers every slice and loss;
the stream that contributes most is the one that alarmed. From then on the version is degraded until its live period
ends, the outcomes since the change point are taken out of the baselines, and everything since is counted.
"""

from math import isnan

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Floats, Ints, rounded
from detectors.betting import predictive_mean
from detectors.change_point import block_glr
from detectors.rows.bank import (
    BASELINE_CAP,
    BASELINE_LEAST,
    BLOCK,
    LEARN,
    Bank,
    Blocks,
    add_capped,
    copy_variant,
    empty_bank,
    reshaped,
    take_out,
)
from detectors.rows.history import SOURCES, Block, BlockHistory
from detectors.rows.types import EARLIER, FIRST, PREVIOUS, REFERENCE, Alarm, Baselines, Entries, Rules, StatedReference

Bools = NDArray[np.bool_]
ALARMS_MAX = 8
#: Outcomes that are laid out at once, a multiple of a block: it bounds memory, and the work that an alarm throws away.
RUN = 4_096


class Health(msgspec.Struct):
    """The rows of one version in one role during one live period of its model.

    `mix` records the requests while all was well, across versions, shape (1 + 2 x losses, streams): outcomes, all
    fading together so that their shares stay those of the newest; then for each loss counts, and sums, each stream
    fading alone. `references` holds what the deployment stated for each loss, and what the overall row has if that
    turns out to be implausible; `first` counts, per loss, the first outcomes and their losses, shape (2, losses).
    `labelled` says which rows are outcomes: those with a label (True), those without (False), or all (None); the others
    step only the losses that they have.
    """

    version: str
    role: str
    since: int
    streams: int
    variants: int
    banks: list[Bank]
    basis: NDArray[np.int64]
    mix: NDArray[np.float64]
    history: BlockHistory
    alarms: list[Alarm]
    first: NDArray[np.float64]
    references: dict[int, StatedReference] = {}
    waiting: list[Entries] = []
    waiting_outcomes: int = 0
    outcomes: int = 0
    unusable: int = 0
    fixed: bool = False
    last_at: int = -1
    labelled: bool | None = None

    def __post_init__(self) -> None:
        """Count what waits: for each outcome, counting it anew is a twentieth of the whole fold."""
        self.waiting_outcomes = sum(part.source.size for part in self.waiting)

    @property
    def degraded(self) -> bool:
        """Whether an alarm has latched."""
        return bool(self.alarms)

    @property
    def learning(self) -> bool:
        """Whether the overall row of the primary loss has no baseline yet."""
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
        if streams == self.streams and variants <= self.variants:
            return
        old, new = (self.streams, self.variants), (max(streams, self.streams), max(variants, self.variants))
        for i, bank in enumerate(self.banks):
            self.banks[i] = grown = reshaped(bank, old, new)
            # Leaving out a source that never spoke is leaving out nothing. While there was one source, it was the
            # first.
            for variant in range(old[1] if old[1] > 1 else 2, new[1]):
                copy_variant(grown, new, 0, variant)
        losses = len(self.banks)
        basis = np.zeros((losses, *new), np.int64)
        basis[:, : old[0], : old[1]] = self.basis.reshape(losses, *old)
        basis[:, :, old[1] if old[1] > 1 else 2 :] = basis[:, :, :1]
        self.basis = basis.reshape(losses, -1)
        self.mix = np.pad(self.mix, ((0, 0), (0, new[0] - old[0])))
        for alarm in self.alarms:
            window = np.zeros((alarm.window.shape[0], new[0], SOURCES))
            window[:, : alarm.window.shape[1]] = alarm.window
            alarm.window = window
        self.streams, self.variants = new

    def fix_baselines(
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
                    self._take(loss, self._fitted(n[loss]), self._fitted(k[loss]), basis)
            if loss in reference and self.basis[loss, 0] != EARLIER:
                mean, size = reference[loss]
                if size >= BASELINE_LEAST:
                    instead = (0.0, 0.0, FIRST) if bank.learning[0] else (float(bank.n[0]), float(bank.k[0]), PREVIOUS)
                    self.references[loss] = StatedReference(mean, size, *instead)
                    count = min(size, BASELINE_CAP)
                    bank.n[0], bank.k[0], bank.learning[0] = count, mean * count, False
                    self.basis[loss, 0] = REFERENCE
        known = earlier or previous
        if known is not None:
            self.mix[:, : known.mix.shape[1]] += known.mix

    def _take(self, loss: int, n: Floats, k: Floats, basis: int) -> None:
        bank = self.banks[loss]
        use = n >= BASELINE_LEAST
        bank.n[use], bank.k[use] = n[use], k[use]
        bank.learning[use] = False
        self.basis[loss, use] = basis

    def _fitted(self, table: Floats) -> Floats:
        """Lay an older table of (streams, variants) out as the present rows."""
        fitted = np.zeros((self.streams, self.variants))
        streams, variants = min(table.shape[0], self.streams), min(table.shape[1], self.variants)
        fitted[:streams, :variants] = table[:streams, :variants]
        if table.shape[1] < self.variants:
            first = variants if variants > 1 else 2
            fitted[:streams, first:] = table[:streams, :1]
        return fitted.reshape(-1)

    def leave(self) -> Baselines:
        """Return what the version leaves behind."""
        self.settle()
        shape = (len(self.banks), self.streams, self.variants)
        n = np.stack([np.where(bank.learning, 0.0, bank.n) for bank in self.banks])
        return Baselines(
            version=self.version,
            healthy=not self.degraded and not self.learning,
            n=n.reshape(shape),
            k=np.stack([bank.k for bank in self.banks]).reshape(shape),
            own_n=np.stack([bank.own_n for bank in self.banks]).reshape(shape),
            own_k=np.stack([bank.own_k for bank in self.banks]).reshape(shape),
            mix=self.mix.copy(),
        )

    def absorb(self, entries: Entries) -> None:
        """Count outcomes of a version that is judged no more, for the baselines it leaves behind."""
        self.settle()
        rows, positions = self._rows(entries, 0)
        for loss, bank in enumerate(self.banks):
            bank.count(rows, entries.losses[loss, positions], not self.degraded)
        self._count_mix(entries, 0, entries.source.size)
        if entries.source.size:
            self._remember(entries, 0, entries.source.size)

    def check_references(self, worse_by: float) -> int:
        """Drop references that the version's own first outcomes belie; return how many were dropped now.

        Who states a mean that is far too bad would never hear of a decay. The overall row then has the baseline that it
        would have had without the reference, and the outcomes of this period that have joined it.
        """
        dropped = 0
        if self.degraded:
            return dropped
        for loss, stated in self.references.items():
            n, k = self.first[:, loss]
            if stated.ignored or n < LEARN or rounded(stated.mean - float(k / n)) <= rounded(worse_by):
                continue
            stated.ignored = True
            dropped += 1
            bank = self.banks[loss]
            bank.n[0], bank.k[0] = stated.instead_n, stated.instead_k
            add_capped(bank.n[:1], bank.k[:1], bank.own_n[:1], bank.own_k[:1])
            self.basis[loss, 0] = stated.instead
        return dropped

    def _count_first(self, losses: Floats) -> None:
        for loss in self.references:
            column = losses[loss]
            room = int(LEARN - self.first[0, loss])
            if room > 0:
                some = column[~np.isnan(column)][:room]
                self.first[:, loss] += some.size, some.sum()

    def judge(self, entries: Entries, rules: Rules, now: int) -> None:
        """Step all rows with outcomes in prediction order; alarms are appended to `alarms`."""
        size = entries.source.size
        unusable = np.isnan(entries.losses[0])
        if self.labelled is None:
            self.outcomes += size
        else:
            counted = self._counted(entries.source)
            self.outcomes += int(counted.sum())
            unusable &= counted
        self.unusable += int(unusable.sum())
        self._count_first(entries.losses)
        if size == 1:
            self._run_one(entries, rules, now)
            self._learn()
            return
        start = 0
        while start < size:
            start = self._run(entries.part(0, start + RUN), start, rules, now)
            self._learn()

    def _learn(self) -> None:
        for loss, bank in enumerate(self.banks):
            learned = bank.learn()
            if learned.size:
                self.basis[loss, learned] = FIRST

    def _counted(self, source: Ints) -> Bools:
        return source >= 0 if self.labelled else source < 0

    def _run(self, entries: Entries, start: int, rules: Rules, now: int) -> int:
        """Step outcomes from `start` on, up to and with the chunk of the next alarm; return where to go on."""
        rows, positions = self._rows(entries, start)
        growing = not self.degraded
        losses = entries.losses[:, positions]
        blocks = [
            bank.blocks(rows, positions, column, rules.worse_by, growing)
            for bank, column in zip(self.banks, losses, strict=True)
        ]
        size = entries.source.size
        alarmed = None
        end = size
        for chunk in range(start // BLOCK, -(-size // BLOCK)):
            end = min((chunk + 1) * BLOCK, size)
            self._step(blocks, chunk, entries, end, rules)
            alarmed = self._alarmed(rules)
            if alarmed is not None:
                break
        if end < size:
            inside = positions < end
            rows, losses = rows[inside], losses[:, inside]
        for bank, column in zip(self.banks, losses, strict=True):
            bank.count(rows, column, growing)
        self._note(entries, start, end, growing)
        self._latch(alarmed, now)
        return end

    def _run_one(self, entries: Entries, rules: Rules, now: int) -> None:
        """Step a single outcome as `_run` would: where labels count as they come, most records hold just one."""
        rows, growing, losses = self._rows_of_one(entries), not self.degraded, entries.losses[:, 0].tolist()
        growth = self._passed(entries, 1) if rules.in_time else 1.0
        for bank, loss in zip(self.banks, losses, strict=True):
            if not isnan(loss):
                bank.step_one(rows, loss, rules.worse_by, growth)
        alarmed = self._alarmed(rules)
        for bank, loss in zip(self.banks, losses, strict=True):
            if not isnan(loss):
                bank.count_one(rows, loss, growing)
        self._note(entries, 0, 1, growing)
        self._latch(alarmed, now)

    def _rows_of_one(self, entries: Entries) -> Ints:
        """Return the rows that a single outcome steps."""
        streams, source = entries.streams[:, 0], int(entries.source[0])
        rows = streams[streams >= 0] * self.variants
        if self.variants > 1:
            kept = [variant for variant in range(self.variants) if variant == 0 or source != variant - 1]
            rows = (rows[:, None] + kept).reshape(-1)
        return rows

    def _latch(self, alarmed: tuple[int, int, float, float] | None, now: int) -> None:
        if alarmed is not None:
            loss, stream, evidence, threshold = alarmed
            self.banks[loss].restart(self.row(stream))
            self.raise_alarm("e_detector", loss, stream, now, evidence, threshold)

    def _note(self, entries: Entries, start: int, end: int, growing: bool) -> None:
        """Keep outcomes for the record of the requests and for the history.

        Both are read only when something is wrong, so a few outcomes at a time wait until they fill a block.
        """
        if growing and end - start < BLOCK:
            self.waiting.append(entries.part(start, end))
            self.waiting_outcomes += end - start
            if self.waiting_outcomes >= BLOCK:
                self.settle()
            return
        self.settle()
        if growing:
            self._count_mix(entries, start, end)
        self._remember(entries, start, end)

    def settle(self) -> None:
        """Bring the record of the requests and the history up to date."""
        if not self.waiting:
            return
        parts, self.waiting, self.waiting_outcomes = self.waiting, [], 0
        entries = Entries(
            np.concatenate([part.predicted_at for part in parts]),
            np.concatenate([part.streams for part in parts], axis=1),
            np.concatenate([part.source for part in parts]),
            np.concatenate([part.losses for part in parts], axis=1),
        )
        self._count_mix(entries, 0, entries.source.size)
        self._remember(entries, 0, entries.source.size)

    def _step(self, blocks: list[Blocks], chunk: int, entries: Entries, end: int, rules: Rules) -> None:
        growth = None
        if rules.in_time:
            growth = np.full(self.streams * self.variants, self._passed(entries, end))
        for bank, mine in zip(self.banks, blocks, strict=True):
            bank.step(mine, chunk, growth)

    def _passed(self, entries: Entries, end: int) -> float:
        """Return the seconds up to the newest outcome: where the promise is a span of time, evidence grows by them,
        whatever the traffic."""
        at = int(entries.predicted_at[end - 1])
        passed = max(at - self.last_at, 0) / 1000 if self.last_at >= 0 else 0.0
        self.last_at = max(at, self.last_at)
        return passed

    def _alarmed(self, rules: Rules) -> tuple[int, int, float, float] | None:
        """Return (loss, stream, evidence, threshold) of the stream that carries the alarm, if there is one."""
        if not rules.alarming or len(self.alarms) >= ALARMS_MAX:
            return None
        if self.learning:
            # Without a baseline of the primary loss there is no verdict; what has gathered alarms when there is one.
            return None
        shares = np.array([bank.totals[:: self.variants] * rules.weights for bank in self.banks])
        if shares.sum() < rules.promise * (1 - 1e-8) or rounded(float(shares.sum())) < rounded(rules.promise):
            return None
        loss, stream = divmod(int(shares.argmax()), self.streams)
        weight = float(rules.weights[stream])
        return loss, stream, float(self.banks[loss].totals[self.row(stream)]), rules.promise / weight

    def raise_alarm(
        self,
        detector: str,
        loss: int,
        stream: int,
        now: int,
        evidence: float,
        threshold: float,
        least_rise: float = 0.0,
    ) -> None:
        """Latch an alarm: date the change and take what came since out of the baselines. A known stream alarms once.

        An alarm whose rise of the mean loss since the change point is below `least_rise` is passed over.
        """
        if (
            any(alarm.loss == loss and alarm.stream == stream for alarm in self.alarms)
            or len(self.alarms) >= ALARMS_MAX
        ):
            return
        self.settle()
        losses = len(self.banks)
        n, k = self.history.stream(stream, loss, losses)
        first = block_glr(n, k, self.baseline(loss, self.row(stream))[0]) if n.size else 0
        blocks = self.history.blocks()
        since = blocks[first].start if blocks else now
        window = self.history.since(first, self.streams, losses)
        needed, lost = float(window[loss, stream].sum()), float(window[losses + loss, stream].sum())
        bank, row = self.banks[loss], self.row(stream)
        before = max(float(bank.k[row]) - lost, 0.0) / max(float(bank.n[row]) - needed, 1.0)
        if least_rise and rounded(lost / max(needed, 1.0) - before) < rounded(least_rise):
            return
        if not self.alarms:
            self._forget(window)
        self.alarms.append(Alarm(detector, loss, stream, now, since, evidence, threshold, needed, window))

    def _forget(self, window: Floats) -> None:
        losses = len(self.banks)
        for loss, bank in enumerate(self.banks):
            bank.forget(self._by_row(window[loss]), self._by_row(window[losses + loss]))
        recent = window.sum(axis=2)
        for loss in range(losses):
            take_out(self.mix[1 + loss], self.mix[1 + losses + loss], recent[loss], recent[losses + loss])
        # The shares fade all together, with the overall count.
        faded = self.mix[0, 0] >= BASELINE_CAP
        share = -np.expm1(-recent[0, 0] / BASELINE_CAP) * BASELINE_CAP / max(recent[0, 0], 1.0) if faded else 1.0
        self.mix[0] = np.maximum(self.mix[0] - recent[0] * share, 0.0)

    def _by_row(self, cells: Floats) -> Floats:
        """Turn sums by (stream, source) into sums by row."""
        everything = cells.sum(axis=1, keepdims=True)
        table = np.repeat(everything, self.variants, axis=1)
        if self.variants > 1:
            table[:, 1:] -= cells[:, : self.variants - 1]
        return table.reshape(-1)

    def _rows(self, entries: Entries, start: int) -> tuple[Ints, Ints]:
        """Return (rows, positions) of all entries from `start` on, sorted by row and then position."""
        streams = entries.streams[:, start:]
        known = streams >= 0
        base = streams * self.variants
        rows, places = [], []
        for variant in range(self.variants):
            use = known & (entries.source[start:] != variant - 1) if variant else known
            rows.append(base[use] + variant)
            places.append(use.nonzero()[1] + start)
        row, place = np.concatenate(rows), np.concatenate(places)
        order = np.argsort(row * (entries.source.size + 1) + place, kind="stable")
        return row[order], place[order]

    def _count_mix(self, entries: Entries, start: int, end: int) -> None:
        streams = entries.streams[:, start:end]
        known = streams >= 0
        row = streams[known]
        outcome = row if self.labelled is None else streams[known & self._counted(entries.source[start:end])]
        self.mix[0] += np.bincount(outcome, minlength=self.streams)
        if self.mix[0, 0] > BASELINE_CAP:
            self.mix[0] *= BASELINE_CAP / self.mix[0, 0]
        place = np.broadcast_to(np.arange(start, end), streams.shape)[known]
        losses = len(self.banks)
        for loss in range(losses):
            column = entries.losses[loss, place]
            use = ~np.isnan(column)
            n, k = self.mix[1 + loss], self.mix[1 + losses + loss]
            n += np.bincount(row[use], minlength=self.streams)
            k += np.bincount(row[use], weights=column[use], minlength=self.streams)
            fade = BASELINE_CAP / np.maximum(n, BASELINE_CAP)
            n *= fade
            k *= fade

    def usual(self, loss: int, stream: int) -> tuple[float, float]:
        """Return the mean loss and the number of outcomes of a slice while all was well, across versions."""
        n, k = self.mix[1 + loss, stream], self.mix[1 + len(self.banks) + loss, stream]
        return float((k + 0.5) / (n + 1.0)), float(n)

    def _remember(self, entries: Entries, start: int, end: int) -> None:
        """Add outcomes to the history, one block for each chunk, and to the windows of the alarms."""
        if end - start == 1:
            self._remember_one(entries, start)
            return
        streams = entries.streams[:, start:end]
        known = streams >= 0
        place = np.broadcast_to(np.arange(start, end), streams.shape)[known]
        cell = (streams * SOURCES + entries.source[start:end] % SOURCES)[known]
        chunk = place // BLOCK
        width = self.streams * SOURCES
        keys, inverse = np.unique(chunk * width + cell, return_inverse=True)
        losses = entries.losses[:, place]
        usable = ~np.isnan(losses)
        filled = np.where(usable, losses, 0.0)
        count = len(self.banks)
        sums = np.zeros((2 * count, keys.size))
        for loss in range(count):
            sums[loss] = np.bincount(inverse, weights=usable[loss], minlength=keys.size)
            sums[count + loss] = np.bincount(inverse, weights=filled[loss], minlength=keys.size)
        edges = np.flatnonzero(np.diff(keys // width, prepend=-1))
        for first, last in zip(edges, np.append(edges[1:], keys.size), strict=True):
            at = int(entries.predicted_at[max(int(keys[first]) // width * BLOCK, start)])
            self.history.append(Block(at, keys[first:last] % width, sums[:, first:last].copy()))
        if self.alarms:
            window = np.zeros((2 * count, width))
            np.add.at(window.T, keys % width, sums.T)
            for alarm in self.alarms:
                alarm.window += window.reshape(2 * count, self.streams, SOURCES)

    def _remember_one(self, entries: Entries, place: int) -> None:
        """Add a single outcome as `_remember` does."""
        streams = entries.streams[:, place]
        cells = np.sort(streams[streams >= 0]) * SOURCES + entries.source[place] % SOURCES
        count = len(self.banks)
        sums = np.zeros((2 * count, cells.size))
        for number, loss in enumerate(entries.losses[:, place].tolist()):
            if not isnan(loss):
                sums[number], sums[count + number] = 1.0, loss
        self.history.append(Block(int(entries.predicted_at[place]), cells, sums))
        for alarm in self.alarms:
            alarm.window.reshape(2 * count, -1)[:, cells] += sums


def new_health(
    version: str, role: str, since: int, binary: list[bool], streams: int, labelled: bool | None = None
) -> Health:
    """Return a version's health at the start of a live period (ms), with every row still learning."""
    banks = [empty_bank(kind, streams) for kind in binary]
    basis = np.zeros((len(binary), streams), np.int64)
    mix = np.zeros((1 + 2 * len(binary), streams))
    first = np.zeros((2, len(binary)))
    return Health(version, role, since, streams, 1, banks, basis, mix, BlockHistory([]), [], first, labelled=labelled)
