"""The stages of an event; read this module first. Kafka's workers, the embedded monitor, replays and audits run them.

    record ──decode──> event ──join──> outcomes ──cut──> batch ──append──> ledger ──fold──> decisions ──> commands

| stage | function | what happens |
|---|---|---|
| decode | `unship.codec`, `streams.window.decoding` | bytes become an event, or a rejection with a code |
| join | `streams.join.partition.PartitionJoin.take` | a prediction waits for its truth; together they are an outcome |
| cut | `streams.join.partition.PartitionJoin.batches` | outcomes become the columns of a batch between two corners |
| append | `streams.ledger.entries.entry_of` | a ledger record becomes the bytes that a log holds |
| fold | `streams.fold.fold.Fold.pieces` | what is covered already is dropped, the rest goes to its model |
| judge | `streams.fold.judging`, `streams.evaluation` | closed cohorts go to the detectors; findings are collected |
| decide | `streams.fold.deciding`, `actions.policy` | the first guard that gives a reason wins |
| report | `actions.incidents.Incidents` | decisions open and close incidents, of which people get alerts |
| command | `actions.reconcile.due_commands` | desired state becomes commands, signed, obeyed and acknowledged |

Everything from join to decide is a pure function: no clock, no chance, no I/O. The drivers differ in where records come
from and what decides when a batch ends:

* on Kafka a `SourceReader` for each pair of partitions orders two logs that grow (`streams.kafka.ingest_service`); its
  batches go through the topic `ledger`, and a fold for each ledger partition reads them
  (`streams.kafka.control_service`);
* an embedded log and a recording have one order already, one pair of partitions and one ledger: `Pipeline` below runs
  all stages in one place, and `streams.join.line_cutter` decides when a batch ends;
* a replay of a ledger, and an audit, begin at `fold`; the audit also joins the sources again (`streams.audit.rejoin`),
  or where a replay wrote the recording, runs all stages once more (`streams.audit.replayed`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from actions.incidents import Alert
from actions.journal import Decision
from streams.config.resolved import FOLD_VERSION, Config
from streams.fold.fold import Fold, SavedFold
from streams.join.confirmed_times import ConfirmedTimes
from streams.join.line_cutter import Arrival, LineCutter, SavedCutter
from streams.join.runs import Run
from streams.ledger.entries import Entry, entry_of
from streams.ledger.records import Configured, Record, Tick
from unship.errors import RecordingError


class Step(NamedTuple):
    """A ledger record that was folded, with its offset, and the decisions and alerts that followed."""

    offset: int
    entry: Entry
    decisions: list[Decision]
    alerts: Sequence[Alert] = ()


class SavedPipeline(msgspec.Struct, frozen=True):
    """A saved `Pipeline`, between two records. Lines that wait for their times to be confirmed are taken again."""

    cutter: SavedCutter
    fold: SavedFold
    waiting: list[bytes] = []


class Pipeline:
    """All stages over one pair of source partitions and one ledger partition."""

    def __init__(self, config: Config) -> None:
        self.cutter = LineCutter(config)
        self.fold = Fold(config)
        self._times = ConfirmedTimes()

    def take(self, arrivals: Iterable[Arrival | Run]) -> Iterator[Step]:
        """Join records in the order of their arrival; yield the ledger records that they complete."""
        for arrival in arrivals:
            yield from self._take(self._times.take(arrival, self.cutter.numbering.clock))

    def _take(self, arrivals: Iterable[Arrival | Run]) -> Iterator[Step]:
        cutter = self.cutter
        for arrival in arrivals:
            if isinstance(arrival, Run):
                yield from self._take_run(arrival)
                continue
            now = cutter.arrive(arrival)
            if now >= self.fold.due() or cutter.is_due(now):
                yield from self.apply(cutter.cut())
                yield from self._tick(now)
            copied = cutter.take(arrival)
            if copied is not None:
                yield from self.apply(cutter.cut())
                yield from self.apply([copied])

    def _take_run(self, run: Run) -> Iterator[Step]:
        """Join predictions and feedback at once; where batches end and ticks fall due is found afterwards."""
        cutter = self.cutter
        cutter.join_run(run)
        self.fold.expect(cutter.join.pending.expected_parts(), cutter.join.partition)
        while (now := cutter.next_due(self.fold.due())) is not None:
            yield from self.apply(cutter.cut())
            yield from self._tick(now)
        cutter.end_run()

    def rejoin(self, arrivals: Iterable[Arrival | Run]) -> None:
        """Fill the join's window with records whose outcomes are in the ledger already; these are dropped."""
        cutter = self.cutter
        for arrival in arrivals:
            if isinstance(arrival, Run):
                cutter.join_run(arrival)
                cutter.end_run()
            else:
                cutter.arrive(arrival)
                cutter.take(arrival)
        cutter.rest()

    def rest(self) -> Iterator[Step]:
        """Yield the ledger records for all that was read so far, as the input has ended."""
        yield from self._take(self._times.rest())
        yield from self.apply(self.cutter.rest())

    def advance(self, ts: int) -> Iterator[Step]:
        """Advance the source clock to `ts` (ms) without a record, after all records were read."""
        yield from self._take(self._times.rest())
        if ts > self.cutter.now:
            yield from self.apply(self.cutter.cut())
            yield from self._tick(ts)
            self.cutter.numbering.clock.advance(ts)
            yield from self.apply([Tick(ts)])

    def apply(self, records: Iterable[Record]) -> Iterator[Step]:
        """Fold records, and after each the fleet records of its decisions, for the limit over all models."""
        yield from self._follow()
        for record in records:
            yield self._step(record)
            yield from self._follow()

    def _step(self, record: Record) -> Step:
        offset, entry = self.fold.offset, entry_of(record)
        return Step(offset, entry, self.fold.step(entry), self.fold.alerts)

    def _follow(self) -> Iterator[Step]:
        while self.fold.fleet.owed:
            fact = next(iter(self.fold.fleet.owed.values()))
            yield self._step(fact)
            assert fact.decision not in self.fold.fleet.owed, fact.decision

    def _tick(self, now: int) -> Iterator[Step]:
        while (due := self.fold.due()) <= now:
            yield from self.apply([Tick(due)])
            assert self.fold.due() > due, due

    def save(self) -> SavedPipeline:
        """Return everything needed to continue with the next record."""
        return SavedPipeline(self.cutter.save(), self.fold.save(), self._times.lines())

    def load(self, saved: SavedPipeline) -> None:
        """Load what `save` returned into a new pipeline, which then takes the arrivals in the lines that waited."""
        self.fold.load(saved.fold)
        self.cutter.load(saved.cutter)


def configuration_record(config: Config, *, numbered: bool = False) -> Configured:
    """Return the first record of a ledger: the configuration in force from there on.

    `numbered` is true where sources are numbered by the lines of a recording.
    """
    return Configured(-1, FOLD_VERSION, config.digest(), config.recorded(), numbered=numbered)


def configuration_of(record: Record) -> Config:
    """Return the configuration that a ledger begins with.

    Raises:
        RecordingError: The record is no configuration, or it cannot be read.
    """
    if not isinstance(record, Configured):
        raise RecordingError("the ledger does not begin with its configuration; record it from its first offset on")
    try:
        return msgspec.convert(record.config, Config)
    except msgspec.ValidationError as error:
        raise RecordingError(f"the ledger's configuration cannot be read: {error}") from error
