"""One ledger partition of a controller: its fold, its fenced writer of commands, its status and its snapshots."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from actions.checkpoints import CHECKPOINT_KEY
from actions.incidents import DECISION_PATH, alert_bytes
from actions.journal import Decision, decision_bytes
from actions.reconcile import Signer
from streams.config.resolved import Config
from streams.fold.fold import Fold, LedgerMismatch, unexplained_models
from streams.fold.status import Seen, fold_status
from streams.fold.status_records import TICK_MS, StatusRecord, StatusReport
from streams.join.partition import Raw
from streams.join.source_reader import Fingerprint, fingerprint
from streams.kafka.clients import END_S, Access, all_answered, answered, end_producer
from streams.kafka.ledger_topic import Shape, configuration_for
from streams.kafka.log_checks import mismatch
from streams.kafka.snapshots import HALT, Checkpoints, Saved, SnapshotStore
from streams.ledger.encoding import pack
from streams.ledger.entries import entry_of, read_entry
from streams.rounds.control import LedgerConflict, LedgerState, Output, Terms, due
from streams.topics.rights import TRANSACTION_PREFIX
from unship.commands import Command, encode_command
from unship.errors import RecordingError
from unship.rejections import RejectCode
from unship.signing import Headers

log = logging.getLogger("unship.control")

STATUS_S = 0.5
STATUS_SHARE = 0.02
"""The share of the time that computing the status may take, unless the monitor would then seem to be silent."""

SNAPSHOT_S = 60.0
DECIDED_MAX = 1_000
"""Decisions that wait for the journal before the fold does: a re-fold makes many of them at once."""

PIECE_S = 0.001
"""How long the fold keeps everything else waiting: from a feedback to its ledger record it takes a dozen turns of the
loop, and each of them waits so long behind a busy fold."""

PUBLISH_S = 0.2
"""How often it is looked whether anything is due by the passing of time alone, such as the repetition of a command."""


class Unreadable(LedgerConflict):
    """The ledger holds a record that this program cannot fold; one that can read it takes over."""


class Turns:
    """Lets everything else have its turn when a run of the service has worked for a moment."""

    def __init__(self) -> None:
        self._since = 0.0

    async def pause(self) -> None:
        """Pause if the last pause was a moment ago; most calls are not, because each pause is a turn of the loop."""
        now = asyncio.get_running_loop().time
        if now() - self._since >= PIECE_S:
            await asyncio.sleep(0)
            self._since = now()


class Links(msgspec.Struct, frozen=True):
    """What the ledger partitions of one run of the service share; `now_ms` never goes back.

    `alerts` is whether the broker has that topic: a log that an earlier version made has not. `observe` takes how many
    seconds a stage took.
    """

    access: Access
    config: Config
    producer: AIOKafkaProducer
    snapshots: SnapshotStore
    shape: Shape
    signer: Signer | None
    terms: Terms
    now_ms: Callable[[], int]
    turns: Turns
    alerts: bool = True
    observe: Callable[[str, float], None] = lambda stage, seconds: None


class _Record(NamedTuple):
    """A record to be appended."""

    topic: str
    value: bytes
    key: bytes | None
    partition: int | None = None
    headers: Headers = ()


class LedgerPartition:
    """Folds one ledger partition, and publishes what follows; `start` fences the older writer of its commands.

    `publishing` appends to the journal and to the control topic; `reporting` writes status and snapshots, only after
    the first publish, and never ahead of the journal: a fold that goes on from a snapshot decides none of that again.
    """

    def __init__(self, links: Links, number: int) -> None:
        self.state = LedgerState(number, Fold(links.config))
        self._links = links
        self._writer: AIOKafkaProducer | None = None
        if links.signer is not None:
            self._writer = links.access.producer(f"{links.access.names.prefix}{TRANSACTION_PREFIX}{number}")
        # Held while a record is folded, piece by piece, and while something is read off the fold.
        self._folding = asyncio.Lock()
        self._publishing: asyncio.Task[None] | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._published = self._closed = False
        self._report = _Report(Checkpoints(links.access.names))
        self._statuses = StatusReport(number)
        # The last record that was folded; before that, what the snapshot knows of it.
        self._last: Raw | Fingerprint | None = None
        # The offset and the time of the last look at what is to be published.
        self._looked = -1, -PUBLISH_S

    @property
    def number(self) -> int:
        """Return the number of the partition."""
        return self.state.number

    # Take-over

    async def start(self) -> None:
        """Begin: from here on the broker refuses the older writer of the commands."""
        if self._writer is not None:
            await answered(self._writer.start())

    async def restore(self, saved: Saved, consumer: AIOKafkaConsumer, place: TopicPartition) -> None:
        """Load the newest snapshot of this ledger, go to its place, and note where the ledger ends.

        Raises:
            LedgerConflict: records that are needed are gone, or others hold more than this ledger has.
        """

        async def holds(known: Fingerprint) -> bool:
            return await mismatch(self._links.access, consumer, place, known) is None

        loaded = await self._links.snapshots.load(saved, self.number, self._links.config, holds)
        if loaded is not None:
            fold, self._last = loaded
            self.state.restore(fold)
        self._report.halted(bool(saved.get(HALT + b"%d" % self.number)))
        offset = self.state.fold.offset
        first = (await consumer.beginning_offsets([place]))[place]
        end = (await consumer.end_offsets([place]))[place]
        if offset < first:
            raise LedgerConflict(
                self.number,
                f"{place.topic} partition {self.number} begins at offset {first}, and {offset} is the first "
                "that is needed; raise its retention, and bring the records back from a recording",
            )
        consumer.seek(place, offset)
        log.info("ledger partition %d: from offset %d of %d", self.number, offset, end)
        self.state.expect(end)

    async def compare(self, consumer: AIOKafkaConsumer, place: TopicPartition) -> None:
        """Make sure that the log still holds the record that was folded last.

        Raises:
            LedgerConflict: it does not.
        """
        newest = self._newest()
        if newest is not None and (found := await mismatch(self._links.access, consumer, place, newest)) is not None:
            raise LedgerConflict(self.number, f"{found}; it is folded again")

    def _newest(self) -> Fingerprint | None:
        return fingerprint(self._last) if isinstance(self._last, Raw) else self._last

    # Rounds

    async def apply(self, record: Any) -> None:
        """Fold a record, in pieces between which everything else goes on: reading, sending, the other services.

        Raises:
            Unreadable: this program cannot fold it.
        """
        fold, pause = self.state.fold, self._links.turns.pause
        if record.offset < fold.offset:
            return
        began = asyncio.get_running_loop().time()
        async with self._folding:
            fold.go_to(record.offset)
            try:
                for _ in fold.pieces(read_entry(record.value)):
                    await pause()
            except (LedgerMismatch, RecordingError) as error:
                why = f"ledger partition {self.number}, offset {record.offset}: {error}"
                raise Unreadable(self.number, why) from error
            self._last = Raw(record.offset, record.timestamp, record.value)
            self.state.folded()
        self._links.observe("fold", asyncio.get_running_loop().time() - began)
        if self.state.decided:
            self._begin_publishing()
        if len(self.state.decided) > DECIDED_MAX and self._publishing is not None:
            await asyncio.wait((self._publishing,))
        await pause()

    def round(self) -> None:
        """Publish and report what is due, each in the background; an error of the last time is raised."""
        now, offset = asyncio.get_running_loop().time(), self.state.fold.offset
        new = self._looked[0] != offset or now - self._looked[1] >= PUBLISH_S
        if self.state.decided or (new and self.state.caught_up):
            self._begin_publishing()
        if _is_over(self._reporting) and self._published and self._report.due(now):
            self._reporting = asyncio.create_task(self.report(now))

    def _begin_publishing(self) -> None:
        if _is_over(self._publishing) and not self._closed:
            self._looked = self.state.fold.offset, asyncio.get_running_loop().time()
            self._publishing = asyncio.create_task(self.publish())

    async def publish(self) -> None:
        """Append what is due until no decision is left: decisions to the journal, then the commands that cite them."""
        state, links = self.state, self._links
        while True:
            began = asyncio.get_running_loop().time()
            async with self._folding:
                now_ms, caught_up = links.now_ms(), state.caught_up
                output = due(state, links.terms, now_ms)
                state.take(output)
            journal = links.access.names.of("decisions")
            await self._append([self._signed(journal, decision) for decision in output.decisions])
            state.decisions_acknowledged(output)
            if caught_up:
                await self._publish_commands(output.commands)
                await self._append(self._answers(output))
                await self._append(self._alerts(output))
                state.acknowledged(output, now_ms)
                self._published = True
            if output != Output():
                links.observe("publish", asyncio.get_running_loop().time() - began)
            if not state.decided:
                return

    async def _append(self, records: Iterable[_Record]) -> None:
        sent = [self._send(each) for each in records]
        if sent:
            await all_answered(sent)

    async def _send(self, each: _Record) -> None:
        send = self._links.producer.send_and_wait
        self._report.checkpoints.appended(
            await send(each.topic, each.value, each.key, each.partition, headers=list(each.headers))
        )

    def _signed(self, journal: str, decision: Decision) -> _Record:
        value, signer = decision_bytes(decision), self._links.signer
        headers = () if signer is None else signer.sign_decision(value)
        return _Record(journal, value, decision.model.encode(), None, headers)

    def _answers(self, output: Output) -> Iterable[_Record]:
        """Yield the records that answer to the fold: facts for every ledger partition, configuration, rewinds."""
        links = self._links
        ledger = links.access.names.of("ledger")
        for fact in output.facts:
            value = entry_of(fact).value
            yield from (_Record(ledger, value, None, number) for number in range(links.shape.ledger))
        if output.configuration:
            log.info("ledger partition %d: another configuration is in force from here on", self.number)
            yield _Record(ledger, entry_of(configuration_for(links.config, links.shape)).value, None, self.number)
        if output.trust is not None:
            log.info("ledger partition %d: other keys are trusted from here on", self.number)
            yield _Record(ledger, entry_of(output.trust).value, None, self.number)
        for rewind in output.rewinds:
            log.warning(
                "ledger partition %d: a gap in source partition %d is read again", self.number, rewind.partition
            )
            yield _Record(links.access.names.of("rewind"), msgspec.json.encode(rewind), b"%d" % rewind.partition)

    def _alerts(self, output: Output) -> list[_Record]:
        links = self._links
        if output.alerts and not links.alerts:
            log.warning(
                "ledger partition %d: %d alerts are in no topic, because the broker has no %s; make it with: "
                "unship topics apply",
                *(self.number, len(output.alerts), links.access.names.of("alerts")),
            )
            return []
        topic = links.access.names.of("alerts")
        url = links.config.web.url(DECISION_PATH)
        return [_Record(topic, alert_bytes(each, url), each.incident.encode()) for each in output.alerts]

    async def _publish_commands(self, commands: list[Command]) -> None:
        if commands and self._links.signer is not None and self._writer is not None:
            await answered(self._write(self._writer, self._links.signer, commands))

    async def _write(self, writer: AIOKafkaProducer, signer: Signer, commands: list[Command]) -> None:
        topic = self._links.access.names.of("control")
        sent = []
        async with writer.transaction():
            for command in commands:
                value = encode_command(command)
                sent.append(await writer.send(topic, value, command.model.encode(), headers=signer.sign(value)))
        for each in sent:
            self._report.checkpoints.appended(await each)

    # Status and snapshots

    async def report(self, now: float) -> None:
        """Write the status if it is due and has changed, and a snapshot if it is due."""
        if self._report.status_due(now):
            async with self._folding:
                if self.state.behind:
                    return
                began = asyncio.get_running_loop().time()
                records = await self._status()
                unexplained = unexplained_models(self.state.fold, {})
            # Of many models it takes a while, in which nothing is folded.
            took = asyncio.get_running_loop().time() - began
            for sentence in self._report.news(unexplained):
                log.warning("%s", sentence)
            snapshots = self._links.snapshots
            if self._report.goes_on():
                await snapshots.report_halt(self.number, "")
            self._report.status_next(now + min(max(STATUS_S, took / STATUS_SHARE), TICK_MS / 1_000))
            await snapshots.report(records)
        if self._report.snapshot_due(now):
            await self.save()

    async def save(self) -> None:
        """Write a snapshot, and the status as of it; only where the journal has every decision."""
        async with self._folding:
            if self.state.behind:
                return
            offset, data, records, last = (
                self.state.fold.offset,
                await self._packed(),
                await self._status(),
                self._newest(),
            )
            links = self._links
            checkpoint = self._report.checkpoints.of(self.state.fold, self.number, links.signer, links.now_ms())
        began = asyncio.get_running_loop().time()
        self._report.saved(began)
        await self._links.snapshots.save(self.number, offset, data, last)
        links.observe("snapshot", asyncio.get_running_loop().time() - began)
        if checkpoint is not None and (headers := links.signer.sign_decision(checkpoint) if links.signer else []):
            journal = links.access.names.of("decisions")
            await self._append([_Record(journal, checkpoint, CHECKPOINT_KEY, self.number, headers)])
        await self._links.snapshots.report(records)

    async def _packed(self) -> bytes:
        """Return the fold as bytes; model by model, because of many of them that takes a while."""
        fold, models = self.state.fold, dict[str, msgspec.Raw]()
        for name, model in fold.models.items():
            models[name] = msgspec.Raw(pack(model.save()))
            await self._links.turns.pause()
        return pack(fold.save_with(models))

    async def _status(self) -> list[StatusRecord]:
        """Return the status records that have changed."""
        fold, found = self.state.fold, list[StatusRecord]()
        counted = Counter[str]({RejectCode.FORGED_CONTROL: self.state.forged})
        now_ms = self._links.now_ms()
        seen = Seen(now_ms, max(now_ms - fold.clock, 0) if fold.clock >= 0 else None)
        head = fold_status(fold, counts=counted, models={}, seen=seen, number=self.number)
        for record in self._statuses.records(fold, head, now_ms):
            if record is not None:
                found.append(record)
            await self._links.turns.pause()
        return found

    # End

    async def finish(self) -> None:
        """Publish everything, and save."""
        if self._publishing is not None:
            await self._publishing
        await self.publish()
        if self._reporting is not None:
            await self._reporting
        await self.save()

    async def close(self) -> None:
        """Cancel what is on its way, and end the writer; the next controller folds again from the ledger."""
        self._closed = True
        for task in (self._publishing, self._reporting):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,), timeout=END_S)
        if self._writer is not None:
            await end_producer(self._writer)


class _Report:
    """When status and snapshot are due, and what was reported last. Times are the loop's, in seconds."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self._status_at = self._saved_at = -1e9
        self._sentences: list[str] = []
        self._halted = False

    def halted(self, halted: bool) -> None:
        """Note whether an earlier controller reported that the partition is halted."""
        self._halted = halted

    def goes_on(self) -> bool:
        """Return whether a halt is to be taken back; once."""
        was, self._halted = self._halted, False
        return was

    def due(self, now: float) -> bool:
        """Return whether status or snapshot is due."""
        return self.status_due(now) or self.snapshot_due(now)

    def status_due(self, now: float) -> bool:
        """Return whether the status is due."""
        return now >= self._status_at

    def snapshot_due(self, now: float) -> bool:
        """Return whether a snapshot is due."""
        return now - self._saved_at >= SNAPSHOT_S

    def news(self, sentences: list[str]) -> list[str]:
        """Return which sentences were not among those of the last time."""
        before, self._sentences = self._sentences, sentences
        return [sentence for sentence in sentences if sentence not in before]

    def status_next(self, at: float) -> None:
        """Note when the next status is due."""
        self._status_at = at

    def saved(self, now: float) -> None:
        """Note a snapshot."""
        self._saved_at = now


def _is_over(task: asyncio.Task[None] | None) -> bool:
    """Return whether a task may be begun again; an error in it is raised."""
    if task is None:
        return True
    if not task.done():
        return False
    task.result()
    return True
