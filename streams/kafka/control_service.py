"""The controller service: fold the ledger partitions that the group assigns, keep the journal, and command.

What is known of a ledger partition is a function of its records, so two controllers alive compute the same bytes. What
keeps an old one from commanding is the broker: the one transaction in this system fences the writer of `control`.

The order on take-over matters: fence off the older writer first, read what was decided and commanded, fold to the end
of the ledger, and only then speak. The journal is written before the command that cites it.

While the broker acknowledges what a partition has to say, its fold goes on. So what is to be said is taken at one
instant: all decisions so far, and the commands that rest on no later ones. A snapshot is taken only where the journal
has everything, because whoever goes on from it decides none of that again.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition

from actions.facts import FleetFact
from actions.journal import Decision, decision_bytes, digest_of, read_decision
from actions.reconcile import Signer, SteadyClock, Timing, conflicting, due_commands
from streams.config.resolved import Config
from streams.fold.fold import Fold, LedgerMismatch, unexplained_models
from streams.fold.status import fold_status
from streams.join.partition import Raw
from streams.join.source_reader import Fingerprint, fingerprint
from streams.kafka.clients import (
    END_S,
    Access,
    all_answered,
    answered,
    end_consumer,
    end_producer,
    join,
    producing,
    read_all,
)
from streams.kafka.ledger_topic import configuration_for, open_ledger
from streams.kafka.log_identity import Leaders, difference
from streams.kafka.rewinds import Rewind
from streams.kafka.snapshots import HALT, SnapshotStore
from streams.kafka.stalls import Stalls
from streams.ledger.encoding import pack
from streams.ledger.entries import entry_of, read_entry
from streams.topics.partitioner import partition_of
from unship.commands import Command, decode_command, encode_command
from unship.errors import BrokerUnreachable, RecordingError

log = logging.getLogger("unship.control")

GROUP = "unship.control"
STATUS_S = 0.5
#: The share of the time that telling the status may take.
STATUS_SHARE = 0.02
SNAPSHOT_S = 60.0
#: Longer than the ledger may be behind: who reads a range again should be let finish it.
ASK_AGAIN_S = 600.0
#: Decisions that wait for the journal before the fold does: a re-fold makes many of them at once.
DECIDED_MAX = 1_000
#: How long the fold keeps everything else waiting: from a feedback to its ledger record it takes a dozen turns of the
#: loop, and each of them waits so long behind a busy fold.
PIECE_S = 0.001


LOOK_FIRST = (
    "the ledger was cut off or made again; nothing of it is commanded until its records are back, or a new one is "
    "begun under another kafka.topics.prefix"
)


class LedgerConflict(Exception):
    """The log holds decisions or commands that this ledger cannot explain; a person has to look first."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(why)
        self.number = number


class _Partition:
    """One ledger partition: its fold, what the journal and the control topic hold of its models, its fenced writer."""

    def __init__(self, number: int, fold: Fold, writer: AIOKafkaProducer | None) -> None:
        self.number = number
        self.fold = fold
        self.writer = writer
        self.published: dict[str, Command] = {}
        self.journalled: dict[str, tuple[tuple[int, int, int], str]] = {}
        # What has to be folded before anything is said; not known before it was asked for.
        self.goal = sys.maxsize
        self.tell_at = self.saved_at = -1e9
        self.told = b""
        # When each gap was asked to be read again.
        self.rewound: dict[int, float] = {}
        self.stated = False
        self.echoed: set[str] = set()
        self.decided: list[Decision] = []
        # What it says, and beside that what it tells of itself. It tells nothing before it has spoken once, and nothing
        # that the journal does not have: `unwritten` decisions are on their way there.
        self.saying: asyncio.Task[None] | None = None
        self.telling: asyncio.Task[None] | None = None
        self.spoken = False
        self.unwritten = False
        # Held while a record is folded, piece by piece, and by whoever asks the fold for something.
        self.folding = asyncio.Lock()
        self.warned: list[str] = []
        # What the journal holds and the fold has not led to yet; and the last record that was folded.
        self.owed: set[str] = set()
        self.last: Raw | None = None
        # The same of the snapshot that it began from.
        self.begun: Fingerprint | None = None
        self.halt = b""

    @property
    def behind(self) -> bool:
        """Whether the fold is ahead of the journal, or has not reached the end that the ledger had on take-over."""
        return bool(self.decided) or self.unwritten or not self.caught_up

    @property
    def caught_up(self) -> bool:
        """Whether everything was folded that the ledger had on take-over."""
        return self.fold.offset >= self.goal

    @property
    def newest(self) -> Fingerprint | None:
        """What the last ledger record was that is in the fold."""
        return self.begun if self.last is None else fingerprint(self.last)


class Controller(ConsumerRebalanceListener):  # type: ignore[misc]
    """Decides and commands for the assigned ledger partitions; `run` is one life, to be begun again after an error."""

    def __init__(
        self, access: Access, config: Config, clock_ms: Callable[[], int], signer: Signer | None, timing: Timing
    ) -> None:
        self.access = access
        self.config = config
        self.signer = signer
        self.timing = timing
        self.ledger = access.names.of("ledger")
        self.partitions: dict[int, _Partition] = {}
        self.on_decision: Callable[[Decision], None] = lambda decision: None
        self._clock_ms = clock_ms
        self._steady = SteadyClock()
        self._stopping = False
        self._assigned: list[TopicPartition] = []
        self._ledger_count = 0
        self._taking: asyncio.Task[None] | None = None
        self._cannot: LedgerConflict | None = None

    def stop(self) -> None:
        """Let `run` end after it has saved what it knows."""
        self._stopping = True

    async def run(self) -> None:
        """Fold until stopped.

        Raises:
            KafkaError: the broker does not do what was asked, or another controller has taken over; start again.
            LedgerConflict: a person has to look first.
        """
        self._stopping = False
        self._assigned = []
        if self._cannot is not None:
            # Those that can go on need the partitions.
            raise self._cannot
        async with producing(self.access) as self._producer:
            await open_ledger(self.access, self._producer, self.config)
            self._snapshots = SnapshotStore(self.access, self._producer)
            self._consumer = self.access.member(
                self.access.names.prefix + GROUP.removeprefix("unship."), ["ledger"], self
            )
            self._leaders, self._stalls = Leaders(self._consumer), Stalls(self.access, self._consumer)
            try:
                # A member whose start fails has joined its group all the same, and has to leave it.
                await join(self._consumer)
                while not self._stopping:
                    await self._round()
                for partition in list(self.partitions.values()):
                    await self._finish(partition)
            except LedgerConflict as error:
                await self._snapshots.tell_halt(error.number, str(error))
                raise
            finally:
                await self._close()
                await end_consumer(self._consumer)

    # Assignment

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Give the partitions up; their folds are built again from the ledger by whoever takes them."""
        await self._close()

    async def _close(self) -> None:
        # First whoever makes more of them: a client that is ended while it starts would start for ever.
        taking, self._taking = self._taking, None
        if taking is not None:
            taking.cancel()
            await asyncio.wait((taking,), timeout=END_S)
        partitions = list(self.partitions.values())
        self.partitions.clear()
        for partition in partitions:
            for task in (partition.saying, partition.telling):
                if task is not None:
                    task.cancel()
                    await asyncio.wait((task,), timeout=END_S)
            if partition.writer is not None:
                await end_producer(partition.writer)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Hold the partitions until they are taken over in the next round, where an error ends this life."""
        self._assigned = sorted(assigned)
        for place in self._assigned:
            # Without any position the client would ask the group for one, and refuse to go on without.
            self._consumer.seek(place, 0)
            self._consumer.pause(place)

    async def _taken_over(self, assigned: list[TopicPartition]) -> bool:
        """Take partitions over; false if the group deals them out again meanwhile: no reason for a new life."""
        taking = self._taking = asyncio.create_task(self._take_over_all(assigned))
        await asyncio.wait((taking,))
        if taking.cancelled():
            if self._taking is not taking:
                return False
            raise BrokerUnreachable("what the take-over waited for was given up")
        self._taking = None
        taking.result()
        return True

    async def _take_over_all(self, assigned: list[TopicPartition]) -> None:
        self._shape = await open_ledger(self.access, self._producer, self.config)
        self._ledger_count = self._shape.ledger
        taken = [(place, await self._fence(place.partition)) for place in assigned]
        # Each topic is read once, however many partitions are taken over.
        for record in await read_all(self.access, "control"):
            command = decode_command(record.value)
            if isinstance(command, Command) and (partition := self._partition_of(command.model)) is not None:
                partition.published[command.model] = command
                self._steady.reached(command.issued_ts)
        for record in await read_all(self.access, "decisions"):
            decision = read_decision(record.value)
            if decision is not None and (partition := self._partition_of(decision.model)) is not None:
                partition.journalled[decision.model] = (decision.epoch, digest_of(record.value))
        saved = await self._snapshots.read()
        for place, partition in taken:
            stands = partial(self._stands, place)
            loaded = await self._snapshots.load(saved, place.partition, self.config, stands)
            if loaded is not None:
                partition.fold, partition.begun = loaded
            partition.halt = saved.get(HALT + b"%d" % place.partition) or b""
            await self._seek(place, partition)
            self._expect(partition)
        self._consumer.resume(*assigned)

    async def _fence(self, number: int) -> _Partition:
        """Begin a partition: from here on the broker refuses the older writer of its commands."""
        writer = None
        if self.signer is not None:
            writer = self.access.producer(f"{self.access.names.prefix}control-{number}")
        # Known before it is started: whatever goes wrong from here on, it is ended with the others.
        partition = self.partitions[number] = _Partition(number, Fold(self.config), writer)
        if writer is not None:
            await answered(writer.start())
        return partition

    async def _seek(self, place: TopicPartition, partition: _Partition) -> None:
        """Go to where the fold is in the ledger, and note what it has to reach before anything is said."""
        offset = partition.fold.offset
        first = (await self._consumer.beginning_offsets([place]))[place]
        partition.goal = (await self._consumer.end_offsets([place]))[place]
        if offset < first:
            raise LedgerConflict(
                place.partition,
                f"{place.topic} partition {place.partition} begins at offset {first}, and {offset} is the first "
                "that is needed; raise its retention, and bring the records back from a recording",
            )
        self._consumer.seek(place, offset)
        log.info("ledger partition %d: from offset %d of %d", place.partition, offset, partition.goal)

    async def _stands(self, place: TopicPartition, known: Fingerprint) -> bool:
        return await difference(self.access, self._consumer, place, known) is None

    def _expect(self, partition: _Partition) -> None:
        """Note what the journal holds of the ledger that is to be folded; what is of more than there is, is a conflict.

        The ledger's end was asked for after the journal and the commands were read.
        """
        newest = {model: epoch for model, (epoch, _) in partition.journalled.items()}
        partition.owed = {model for model, epoch in newest.items() if epoch[1] >= partition.fold.offset}
        for model, command in partition.published.items():
            newest[model] = max(newest.get(model, command.epoch), command.epoch)
        for model, epoch in sorted(newest.items()):
            if epoch[1] >= partition.goal:
                raise LedgerConflict(
                    partition.number,
                    f"ledger partition {partition.number} ends at {partition.goal}, and {model} was decided or "
                    f"commanded at epoch {list(epoch)}: {LOOK_FIRST}",
                )

    def _partition_of(self, model: str) -> _Partition | None:
        """Return the partition whose ledger a model is in, None if it is not ours."""
        return self.partitions.get(partition_of(model.encode(), self._ledger_count))

    # Rounds

    async def _round(self) -> None:
        if self._assigned:
            assigned, self._assigned = self._assigned, []
            if not await self._taken_over(assigned):
                return
        fetched = await self._consumer.getmany(timeout_ms=100, max_records=500)
        held = [place for place in self._consumer.assignment() if place.partition in self.partitions]
        await self._stalls.look(held, bool(fetched))
        for place, records in fetched.items():
            await self._compare(place)
            for record in records:
                partition = self.partitions.get(place.partition)
                if partition is None:
                    # Somebody else has it since a moment ago.
                    break
                await self._apply(partition, record)
                if self.partitions.get(place.partition) is not partition:
                    break
                if partition.decided:
                    self._begin_saying(partition)
                if len(partition.decided) > DECIDED_MAX and partition.saying is not None:
                    await asyncio.wait((partition.saying,))
        for partition in list(self.partitions.values()):
            self._begin_saying(partition)
            self._begin_telling(partition)

    async def _compare(self, place: TopicPartition) -> None:
        """Make sure, ahead of what another leader gives, that it still has what was folded."""
        partition = self.partitions.get(place.partition)
        newest = None if partition is None else partition.newest
        if self._leaders.changed(place) and newest is not None:
            found = await difference(self.access, self._consumer, place, newest)
            if found is not None:
                raise LedgerConflict(place.partition, f"{found}; it is folded again")

    def _begin_saying(self, partition: _Partition) -> None:
        """Let a partition say what it has to say, unless it does; an error in that ends this life."""
        if _is_over(partition.saying) and (partition.decided or partition.caught_up):
            partition.saying = asyncio.create_task(self._say(partition))

    def _begin_telling(self, partition: _Partition) -> None:
        """Let a partition tell how things stand, and save what it knows; what it has to say does not wait for that."""
        now = asyncio.get_running_loop().time()
        due = partition.spoken and now >= min(partition.tell_at, partition.saved_at + SNAPSHOT_S)
        if _is_over(partition.telling) and due:
            partition.telling = asyncio.create_task(self._tell(partition, now))

    async def _say(self, partition: _Partition) -> None:
        """Journal what was decided, then command what follows from that and nothing later."""
        while True:
            async with partition.folding:
                caught_up = partition.caught_up
                decisions, partition.decided = partition.decided, []
                partition.unwritten = bool(decisions)
                commands = self._due(partition) if caught_up else []
                facts = list(partition.fold.fleet.owed.values())
            await self._journal(partition, decisions)
            partition.unwritten = False
            if caught_up:
                self._explained(partition)
                await self._publish(partition, commands)
                await self._tell_fleet(partition, facts)
                await self._state_configuration(partition)
                await self._ask_again(partition)
                partition.spoken = True
            if not partition.decided:
                return

    def _explained(self, partition: _Partition) -> None:
        """Make sure that the ledger has led to what the journal holds of it."""
        for model in sorted(partition.owed):
            raise LedgerConflict(
                partition.number,
                f"ledger partition {partition.number} does not lead to the decision of epoch "
                f"{list(partition.journalled[model][0])} of {model}, which the journal holds: {LOOK_FIRST}",
            )

    async def _finish(self, partition: _Partition) -> None:
        """Say everything, and save what is known."""
        if partition.saying is not None:
            await partition.saying
        await self._say(partition)
        if partition.telling is not None:
            await partition.telling
        await self._save(partition)

    async def _apply(self, partition: _Partition, record: Any) -> None:
        """Fold a record, in pieces between which everything else goes on: reading, sending, the other services."""
        fold, now = partition.fold, asyncio.get_running_loop().time
        if record.offset < fold.offset:
            return
        async with partition.folding:
            # An epoch names the record that led to it.
            fold.offset = record.offset
            paused_at = now()
            try:
                for _ in fold.pieces(read_entry(record.value)):
                    if now() - paused_at >= PIECE_S:
                        await asyncio.sleep(0)
                        paused_at = now()
            except (LedgerMismatch, RecordingError) as error:
                # This program stops before the record for good; one that can read it takes over.
                why = f"ledger partition {partition.number}, offset {record.offset}: {error}"
                self._cannot = LedgerConflict(partition.number, why)
                raise self._cannot from error
            partition.last = Raw(record.offset, record.timestamp, record.value)
            partition.decided += fold.written
        await asyncio.sleep(0)

    async def _journal(self, partition: _Partition, decisions: list[Decision]) -> None:
        """Write down what was not written yet; the same epoch with other content stops everything."""
        topic = self.access.names.of("decisions")
        new: list[tuple[Decision, bytes]] = []
        for decision in decisions:
            value = decision_bytes(decision)
            known = partition.journalled.get(decision.model)
            if known is not None and decision.epoch <= known[0]:
                if decision.epoch == known[0] and digest_of(value) != known[1]:
                    raise LedgerConflict(
                        partition.number,
                        f"decision {decision.id} of {decision.model}: the journal holds another one of epoch "
                        f"{list(decision.epoch)}; compare them with: unship audit",
                    )
                if decision.epoch == known[0]:
                    partition.owed.discard(decision.model)
                continue
            new.append((decision, value))
        sent = [self._producer.send_and_wait(topic, value, decision.model.encode()) for decision, value in new]
        await all_answered(sent)
        for decision, value in new:
            partition.journalled[decision.model] = (decision.epoch, digest_of(value))
            self.on_decision(decision)

    async def _tell_fleet(self, partition: _Partition, facts: list[FleetFact]) -> None:
        """Tell every ledger partition of automatic rollbacks that the journal has: other models count them."""
        partition.echoed &= partition.fold.fleet.owed.keys()
        facts = [fact for fact in facts if fact.decision not in partition.echoed]
        sent = [
            self._producer.send_and_wait(self.ledger, entry_of(fact).value, partition=number)
            for fact in facts
            for number in range(self._ledger_count)
        ]
        await all_answered(sent)
        partition.echoed.update(fact.decision for fact in facts)

    def _due(self, partition: _Partition) -> list[Command]:
        if self.signer is None or partition.writer is None:
            return []
        desired = partition.fold.commanded()
        for model in conflicting(desired, partition.published):
            raise LedgerConflict(
                partition.number,
                f"{model}: control holds epoch {list(partition.published[model].epoch)}, ledger partition "
                f"{partition.number} explains {list(desired[model].epoch)} at most: {LOOK_FIRST}",
            )
        now = self._steady.at(self._clock_ms())
        return due_commands(desired, partition.published, self.signer.audience, now, self.timing)

    async def _publish(self, partition: _Partition, commands: list[Command]) -> None:
        if not commands or self.signer is None or partition.writer is None:
            return
        await answered(self._write(partition.writer, self.signer, commands))
        partition.published |= {command.model: command for command in commands}

    async def _write(self, writer: AIOKafkaProducer, signer: Signer, commands: list[Command]) -> None:
        topic = self.access.names.of("control")
        async with writer.transaction():
            for command in commands:
                value = encode_command(command)
                await writer.send(topic, value, command.model.encode(), headers=signer.sign(value))

    async def _state_configuration(self, partition: _Partition) -> None:
        """Put this worker's configuration in force, once after taking over: whoever starts last has the say."""
        if partition.stated:
            return
        partition.stated = True
        if partition.fold.config_digest != self.config.digest():
            value = entry_of(configuration_for(self.config, self._shape)).value
            await answered(self._producer.send_and_wait(self.ledger, value, partition=partition.number))
            log.info("ledger partition %d: another configuration is in force from here on", partition.number)

    async def _ask_again(self, partition: _Partition) -> None:
        """Ask for a range to be read again where the ledger has a gap, and again if it stays: nobody may have heard."""
        now = asyncio.get_running_loop().time()
        # The fold goes on meanwhile, and a gap that it finds then has not been asked about.
        asked = {number: partition.rewound.get(number, -ASK_AGAIN_S) for number in partition.fold.gaps}
        for number in [number for number, at in asked.items() if now - at >= ASK_AGAIN_S]:
            corners = partition.fold.coverage[number].corners
            corner = (min(p for p, _ in corners), min(f for _, f in corners))
            incarnation = partition.fold.coverage[number].incarnation
            value = msgspec.json.encode(Rewind(number, corner, partition.fold.offset, incarnation))
            await answered(self._producer.send_and_wait(self.access.names.of("rewind"), value, str(number).encode()))
            asked[number] = now
            log.warning("ledger partition %d: a gap in source partition %d is read again", partition.number, number)
        partition.rewound = asked

    async def _tell(self, partition: _Partition, now: float) -> None:
        if now >= partition.tell_at:
            async with partition.folding:
                if partition.behind:
                    return
                began = asyncio.get_running_loop().time()
                status = msgspec.json.encode(fold_status(partition.fold))
                unexplained = unexplained_models(partition.fold, {})
            # Of many models it takes a while, which is time that nothing is folded in.
            took = asyncio.get_running_loop().time() - began
            partition.tell_at = now + max(STATUS_S, took / STATUS_SHARE)
            for sentence in unexplained:
                if sentence not in partition.warned:
                    log.warning("%s", sentence)
            partition.warned = unexplained
            if partition.halt:
                partition.halt = b""
                await self._snapshots.tell_halt(partition.number, "")
            if status != partition.told:
                partition.told = status
                await self._snapshots.tell(partition.number, status)
        if now - partition.saved_at >= SNAPSHOT_S:
            await self._save(partition)

    async def _save(self, partition: _Partition) -> None:
        async with partition.folding:
            if partition.behind:
                return
            offset, data = partition.fold.offset, pack(partition.fold.save())
            status = msgspec.json.encode(fold_status(partition.fold))
            last = partition.newest
        partition.saved_at = asyncio.get_running_loop().time()
        await self._snapshots.save(partition.number, offset, data, last)
        await self._snapshots.tell(partition.number, status)


def _is_over(task: "asyncio.Task[None] | None") -> bool:
    """Whether what a task did may be done again; an error in it ends this life."""
    if task is None:
        return True
    if not task.done():
        return False
    task.result()
    return True
