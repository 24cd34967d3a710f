"""What Faust's consumer goes back to while partitions change hands."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete

from streams.app import make_app
from streams.kafka.admin import administering
from streams.kafka.clients import Access
from streams.kafka.faust_transport import go_back
from tests.kafka.inside import Inside
from tests.kafka.shared import SharedKafka
from tests.waiting import HANG_S
from unship.log.link import wall_ms
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
        await admin.client.create_topics([NewTopic(topic, 1, 1)])
        async with access.producer() as producer:
            for number in range(RECORDS):
                await producer.send_and_wait(topic, b"%d" % number)
        if first:
            await admin.client.delete_records({place: RecordsToDelete(first)})
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
    return await asyncio.wait_for(work, HANG_S)


def test_leader_that_does_not_answer_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.kafka.faust_transport.BEGINNING_S", 0.01)

    class Unanswered:
        """A consumer that can ask for beginnings, and is told none."""

        async def seek_to_committed(self) -> dict[TopicPartition, int | None]:
            return {TopicPartition("t", 0): None, TopicPartition("t", 1): 7}

        async def seek_to_beginning(self, *places: TopicPartition) -> None:
            assert places == (TopicPartition("t", 0),)
            await asyncio.Event().wait()

    found = asyncio.run(asyncio.wait_for(go_back(Unanswered()), HANG_S))
    assert found == {TopicPartition("t", 0): None, TopicPartition("t", 1): 7}


def test_what_was_given_up_in_a_transaction_is_not_read(kafka: SharedKafka) -> None:
    async def run() -> str:
        site = Inside(kafka)
        monitor = make_app(site.access, site.config, lambda: None, wall_ms)
        worker: Any = monitor.app.consumer
        consumer = worker._thread._create_worker_consumer(monitor.app.transport)
        # It was never started, so that nobody else ends it.
        await consumer.stop()
        worker._thread.thread_loop.close()
        return str(consumer._isolation_level)

    assert asyncio.run(run()) == "read_committed"
