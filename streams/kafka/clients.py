"""Clients of the broker with the settings that the monitor's guarantees rest on; the defaults are others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaConnectionError, KafkaError

from unship.errors import BrokerUnreachable, ConfigurationError
from unship.log.kafka.loop import ended
from unship.log.kafka.loop import explained as words
from unship.topics import TopicNames

#: A batch of 2,000 outcomes takes about 150 KB; a snapshot is cut into parts below this.
REQUEST_BYTES_MAX = 1_000_000
#: Longest wait for one answer of the broker: longer than a restart of it takes, so that what was sent arrives once.
ANSWER_S = 10.0
#: Longest wait for a client to end in order; what it has in flight is sent again by the next one, or read again.
END_S = 2.0
#: Longest wait for a share of a group's partitions: longer than any other member may take to answer for the last time.
JOIN_S = 60.0

T = TypeVar("T")


class Access(msgspec.Struct, frozen=True):
    """How to reach a log: what every client is made with, and what its topics are called.

    `session_ms` is how long a worker may be silent before others take its partitions.
    """

    options: dict[str, Any]
    names: TopicNames
    session_ms: int = 10_000

    @property
    def servers(self) -> str:
        """The brokers' addresses, for people."""
        return ",".join(self.options["bootstrap_servers"])

    def producer(self, transactional_id: str | None = None) -> AIOKafkaProducer:
        """Return a producer whose records are acknowledged by all replicas in sync and stand in the log once."""
        return AIOKafkaProducer(
            **self.options,
            acks="all",
            enable_idempotence=True,
            transactional_id=transactional_id,
            max_request_size=4 * REQUEST_BYTES_MAX,
            request_timeout_ms=10_000,
            metadata_max_age_ms=30_000,
        )

    def reader(self) -> AIOKafkaConsumer:
        """Return a consumer without a group, whose partitions and positions the caller chooses."""
        return AIOKafkaConsumer(**self.options, **_READING)

    def member(self, group: str, topics: Sequence[str], listener: Any) -> AIOKafkaConsumer:
        """Return a member of a group; partitions of one number in several topics go to one member."""
        consumer = AIOKafkaConsumer(
            **self.options,
            **_READING,
            group_id=group,
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=self.session_ms,
            heartbeat_interval_ms=max(self.session_ms // 6, 500),
        )
        consumer.subscribe([self.names.of(topic) for topic in topics], listener=listener)
        return consumer

    def admin(self) -> AIOKafkaAdminClient:
        """Return an administration client."""
        return AIOKafkaAdminClient(**self.options, request_timeout_ms=10_000)


_READING: dict[str, Any] = {
    # A record of a transaction that was given up must not be seen, or it would be joined.
    "isolation_level": "read_committed",
    "enable_auto_commit": False,
    # A position that the log does not have any more is a finding, not a reason to go on from anywhere.
    "auto_offset_reset": "none",
    "fetch_max_wait_ms": 250,
    "max_partition_fetch_bytes": 4 * REQUEST_BYTES_MAX,
    "request_timeout_ms": 15_000,
    "metadata_max_age_ms": 30_000,
}


async def partition_count(consumer: AIOKafkaConsumer, topic: str) -> int:
    """Return how many partitions a topic has.

    Raises:
        ConfigurationError: the topic is not there; the message says how to make it.
    """
    found = (await consumer._client.fetch_all_metadata()).partitions_for_topic(topic)
    if not found:
        raise ConfigurationError(f"topic {topic}: the broker has none of this name; make it with: unship topics apply")
    return len(found)


async def read_all(access: Access, topic: str, partitions: Sequence[int] | None = None) -> list[Any]:
    """Return all records of a topic's partitions up to their ends of now, in the order of offsets in each partition."""
    name = access.names.of(topic)
    consumer = access.reader()
    try:
        await consumer.start()
        wanted = range(await partition_count(consumer, name)) if partitions is None else partitions
        places = [TopicPartition(name, number) for number in wanted]
        consumer.assign(places)
        begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        for place in places:
            consumer.seek(place, begins[place])
        records: list[Any] = []
        open_places = {place for place in places if begins[place] < ends[place]}
        progress = Progress()
        while open_places:
            for place, batch in (await consumer.getmany(timeout_ms=500)).items():
                records += [record for record in batch if record.offset < ends[place]]
            for place in sorted(open_places):
                position = await consumer.position(place)
                # Offsets may end with what is no record, such as the end of a transaction.
                if position >= ends[place]:
                    open_places.discard(place)
                progress.see(place, position, ends[place])
        return records
    finally:
        await end_consumer(consumer)


class Progress:
    """Bounds the wait for what is read up to an end: from when it is made on, some partition has to move in time."""

    def __init__(self) -> None:
        self._reached: dict[TopicPartition, int] = {}
        self._moved_at = asyncio.get_running_loop().time()

    def see(self, place: TopicPartition, position: int, end: int) -> None:
        """Take note of where a partition is that is read up to `end`.

        Raises:
            BrokerUnreachable: neither this one nor another has moved for as long as an answer may take.
        """
        now = asyncio.get_running_loop().time()
        if self._reached.get(place) != position:
            self._reached[place], self._moved_at = position, now
        elif now - self._moved_at > ANSWER_S:
            raise BrokerUnreachable(
                f"{place.topic} partition {place.partition}: nothing is shown of offsets {position} to {end - 1} "
                f"within {ANSWER_S:g} s"
            )


def run(access: Access, work: Coroutine[Any, Any, T]) -> T:
    """Do something in an event loop of its own.

    Raises:
        BrokerUnreachable: no broker does it.
    """
    try:
        return asyncio.run(work)
    except (KafkaError, OSError, BrokerUnreachable) as error:
        raise BrokerUnreachable(explained(error, access)) from error


async def reachable(access: Access) -> None:
    """Return if a broker answers; raise what is wrong if none does."""
    async with administering(access):
        pass


async def answered(work: Awaitable[T]) -> T:
    """Return what the broker answers.

    Raises:
        BrokerUnreachable: there is no answer in time. The client is of no use any more: it may never give one.
    """
    try:
        return await asyncio.wait_for(work, ANSWER_S)
    except TimeoutError:
        raise BrokerUnreachable(f"no answer within {ANSWER_S:g} s") from None


async def all_answered(works: Iterable[Awaitable[Any]]) -> None:
    """Return when the broker has answered all; see `answered`."""
    await answered(_all(works))


async def _all(works: Iterable[Awaitable[Any]]) -> None:
    # In a coroutine, which asks for the outcome also when it is cancelled; else that is logged as forgotten.
    await asyncio.gather(*works)


@asynccontextmanager
async def producing(access: Access, transactional_id: str | None = None) -> AsyncIterator[AIOKafkaProducer]:
    """Give a producer that ends in bounded time, whatever the broker does."""
    producer = access.producer(transactional_id)
    try:
        await answered(producer.start())
        yield producer
    finally:
        await end_producer(producer)


@asynccontextmanager
async def administering(access: Access) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give an administration client."""
    admin = access.admin()
    try:
        await answered(admin.start())
        yield admin
    finally:
        await admin.close()


async def join(consumer: AIOKafkaConsumer) -> None:
    """Start a member of a group, which then has its share of the partitions.

    Raises:
        BrokerUnreachable: it was given none in time: other members or their coordinator do not answer.
    """
    try:
        await asyncio.wait_for(consumer.start(), JOIN_S)
    except TimeoutError:
        raise BrokerUnreachable(f"group {consumer._group_id} gave no partitions out within {JOIN_S:g} s") from None


async def end_producer(producer: AIOKafkaProducer) -> None:
    """End a producer. A healthy one sends what it has; one that waits for an answer for ever is cut off."""
    if not await ended(producer.stop(), END_S):
        sender = producer._sender._sender_task
        if sender is not None:
            sender.cancel()
        await ended(producer.client.close(), END_S)


async def end_consumer(consumer: AIOKafkaConsumer) -> None:
    """End a consumer in bounded time."""
    await ended(consumer.stop(), END_S)


def explained(error: Exception, access: Access) -> str:
    """Return what is wrong with the broker in one line."""
    if isinstance(error, KafkaConnectionError | OSError):
        return f"kafka {access.servers}: no broker answers there; start it, or correct the address in `log`"
    what = words(error) if isinstance(error, KafkaError) else str(error)
    return f"kafka {access.servers}: {' '.join(what.split())[:300]}"
