"""Fill a board from a log: follow its topics from their beginning on, again and again if the log cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from console.web.board import TOPICS, Board, Seen
from streams.kafka.clients import Access, end_consumer, has_topic, partition_count
from unship.errors import UnshipError
from unship.log.embedded.log import EmbeddedLog, OffsetTrimmed

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

POLL_S: Final = 0.5
AGAIN_S: Final = 2.0
READ_MAX: Final = 500


class Source(Protocol):
    """The topics of a board, read from their beginning on."""

    async def read(self) -> tuple[Sequence[Seen], bool]:
        """Return what is new, and whether it was read to where the topics ended when reading began."""

    async def close(self) -> None:
        """Close the log; `read` may open it again."""


class EmbeddedSource:
    """The topics of an embedded log; SQLite's calls run in a thread, because one may wait for a lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log: EmbeddedLog | None = None
        self._offsets: dict[str, int] = {}
        self._goals: dict[str, int] = {}

    async def read(self) -> tuple[Sequence[Seen], bool]:
        """Return what is new; wait a moment if there is nothing."""
        found = await asyncio.to_thread(self._read)
        if not found:
            await asyncio.sleep(POLL_S)
        return found, all(self._offsets[topic] >= goal for topic, goal in self._goals.items())

    def _read(self) -> list[Seen]:
        found: list[Seen] = []
        if self._log is None:
            self._log = EmbeddedLog(self._folder)
            ends = self._log.ends()
            self._goals = {topic: ends[topic] for topic in TOPICS}
            # Of the status the newest record of each model is enough; what is older is large.
            latest = self._log.latest("snapshots").values()
            found = [Seen("snapshots", each.append_ts, each.key, each.value, each.headers) for each in latest]
            self._offsets = {topic: self._log.first(topic) for topic in TOPICS} | {"snapshots": ends["snapshots"]}
        for topic in TOPICS:
            try:
                records = self._log.read(topic, self._offsets[topic], limit=READ_MAX)
            except OffsetTrimmed:
                self._offsets[topic] = self._log.first(topic)
                continue
            found += [Seen(topic, each.append_ts, each.key, each.value, each.headers) for each in records]
            if records:
                self._offsets[topic] = records[-1].offset + 1
        return found

    async def close(self) -> None:
        """Close the log."""
        log, self._log = self._log, None
        if log is not None:
            await asyncio.to_thread(log.close)


class KafkaSource:
    """The topics of a Kafka log, all partitions; no group, so that each worker sees everything."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._consumer: AIOKafkaConsumer | None = None
        self._goals: dict[TopicPartition, int] = {}

    async def read(self) -> tuple[Sequence[Seen], bool]:
        """Return what is new; wait a moment if there is nothing.

        Raises:
            KafkaError: The broker does not do it.
        """
        if self._consumer is None:
            await self._open()
        consumer: Any = self._consumer
        fetched = await consumer.getmany(timeout_ms=round(1_000 * POLL_S), max_records=READ_MAX)
        found = []
        for place, batch in fetched.items():
            topic = self._access.names.plain(place.topic) or ""
            found += [Seen(topic, each.timestamp, each.key, each.value, tuple(each.headers)) for each in batch]
        for place, goal in list(self._goals.items()):
            if await consumer.position(place) >= goal:
                del self._goals[place]
        return found, not self._goals

    async def _open(self) -> None:
        consumer = self._consumer = self._access.reader()
        await consumer.start()
        places = []
        for topic in TOPICS:
            # A log that an earlier version made has no topic of alerts.
            if topic != "alerts" or await has_topic(self._access, topic):
                name = self._access.names.of(topic)
                numbers = [0] if topic == "snapshots" else range(await partition_count(consumer, name))
                places += [TopicPartition(name, number) for number in numbers]
        consumer.assign(places)
        begins, self._goals = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        for place in places:
            consumer.seek(place, begins[place])

    async def close(self) -> None:
        """End the consumer."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await end_consumer(consumer)


async def fill(board: Board, make: Callable[[], Source], report: Callable[[str], None], stop: asyncio.Event) -> None:
    """Fill a board until stopped; a log that cannot be read is reported once and tried again.

    Args:
        board: What is filled.
        make: Returns the topics.
        report: Takes a sentence.
        stop: Ends it.
    """
    source, reported = make(), False
    try:
        while not stop.is_set():
            try:
                records, end = await source.read()
            except (UnshipError, KafkaError, OSError) as error:
                if not reported:
                    report(f"web: the log cannot be read: {error}")
                reported = True
                await source.close()
                await asyncio.sleep(AGAIN_S)
                continue
            reported = False
            for record in records:
                board.take(record)
            board.reach(end=end)
    finally:
        await source.close()
