"""The ingest service: read the source partitions that the group assigns, and append what is joined to the ledger.

Crash-only: whatever goes wrong with reading, appending or committing, everything in memory is dropped and read again
from the committed position. The guarantees are those of `streams.join.source_reader`, whose three rules this module
and `streams.kafka.source_partition` keep.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError, MessageSizeTooLargeError

from streams.cache.window_cache import WindowCaches
from streams.config.resolved import Config
from streams.join.source_reader import Position
from streams.kafka.admin import administering
from streams.kafka.clients import Access, Feed, end_consumer, join, producing
from streams.kafka.ledger_topic import check_settings, open_ledger
from streams.kafka.log_checks import Leaders, Stalls
from streams.kafka.rewinds import Rewinds
from streams.kafka.source_partition import LastRead, Links, SourceChanged, SourcePartition, route_to
from streams.rounds.ingest import FLUSH_S, Limits
from streams.rounds.rewind import position_of
from streams.topics.rights import INGEST_GROUP
from unship.errors import BrokerUnreachable
from unship.topics import SOURCES

log = logging.getLogger("unship.ingest")

GROUP = INGEST_GROUP
ROWS_PER_FLUSH = 16_384
"""Of one batch at most, in a backlog: each is a record of every ledger partition, however few rows that has."""

READ_AHEAD_S = 0.01
"""So long before a flush the logs are read again. Each read costs a request, and what arrives earlier waits anyway."""

BUSY_WAIT_MS, IDLE_WAIT_MS = 5, 200
"""Longest wait for records in a round, while rows wait for the ledger and while none do."""

LOOK_AT_SETTINGS_S = 30.0
"""How often a running worker looks whether its topics are still such that they can be read."""

FULL_S = 0.01
"""Between two looks whether there is room again, where the ledger is slower than the sources."""

REVOKE_S = 2.0
REQUESTED_S = 60.0
"""How long a request to read a partition again waits for it to be opened here."""


class IngestService:
    """Joins the assigned source partitions until it is stopped; `run` is one run, to be repeated after an error.

    `clock_ms` is the wall clock. It is read only where every record was read, to state that time passes all the same.
    """

    def __init__(
        self, access: Access, config: Config, clock_ms: Callable[[], int], *, tick_s: float, group: str = GROUP
    ) -> None:
        self.access = access
        self.config = config
        self.clock_ms = clock_ms
        self.group = access.names.prefix + group
        self.limits = Limits(ROWS_PER_FLUSH, tick_s)
        self.last_read = LastRead()
        self.windows = WindowCaches(None, config.window_bytes)
        # Requests to read pairs again that were not open here, and when they came.
        self.requested: dict[int, float] = {}
        self.running: IngestRun | None = None
        self.run_type: type[IngestRun] = IngestRun
        self.partition_type: type[SourcePartition] = SourcePartition
        self._stopping = False

    @property
    def partitions(self) -> dict[int, SourcePartition]:
        """Return the pairs that are open now."""
        return {} if self.running is None else self.running.partitions

    @property
    def unread(self) -> int:
        """Return how many records can be read and were not, of both source topics."""
        return sum(partition.unread for partition in list(self.partitions.values()))

    def keep_windows(self, folder: Path) -> None:
        """Keep in a folder what does not fit into memory, and what need not be read again after a restart."""
        self.windows = WindowCaches(folder, self.config.window_bytes)

    def limit_rows(self, rows: int) -> None:
        """Append batches of so many rows at most, from the next run on."""
        self.limits = msgspec.structs.replace(self.limits, rows=rows)

    def stop(self) -> None:
        """Let `run` end after it has appended and committed what it has."""
        self._stopping = True

    async def run(self) -> None:
        """Read until stopped.

        Raises:
            KafkaError: the broker does not do what was asked; start again.
            SourceChanged: an operator has to begin a new incarnation of a source.
            ConfigurationError: the topics are not such that they can be read.
        """
        self._stopping = False
        async with producing(self.access) as producer:
            # Before it joins the group, from which a worker that cannot read would only take the work of others.
            await open_ledger(self.access, producer, self.config)
            run = self.running = self.run_type(self, producer)
            try:
                await run.join()
                look = asyncio.get_running_loop().time() + LOOK_AT_SETTINGS_S
                while not self._stopping:
                    await run.round()
                    if asyncio.get_running_loop().time() >= look:
                        # Somebody may have altered a topic meanwhile.
                        await check_settings(self.access)
                        look = asyncio.get_running_loop().time() + LOOK_AT_SETTINGS_S
                await run.settle()
            except MessageSizeTooLargeError:
                # By much: each try takes a run, which has to join its group again.
                self.limit_rows(max(self.limits.rows // 4, 1))
                log.warning(
                    "the ledger takes no larger record, so batches have %d rows at most from here on; "
                    "raise max.message.bytes: unship topics apply",
                    self.limits.rows,
                )
                raise
            finally:
                await run.close()


class IngestRun(ConsumerRebalanceListener):  # type: ignore[misc]
    """One run of the service: from joining the group to leaving it."""

    def __init__(self, service: IngestService, producer: AIOKafkaProducer) -> None:
        self.partitions: dict[int, SourcePartition] = {}
        self._service = service
        self._producer = producer
        self._consumer = service.access.member(service.group, SOURCES, self)
        self._leaders = Leaders(self._consumer)
        self._stalls = Stalls(service.access, self._consumer)
        self._rewinds = Rewinds(service.access)
        self._assigned: list[TopicPartition] = []
        self._links: Links | None = None
        self._feed: Feed | None = None
        self._flushed_at = 0.0

    async def join(self) -> None:
        """Join the group. A member whose start fails has joined it all the same, and has to leave it by `close`."""
        await join(self._consumer)
        self._feed = Feed(self._consumer)
        await self._rewinds.start()

    async def settle(self) -> None:
        """Append what was read, and commit."""
        for partition in list(self.partitions.values()):
            await partition.settle()

    async def close(self) -> None:
        """Leave the group, with everything in memory dropped."""
        self._keep_only(set())
        await self._rewinds.stop()
        await end_consumer(self._consumer)

    # Assignment

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Append and commit what is there, in a short time; the next member reads the rest again."""
        # All at once: the whole group waits for it.
        await asyncio.gather(*map(self._settle_soon, list(self.partitions.values())))
        self.partitions.clear()

    async def _settle_soon(self, partition: SourcePartition) -> None:
        try:
            await asyncio.wait_for(partition.settle(), REVOKE_S)
        except (KafkaError, TimeoutError, BrokerUnreachable) as error:
            log.info("partition %d was revoked before its commit: %r", partition.number, error)
        finally:
            partition.cancel()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Pause the partitions until they are opened in the next round, where an error ends this run."""
        self.partitions.clear()
        self._assigned = list(assigned)
        for place in self._assigned:
            # Without any position the client would ask the group for one, and refuse to go on without.
            self._consumer.seek(place, 0)
            self._consumer.pause(place)

    def _keep_only(self, numbers: set[int]) -> None:
        """Drop the other pairs, and cancel what is on its way of them."""
        for number in self.partitions.keys() - numbers:
            self.partitions.pop(number).cancel()

    async def _open_all(self, assigned: list[TopicPartition]) -> None:
        """Open each assigned pair at its committed position."""
        service = self._service
        topics = [service.access.names.of(topic) for topic in SOURCES]
        predictions, feedback = (sorted(p.partition for p in assigned if p.topic == topic) for topic in topics)
        if not predictions:
            return
        # Both topics have the same number of partitions, and the assignor deals them out alike.
        assert predictions == feedback, (predictions, feedback)
        # What another worker found since this one began.
        await self._rewinds.learn()
        shape = await open_ledger(service.access, self._producer, service.config)
        links = self._links = Links(
            service.access, service.config, self._producer, self._consumer, self._leaders, shape, service.last_read,
            service.limits, service.clock_ms, route_to(shape.ledger), service.windows, len(predictions),
        )  # fmt: skip
        now = asyncio.get_running_loop().time()
        for number, position in (await self._committed(links, predictions)).items():
            # An older request was for the member that had the partition then; a fold that still has the gap repeats it.
            again = now - service.requested.pop(number, -REQUESTED_S) < REQUESTED_S
            begin = Position(shape.sources, position.incarnation) if again else position
            await self._open(links, number, begin, position)
        self._consumer.resume(*assigned)

    async def _committed(self, links: Links, numbers: list[int]) -> dict[int, Position]:
        count, rewinds = links.shape.sources, self._rewinds
        places = {number: links.places(number)[0] for number in numbers}
        async with administering(links.access) as admin:
            found = await admin.client.list_consumer_group_offsets(
                self._service.group, partitions=list(places.values())
            )
        positions = {}
        for number, place in places.items():
            committed = found.get(place)
            position = None
            if committed is not None and committed.offset >= 0:
                position = position_of(committed.metadata.encode())
            position = position or rewinds.positions.get(number) or Position(count)
            incarnation = rewinds.incarnations.get(number, 0)
            if position.incarnation < incarnation:
                # Committed in the topics that were.
                position = Position(count, incarnation)
            if position.partitions != count:
                raise SourceChanged(
                    f"{place.topic} has {count} partitions, its ledger was begun with {position.partitions}; "
                    "go back to that number, or begin a new ledger"
                )
            positions[number] = position
        return positions

    async def _open(self, links: Links, number: int, begin: Position, committed: Position) -> None:
        halt = self._rewinds.halts.get(number)
        if halt is not None and halt.incarnation == begin.incarnation:
            raise SourceChanged(halt.why)
        partition = self._service.partition_type(links, number, begin)
        try:
            await partition.open(committed)
        except BaseException:
            partition.cancel()
            raise
        self.partitions[number] = partition
        log.info("partition %d: from %s, window from %s", number, begin.end, begin.low)

    async def read_again(self, number: int) -> None:
        """Read a pair again from the beginning, because a fold has a gap: always safe, if slow."""
        partition = self.partitions.pop(number, None)
        if partition is None or self._links is None:
            # Perhaps it is about to be assigned.
            self._service.requested[number] = asyncio.get_running_loop().time()
            return
        await partition.appended()
        partition.cancel()
        log.warning("partition %d: read again from its beginning, as the topic rewind requests", number)
        begin = Position(self._links.shape.sources, self._rewinds.incarnations.get(number, 0))
        await self._open(self._links, number, begin, begin)

    # Rounds

    async def round(self) -> None:
        """Open what was assigned, read what the logs have, and let each pair work."""
        for number in await self._rewinds.requested():
            await self.read_again(number)
        try:
            if self._assigned:
                assigned, self._assigned = self._assigned, []
                await self._open_all(assigned)
            await self._read()
            await self._work()
        except IllegalStateError:
            # Partitions were revoked in the middle of it: no reason for a new run, which would be another rebalance.
            self._keep_only({place.partition for place in self._consumer.assignment()})

    @property
    def _busy(self) -> bool:
        return any(partition.busy for partition in self.partitions.values())

    async def _read(self) -> None:
        full = {place for partition in self.partitions.values() for place in partition.full()}
        wanted = [place for place in self._consumer.assignment() if place not in full]
        if full and not wanted:
            # Asked for none, the client would give out of all.
            fetched = {}
            await asyncio.sleep(FULL_S)
        else:
            assert self._feed is not None, "before it has joined"
            self._feed.behind(any(partition.unread for partition in self.partitions.values()))
            fetched = await self._feed.take(wanted, BUSY_WAIT_MS if self._busy else IDLE_WAIT_MS)
        await self._stalls.look(wanted if self.partitions else [], bool(fetched))
        for place, records in fetched.items():
            partition = self.partitions.get(place.partition)
            if partition is not None:
                await partition.give(place, records)
                await asyncio.sleep(0)

    async def _work(self) -> None:
        busy, now = self._busy, asyncio.get_running_loop().time()
        flush = now - self._flushed_at >= FLUSH_S
        idle = True
        for partition in list(self.partitions.values()):
            if partition.rests(now) or self.partitions.get(partition.number) is not partition:
                continue
            done, flushed = await partition.work(flush)
            idle &= done
            if flushed:
                # Not by a full batch, of which a backlog has one after the other: others would never be due.
                self._flushed_at = asyncio.get_running_loop().time()
            if partition.cancelled:
                self.partitions.pop(partition.number, None)
            if not done:
                # Fetching, the fold and heartbeats go on while a long backlog is worked off.
                await asyncio.sleep(0)
        pause = self._flushed_at + FLUSH_S - READ_AHEAD_S - now
        await asyncio.sleep(pause if busy and idle and pause > 0 else 0)
