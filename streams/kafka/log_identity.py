"""Whether a log still is the one that was read: brokers may lose what they had acknowledged, and reuse its offsets.

That happens where a replica that is behind becomes the leader, where a topic is deleted and made again, and where all
replicas lose their power at once. The client does not notice: it goes on at its offset in what is another log. So the
record that was read last is compared whenever a reader begins, and whenever a partition has another leader than before,
ahead of anything that this one gives.
"""

from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.join.partition import Raw
from streams.join.source_reader import Fingerprint, fingerprint
from streams.kafka.clients import ANSWER_S, Access, end_consumer
from unship.errors import BrokerUnreachable

LOOK_MS = 500


class Leaders:
    """Which broker led each partition when it was looked at last."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._cluster = consumer._client.cluster
        self._known: dict[TopicPartition, Any] = {}

    def changed(self, place: TopicPartition) -> bool:
        """Whether another broker leads a partition than at the last call; false at the first one."""
        now = self._cluster.leader_for_partition(place)
        if now is None or now < 0:
            return False
        before = self._known.get(place, now)
        self._known[place] = now
        return bool(before != now)


async def difference(
    access: Access, consumer: AIOKafkaConsumer, place: TopicPartition, known: Fingerprint
) -> str | None:
    """Return in words how a log differs from one that held a record; None if it holds it, or has deleted it since.

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


async def _record_at(access: Access, place: TopicPartition, offset: int) -> Raw:
    consumer = access.reader()
    try:
        await consumer.start()
        consumer.assign([place])
        consumer.seek(place, offset)
        for _ in range(round(ANSWER_S * 1_000 / LOOK_MS)):
            for records in (await consumer.getmany(timeout_ms=LOOK_MS, max_records=1)).values():
                return Raw(records[0].offset, records[0].timestamp, records[0].value)
        raise BrokerUnreachable(f"{place.topic} partition {place.partition}: offset {offset} is not shown in time")
    finally:
        await end_consumer(consumer)
