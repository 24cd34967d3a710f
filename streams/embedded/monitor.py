"""The live driver on the embedded log: topics in, ledger and decisions out, in one transaction.

Every round reads what is new in the source topics, merges it by append time, steps the same pipeline as a replay, and
appends the ledger records, the decisions and the dead letters together with the positions reached. So after a crash at
any instruction the ledger and the positions agree: the newest snapshot is loaded, the ledger is folded from there, the
sources are read again only to fill the join's window, and nothing is lost or counted twice.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from actions.journal import Decision, decision_bytes
from actions.reconcile import Signer, SteadyClock, Timing, due_commands
from streams.config.resolved import Config
from streams.config.units import NEVER
from streams.fold.fold import LedgerMismatch, unexplained_models
from streams.fold.status import Status, fold_status
from streams.join.dead_letters import dead_letter
from streams.ledger.encoding import pack, unpack
from streams.ledger.lines import ledger_line, read_ledger_line
from streams.ledger.records import Record, Tick
from streams.pipeline import Pipeline, SavedPipeline, configuration_record, fold_step, with_fleet_facts
from unship.codec import Decoded, decode_value
from unship.commands import Command, decode_command, encode_command
from unship.errors import RecordingError, SnapshotError
from unship.events import At, Feedback, Prediction
from unship.log.embedded.log import EmbeddedLog, Fence, Message
from unship.log.embedded.log import Record as Entry
from unship.rejections import RejectCode, Rejection
from unship.signing import is_operators

#: Source topics with the kind of event they hold, in the order in which equal append times are merged.
SOURCE_TOPICS = {
    "deployments": "deployment",
    "operator": "operator",
    "predictions": "prediction",
    "feedback": "feedback",
    "acks": "ack",
}
READ_MAX = 5_000
SNAPSHOT_KEY = b"monitor"
STATUS_KEY = b"status"
SNAPSHOT_PART = 4 * 1_048_576


class SavedLive(msgspec.Struct):
    """A snapshot: the pipeline, and how far each source topic was read."""

    positions: dict[str, int]
    pipeline: SavedPipeline


class Live:
    """The monitor over one embedded log. `clock_ms` is the wall clock, used only where every source is caught up."""

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
        self.pipeline = Pipeline(config, live=True)
        self.positions = dict.fromkeys(SOURCE_TOPICS, 0)
        self._dead: list[Message] = []
        self._clock_ms = clock_ms
        self._fence: Fence = log.acquire("ledger")
        self._published = self._read_published()
        self._steady = SteadyClock()
        self._steady.reached(max((last.issued_ts for last in self._published.values()), default=0))
        self._recover()

    # Recovery

    def _recover(self) -> None:
        saved = self._load_snapshot()
        begun = dict(self.positions)
        if saved is not None:
            same = saved.pipeline.fold.config.digest() == self.config.digest()
            self.pipeline.fold.load(saved.pipeline.fold)
            self.positions = dict(saved.positions)
            if same:
                self.pipeline.sources.load(saved.pipeline.sources)
                begun = dict(saved.positions)
            # Under another configuration the join keeps other things of an event, so its window is read again.
        for line in _ledger_lines(self.log, self.pipeline.fold.offset):
            record = read_ledger_line(line).record
            try:
                fold_step(self.pipeline, record)
            except LedgerMismatch as error:
                raise RecordingError(str(error)) from error
            if isinstance(record, Tick) and record.positions:
                self.positions = dict(record.positions)
        self._refill(begun)
        if self.pipeline.fold.config_digest != self.config.digest() or self.pipeline.fold.offset == 0:
            record = configuration_record(self.config)
            self._commit([record], fold_step(self.pipeline, record))

    def _refill(self, begun: dict[str, int]) -> None:
        """Read the sources again up to the positions reached; what they join is in the ledger already."""
        positions, self.positions = self.positions, begun
        while any(self.positions[topic] < positions[topic] for topic in SOURCE_TOPICS):
            batch = self._read(positions)
            for _ in self.pipeline.sources.take(batch):
                self.pipeline.sources.timer_due = NEVER
            # They were written down when they were read first.
            self._dead.clear()
        for _ in self.pipeline.sources.rest():
            pass
        self.pipeline.sources.timer_due = self.pipeline.fold.due()

    def _load_snapshot(self) -> SavedLive | None:
        parts = self.log.latest("snapshots")
        head = parts.get(SNAPSHOT_KEY)
        if head is None or head.value is None:
            return None
        data = b"".join(parts[b"%b/%d" % (SNAPSHOT_KEY, i)].value or b"" for i in range(int(head.value)))
        try:
            return unpack(data, SavedLive)
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            raise SnapshotError(f"the monitor's snapshot cannot be read: {error}") from error

    def save_snapshot(self) -> None:
        """Write a snapshot; a restart then reads only what came after it."""
        data = pack(SavedLive(self.positions, self.pipeline.save()))
        parts = [data[i : i + SNAPSHOT_PART] for i in range(0, len(data), SNAPSHOT_PART)]
        messages = [Message(part, b"%b/%d" % (SNAPSHOT_KEY, i)) for i, part in enumerate(parts)]
        self.log.append("snapshots", [*messages, Message(b"%d" % len(parts), SNAPSHOT_KEY)], fence=self._fence)
        self.log.compact("snapshots")

    # Rounds

    def step(self) -> list[Decision]:
        """Read what is new, fold it and append what follows; return the decisions taken."""
        ends = self.log.ends()
        batch = list(self._read(ends))
        pipeline = self.pipeline
        records: list[Record] = []
        decisions: list[Decision] = []

        def apply(produced: Iterator[Record]) -> None:
            for record in with_fleet_facts(pipeline, produced):
                records.append(record)
                decisions.extend(fold_step(pipeline, record))

        apply(pipeline.sources.take(batch))
        caught_up = all(self.positions[topic] >= ends[topic] for topic in SOURCE_TOPICS)
        now = max(self._clock_ms(), pipeline.sources.clock.now)
        if caught_up and pipeline.fold.due() <= now and pipeline.sources.clock.now >= 0:
            apply(pipeline.sources.advance(now))
        apply(pipeline.sources.rest())
        if records or batch:
            apply(iter([Tick(pipeline.sources.clock.now, dict(self.positions))]))
            self._commit(records, decisions)
        return decisions

    def _commit(self, records: list[Record], decisions: list[Decision]) -> None:
        first = self.log.end("ledger")
        if first + len(records) != self.pipeline.fold.offset:
            raise RecordingError(f"the ledger ends at {first}, expected {self.pipeline.fold.offset - len(records)}")
        lines = [Message(ledger_line(first + i, record)) for i, record in enumerate(records)]
        journal = [Message(decision_bytes(decision), decision.model.encode()) for decision in decisions]
        status = Message(msgspec.json.encode(self.status()), STATUS_KEY)
        dead, self._dead = self._dead, []
        batches = {"ledger": lines, "decisions": journal, "snapshots": [status], "rejected": dead}
        self.log.append_many(batches, fence=self._fence)

    def status(self) -> Status:
        """Return what operators ask for."""
        sources = self.pipeline.sources
        return fold_status(self.pipeline.fold, sources.clock.now, sources.counts)

    # Commands

    def publish(self) -> list[Command]:
        """Write the commands that are due: what changed, and what has to be asserted again; return them.

        The decisions behind them are in the journal already, so a crash in between only delays them.
        """
        if self.signer is None:
            return []
        desired = self.pipeline.fold.commanded()
        now = self._steady.at(self._clock_ms())
        commands = due_commands(desired, self._published, self.signer.audience, now, self.timing)
        messages = []
        for command in commands:
            value = encode_command(command)
            messages.append(Message(value, command.model.encode(), tuple(self.signer.sign(value))))
        if messages:
            self.log.append("control", messages, fence=self._fence)
            self._published |= {command.model: command for command in commands}
        return commands

    def conflicts(self) -> list[str]:
        """Return a sentence for each model of which more is known outside than this ledger explains."""
        return unexplained_models(self.pipeline.fold, self._published)

    def _read_published(self) -> dict[str, Command]:
        published = {}
        for record in self.log.latest("control").values():
            command = decode_command(record.value)
            if isinstance(command, Command):
                published[command.model] = command
        return published

    def _read(self, ends: dict[str, int]) -> Iterator[tuple[Decoded, bytes, At]]:
        """Yield what is new up to `ends`, merged by append time, and move the positions past it.

        A topic that is not read to its end holds the others back: nothing younger than what it still has is taken.
        """
        read: dict[str, list[Entry]] = {}
        limit = None
        for topic in SOURCE_TOPICS:
            entries = [] if self.positions[topic] >= ends[topic] else self._entries(topic, ends[topic])
            read[topic] = entries
            if entries and entries[-1].offset + 1 < ends[topic]:
                limit = entries[-1].append_ts if limit is None else min(limit, entries[-1].append_ts)
        merged = []
        for rank, topic in enumerate(SOURCE_TOPICS):
            taken = [entry for entry in read[topic] if limit is None or entry.append_ts <= limit]
            merged += [(entry.append_ts, rank, entry.offset, topic, entry) for entry in taken]
            if taken:
                self.positions[topic] = taken[-1].offset + 1
        merged.sort(key=lambda item: item[:3])
        for _, _, _, topic, entry in merged:
            place = (topic, 0, entry.offset, entry.append_ts)
            yield self._decode(topic, entry, place), entry.value or b"", place

    def _entries(self, topic: str, end: int) -> list[Entry]:
        return [entry for entry in self.log.read(topic, self.positions[topic], limit=READ_MAX) if entry.offset < end]

    def _decode(self, topic: str, entry: Entry, place: At) -> Any:
        trust = None if self.signer is None else self.signer.trust
        if topic == "operator" and not is_operators(entry.value, entry.headers, trust):
            event: Any = Rejection(RejectCode.UNSIGNED_ACT)
        else:
            event = decode_value(SOURCE_TOPICS[topic], entry.value)
        if isinstance(event, Rejection):
            self._dead.append(Message(dead_letter(topic, 0, entry.offset, entry.value, event).encoded()))
            return event
        if isinstance(event, Prediction | Feedback):
            return event
        # What the ledger copies says where it comes from, so that a second copy of it can be told.
        return msgspec.structs.replace(event, at=place)


def ledger_of(log: EmbeddedLog) -> Iterator[bytes]:
    """Return the ledger's lines, from the first one kept.

    Raises:
        RecordingError: if the ledger does not begin with its configuration any more.
    """
    offset = log.first("ledger")
    if offset:
        raise RecordingError(f"the ledger begins at offset {offset}, its configuration is gone")
    return _ledger_lines(log, offset)


def _ledger_lines(log: EmbeddedLog, offset: int) -> Iterator[bytes]:
    end = log.end("ledger")
    while offset < end:
        for entry in log.read("ledger", offset):
            yield entry.value or b""
            offset = entry.offset + 1
