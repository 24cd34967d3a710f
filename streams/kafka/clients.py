"""Clients of the broker with the settings that the monitor's guarantees rest on; the defaults are others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaConnectionError, KafkaError

from streams.join.source_records import SourceRecords, columns_of, joined
from streams.kafka.private_parts import (
    all_metadata,
    cancel_sending,
    group_of,
    read_columns,
    unread,
    wait_for_records,
)
from unship.errors import BrokerUnreachable, ConfigurationError, TimedOut
from unship.log.kafka.loop import ended
from unship.log.kafka.loop import explained as named
from unship.signing import Headers
from unship.topics import TopicNames

REQUEST_BYTES_MAX = 1_000_000
"""A batch of 2,000 outcomes takes about 150 KB; a snapshot is cut into parts below this."""

WAIT_MS, WAIT_BEHIND_MS = 250, 10
"""How long the broker keeps a request for records while there is none; the next one waits as long."""

RECORDS_MAX = 8_192
PIECES_MAX = 2
"""What is taken of a log at a time: of single records, and of pieces. Of two, the end of a log is seen to be one."""

ANSWER_S = 10.0
"""Longest wait for one answer of the broker: longer than a restart of it takes, so that what was sent arrives once."""

REQUEST_MS = 10_000
"""Longest wait of a client for the answer to one request."""

END_S = 2.0
"""Longest wait for a client to end in order; what it has in flight is sent again by the next one, or read again."""

JOIN_S = 60.0
"""Longest wait for a share of a group's partitions: longer than any other member may take until its last answer."""

T = TypeVar("T")


class Access(msgspec.Struct, frozen=True):
    """How to reach a log: what every client is made with, and what its topics are called.

    `session_ms` is how long a worker may send no heartbeat before its partitions are rebalanced.
    """

    options: dict[str, Any]
    names: TopicNames
    session_ms: int = 10_000

    @property
    def servers(self) -> str:
        """The brokers' addresses, for people."""
        return ",".join(self.options["bootstrap_servers"])

    def producer(self, transactional_id: str | None = None) -> AIOKafkaProducer:
        """Return a producer whose records are acknowledged by all replicas in sync and are in the log once."""
        return AIOKafkaProducer(
            **self.options,
            acks="all",
            enable_idempotence=True,
            transactional_id=transactional_id,
            max_request_size=4 * REQUEST_BYTES_MAX,
            request_timeout_ms=REQUEST_MS,
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
        return AIOKafkaAdminClient(**self.options, request_timeout_ms=REQUEST_MS)


_READING: dict[str, Any] = {
    # A record of an aborted transaction must not be seen, or it would be joined.
    "isolation_level": "read_committed",
    "enable_auto_commit": False,
    # A position that the log does not have any more is a finding, not a reason to go on from anywhere.
    "auto_offset_reset": "none",
    "fetch_max_wait_ms": WAIT_MS,
    "max_partition_fetch_bytes": 4 * REQUEST_BYTES_MAX,
    "request_timeout_ms": 15_000,
    "metadata_max_age_ms": 30_000,
}


async def partition_count(consumer: AIOKafkaConsumer, topic: str) -> int:
    """Return how many partitions a topic has.

    Raises:
        ConfigurationError: the topic is not there; the message names the command that creates it.
    """
    found = (await all_metadata(consumer)).partitions_for_topic(topic)
    if not found:
        raise ConfigurationError(f"topic {topic}: the broker has none of this name; make it with: unship topics apply")
    return len(found)


async def has_topic(access: Access, topic: str) -> bool:
    """Return whether the broker has a topic."""
    consumer = access.reader()
    try:
        await consumer.start()
        return bool((await all_metadata(consumer)).partitions_for_topic(access.names.of(topic)))
    finally:
        await end_consumer(consumer)


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
        return [record async for batch in read_to(consumer, ends) for record in batch]
    finally:
        await end_consumer(consumer)


class Feed:
    """Gives out as columns what a started consumer fetches, a bounded part of each log at a time."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._in_pieces = read_columns(consumer)
        self._behind = False

    async def take(self, places: Sequence[TopicPartition], timeout_ms: int) -> dict[TopicPartition, SourceRecords]:
        """Return what there is of some logs; wait for it so long at most.

        Raises:
            IllegalStateError: one of them is not assigned any more.
        """
        take = self._consumer.getmany
        if not self._in_pieces:
            fetched = await take(*places, timeout_ms=timeout_ms, max_records=RECORDS_MAX)
            return {place: columns_of(records) for place, records in fetched.items()}
        pieces = await take(*places, timeout_ms=timeout_ms, max_records=PIECES_MAX)
        for place in set(places).intersection(unread(self._consumer)):
            if len(pieces.get(place, ())) < PIECES_MAX:
                # Waits for nothing, so no partition is revoked meanwhile.
                for found in (await take(place, timeout_ms=0, max_records=PIECES_MAX)).values():
                    pieces.setdefault(place, []).extend(found)
        return {place: joined(found) for place, found in pieces.items()}

    def behind(self, behind: bool) -> None:
        """Note whether there is more to fetch: logs without a record then do not keep the others waiting."""
        if self._in_pieces and behind != self._behind:
            self._behind = behind
            wait_for_records(self._consumer, WAIT_BEHIND_MS if behind else WAIT_MS)


async def read_to(
    consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int], records_max: int | None = None
) -> AsyncIterator[list[Any]]:
    """Yield the records of assigned partitions from their positions up to these ends, each batch of one partition.

    Offsets may end with what is no record, such as the end of a transaction, so the position counts.

    Raises:
        BrokerUnreachable: no partition has moved for as long as an answer may take.
    """
    now = asyncio.get_running_loop().time
    left, reached, moved_at = dict(ends), dict[TopicPartition, int](), now()
    while True:
        for place, end in sorted(left.items()):
            position = await consumer.position(place)
            if position >= end:
                del left[place]
            elif reached.get(place) != position:
                reached[place], moved_at = position, now()
            elif now() - moved_at > ANSWER_S:
                raise BrokerUnreachable(
                    f"{place.topic} partition {place.partition}: nothing is shown of offsets {position} to {end - 1} "
                    f"within {ANSWER_S:g} s"
                )
        if not left:
            return
        for place, batch in (await consumer.getmany(*left, timeout_ms=500, max_records=records_max)).items():
            if wanted := [record for record in batch if record.offset < ends[place]]:
                yield wanted


def run(access: Access, work: Coroutine[Any, Any, T], limit_s: float | None = None) -> T:
    """Do something in an event loop of its own.

    Raises:
        BrokerUnreachable: no broker does it.
        TimedOut: it took longer than `limit_s`, in seconds.
    """
    try:
        return asyncio.run(_within(work, limit_s))
    except (KafkaError, OSError, BrokerUnreachable) as error:
        raise BrokerUnreachable(explained(error, access)) from error


async def _within(work: Coroutine[Any, Any, T], limit_s: float | None) -> T:
    if limit_s is None:
        return await work
    try:
        return await asyncio.wait_for(work, limit_s)
    except TimeoutError:
        raise TimedOut(f"the brokers did not do it within {limit_s:g} s; look again, it may be done yet") from None


def append_one(access: Access, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> tuple[int, int]:
    """Append a record to a topic; return its partition, which the client chooses as Java's do, and its offset.

    Raises:
        BrokerUnreachable: no broker took it.
    """

    async def append() -> tuple[int, int]:
        async with producing(access) as producer:
            sent = producer.send_and_wait(access.names.of(topic), value, key, headers=list(headers))
            placed = await answered(sent)
            return placed.partition, placed.offset

    return run(access, append())


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


async def join(consumer: AIOKafkaConsumer) -> None:
    """Start a member of a group, which then has its share of the partitions.

    Raises:
        BrokerUnreachable: it was given none in time: other members or their coordinator do not answer.
    """
    try:
        await asyncio.wait_for(consumer.start(), JOIN_S)
    except TimeoutError:
        raise BrokerUnreachable(f"group {group_of(consumer)} gave no partitions out within {JOIN_S:g} s") from None


async def end_producer(producer: AIOKafkaProducer) -> None:
    """End a producer. A healthy one sends what it has; one that waits for an answer for ever is cut off."""
    if not await ended(producer.stop(), END_S):
        cancel_sending(producer)
        await ended(producer.client.close(), END_S)


async def end_consumer(consumer: AIOKafkaConsumer) -> None:
    """End a consumer in bounded time."""
    await ended(consumer.stop(), END_S)


def explained(error: Exception, access: Access) -> str:
    """Return what is wrong with the broker in one line."""
    if isinstance(error, KafkaConnectionError | OSError):
        return f"kafka {access.servers}: no broker answers there; start it, or correct the address in `log`"
    what = named(error) if isinstance(error, KafkaError) else str(error)
    return f"kafka {access.servers}: {' '.join(what.split())[:300]}"
