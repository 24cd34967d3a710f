"""The ingest service: read the source partitions that the group assigns, and append what is joined to the ledger.

Crash-only: whatever goes wrong with reading, sending or committing, everything in memory is thrown away and read again
from the committed position. The guarantees are those of `streams.join.source_reader`, whose three rules this module
keeps.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, MessageSizeTooLargeError

from streams.config.resolved import Config
from streams.join.partition import FEEDBACK, PREDICTIONS, Raw
from streams.join.source_reader import Fingerprint, Position, SourceReader, fingerprint
from streams.kafka.clients import (
    Access,
    administering,
    all_answered,
    answered,
    end_consumer,
    join,
    producing,
)
from streams.kafka.ledger_topic import open_ledger
from streams.kafka.log_identity import Leaders, difference
from streams.kafka.rewinds import POSITION, Halt, Rewinds, position_of, position_text, tell_halt
from streams.kafka.stalls import Stalls
from streams.ledger.entries import entry_of
from streams.topics.partitioner import partition_of
from unship.errors import BrokerUnreachable
from unship.topics import SOURCES

log = logging.getLogger("unship.ingest")

GROUP = "unship.ingest"
ROWS_PER_FLUSH = 2_000
#: Records that are read of a pair before the next one has its turn, while its window is filled.
FILL_RECORDS = 4_096
#: Between two flushes of fewer rows: every ledger record costs its fold something, whatever it holds.
FLUSH_S = 0.05
#: So long before a flush the logs are read again. Each read costs a request, and what arrives earlier waits anyway.
READ_AHEAD_S = 0.01
#: Between two looks whether there is room again, where the ledger is slower than the sources.
FULL_S = 0.01
COMMIT_S = 5.0
REVOKE_S = 2.0
#: How long a request to read a partition again waits for it to be opened here.
ASKED_S = 60.0
#: A caught-up reader states a time this much before now, so that clocks that differ by less do no harm.
CLOCK_SKEW_MS = 1_000
#: How long a transaction may hold a source back before it is said: longer than a healthy writer's takes.
HELD_S = 10.0


class SourceChanged(Exception):
    """The log below a committed position is not the one that was read: its topic was made again or was cut off."""


class _Partition:
    """One pair of source partitions: its reader, what is on its way to the ledger, and what may be committed."""

    def __init__(self, number: int, reader: SourceReader) -> None:
        self.number = number
        self.reader = reader
        self.sending: asyncio.Future[Any] | None = None
        self.acknowledged: Position | None = None
        self.committed_at = 0.0
        self.stated_at = 0.0
        # Since when a transaction holds each log back, and whether that was said.
        self.held_since: list[float | None] = [None, None]
        self.held_said = [False, False]


class Ingest(ConsumerRebalanceListener):  # type: ignore[misc]
    """Joins the assigned source partitions until it is stopped; `run` is one life, to be begun again after an error.

    `clock_ms` is the wall clock. It is asked only where everything was read, to say that time passes all the same.
    """

    def __init__(
        self, access: Access, config: Config, clock_ms: Callable[[], int], *, tick_s: float, group: str = GROUP
    ) -> None:
        self.access = access
        self.config = config
        self._clock_ms = clock_ms
        self.group = access.names.prefix + group.removeprefix("unship.")
        self.tick_s = tick_s
        self.ledger = access.names.of("ledger")
        self.topics = tuple(access.names.of(topic) for topic in SOURCES)
        self.partitions: dict[int, _Partition] = {}
        self.records_read = 0
        self.rows_per_flush = ROWS_PER_FLUSH
        self._stopping = False
        self._flushed_at = 0.0
        self._assigned: list[TopicPartition] = []
        # What was asked to be read again when it was not open here, and when.
        self._asked: dict[int, float] = {}
        self._count = self._ledger_count = 0
        self._route: dict[str, int] = {}
        # The last record of each log that was given to a reader, and its incarnation: lives of this process share them.
        self._given: dict[TopicPartition, tuple[int, Raw]] = {}

    def stop(self) -> None:
        """Let `run` end after it has handed over and committed what it has."""
        self._stopping = True

    async def run(self) -> None:
        """Read until stopped.

        Raises:
            KafkaError: the broker does not do what was asked; start again.
            SourceChanged: an operator has to say that a source begins anew.
            ConfigurationError: the topics are not such that they can be read.
        """
        self._stopping = False
        self._assigned = []
        self.partitions.clear()
        async with producing(self.access) as self._producer:
            # Before it joins the group, from which a worker that cannot read would only take the work of others.
            await open_ledger(self.access, self._producer, self.config)
            self._consumer = self.access.member(self.group, SOURCES, self)
            self._leaders, self._stalls = Leaders(self._consumer), Stalls(self.access, self._consumer)
            rewinds = self._rewinds = Rewinds(self.access)
            try:
                # A member whose start fails has joined its group all the same, and has to leave it.
                await join(self._consumer)
                await rewinds.start()
                while not self._stopping:
                    for number in await rewinds.asked():
                        await self._rewind(number)
                    try:
                        await self._round()
                    except IllegalStateError:
                        self._keep_what_is_ours()
                for partition in list(self.partitions.values()):
                    await self._settle(partition)
            except MessageSizeTooLargeError:
                # By much: each try takes a life, which has to join its group again.
                self.rows_per_flush = max(self.rows_per_flush // 4, 1)
                log.warning(
                    "the ledger takes no larger record, so batches have %d rows at most from here on; "
                    "raise max.message.bytes: unship topics apply",
                    self.rows_per_flush,
                )
                raise
            finally:
                self._give_up()
                await rewinds.stop()
                await end_consumer(self._consumer)

    def _give_up(self) -> None:
        """Let go of what is on its way: whether it arrives is seen by whoever reads it again."""
        for partition in self.partitions.values():
            if partition.sending is not None:
                partition.sending.cancel()
        self.partitions.clear()

    # Assignment

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Hand over and commit what is there, in a short time; whoever takes over reads the rest again."""
        # All at once: the whole group waits for it.
        await asyncio.gather(*map(self._settle_soon, list(self.partitions.values())))
        self.partitions.clear()

    async def _settle_soon(self, partition: _Partition) -> None:
        try:
            await asyncio.wait_for(self._settle(partition), REVOKE_S)
        except (KafkaError, TimeoutError, BrokerUnreachable) as error:
            log.info("partition %d was given up unsettled: %r", partition.number, error)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Hold the partitions until they are opened in the next round, where an error ends this life."""
        self.partitions.clear()
        self._assigned = list(assigned)
        for place in self._assigned:
            # Without any position the client would ask the group for one, and refuse to go on without.
            self._consumer.seek(place, 0)
            self._consumer.pause(place)

    def _keep_what_is_ours(self) -> None:
        """Let go of partitions that the group gave to somebody else in the middle of a round: no reason for a new life,
        which would make the group deal them out again."""
        ours = {place.partition for place in self._consumer.assignment()}
        for number in self.partitions.keys() - ours:
            sending = self.partitions.pop(number).sending
            if sending is not None:
                sending.cancel()

    async def _open_all(self, assigned: list[TopicPartition]) -> None:
        """Open a reader for each assigned pair, from its committed position."""
        numbers: dict[str, set[int]] = {topic: set() for topic in self.topics}
        for place in assigned:
            numbers[place.topic].add(place.partition)
        if not numbers[self.topics[0]]:
            return
        # What another worker found since this one began.
        await self._rewinds.learn()
        shape = await open_ledger(self.access, self._producer, self.config)
        self._count, self._ledger_count = shape.sources, shape.ledger
        # Both topics have the same number of partitions, and the assignor deals them out alike.
        assert numbers[self.topics[0]] == numbers[self.topics[1]], numbers
        positions = await self._committed(sorted(numbers[self.topics[0]]))
        now = asyncio.get_running_loop().time()
        for number, position in positions.items():
            # What is older was for whoever had the partition then; who still needs it asks again.
            again = now - self._asked.get(number, -ASKED_S) < ASKED_S
            await self._open(number, position, again=again)
            self._asked.pop(number, None)
        self._consumer.resume(*assigned)

    async def _committed(self, numbers: list[int]) -> dict[int, Position]:
        async with administering(self.access) as admin:
            places = [TopicPartition(self.topics[0], number) for number in numbers]
            found = await admin.list_consumer_group_offsets(self.group, partitions=places)
        positions = {}
        for place in places:
            committed = found.get(place)
            position = None
            if committed is not None and committed.offset >= 0:
                position = position_of(committed.metadata.encode())
            position = position or self._rewinds.positions.get(place.partition) or Position(self._count)
            incarnation = self._rewinds.incarnations.get(place.partition, 0)
            if position.incarnation < incarnation:
                # Committed in the topics that were.
                position = Position(self._count, incarnation)
            if position.partitions != self._count:
                raise SourceChanged(
                    f"{self.topics[0]} has {self._count} partitions, its ledger was begun with {position.partitions}; "
                    "go back to that number, or begin a new ledger"
                )
            positions[place.partition] = position
        return positions

    async def _rewind(self, number: int) -> None:
        """Read a pair of partitions again from the beginning, because a fold misses something: always safe, if slow."""
        partition = self.partitions.pop(number, None)
        if partition is None:
            # Perhaps it is about to be ours.
            self._asked[number] = asyncio.get_running_loop().time()
            return
        if partition.sending is not None:
            await partition.sending
        log.warning("partition %d: read again from its beginning, as the topic rewind asks", number)
        await self._open(number, Position(self._count, self._rewinds.incarnations.get(number, 0)))

    async def _open(self, number: int, position: Position, *, again: bool = False) -> None:
        """Open a reader at a position, or at the beginning of the same log."""
        halt = self._rewinds.halts.get(number)
        if halt is not None and halt.incarnation == position.incarnation:
            raise SourceChanged(halt.why)
        begin = Position(self._count, position.incarnation) if again else position
        reader = SourceReader(
            self.config, number, begin, ledger_partitions=self._ledger_count, route=self._ledger_partition
        )
        for side, topic in enumerate(self.topics):
            place = TopicPartition(topic, number)
            first = (await self._consumer.beginning_offsets([place]))[place]
            await self._check(place, self._newest(place, position, side), position.incarnation)
            if first > reader.next_offset(side):
                # Retention was faster than we: what is gone is counted, never passed over in silence.
                reader.skip(side, first, lost=True)
            self._consumer.seek(place, max(first, reader.next_offset(side)))
        self.partitions[number] = _Partition(number, reader)
        log.info("partition %d: from %s, window from %s", number, begin.end, begin.low)

    def _newest(self, place: TopicPartition, position: Position, side: int) -> Fingerprint | None:
        """Return what is known of the newest record that was read: by an earlier life it may be more than it committed.

        Where that one is the same, those before it are too.
        """
        known = position.last[side]
        incarnation, given = self._given.get(place, (-1, None))
        if given is None or incarnation != position.incarnation or (known is not None and given.offset <= known.offset):
            return known
        return fingerprint(given)

    async def _check(self, place: TopicPartition, known: Fingerprint | None, incarnation: int) -> None:
        """Make sure that a record that was read is still there; every worker is told if it is not.

        Raises:
            SourceChanged: it is not.
        """
        found = None if known is None else await difference(self.access, self._consumer, place, known)
        if found is not None:
            why = (
                f"{found}; if the topic was made again or cut off on purpose, say so with: "
                f"unship topics renew {place.partition}"
            )
            # Whoever reads this partition next may have committed less, and would not see it.
            await answered(tell_halt(self.access, self._producer, Halt(place.partition, incarnation, why)))
            raise SourceChanged(why)

    def _ledger_partition(self, model: str) -> int:
        found = self._route.get(model)
        if found is None:
            found = self._route[model] = partition_of(model.encode(), self._ledger_count)
        return found

    # Rounds

    async def _round(self) -> None:
        if self._assigned:
            assigned, self._assigned = self._assigned, []
            await self._open_all(assigned)
        busy = any(partition.sending is not None or partition.reader.waiting for partition in self.partitions.values())
        full = [
            TopicPartition(topic, number)
            for number, partition in self.partitions.items()
            for side, topic in enumerate(self.topics)
            if not partition.reader.has_room(side)
        ]
        wanted = [place for place in self._consumer.assignment() if place not in full]
        if full and not wanted:
            # Asked for none, the client would give out of all.
            fetched = {}
            await asyncio.sleep(FULL_S)
        else:
            fetched = await self._consumer.getmany(*wanted, timeout_ms=5 if busy else 50, max_records=8_192)
        await self._stalls.look(wanted if self.partitions else [], bool(fetched))
        for place, records in fetched.items():
            partition = self.partitions.get(place.partition)
            if partition is not None:
                await self._give(place, partition, [Raw(r.offset, r.timestamp, r.value) for r in records])
        now = asyncio.get_running_loop().time()
        flush = now - self._flushed_at >= FLUSH_S
        caught_up = [await self._work(partition, flush) for partition in list(self.partitions.values())]
        # Fetching and heartbeats go on while a long backlog is worked off.
        pause = self._flushed_at + FLUSH_S - READ_AHEAD_S - now
        await asyncio.sleep(pause if busy and all(caught_up) and pause > 0 else 0)

    async def _give(self, place: TopicPartition, partition: _Partition, records: list[Raw]) -> None:
        """Give records to a reader; ahead of the first ones of another leader, what was read before is compared."""
        incarnation, given = self._given.get(place, (-1, None))
        if self._leaders.changed(place) and given is not None and incarnation == partition.reader.incarnation:
            await self._check(place, fingerprint(given), incarnation)
        partition.reader.give(self.topics.index(place.topic), records)
        self._given[place] = partition.reader.incarnation, records[-1]

    async def _work(self, partition: _Partition, flush: bool) -> bool:
        """Join what was read, and hand over what is due; return whether there is nothing more to read or to join."""
        reader = partition.reader
        caught_up = await self._caught_up(partition)
        if reader.filling:
            self.records_read += reader.advance(caught_up, FILL_RECORDS, fill_only=True)
        elif reader.waiting < self.rows_per_flush:
            # What one batch holds has a bound also where the ledger is slow: the rest waits in the log.
            self.records_read += reader.advance(caught_up, self.rows_per_flush)
        done = all(caught_up) and not any(map(reader.queued, (PREDICTIONS, FEEDBACK)))
        if partition.sending is not None:
            if not partition.sending.done():
                return done
            if partition.sending.cancelled():
                # Given up with the partition, which whoever has it reads again from the commit.
                self.partitions.pop(partition.number, None)
                return done
            partition.sending.result()
            partition.sending = None
        if reader.filling:
            return False
        now = asyncio.get_running_loop().time()
        if partition.acknowledged is not None and now - partition.committed_at >= COMMIT_S:
            # Ahead of the next batch: in a backlog there always is one.
            await self._commit(partition)
        idle = all(caught_up) and now - partition.stated_at >= self.tick_s
        if (reader.waiting and (flush or reader.waiting >= self.rows_per_flush)) or idle:
            partition.stated_at = now
            if flush:
                # Not by a full batch, of which a backlog has one after the other: others would never be due.
                self._flushed_at = now
            partition.sending = asyncio.ensure_future(self._send(partition, caught_up))
        return done

    async def _caught_up(self, partition: _Partition) -> tuple[bool, bool]:
        """Return for each log whether there is nothing more than what was given to the reader."""
        found = []
        for side, topic in enumerate(self.topics):
            place = TopicPartition(topic, partition.number)
            position = await self._consumer.position(place)
            if partition.reader.filling and not partition.reader.queued(side):
                # What ends the range may be no record but the end of a transaction.
                partition.reader.skip(side, position)
            try:
                stable, end = self._consumer.last_stable_offset(place), self._consumer.highwater(place)
            except IllegalStateError:
                # Somebody else has the partition since a moment ago.
                stable = end = None
            # What stands behind an open transaction cannot be read yet, and is not nothing.
            found.append(end is not None and position >= end >= 0)
            held = None not in (stable, end) and 0 <= stable <= position < end
            self._say_held(partition, side, place, (position, end) if held else None)
        return found[PREDICTIONS], found[FEEDBACK]

    def _say_held(self, partition: _Partition, side: int, place: TopicPartition, held: tuple[int, int] | None) -> None:
        """Say once that a transaction which does not end holds a log back: everything behind it is not counted."""
        now = asyncio.get_running_loop().time()
        if held is None:
            if partition.held_said[side]:
                log.warning("%s partition %d: the open transaction has ended", place.topic, place.partition)
            partition.held_since[side], partition.held_said[side] = None, False
            return
        since = partition.held_since[side] = partition.held_since[side] or now
        if now - since >= HELD_S and not partition.held_said[side]:
            partition.held_said[side] = True
            log.warning(
                "%s partition %d: an open transaction holds back everything from offset %d on (the log ends at %d): "
                "nothing of it is counted and no time passes until its writer ends it",
                place.topic, place.partition, *held,
            )  # fmt: skip

    async def _send(self, partition: _Partition, caught_up: tuple[bool, bool]) -> None:
        """Append everything read to the ledger; only then the position may be committed."""
        reader = partition.reader
        stated = self._clock_ms() - CLOCK_SKEW_MS
        batches = reader.flush((stated if caught_up[0] else -1, stated if caught_up[1] else -1))
        facts = reader.replica_facts()
        position = reader.position()
        dead, reader.dead = reader.dead, []
        futures = []
        for k, batch in enumerate(batches):
            models = [part.model for part in batch.parts]
            key = models[0].encode() if models else None
            futures.append(self._producer.send_and_wait(self.ledger, entry_of(batch).value, key, partition=k))
        for fact in facts:
            key, k = fact.model.encode(), self._ledger_partition(fact.model)
            futures.append(self._producer.send_and_wait(self.ledger, entry_of(fact).value, key, partition=k))
        for letter in dead:
            value = msgspec.structs.replace(letter, topic=self.access.names.of(letter.topic)).encoded()
            futures.append(self._producer.send_and_wait(self.access.names.of("rejected"), value))
        await all_answered(futures)
        partition.acknowledged = position

    async def _settle(self, partition: _Partition) -> None:
        """Finish what is on its way, hand over what was read, and commit."""
        if partition.sending is not None:
            await partition.sending
            partition.sending = None
        if partition.reader.filling:
            return
        if partition.reader.waiting or partition.reader.moved:
            await self._send(partition, (False, False))
        if partition.acknowledged is not None:
            await self._commit(partition)

    async def _commit(self, partition: _Partition) -> None:
        position = partition.acknowledged
        assert position is not None
        metadata = position_text(position)
        places = [TopicPartition(topic, partition.number) for topic in self.topics]
        try:
            # The second one only tells other tools how far we are.
            ends = {places[0]: (position.end[0], metadata), places[1]: (position.end[1], "")}
            topic, key = self.access.names.of("rewind"), POSITION + b"%d" % partition.number
            await answered(self._producer.send_and_wait(topic, metadata.encode(), key))
            await answered(self._consumer.commit(ends))
        except CommitFailedError:
            log.info("partition %d went to another worker; its batches are covered by what it reads", partition.number)
        partition.acknowledged = None
        partition.committed_at = asyncio.get_running_loop().time()
