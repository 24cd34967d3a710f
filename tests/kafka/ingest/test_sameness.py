"""A log that is not the one that was read is told from one that is, on a real broker."""

import asyncio
from typing import Any

import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from streams.join.partition import Raw
from streams.join.source_reader import fingerprint
from streams.kafka.clients import Access, end_consumer, producing
from streams.kafka.log_identity import difference
from tests.kafka.shared import SharedKafka

VALUES = [b"a", b"b", b"c"]


async def compared(kafka: SharedKafka) -> dict[str, Any]:
    access = Access({"bootstrap_servers": kafka.bootstrap.split(",")}, kafka.names)
    place = TopicPartition(kafka.names.of("predictions"), 0)
    admin = AIOKafkaAdminClient(**access.options)
    await admin.start()
    consumer = access.reader()
    await consumer.start()
    try:
        await admin.create_topics([NewTopic(place.topic, 1, 1)])
        async with producing(access) as producer:
            sent = [await producer.send_and_wait(place.topic, value, partition=0) for value in VALUES]
        last = fingerprint(Raw(sent[-1].offset, sent[-1].timestamp, VALUES[-1]))
        found: dict[str, Any] = {"same": await difference(access, consumer, place, last)}
        other = msgspec.structs.replace(last, digest="0" * 16)
        found["other"] = await difference(access, consumer, place, other)
        found["beyond"] = await difference(access, consumer, place, msgspec.structs.replace(last, offset=3))
        await admin.delete_records({place: RecordsToDelete(3)})
        found["deleted"] = await difference(access, consumer, place, other)
        return found
    finally:
        await end_consumer(consumer)
        await admin.close()


def test_record_that_was_read_is_compared_with_what_the_log_holds_there(kafka: SharedKafka) -> None:
    found = asyncio.run(compared(kafka))
    assert found["same"] is None
    assert found["deleted"] is None
    assert found["other"].endswith("partition 0: offset 2 holds another record than was read (the log ends at 3)")
    assert found["beyond"].endswith("partition 0: offset 3 holds another record than was read (the log ends at 3)")
