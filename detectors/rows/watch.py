"""Watch one version in one role: its outcomes step rows of detectors, and an alarm latches.

The alarm is on the weighted mean of the evidence of all streams, so one promise covers every slice and loss; the stream
that contributes most is the one that alarmed. From then on the version is degraded until its live period ends, the
outcomes since the change point are taken out of the baselines, and everything since is counted.
"""

from __future__ import annotations

import msgspec
import numpy as np

from detectors.base import Bools, Floats, Ints, rounded
from detectors.change_point import block_glr
from detectors.rows.bank import BASELINE_CAP, BLOCK, Path
from detectors.rows.baselines import Rows, new_rows
from detectors.rows.foresight import Foresight, foresee
from detectors.rows.history import BlockHistory, Taken, WaitingEntries, taken_at_once
from detectors.rows.request_mix import RequestMix, new_request_mix
from detectors.rows.types import Alarm, Baselines, Entries, Rules

ALARMS_MAX = 8
#: Outcomes that are laid out at once, a multiple of a block: it bounds memory, and the work that an alarm throws away.
RUN = 4_096
#: Outcomes that wait for the record of the requests and the history: together they cost as little as one alone.
WAITING_MAX = 16 * BLOCK


class Health(msgspec.Struct):
    """Hold the rows of one version in one role during one live period of its model.

    `mix` records the requests and `history` the recent past; `waiting` are outcomes on their way to both. `labelled`
    selects the rows that are outcomes: those with a label (True), those without (False), or all (None); the others step
    only the losses that they have.
    """

    version: str
    role: str
    since: int
    rows: Rows
    mix: RequestMix
    history: BlockHistory
    waiting: WaitingEntries
    alarms: list[Alarm]
    outcomes: int = 0
    unusable: int = 0
    last_at: int = -1
    labelled: bool | None = None

    @property
    def degraded(self) -> bool:
        """Return whether an alarm has latched."""
        return bool(self.alarms)

    def fit(self, streams: int, sources: int) -> None:
        """Make room for streams and sources that have appeared. A version without source variants passes 0 sources."""
        self.rows.fit(streams, sources)
        self.mix.fit(streams)
        for alarm in self.alarms:
            alarm.fit(streams)

    def fix_baselines(
        self, reference: dict[int, tuple[float, float]], earlier: Baselines | None, previous: Baselines | None
    ) -> None:
        """Give each row the first baseline that exists, see `Rows.fix`."""
        self.rows.fix(reference, earlier, previous)
        known = earlier or previous
        if known is not None:
            self.mix.add(known.mix)
            self.history.begin(known.by_source)

    def leave(self) -> Baselines:
        """Return what the version leaves behind."""
        self.settle()
        before = self.history.first_from(self.alarms[0].since) if self.alarms else None
        return self.rows.leave(self.version, self.degraded, self.mix.sums, self._usual(before))

    def move_source(self, source: int, to: int) -> None:
        """Count outcomes of one source as those of another one, and let a new one take its place."""
        self.settle()
        self.history.move_source(source, to)
        self.rows.forget_source(source)
        for alarm in self.alarms:
            alarm.move_source(source, to)

    def _usual(self, before: int | None) -> Floats:
        """Return the newest outcomes before a block of the history, by source."""
        return self.history.newest(before, self.rows.streams, len(self.rows.banks), BASELINE_CAP)

    def absorb(self, entries: Entries) -> None:
        """Count outcomes of a version that is judged no more, for the baselines it leaves behind."""
        self.settle()
        run = self.rows.stepped(entries, 0)
        for loss, bank in enumerate(self.rows.banks):
            if not self.degraded:
                bank.count(run.rows, entries.losses[loss, run.positions])
        if entries.source.size:
            self._record(taken_at_once(entries), True)

    def check_references(self, worse_by: float) -> int:
        """Drop references that the version's own first outcomes contradict; return how many were dropped now."""
        return 0 if self.degraded else self.rows.check_references(worse_by)

    def judge(self, entries: Entries, rules: Rules, now: int) -> None:
        """Step all rows with the outcomes of a cohort or of a record; alarms are appended to `alarms`."""
        size = entries.source.size
        missing, counted = np.isnan(entries.losses), self._counted(entries.source)
        whole = not np.count_nonzero(missing)
        if counted is None:
            self.outcomes += size
        else:
            self.outcomes += int(np.count_nonzero(counted))
        if not whole:
            unusable = missing[0] if counted is None else missing[0] & counted
            self.unusable += int(np.count_nonzero(unusable))
        self.rows.count_first(entries.losses)
        times = self._times(entries) if rules.in_time and size else None
        start = 0
        while start < size:
            start = self._run(entries.part(0, start + RUN), start, rules, now, whole, times)
            self.rows.learn()

    def is_foreseeable(self, rules: Rules) -> bool:
        """Return whether what outcomes lead to depends on nothing else as long as there is no alarm."""
        plain = self.rows.fixed and self.rows.settled and self.labelled is None and not rules.in_time
        return plain and not self.degraded and not self.rows.learning

    def foresee(self, entries: Entries, bounds: Ints, rules: Rules) -> Foresight | None:
        """Return what the first of some cohorts lead to, None if they have to be judged one after the other.

        Args:
            entries: The outcomes of all cohorts, each in the order of predictions.
            bounds: Where each cohort begins, and the end of the last; none is empty.
            rules: What an alarm takes.
        """
        if not self.is_foreseeable(rules) or np.isnan(entries.losses).any():
            return None
        if int(np.diff(bounds).max(initial=0)) > RUN:
            return None
        return foresee(self.rows, entries, bounds, rules)

    def judge_foreseen(self, foresight: Foresight, cohort: int, entries: Entries) -> None:
        """Step all rows with a cohort that was foreseen, all earlier ones having been judged."""
        self.outcomes += entries.source.size
        self.rows.put([states[cohort] for states in foresight.states], [ready[cohort] for ready in foresight.learned])
        self._note(entries, True)

    def detach(self) -> None:
        """Drop the states after further cohorts that were foreseen."""
        for bank in self.rows.banks:
            bank.detach()

    def _counted(self, source: Ints) -> Bools | None:
        """Return which entries are outcomes, None if all are."""
        if self.labelled is None:
            return None
        return source >= 0 if self.labelled else source < 0

    def _run(self, entries: Entries, start: int, rules: Rules, now: int, whole: bool, times: Ints | None) -> int:
        """Step outcomes from `start` on, up to and with the chunk of the next alarm; return where to go on.

        `whole` is whether every outcome has every loss. `times` are those before and after each chunk of the cohort,
        where evidence grows by time.
        """
        banks, growing, size = self.rows.banks, not self.degraded, entries.source.size
        run = self.rows.stepped(entries, start)
        losses = entries.losses.take(run.positions, axis=1)
        first = start // BLOCK
        growth = None if times is None else np.diff(times[first : first + run.chunks + 1]) / 1000
        with np.errstate(over="ignore", under="ignore"):
            paths = [
                bank.path(run, column, rules.worse_by, growing, growth, whole)
                for bank, column in zip(banks, losses, strict=True)
            ]
        alarmed = self._alarmed(paths, run.chunks, rules)
        chunk = run.chunks - 1 if alarmed is None else alarmed[0]
        end = min((start // BLOCK + chunk + 1) * BLOCK, size)
        for bank, path in zip(banks, paths, strict=True):
            bank.take(path, chunk)
        if times is not None:
            self.last_at = int(times[first + chunk + 1])
        if growing:
            rows = run.rows
            if end < size:
                inside = run.positions < end
                rows, losses = rows[inside], losses[:, inside]
            sizes = np.bincount(rows, minlength=banks[0].n.size) if whole else None
            for bank, column in zip(banks, losses, strict=True):
                bank.count(rows, column, sizes)
        self._note(entries.part(start, end), growing)
        if alarmed is not None:
            _, loss, stream = alarmed
            row = self.rows.row(stream)
            evidence = float(banks[loss].totals[row])
            banks[loss].restart(row)
            self.raise_alarm("e_detector", loss, stream, now, evidence, rules.promise / float(rules.weights[stream]))
        return end

    def _note(self, entries: Entries, growing: bool) -> None:
        """Keep outcomes for the record of the requests and for the history.

        Both are read only when something is wrong, so healthy outcomes wait until they are many.
        """
        if growing:
            self.waiting.add(entries)
            if self.waiting.outcomes >= WAITING_MAX and not self.waiting.filling:
                self.settle()
            return
        self.settle()
        self._record(taken_at_once(entries), growing)

    def settle(self) -> None:
        """Bring the record of the requests and the history up to date."""
        waiting = self.waiting.take()
        if waiting is not None:
            self._record(waiting, True)

    def _record(self, taken: Taken, growing: bool) -> None:
        """Record outcomes in their groups."""
        entries = taken.entries
        if growing:
            self.mix.count(entries, self._counted(entries.source), np.array(taken.begins))
        window = self.history.record(entries, *taken.block_starts(BLOCK), self.rows.streams, bool(self.alarms))
        if window is not None:
            for alarm in self.alarms:
                alarm.add(window)

    def _times(self, entries: Entries) -> Ints:
        """Return the time (ms) before each chunk of a cohort, and after the last, shape (chunks + 1,).

        Where the promise is a span of time, evidence grows by what passes, whatever the traffic. The order of outcomes
        is of no meaning, so the time since the newest of the cohort before is spread over all of them evenly.
        """
        size, at = entries.source.size, entries.predicted_at
        before = self.last_at if self.last_at >= 0 else int(np.minimum.reduce(at))
        passed = max(int(np.maximum.reduce(at)) - before, 0)
        ends = np.minimum(np.arange(-(-size // BLOCK) + 1) * BLOCK, size)
        return before + passed * ends // size

    def _alarmed(self, paths: list[Path], chunks: int, rules: Rules) -> tuple[int, int, int] | None:
        """Return (chunk, loss, stream): where evidence first reaches the promise, and what carries it; else None."""
        if not rules.alarming or len(self.alarms) >= ALARMS_MAX:
            return None
        if self.rows.learning:
            # Without a baseline of the primary loss there is no verdict; what has gathered alarms when there is one.
            return None
        # All weights together are at most 1, so that evidence below the promise in every row is no alarm.
        highest = max(
            max(path.highest, float(bank.totals.max())) for bank, path in zip(self.rows.banks, paths, strict=True)
        )
        if highest < rules.promise * (1 - 1e-6):
            return None
        streams, variants = self.rows.streams, self.rows.variants
        shares = np.empty((chunks, len(paths), streams))
        for loss, (bank, path) in enumerate(zip(self.rows.banks, paths, strict=True)):
            totals = np.empty((chunks, bank.totals.size))
            totals[:] = bank.totals
            totals[:, path.rows] = path.totals
            np.multiply(totals[:, ::variants], rules.weights, out=shares[:, loss])
        sums = shares.reshape(chunks, -1).sum(axis=1)
        for chunk in np.flatnonzero(sums >= rules.promise * (1 - 1e-8)).tolist():
            if rounded(float(shares[chunk].sum())) >= rounded(rules.promise):
                return (chunk, *divmod(int(shares[chunk].argmax()), streams))
        return None

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
        known = any(alarm.loss == loss and alarm.stream == stream for alarm in self.alarms)
        if known or len(self.alarms) >= ALARMS_MAX:
            return
        self.settle()
        bank, row, losses = self.rows.banks[loss], self.rows.row(stream), len(self.rows.banks)
        n, k = self.history.stream(stream, loss, losses)
        first = self.history.first_of(block_glr(n, k, self.rows.baseline(loss, row)[0])) if n.size else 0
        blocks = self.history.blocks()
        since = blocks[first].start if blocks else now
        window = self.history.since(first, self.rows.streams, losses)
        needed, lost = float(window[loss, stream].sum()), float(window[losses + loss, stream].sum())
        before = max(float(bank.k[row]) - lost, 0.0) / max(float(bank.n[row]) - needed, 1.0)
        if least_rise and rounded(lost / max(needed, 1.0) - before) < rounded(least_rise):
            return
        if not self.alarms:
            self.rows.forget(window)
            self.mix.forget(window)
        healthy = min([first, *(self.history.first_from(alarm.since) for alarm in self.alarms[:1])])
        usual = self._usual(healthy)[[loss, losses + loss], stream]
        self.alarms.append(Alarm(detector, loss, stream, now, since, evidence, threshold, needed, window, usual=usual))


def new_health(
    version: str, role: str, since: int, binary: list[bool], streams: int, labelled: bool | None = None
) -> Health:
    """Return a version's health at the start of a live period (ms), with every row still learning."""
    rows, mix = new_rows(binary, streams), new_request_mix(len(binary), streams)
    return Health(version, role, since, rows, mix, BlockHistory([]), WaitingEntries([]), [], labelled=labelled)
