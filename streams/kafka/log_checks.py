"""Whether what a consumer reads still is the log that it read, and whether what it waits for can come.

Brokers may lose what they had acknowledged, and reuse its offsets: where a replica that is behind becomes the leader,
where a topic is deleted and made again, and where all replicas lose their power at once. The client does not notice: it
goes on at its offset in what is another log. So the record that was read last is compared whenever a reader begins, and
whenever a partition has another leader than before, ahead of anything that this one gives.

A client may also lose its brokers without an error, and then waits without end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError

from streams.join.partition import Raw
from streams.join.source_reader import Fingerprint, fingerprint
from streams.kafka.admin import reachable
from streams.kafka.clients import Access, answered, end_consumer, read_to
from streams.kafka.private_parts import leader_of
from unship.errors import BrokerUnreachable

LOOK_S = 10.0
"""How often a consumer that is given nothing looks whether there is something."""


class Leaders:
    """Which broker led each partition at the last look."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._known: dict[TopicPartition, int] = {}

    def changed(self, place: TopicPartition) -> bool:
        """Return whether another broker leads a partition than at the last call; false at the first one."""
        now = leader_of(self._consumer, place)
        if now is None:
            return False
        before = self._known.get(place, now)
        self._known[place] = now
        return before != now


async def mismatch(access: Access, consumer: AIOKafkaConsumer, place: TopicPartition, known: Fingerprint) -> str | None:
    """Return how a log differs from one that held a record; None if it holds it, or has deleted it since.

    Raises:
        BrokerUnreachable: the broker does not show the record.
    """
    if known.offset < (await consumer.beginning_offsets([place]))[place]:
        return None
    end = (await consumer.end_offsets([place]))[place]
    found = await _record_at(access, place, known.offset) if known.offset < end else None
    if found is not None and fingerprint(found) == known:
        return None
    return (
        f"{place.topic} partition {place.partition}: offset {known.offset} holds another record than was read (the log "
        f"ends at {end})"
    )


async def _record_at(access: Access, place: TopicPartition, offset: int) -> Raw | None:
    consumer = access.reader()
    try:
        await consumer.start()
        consumer.assign([place])
        consumer.seek(place, offset)
        async for record, *_ in read_to(consumer, {place: offset + 1}, records_max=1):
            return Raw(record.offset, record.timestamp, record.value)
        return None
    finally:
        await end_consumer(consumer)


class Stalls:
    """Watches one consumer from when it is made on."""

    def __init__(self, access: Access, consumer: AIOKafkaConsumer) -> None:
        self._access = access
        self._consumer = consumer
        self._looked_at = asyncio.get_running_loop().time()
        # Where it was at the last look in logs that went on.
        self._behind: dict[TopicPartition, int] = {}

    async def look(self, places: Collection[TopicPartition], fetched: bool) -> None:
        """Look whether a consumer that was given nothing for a while has read all; without partitions, ask the broker.

        Args:
            places: the partitions that it is to read now.
            fetched: whether it was given anything since the last call. Then it is not looked at: what it holds of one
                partition may keep it from another one for long.

        Raises:
            BrokerUnreachable: at two looks in a row it was at the same record, or no broker answers.
        """
        now = asyncio.get_running_loop().time()
        if fetched:
            self._looked_at, self._behind = now, {}
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        if not places:
            await reachable(self._access)
            return
        try:
            ends = await answered(self._consumer.end_offsets(list(places)))
            reached = {place: await answered(self._consumer.position(place)) for place in places}
        except IllegalStateError:
            # One of them was revoked a moment ago.
            return
        before, self._behind = self._behind, {place: at for place, at in reached.items() if at < ends[place]}
        for place, at in sorted(self._behind.items()):
            if before.get(place) == at:
                raise BrokerUnreachable(
                    f"{place.topic} partition {place.partition}: the log ends at {ends[place]}, and nothing is given "
                    f"out from offset {at} on"
                )
