"""The topics of a broker as recordings, replays and audits read them: page by page, up to their ends of one moment."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams.kafka.clients import Access, end_consumer, explained, partition_count, read_to
from streams.recordings.lines import KIND_OF, Place, Taken
from unship.errors import BrokerUnreachable

PAGE_RECORDS = 2_000
T = TypeVar("T")


class KafkaTopics:
    """Reads one log's topics, in a `with`, which connects. It has an event loop of its own, so each read blocks."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._runner = asyncio.Runner()
        self._counts: dict[str, int] = {}
        self._first: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        # Audits alternate between topics, and re-assigning costs a fetch, so pages are cached.
        self._pages: dict[Place, tuple[int, list[Taken]]] = {}

    def __enter__(self) -> KafkaTopics:
        """Connect, and look where the topics begin and end."""
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

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has."""
        return self._counts[topic]

    def first(self, topic: str, partition: int) -> int:
        """Return the smallest offset that is kept, or the end if nothing is."""
        return self._first[topic, partition]

    def ends(self) -> Mapping[Place, int]:
        """Return the ends: of effects as they were before those of their causes, so that no cause is missing."""
        return self._ends

    def read(self, topic: str, partition: int, offset: int) -> Sequence[Taken]:
        """Return some records from `offset` on, in order; none only at the end."""
        begin, page = self._pages.get((topic, partition), (0, []))
        if not page or not begin <= offset <= page[-1].offset:
            begin, page = offset, self._run(self._read(topic, partition, offset))
            self._pages[topic, partition] = begin, page
        return page[bisect_left(page, offset, key=lambda taken: taken.offset) :]

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._runner.run(work)
        except (KafkaError, OSError) as error:
            raise BrokerUnreachable(explained(error, self._access)) from error

    async def _connect(self) -> None:
        self._consumer = self._access.reader()
        try:
            await self._consumer.start()
            await self._look()
        except BaseException:
            await end_consumer(self._consumer)
            raise

    async def _look(self) -> None:
        names = self._access.names
        for topic in KIND_OF:
            self._counts[topic] = await partition_count(self._consumer, names.of(topic))
        for topic in reversed(KIND_OF):
            places = [TopicPartition(names.of(topic), number) for number in range(self._counts[topic])]
            ends, firsts = await self._consumer.end_offsets(places), await self._consumer.beginning_offsets(places)
            for place in places:
                self._ends[topic, place.partition] = ends[place]
                self._first[topic, place.partition] = firsts[place]

    async def _read(self, topic: str, partition: int, offset: int) -> list[Taken]:
        place = TopicPartition(self._access.names.of(topic), partition)
        end = self._ends[topic, partition]
        if offset >= end:
            return []
        if self._consumer.assignment() != {place}:
            self._consumer.assign([place])
            self._consumer.seek(place, offset)
        elif await self._consumer.position(place) != offset:
            self._consumer.seek(place, offset)
        async for page in read_to(self._consumer, {place: end}, PAGE_RECORDS):
            return [
                Taken(topic, partition, entry.offset, entry.timestamp, entry.key, entry.value, tuple(entry.headers))
                for entry in page
            ]
        return []
