"""Follow on a broker the topics that show what became of an act."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from console.commands.operating.tail import COMPACTED, GROWING
from streams.kafka.clients import Access, end_consumer, explained, partition_count, read_to
from streams.recordings.lines import Taken
from streams.topics.partitioner import partition_of
from unship.errors import BrokerUnreachable

T = TypeVar("T")


class KafkaTail:
    """The topics of a broker that are followed for one model, in a `with`, which connects; each call blocks."""

    def __init__(self, access: Access, model: str) -> None:
        self.partition = 0
        self._access = access
        self._model = model
        self._runner = asyncio.Runner()
        self._first: list[Taken] = []
        self._places: dict[str, list[TopicPartition]] = {}

    def __enter__(self) -> KafkaTail:
        """Connect, and read the compacted topics to their ends of now."""
        try:
            self._run(self._connect())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._runner.run(end_consumer(self._consumer))
        self._runner.close()

    def next(self, topics: Sequence[str], timeout_s: float) -> list[Taken]:
        """Return new records of some topics; wait so long at most until there is one."""
        found, self._first = self._first, []
        return found or self._run(self._next([place for topic in topics for place in self._places[topic]], timeout_s))

    def rest(self, topic: str) -> list[Taken]:
        """Return the new records of a topic up to its end of now."""
        return self._run(self._rest(self._places[topic]))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._runner.run(work)
        except (KafkaError, OSError) as error:
            raise BrokerUnreachable(explained(error, self._access)) from error

    async def _connect(self) -> None:
        self._consumer = self._access.reader()
        try:
            await self._consumer.start()
            await self._begin()
        except BaseException:
            await end_consumer(self._consumer)
            raise

    async def _begin(self) -> None:
        names, consumer = self._access.names, self._consumer
        self.partition = partition_of(self._model.encode(), await partition_count(consumer, names.of("ledger")))
        for topic in GROWING:
            self._places[topic] = [TopicPartition(names.of(topic), self.partition)]
        self._places["snapshots"] = [TopicPartition(names.of("snapshots"), 0)]
        acks = names.of("acks")
        self._places["acks"] = [TopicPartition(acks, i) for i in range(await partition_count(consumer, acks))]
        consumer.assign([place for places in self._places.values() for place in places])
        growing = [place for topic in GROWING for place in self._places[topic]]
        compacted = [place for topic in COMPACTED for place in self._places[topic]]
        for places, offsets in (
            (growing, await consumer.end_offsets(growing)),
            (compacted, await consumer.beginning_offsets(compacted)),
        ):
            for place in places:
                consumer.seek(place, offsets[place])
        self._first = await self._rest(compacted)

    async def _rest(self, places: Sequence[TopicPartition]) -> list[Taken]:
        ends = await self._consumer.end_offsets(places)
        found = [self._taken(record) async for batch in read_to(self._consumer, ends) for record in batch]
        for place in places:
            # What was fetched beyond the end of then was dropped.
            if await self._consumer.position(place) > ends[place]:
                self._consumer.seek(place, ends[place])
        return found

    async def _next(self, places: Sequence[TopicPartition], timeout_s: float) -> list[Taken]:
        found = await self._consumer.getmany(*places, timeout_ms=max(0, int(1_000 * timeout_s)))
        return [self._taken(record) for records in found.values() for record in records]

    def _taken(self, record: Any) -> Taken:
        topic = self._access.names.plain(record.topic)
        assert topic is not None
        return Taken(
            topic, record.partition, record.offset, record.timestamp, record.key, record.value, tuple(record.headers)
        )
