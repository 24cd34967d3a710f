"""The driver of the embedded log: it reads the source topics, and appends ledger and decisions in one transaction.

Every round reads what is new in the source topics, orders it by append time, passes it through the stages of
`streams.pipeline`, and appends the ledger records, the decisions and the dead letters together with the positions
reached. So after a crash at any instruction the ledger and the positions agree: the newest snapshot is loaded, the
ledger is folded from there, the sources are read again only to fill the join's window, and nothing is lost or counted
twice. A snapshot that cannot be read costs time only: then an older one is loaded, or the ledger is folded from its
beginning.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from actions.control_records import trusted_commands
from actions.incidents import DECISION_PATH, alert_bytes
from actions.journal import Decision
from actions.reconcile import Signer, SteadyClock, Timing, due_commands
from streams.config.resolved import Config
from streams.embedded.journal import record_of
from streams.embedded.snapshots import Head, load
from streams.embedded.source_runs import SourceRuns
from streams.embedded.writer import Piece, Writer
from streams.fold.fold import LedgerMismatch, unexplained_models
from streams.fold.status import ModelStatus, Seen, Status, fold_status
from streams.join.line_cutter import Arrival
from streams.join.runs import Run
from streams.join.signed import read_control
from streams.ledger.encoding import pack, unpack
from streams.ledger.entries import read_entry
from streams.ledger.records import Tick, trusted_of
from streams.pipeline import Pipeline, SavedPipeline, Step, configuration_record
from unship.commands import Command, encode_command
from unship.errors import RecordingError
from unship.log.embedded.log import EmbeddedLog, Message, OffsetTrimmed
from unship.log.embedded.log import Record as Entry
from unship.log.embedded.table import CLOCK_AHEAD_MS
from unship.rejections import RejectCode, Rejection
from unship.topics import EVENT_TOPICS, SOURCES

logger = logging.getLogger("unship")

READ_MAX: Final = 5_000


class SavedMonitor(msgspec.Struct, frozen=True):
    """A snapshot: the pipeline, and how far each source topic was read."""

    positions: dict[str, int]
    pipeline: SavedPipeline


class EmbeddedMonitor:
    """The monitor over one embedded log. `clock_ms` is the wall clock, used only after all sources are read."""

    def __init__(
        self,
        log: EmbeddedLog,
        config: Config,
        clock_ms: Callable[[], int],
        signer: Signer | None = None,
        timing: Timing | None = None,
    ) -> None:
        self.log = log
        self.signer = signer
        self.timing = timing or Timing()
        self.config = config
        self.pipeline = Pipeline(config)
        self.positions = dict.fromkeys(EVENT_TOPICS, 0)
        self._sources = SourceRuns()
        self._clock_ms = clock_ms
        self._writer = Writer(log, config)
        self._published: dict[str, Command] = {}
        self._forged = 0
        self._steady = SteadyClock()
        self._read_published()
        self._recover()
        self._commit_trust(replaced=False)

    def _read_published(self) -> None:
        """Read back the commands that a trusted key has signed."""
        trust = None if self.signer is None else self.signer.trust
        newest, forged = trusted_commands(self.log.latest("control").values(), trust)
        self._published, self._forged = {model: command for model, (_, command) in newest.items()}, len(forged)
        if forged:
            why = RejectCode.FORGED_CONTROL.meaning
            logger.warning("%d records of control are ignored (FORGED_CONTROL): %s", self._forged, why)
        issued = max((last.issued_ts for last in self._published.values()), default=0)
        self._steady.reached(issued, self._clock_ms())

    def change_keys(self, signer: Signer | None) -> None:
        """Sign with another key and trust others from now on; what an untrusted one has published counts no more."""
        self.signer = signer
        self._read_published()
        self._commit_trust(replaced=True)

    def _commit_trust(self, *, replaced: bool) -> None:
        if self.signer is None:
            return
        trusted = trusted_of(self.signer.trust)
        if self.pipeline.fold.copies.needs(trusted, replaced=replaced):
            self._commit([*self.pipeline.apply([trusted])])

    # Recovery

    def _recover(self) -> None:
        begun = dict(self.positions)
        for head, data in load(self.log, logger.warning):
            restored = self._restored(head, data)
            if restored is not None:
                self.pipeline, self.positions, begun = restored
                break
        fold = self.pipeline.fold
        if (first := self.log.first("ledger")) > fold.offset:
            raise RecordingError(
                f"{self.log.folder}: the ledger begins at offset {first}, and no snapshot that can be used holds what "
                "came before; bring the folder back from a copy, or begin a new log"
            )
        for value in _ledger_values(self.log, fold.offset):
            entry = read_entry(value)
            try:
                fold.step(entry)
            except LedgerMismatch as error:
                raise RecordingError(str(error)) from error
            if isinstance(entry.record, Tick) and entry.record.positions:
                self.positions = {topic: entry.record.positions[topic] for topic in EVENT_TOPICS}
        self._refill(begun)
        # Rounds without a record moved the clock as well.
        self.pipeline.cutter.numbering.clock.advance(fold.clock)
        if fold.config_digest != self.config.digest() or fold.offset == 0:
            self._commit([*self.pipeline.apply([configuration_record(self.config)])])

    def _refill(self, begun: dict[str, int]) -> None:
        """Read the sources again up to the positions reached; their outcomes are in the ledger already."""
        positions, self.positions = self.positions, begun
        while any(self.positions[topic] < positions[topic] for topic in EVENT_TOPICS):
            self.pipeline.rejoin(self._read(positions))
            # These were appended when the records were read first.
            self._sources.take_dead()
        self.positions = positions

    def _restored(self, head: Head, data: bytes) -> tuple[Pipeline, dict[str, int], dict[str, int]] | None:
        """Return the pipeline of a snapshot, the positions, and where the sources are read from; None if it is none."""
        pipeline = Pipeline(self.config)
        begun = dict.fromkeys(EVENT_TOPICS, 0)
        try:
            saved = unpack(data, SavedMonitor)
            if saved.pipeline.fold.offset > self.log.end("ledger"):
                raise ValueError(f"it is ahead of the ledger, which ends at {self.log.end('ledger')}")
            pipeline.fold.load(saved.pipeline.fold)
            # Under another configuration the join keeps other fields of an event, so its window is read again.
            if saved.pipeline.fold.config.digest() == self.config.digest():
                pipeline.cutter.load(saved.pipeline.cutter)
                begun |= saved.positions
        except (msgspec.DecodeError, ValueError, TypeError, LookupError, AttributeError) as error:
            logger.warning("%s: the snapshot of offset %d cannot be used: %s", self.log.folder, head.offset, error)
            return None
        return pipeline, dict.fromkeys(EVENT_TOPICS, 0) | saved.positions, begun

    def save_snapshot(self) -> None:
        """Append a snapshot; a restart then reads only what was appended after it."""
        self._writer.flush()
        self._writer.checkpoint(self.pipeline.fold, self.signer, self._clock_ms())
        self._report()
        positions = dict(self.positions)
        data = pack(SavedMonitor(positions, self.pipeline.save()))
        self._writer.save(data, self.pipeline.fold.offset, self.pipeline.cutter.now, positions)

    # Rounds

    def step(self) -> list[Decision]:
        """Read new records, run all stages and append the results; return the decisions."""
        self._writer.flush()
        self._writer.keep_small(self._clock_ms(), self.positions)
        self._set_clocks_back()
        ends, pipeline = self.log.ends(), self.pipeline
        arrivals = list(self._read(ends))
        steps = list(pipeline.take(arrivals))
        caught_up = all(self.positions[topic] >= ends[topic] for topic in EVENT_TOPICS)
        now = max(self._clock_ms(), pipeline.cutter.now)
        if caught_up and pipeline.fold.due() <= now and pipeline.cutter.now >= 0:
            steps += pipeline.advance(now)
        steps += pipeline.rest()
        if steps or arrivals:
            # Those that this monitor writes are stated as well: where a record of them is gone, an audit finds it.
            written = {topic: ends[topic] for topic in ("control", "decisions")}
            steps += pipeline.apply([Tick(pipeline.cutter.now, self.positions | written)])
            self._commit(steps)
        if self._writer.is_status_due(self._clock_ms()):
            self._report()
        return [decision for step in steps for decision in step.decisions]

    def _set_clocks_back(self) -> None:
        """Give records by a clock that is far ahead the time of now, before they are read.

        Append times never fall, so everything after such a record would have its time too, and be judged only then.
        """
        now, newest = self._clock_ms(), self.log.newest_times(EVENT_TOPICS)
        for topic in (name for name, append_ts in newest.items() if append_ts > now + CLOCK_AHEAD_MS):
            first, append_ts, count = self._writer.set_back(topic, self.positions[topic], now)
            if count:
                (entry,) = self.log.read(topic, first, limit=1)
                ahead_s = (append_ts - now) // 1_000
                logger.warning(
                    "%s: %d records of %s from offset %d on were appended by a clock %d s ahead (CLOCK_AHEAD); they "
                    "count as appended now. Look for a process or a machine whose clock is wrong",
                    *(self.log.folder, count, topic, first, ahead_s),
                )
                self._sources.set_back(topic, entry, count, f"{ahead_s} s ahead, and {count - 1} records after it")

    def _commit(self, steps: Iterable[Step]) -> None:
        url = self.config.web.url(DECISION_PATH)
        pieces = [
            Piece(
                Message(step.entry.value),
                [record_of(decision, self.signer) for decision in step.decisions],
                [Message(alert_bytes(alert, url), alert.incident.encode()) for alert in step.alerts],
            )
            for step in steps
        ]
        self._writer.commit(pieces, self._sources.take_dead(), self.pipeline.fold.offset - len(pieces))

    def status(self) -> Status:
        """Return the whole status; what has changed of it is appended."""
        return self._status(None)

    def _status(self, models: dict[str, ModelStatus] | None) -> Status:
        cutter = self.pipeline.cutter
        forged = Counter[str]({RejectCode.FORGED_CONTROL: self._forged})
        counts = cutter.join.counts() + forged + self._sources.ahead
        return fold_status(self.pipeline.fold, cutter.now, counts, models, self._seen())

    def _seen(self) -> Seen:
        """Return the time of now, and how far the source clock is behind it: not at all where everything was read."""
        now, clock = self._clock_ms(), self.pipeline.cutter.now
        caught_up = all(self.positions[topic] >= end for topic, end in self.log.ends().items() if topic in EVENT_TOPICS)
        return Seen(now, 0 if caught_up else max(now - clock, 0) if clock >= 0 else None)

    def _report(self) -> None:
        self._writer.report(self.pipeline.fold, self._status({}), self._clock_ms())

    # Commands

    def publish(self) -> list[Command]:
        """Append the commands that are due, changed ones and heartbeats; return them.

        Their decisions are in the journal already, so a crash before this only delays the commands.
        """
        if self.signer is None or not self.signer.may_command:
            return []
        self._writer.checkpoint(self.pipeline.fold, self.signer, self._clock_ms(), if_due=True)
        desired = self.pipeline.fold.commanded()
        now = self._steady.at(self._clock_ms())
        commands = due_commands(desired, self._published, self.signer.audience, now, self.timing)
        messages = []
        for command in commands:
            value = encode_command(command)
            messages.append(Message(value, command.model.encode(), tuple(self.signer.sign(value))))
        if messages:
            self._writer.append("control", messages)
            self._published |= {command.model: command for command in commands}
        return commands

    def conflicts(self) -> list[str]:
        """Return a sentence for each model with a published command that this ledger does not explain."""
        return unexplained_models(self.pipeline.fold, self._published)

    def _read(self, ends: dict[str, int]) -> Iterator[Arrival | Run]:
        """Yield new records below `ends`, in the order of append times, and advance the positions.

        Where a topic was not read to its end, records of others that are newer than its last one read are left.
        """
        read: dict[str, list[Entry]] = {}
        limit = None
        for topic in EVENT_TOPICS:
            entries = [] if self.positions[topic] >= ends[topic] else self._entries(topic, ends[topic])
            read[topic] = entries
            if entries and entries[-1].offset + 1 < ends[topic]:
                limit = entries[-1].append_ts if limit is None else min(limit, entries[-1].append_ts)
        merged = []
        for rank, topic in enumerate(EVENT_TOPICS):
            taken = [entry for entry in read[topic] if limit is None or entry.append_ts <= limit]
            merged += [(entry.append_ts, rank, entry.offset, topic, entry) for entry in taken]
            if taken:
                self.positions[topic] = taken[-1].offset + 1
        merged.sort(key=lambda item: item[:3])
        run: list[tuple[int, Entry]] = []
        for _, _, _, topic, entry in merged:
            if topic in SOURCES:
                run.append((SOURCES.index(topic), entry))
                continue
            if run:
                yield self._sources.run(run)
                run = []
            yield self._arrival(topic, entry)
        if run:
            yield self._sources.run(run)

    def _entries(self, topic: str, end: int) -> list[Entry]:
        try:
            entries = self.log.read(topic, self.positions[topic], limit=READ_MAX)
        except OffsetTrimmed:
            entries = self._after_hole(topic, end)
        return [entry for entry in entries if entry.offset < end]

    def _after_hole(self, topic: str, end: int) -> list[Entry]:
        """Return the first records that are kept of a topic; what was removed before it was read is counted."""
        begin, first = self.positions[topic], self.log.first(topic)
        self.positions[topic] = min(first, end)
        if topic in SOURCES:
            lost = self.positions[topic] - begin
            self.pipeline.cutter.join.skip(SOURCES.index(topic), self.positions[topic], lost=lost)
        return self.log.read(topic, first, limit=READ_MAX) if first < end else []

    def _arrival(self, topic: str, entry: Entry) -> Arrival:
        trust = None if self.signer is None else self.signer.trust
        value = entry.value or b""
        event, signed_by = read_control(topic, entry.value, entry.headers, trust, entry.append_ts)
        if isinstance(event, Rejection):
            self._sources.reject(topic, entry, event)
        return Arrival(event, value, (topic, 0, entry.offset, entry.append_ts), signed_by)


def _ledger_values(log: EmbeddedLog, offset: int) -> Iterator[bytes]:
    end = log.end("ledger")
    while offset < end:
        for entry in log.read("ledger", offset):
            yield entry.value or b""
            offset = entry.offset + 1
