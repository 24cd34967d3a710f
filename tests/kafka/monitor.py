"""Play the monitor on Kafka in a test: make topics, publish signed commands, read what replicas and sources wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.waiting import until
from unship.events import Epoch
from unship.log.packed import decode_values
from unship.testing import UnshipEmbedded
from unship.topics import EVENT_TOPICS, TopicNames

PARTITIONS = {"predictions": 4, "feedback": 4, "deployments": 1, "control": 3, "acks": 2}


class Entry(NamedTuple):
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


class Monitor:
    """Signs with the keys of an `UnshipEmbedded`, whose log only serves to build records."""

    def __init__(self, options: dict[str, Any], names: TopicNames, bench: UnshipEmbedded) -> None:
        self.options = options
        self.names = names
        self.bench = bench
        self.trust = bench.trust

    def make_topics(self, *topics: str, **configs: str) -> None:
        async def make() -> None:
            admin = AIOKafkaAdminClient(**self.options)
            await admin.start()
            try:
                wanted = topics or tuple(PARTITIONS)
                await admin.create_topics(
                    [NewTopic(self.names.of(topic), PARTITIONS[topic], 1, topic_configs=configs) for topic in wanted]
                )
                while not {self.names.of(topic) for topic in wanted} <= set(await admin.list_topics()):
                    await asyncio.sleep(0.02)
            finally:
                await admin.close()

        asyncio.run(make())

    def signed(self, model: str, version: str, **fields: Any) -> tuple[Epoch, bytes, list[tuple[str, bytes]]]:
        """Return a signed command that nobody has published."""
        epoch = self.bench.command(model, version, **fields)
        record = self.bench.records("control")[-1]
        assert record.value is not None
        return epoch, record.value, list(record.headers)

    def command(self, model: str, version: str, **fields: Any) -> Epoch:
        epoch, value, headers = self.signed(model, version, **fields)
        self.publish(model, value, headers)
        return epoch

    def publish(
        self, model: str, value: bytes | None, headers: Iterable[tuple[str, bytes]] = (), *, commit: bool = True
    ) -> None:
        """Publish as the monitor does, in a transaction, or abort it after the record was written."""

        async def send() -> None:
            async with AIOKafkaProducer(**self.options, transactional_id=self.names.prefix + "control") as producer:
                await producer.begin_transaction()
                await producer.send_and_wait(self.names.of("control"), value, key=model.encode(), headers=list(headers))
                await (producer.commit_transaction() if commit else producer.abort_transaction())

        asyncio.run(send())

    def records(self, topic: str) -> list[Entry]:
        """Return all records of a topic, in the order of each partition."""

        async def read() -> list[Entry]:
            consumer = AIOKafkaConsumer(**self.options, enable_auto_commit=False, auto_offset_reset="earliest")
            await consumer.start()
            try:
                name = self.names.of(topic)
                partitions = [TopicPartition(name, number) for number in range(PARTITIONS[topic])]
                ends = await consumer.end_offsets(partitions)
                consumer.assign(partitions)
                found: list[Entry] = []
                while any([await consumer.position(each) < end for each, end in ends.items()]):
                    for records in (await consumer.getmany(timeout_ms=50)).values():
                        found += [Entry(each.partition, each.offset, each.key, each.value) for each in records]
                return found
            finally:
                await consumer.stop()

        return asyncio.run(read())

    def events(self, topic: str) -> list[Any]:
        kind = EVENT_TOPICS[topic]
        return [event for entry in self.records(topic) for event in decode_values(kind, entry.value)]

    def until(self, topic: str, met: Callable[[list[Any]], bool]) -> list[Any]:
        events: list[Any] = []

        def looked() -> bool:
            events[:] = self.events(topic)
            return met(events)

        until(looked, lambda: f"{topic}: {events}")
        return events


def bench_in(folder: Path) -> UnshipEmbedded:
    folder.mkdir(mode=0o700)
    return UnshipEmbedded(folder)
