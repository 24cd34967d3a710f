"""Follow on a broker the topics that show what became of an act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka import TopicPartition

from console.commands.operating.tail import COMPACTED, GROWING
from streams.kafka.clients import Access, partition_count, read_to
from streams.kafka.topic_reader import BlockingReader, taken_of
from streams.recordings.lines import Taken
from streams.topics.partitioner import partition_of


class KafkaTail(BlockingReader):
    """The topics of a broker that are followed for one model; the compacted ones are read to their ends at once."""

    def __init__(self, access: Access, model: str) -> None:
        super().__init__(access)
        self.partition = 0
        self._model = model
        self._first: list[Taken] = []
        self._places: dict[str, list[TopicPartition]] = {}

    def next(self, topics: Sequence[str], timeout_s: float) -> list[Taken]:
        """Return new records of some topics; wait so long at most until there is one."""
        found, self._first = self._first, []
        return found or self._run(self._next([place for topic in topics for place in self._places[topic]], timeout_s))

    def rest(self, topic: str) -> list[Taken]:
        """Return the new records of a topic up to its end of now."""
        return self._run(self._rest(self._places[topic]))

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
        return taken_of(topic, record)
