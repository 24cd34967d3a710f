"""Read `alerts` of a Kafka log for one sink: a consumer group whose committed offsets are the sink's positions.

The group gives the partitions to one worker each, so that each alert is sent by one of them, and by another one when
that one ends. Every follower reads its partitions from their beginning, to know which incidents are open.
"""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from streams.alerts.follower import Part, Record
from streams.kafka.clients import Access, answered, end_consumer, has_topic, join
from streams.topics.rights import SINKS_PREFIX
from unship.errors import ConfigurationError

TOPIC = "alerts"


class KafkaAlertTopic(ConsumerRebalanceListener):  # type: ignore[misc]
    """The topic for one sink, as a member of its group."""

    def __init__(self, access: Access, sink: str) -> None:
        self._access = access
        self._group = f"{access.names.prefix}{SINKS_PREFIX}{sink}"
        self._consumer: AIOKafkaConsumer | None = None
        self._assigned: list[TopicPartition] | None = None
        self._positions: dict[int, int] = {}
        self._goals: dict[TopicPartition, int] = {}

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Read nothing more of them; what was not committed is sent by their next reader."""
        self._goals.clear()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Pause the partitions until the next look, which asks for their ends and positions."""
        self._assigned = sorted(assigned)
        if self._consumer is not None:
            for place in self._assigned:
                self._consumer.seek(place, 0)
                self._consumer.pause(place)

    async def read(self, timeout_s: float) -> Part:
        """Return what is new.

        Raises:
            ConfigurationError: The broker has no such topic.
        """
        if self._consumer is None:
            if not await has_topic(self._access, TOPIC):
                raise ConfigurationError(
                    f"the broker has no topic {self._access.names.of(TOPIC)}; make it with: unship topics apply"
                )
            self._consumer = self._access.member(self._group, [TOPIC], self)
            await join(self._consumer)
        begun = self._assigned is not None
        if self._assigned is not None:
            assigned, self._assigned = self._assigned, None
            await self._begin(self._consumer, assigned)
        fetched = await self._consumer.getmany(timeout_ms=round(1_000 * timeout_s), max_records=500)
        records = [
            Record((each.partition, each.offset), each.timestamp, each.value)
            for batch in fetched.values()
            for each in batch
        ]
        return Part(begun, records, self._positions, await self._is_caught_up(self._consumer))

    async def _begin(self, consumer: AIOKafkaConsumer, assigned: list[TopicPartition]) -> None:
        begins, self._goals = await consumer.beginning_offsets(assigned), await consumer.end_offsets(assigned)
        self._positions = {}
        for place in assigned:
            consumer.seek(place, begins[place])
            if (committed := await consumer.committed(place)) is not None:
                self._positions[place.partition] = committed
        consumer.resume(*assigned)

    async def _is_caught_up(self, consumer: AIOKafkaConsumer) -> bool:
        if self._assigned is not None:
            return False
        for place, end in list(self._goals.items()):
            if await consumer.position(place) < end:
                return False
            self._goals.pop(place, None)
        return True

    async def commit(self, positions: dict[int, int]) -> None:
        """Commit the positions for the group."""
        if self._consumer is not None and self._assigned is None and positions:
            name = self._access.names.of(TOPIC)
            held = self._consumer.assignment()
            offsets = {TopicPartition(name, number): OffsetAndMetadata(at, "") for number, at in positions.items()}
            await answered(self._consumer.commit({place: at for place, at in offsets.items() if place in held}))

    async def close(self) -> None:
        """Leave the group."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await end_consumer(consumer)
