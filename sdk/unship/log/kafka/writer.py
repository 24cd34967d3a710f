"""Append to topics of a broker through a producer that is discarded after any failure.

An idempotent producer never recovers from some errors (a broker that lost what it had acknowledged), and never returns
from others (a broker whose disk is full). So each append has a deadline of its own, and after any failure the producer
goes, with its event loop. What it had in flight is written again by the next one, perhaps twice; readers drop repeats.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTimestampError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.partitioner import murmur2

from unship.errors import BrokerUnreachable, ConfigurationError
from unship.log.kafka.loop import KafkaLoop, explained
from unship.log.kafka.settings import client_options, topic_names
from unship.log.link import Batches, Message, Overdue, Refusal, records_of
from unship.topics import SOURCES

if TYPE_CHECKING:
    from aiokafka.producer.message_accumulator import BatchBuilder

APPEND_S: Final = 15.0
"""Deadline of one append: longer than a broker's restart, in which the producer repeats without doubling anything."""

REQUEST_MS: Final = 6_000
METADATA_MS: Final = 60_000

BATCH_BYTES: Final = 65_536
"""Most bytes of one batch; a record that is larger by itself goes alone."""

TOO_LARGE: Final = "TOO_LARGE"
REFUSALS: Final[dict[type, str]] = {
    TopicAuthorizationFailedError: "NOT_AUTHORIZED",
    InvalidTimestampError: "BAD_TIME",
    MessageSizeTooLargeError: TOO_LARGE,
    RecordListTooLargeError: TOO_LARGE,
}
"""What no other try will change, and the reason it is counted by."""


def partition_of(key: bytes, count: int) -> int:
    """Return the partition of a key among `count`, chosen as Java's clients do: what is joined must lie together.

    Example:
        >>> [partition_of(key, 12) for key in (b"p-1", b"fraud", b"fraud/r-1")]
        [4, 10, 4]
    """
    return int(murmur2(key) & 0x7FFF_FFFF) % count


class _Flight(NamedTuple):
    """Hold messages of one topic that share a fate, and the future that knows it."""

    topic: str
    messages: list[Message]
    fate: asyncio.Future[Any]


class KafkaWriter:
    """Append for one thread, connecting when it must."""

    def __init__(self, log: str, *, pack: bool = False) -> None:
        """Name the broker, without calling it; with `pack`, events of one partition share records."""
        self._log = log
        self._pack = pack
        self._names = topic_names()
        self._loop: KafkaLoop | None = None
        self._producer: AIOKafkaProducer | None = None
        # Topics that refused a batch for its size: the next try sends each of its messages alone, to find the one.
        self._alone: set[str] = set()

    def append(self, batches: Batches, overdue: Overdue) -> list[Refusal]:
        """Append messages, see `unship.log.link.Link`; return when all in-sync replicas acknowledged every one."""
        self._loop = self._loop or KafkaLoop(self._log)
        flights: list[_Flight] = []
        failure: Exception | None = None
        try:
            self._loop.run(self._send(batches, flights), overdue, APPEND_S)
        except Exception as error:  # noqa: BLE001 (whatever it was, what was acknowledged meanwhile is settled first)
            failure = error
        refusals, failed = self._settle(batches, flights)
        if failure is None and failed is None and not refusals:
            self._alone.clear()
            return []
        self.end()
        if refusals:
            return refusals
        raise failure or BrokerUnreachable(f"{self._log}: {failed}; it is tried again")

    def end(self) -> None:
        """Close the producer; the next append makes another."""
        loop, producer = self._loop, self._producer
        self._loop = self._producer = None
        if loop is not None:
            # A producer waits for its batches when it is stopped, so what it is connected by is closed besides.
            loop.end(*(() if producer is None else (producer.stop, producer.client.close)))

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            self._producer = AIOKafkaProducer(
                **client_options(self._log),
                enable_idempotence=True,
                acks="all",
                linger_ms=0,
                max_batch_size=BATCH_BYTES,
                request_timeout_ms=REQUEST_MS,
                metadata_max_age_ms=METADATA_MS,
            )
            await self._producer.start()
        return self._producer

    async def _send(self, batches: Batches, flights: list[_Flight]) -> None:
        """Put everything on its way, noting it in `flights`, and wait until the fate of all is known."""
        producer = await self._started()
        for topic, messages in batches.items():
            name = self._names.of(topic)
            try:
                count = len(await producer.partitions_for(name))
            except TopicAuthorizationFailedError as error:
                fate = asyncio.get_running_loop().create_future()
                fate.set_exception(error)
                flights.append(_Flight(topic, messages, fate))
                continue
            except UnknownTopicOrPartitionError:
                raise ConfigurationError(
                    f"{self._log}: there is no topic {name}; make it with `unship topics apply`"
                ) from None
            alone = topic in self._alone
            pack = self._pack and topic in SOURCES
            for partition, part in _by_partition(messages, count).items():
                for batch, held in built(producer.create_batch, part, pack=pack, alone=alone):
                    fate = await producer.send_batch(batch, name, partition=partition)
                    flights.append(_Flight(topic, held, fate))
        if flights:
            await asyncio.wait([flight.fate for flight in flights])

    def _settle(self, batches: Batches, flights: list[_Flight]) -> tuple[list[Refusal], str | None]:
        """Take out of `batches` what was written or refused; return refusals, and why the rest is left."""
        settled: set[int] = set()
        refusals: list[Refusal] = []
        failed: str | None = None
        for topic, messages, fate in flights:
            if not fate.done() or fate.cancelled():
                failed = failed or f"{topic}: no answer in time"
                continue
            error = fate.exception()
            reason = None if error is None else REFUSALS.get(type(error))
            if error is not None and (reason is None or (reason == TOO_LARGE and len(messages) > 1)):
                if reason == TOO_LARGE:
                    self._alone.add(topic)
                failed = failed or f"{topic}: {explained(error)}"
                continue
            settled.update(map(id, messages))
            if error is not None and reason is not None:
                refusals.append(Refusal(reason, f"{topic}: {explained(error)}", len(messages)))
        for topic in tuple(batches):
            batches[topic] = [message for message in batches[topic] if id(message) not in settled]
        return refusals, failed


def built(
    create_batch: Callable[[], BatchBuilder], messages: list[Message], *, pack: bool, alone: bool
) -> Iterator[tuple[BatchBuilder, list[Message]]]:
    """Yield closed batches for messages of one partition, in order, each with the messages that share its fate.

    With `pack` several messages share a record. With `alone` each is a plain record in a batch of its own.
    """
    batch, held = create_batch(), list[Message]()
    for record, carried in records_of(messages, pack=pack and not alone):
        full = alone and held
        # A list, because the client's compiled part takes nothing else.
        headers = list(record.headers)
        if full or batch.append(timestamp=None, key=record.key, value=record.value, headers=headers) is None:
            # Closed, so that it is not kept for more.
            batch.close()
            yield batch, held
            batch, held = create_batch(), []
            batch.append(timestamp=None, key=record.key, value=record.value, headers=headers)
        held += carried
    batch.close()
    yield batch, held


def _by_partition(messages: list[Message], count: int) -> dict[int, list[Message]]:
    parts: dict[int, list[Message]] = {}
    for message in messages:
        parts.setdefault(partition_of(message.key or b"", count), []).append(message)
    return parts
