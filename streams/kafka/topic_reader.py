"""The topics of a broker as recordings, replays and audits read them: page by page, up to their ends of one moment."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams.kafka.clients import Access, end_consumer, explained, partition_count, read_to
from streams.recordings.lines import KIND_OF, Place, Taken
from unship.errors import BrokerUnreachable

PAGE_RECORDS = 2_000
T = TypeVar("T")


class BlockingReader(ABC):
    """A consumer of a broker in a `with`, which connects. It has an event loop of its own, so each call blocks."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        """Connect, and begin."""
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

    @abstractmethod
    async def _begin(self) -> None:
        """Look around once the consumer has started."""


class KafkaTopics(BlockingReader):
    """Reads one log's topics up to their ends of the moment at which it connected."""

    def __init__(self, access: Access) -> None:
        super().__init__(access)
        self._counts: dict[str, int] = {}
        self._first: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        # Audits alternate between topics, and re-assigning costs a fetch, so pages are cached.
        self._pages: dict[Place, tuple[int, list[Taken]]] = {}

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

    async def _begin(self) -> None:
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
            return [taken_of(topic, entry) for entry in page]
        return []


def taken_of(topic: str, record: Any) -> Taken:
    """Return a record of a consumer; `topic` is its name without the prefix."""
    return Taken(
        topic, record.partition, record.offset, record.timestamp, record.key, record.value, tuple(record.headers)
    )
