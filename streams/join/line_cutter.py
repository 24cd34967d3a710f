"""Cut records that are in one order already, the lines of a recording or an embedded log, into ledger records.

What was joined becomes a batch at positions that depend on the records alone: after 4,096 accepted ones, where the
source clock enters a new interval, before a deployment or an operator's act, before a tick, and before a record of
which the ledger record has no room for the rows. How many lines are read
at once and where a replay was stopped change nothing. Only records that add a row to the ledger are accepted, so
rejected lines do not move a cut, unless so many of them are counted that they would fill a ledger record. Nor do acks,
which become replica facts: at the next cut, or at the next second if nothing else waits.

The interval is a second, or the width of the narrowest cohort where every model has a maturity, those that only the
defaults configure from their first row on: before a cohort closes its rows are not read, and fewer records cost less.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec
import numpy as np

from streams.config.resolved import Config, ModelConfig
from streams.join.numbering import Numbering
from streams.join.partition import FEEDBACK, PREDICTIONS, PartitionJoin, SavedJoin, refusal
from streams.join.runs import Clocks, Run, RunCuts, read_clocks
from streams.ledger.places import INDEX_BITS
from streams.ledger.records import Deployed, Operated, Record
from unship.budgets.table import CONTROLS, COUNTS
from unship.events import Ack, At, Deployment, Event, OperatorAct
from unship.rejections import RejectCode, Rejection
from unship.signing import SignedBy

CUT_RECORDS: Final = 4_096
SECOND_MS: Final = 1_000

COUNTS_MAX: Final = COUNTS.limit
"""More changes of counts than this are not kept for one batch: its line has to stay one that can be read."""

BATCHES_LEAST: Final = 4
"""So many batches of a run are built together sooner than one by one."""

CONTROLS_REMEMBERED: Final = CONTROLS.limit
"""Deployments and acts are repeated by retries and by every replica; the newest are remembered to drop repeats."""


class Arrival(NamedTuple):
    """A deployment, an act or an ack, or a rejection of one, in the order of arrival.

    `place` is its place in a log: (topic, partition, offset, append time). A line of a recording has none: its offset
    is then its number, and its append time the running maximum of the times of all lines. `signed_by` is who signed a
    deployment or an act of a log.
    """

    event: Event | Rejection
    value: bytes
    place: At | None = None
    signed_by: SignedBy | None = None


Control: TypeAlias = Deployed | Operated


class SavedCutter(msgspec.Struct, frozen=True):
    """A saved `LineCutter`, between two records."""

    join: SavedJoin
    numbering: Numbering
    accepted: int
    accepted_at: int
    facts_at: int
    controls: list[str]
    interval_ms: int


class LineCutter:
    """Joins runs and takes arrivals, and cuts batches. The caller checks `is_due` before each arrival."""

    def __init__(self, config: Config) -> None:
        self.join = PartitionJoin(config)
        self.numbering = Numbering()
        self._models = config.models
        self._interval_ms = interval_ms(tuple(config.models.values()) or (config.defaults,))
        self._unlisted_ms = min(self._interval_ms, interval_ms((config.defaults,)))
        self._accepted = 0
        self._accepted_at = -1
        self._facts_at = -1
        self._controls: dict[str, None] = {}
        # The run that is being cut, and the place before which everything was cut.
        self._cuts: RunCuts | None = None
        self._begin = 0

    @property
    def now(self) -> int:
        """Return the source clock in milliseconds, -1 before the first time."""
        return self.numbering.clock.now

    def arrive(self, arrival: Arrival) -> int:
        """Read the time of the next record, which `take` then joins; return the source clock."""
        return self.numbering.read_time(arrival.event, arrival.place)

    def is_due(self, now: int) -> bool:
        """Return whether what was joined has to be cut before a record at source clock `now`."""
        if self._accepted:
            interval = self._interval_ms
            return now // interval != self._accepted_at // interval or self._accepted >= CUT_RECORDS
        return self.join.replicas.waiting and now // SECOND_MS != self._facts_at // SECOND_MS

    @property
    def is_open(self) -> bool:
        """Return whether a cut would return any record."""
        return bool(self._accepted) or self.join.replicas.waiting

    def take(self, arrival: Arrival) -> Control | None:
        """Take a deployment, an act or an ack that has arrived; return the copy of the first two, to follow a cut."""
        event, value, place, signed_by = arrival
        at = self.numbering.number(event, place)
        if isinstance(event, Rejection):
            self.join.tally.add(event.code)
            return None
        assert isinstance(event, Deployment | OperatorAct | Ack), event
        act = value if place is None and event.at is None else repr(at[:3]).encode()
        copied = self._take_control(event, at, act, signed_by)
        self._limit_counts(self.numbering.line, self.now)
        return copied

    # Runs

    def join_run(self, run: Run) -> None:
        """Join a run. Cut before each place that `next_due` stops at, until it returns None; then call `end_run`."""
        join, shared = self.join, run.offsets is None
        clocks = read_clocks(self.numbering.clock, run)
        first = self.numbering.take(len(run.items))
        line = np.arange(first, first + len(run.items)) << INDEX_BITS
        if shared:
            # Both logs have one clock, so each record may show that earlier feedback is alone.
            join.window.witness(line, clocks.at)
        for side in (PREDICTIONS, FEEDBACK):
            given = run.side(side, clocks.append_ts, clocks.at, line)
            if given.values:
                join.take(side, given, shared=shared)
        if shared:
            join.expire()
        self._begin, self._cuts = 0, self._cuts_of(clocks, first)
        self._expect_batches(self._cuts)

    def _cuts_of(self, clocks: Clocks, first: int) -> RunCuts:
        pending = self.join.pending
        lines = np.array([line >> INDEX_BITS for line, _ in pending.counted], np.int64)
        unlisted = clocks.now.size
        if self._unlisted_ms != self._interval_ms:
            seen = pending.models_seen(first << INDEX_BITS)
            found = ((line >> INDEX_BITS) - first for line, model in seen if model not in self._models)
            unlisted = min(found, default=unlisted)
        accepted = pending.accepted(first << INDEX_BITS) >> INDEX_BITS
        if accepted.size:
            # Several events may be in one record.
            accepted = accepted[np.append(True, accepted[1:] != accepted[:-1])]
        counted = lines[lines >= first] - first
        return RunCuts(clocks.now, first, accepted - first, counted, unlisted, pending.sizes())

    def _expect_batches(self, cuts: RunCuts) -> None:
        """Build the parts of the batches that end by intervals all at once, if they are many."""
        since = self._accepted_at if self._accepted else -1
        ends = cuts.ends(since, self._interval_ms) if cuts.unlisted == cuts.size else []
        if len(ends) >= BATCHES_LEAST:
            self.join.expect([_last_line(cuts, end) for end in ends])

    def next_due(self, due: int) -> int | None:
        """Go to the next record of the run before which a batch ends or a tick falls due; return the source clock then.

        Args:
            due: When the next tick falls due.

        Returns:
            None if that is in no record of the run.
        """
        cuts = self._cuts
        assert cuts is not None, "no run was joined"
        place = min(cuts.from_time(due, self._begin), self._next_cut(cuts))
        full = self._full_before(cuts, place)
        if full is not None:
            place = full
        if place >= cuts.size:
            return None
        self._go_to(cuts, place)
        if full is not None and not self._accepted:
            # Counts alone leave no room for the rows of the next record.
            self._end_batch(self._accepted_at)
        return cuts.now[place]

    def _next_cut(self, cuts: RunCuts) -> int:
        """Return the place before which a batch ends, as `is_due` would; beyond the run if it ends before none."""
        begin, accepted = self._begin, self._accepted
        if accepted >= CUT_RECORDS:
            return begin
        found = [
            cuts.after_accepted(begin, CUT_RECORDS - accepted),
            cuts.after_counted(begin, COUNTS_MAX - self._counted(cuts.first + begin)),
        ]
        first = cuts.first_accepted(begin)
        if accepted:
            found.append(cuts.end_of_interval(begin, self._accepted_at, self._interval_ms, self._unlisted_ms))
        elif first < cuts.size:
            since = cuts.now[first]
            found.append(cuts.end_of_interval(first + 1, since, self._interval_ms, self._unlisted_ms))
        if not accepted and self.join.replicas.waiting:
            end = cuts.from_time((self._facts_at // SECOND_MS + 1) * SECOND_MS, begin)
            if end <= first:
                found.append(end)
        return min(found)

    def _full_before(self, cuts: RunCuts, place: int) -> int | None:
        """Return the place before which a batch has to end that would end before this one, None if it has room."""
        place = min(place, cuts.size)
        last = _last_line(cuts, place)
        if cuts.sizes.fit(last, self._counted(cuts.first + place)):
            return None
        beyond = self.join.line_beyond(last)
        return None if beyond is None else max((beyond >> INDEX_BITS) - cuts.first, self._begin)

    def _go_to(self, cuts: RunCuts, place: int) -> None:
        """Note what was read up to a place."""
        begin = bisect_left(cuts.accepted, self._begin)
        accepted = bisect_left(cuts.accepted, place, begin)
        if accepted > begin:
            self._accepted += accepted - begin
            self._accepted_at = cuts.now[cuts.accepted[accepted - 1]]
        if cuts.unlisted < place:
            self._interval_ms = self._unlisted_ms
        self._begin = place
        if place:
            self._limit_counts(cuts.first + place, cuts.now[place - 1])

    def end_run(self) -> None:
        """Note that the run was read."""
        cuts, self._cuts = self._cuts, None
        assert cuts is not None, "no run was joined"
        self._go_to(cuts, cuts.size)
        self.join.settle()
        if not self._accepted:
            # Feedback without predictions adds no row, so no cut evicts it.
            self.join.window.evict(self.now, self.now)

    def _counted(self, line: int) -> int:
        """Return how many changes of counts there are ahead of a line."""
        return len(self.join.tally) + bisect_left(
            self.join.pending.counted, line << INDEX_BITS, key=lambda each: each[0]
        )

    def _limit_counts(self, line: int, now: int) -> None:
        """End the batch if so many counts have changed that its record would be too large."""
        if self._accepted < CUT_RECORDS and self._counted(line) >= COUNTS_MAX:
            self._end_batch(now)

    def _end_batch(self, now: int) -> None:
        """End the batch, whatever it has."""
        self._accepted, self._accepted_at = CUT_RECORDS, now

    def _take_control(
        self, event: Deployment | OperatorAct | Ack, at: At, act: bytes, signed_by: SignedBy | None
    ) -> Control | None:
        if (code := refusal(event.ts, at[3])) is not None:
            self.join.tally.add(code)
            return None
        if isinstance(event, Ack):
            self._acknowledged(event, at)
            return None
        if self._is_repeated(event, act, signed=signed_by is not None):
            return None
        # The copy has its place, by which a second copy of it is recognised.
        now, copied = self.now, msgspec.structs.replace(event, at=at)
        if isinstance(copied, Deployment):
            return Deployed(now, copied, signed_by)
        return Operated(now, copied, signed_by)

    def _acknowledged(self, event: Ack, at: At) -> None:
        if self.join.replicas.acknowledged(event, at[:3], self.numbering.clock.at):
            self._facts_at = self.now

    def _is_repeated(self, event: Deployment | OperatorAct, act: bytes, *, signed: bool) -> bool:
        """Return whether a deployment or an act was taken before; a repeat is counted. `act` identifies an act."""
        if isinstance(event, Deployment):
            # A deployment without `ts` is made at its line, so going back to a version is no repeat.
            ts = self.now if event.ts is None else event.ts
            # An unsigned one that comes first must not make the signed one a repeat.
            content = repr((event.model, event.version, event.status, ts, event.previous, signed)).encode()
            code = RejectCode.DUPLICATE_DEPLOYMENT
        else:
            content, code = act, RejectCode.DUPLICATE_ACT
        name = hashlib.sha256(content).hexdigest()
        if name in self._controls:
            self.join.tally.add(code)
            return True
        self._controls[name] = None
        if len(self._controls) > CONTROLS_REMEMBERED:
            del self._controls[next(iter(self._controls))]
        return False

    def cut(self) -> Iterable[Record]:
        """Return what was joined, and what changed at replicas, since the last cut; none if only counts are new."""
        if not self.is_open:
            return ()
        # Not the time of the record before which the cut is made: ticks that fall due between the two come first.
        now = self._accepted_at if self._accepted else self._facts_at
        return self._cut(now, with_batch=self._accepted > 0)

    def rest(self) -> Iterable[Record]:
        """Return the records for all that was read so far, also for what was only counted."""
        if self._accepted or (self.join.base == self.join.end and not self.join.waiting):
            return self.cut()
        return self._cut(self.now, with_batch=True)

    def _cut(self, now: int, *, with_batch: bool) -> list[Record]:
        line = None if self._cuts is None else _last_line(self._cuts, self._begin)
        self._accepted = 0
        self.join.window.evict(self.now, self.now)
        batches: list[Record] = []
        if with_batch:
            batches.append(self.join.batch(now, line))
            if self._cuts is not None and line is not None:
                self._cuts.sizes.cut(line)
        else:
            self.join.settle(line)
        return [*self.join.facts(now), *batches]

    def save(self) -> SavedCutter:
        """Return everything needed to continue with the next record; call between two records."""
        return SavedCutter(
            self.join.save(),
            self.numbering,
            self._accepted,
            self._accepted_at,
            self._facts_at,
            list(self._controls),
            self._interval_ms,
        )

    def load(self, saved: SavedCutter) -> None:
        """Load what `save` returned into a new cutter of the same configuration."""
        self.join.load(saved.join)
        self.numbering = saved.numbering
        self._accepted, self._accepted_at, self._facts_at = saved.accepted, saved.accepted_at, saved.facts_at
        self._controls = dict.fromkeys(saved.controls)
        self._interval_ms = saved.interval_ms


def _last_line(cuts: RunCuts, end: int) -> int:
    """Return the last line of a batch that ends before a place."""
    return (cuts.first + end << INDEX_BITS) - 1


def interval_ms(models: Sequence[ModelConfig]) -> int:
    """Return the interval of the source clock after which what was joined is cut at the latest, in milliseconds."""
    if not all(model.mature_after_ms for model in models):
        return SECOND_MS
    return min(model.cohort_ms for model in models)
