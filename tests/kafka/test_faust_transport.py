"""What Faust's consumer goes back to while partitions change hands."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete

from streams.kafka.clients import Access, administering
from streams.kafka.faust_transport import go_back
from tests.kafka.shared import SharedKafka
from unship.topics import TopicNames

RECORDS = 5


def test_without_a_commit_it_goes_back_to_the_beginning(kafka: SharedKafka) -> None:
    assert asyncio.run(positions_after(kafka, "beginning")) == (RECORDS, 0)


def test_without_a_commit_and_behind_retention_it_goes_back_to_the_first_record_there_is(kafka: SharedKafka) -> None:
    assert asyncio.run(positions_after(kafka, "first", first=2)) == (RECORDS, 2)


def test_with_a_commit_it_goes_back_to_that(kafka: SharedKafka) -> None:
    assert asyncio.run(positions_after(kafka, "commit", committed=3)) == (RECORDS, 3)


def test_with_a_commit_of_nothing_read_it_goes_back_to_the_beginning(kafka: SharedKafka) -> None:
    assert asyncio.run(positions_after(kafka, "zero", committed=0)) == (RECORDS, 0)


async def positions_after(
    kafka: SharedKafka, name: str, *, first: int = 0, committed: int | None = None
) -> tuple[int, int]:
    """Read a topic to its end as a member of a group; return the position there, and where it goes back to."""
    access = Access({"bootstrap_servers": kafka.bootstrap.split(",")}, TopicNames(kafka.prefix))
    topic, place = f"{kafka.prefix}{name}", TopicPartition(f"{kafka.prefix}{name}", 0)
    async with administering(access) as admin:
        await admin.create_topics([NewTopic(topic, 1, 1)])
        async with access.producer() as producer:
            for number in range(RECORDS):
                await producer.send_and_wait(topic, b"%d" % number)
        if first:
            await admin.delete_records({place: RecordsToDelete(first)})
    consumer = AIOKafkaConsumer(
        topic, **access.options, group_id=topic, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        while (reached := await consumer.position(place)) < RECORDS:
            await within(consumer.getmany(timeout_ms=1_000))
        if committed is not None:
            await consumer.commit({place: committed})
        await within(go_back(consumer))
        return reached, await consumer.position(place)
    finally:
        await consumer.stop()


async def within(work: Coroutine[Any, Any, Any]) -> Any:
    return await asyncio.wait_for(work, 30)
