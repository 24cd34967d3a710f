"""Read one key of `control` from a broker: what the topic holds, then what comes.

The partition is assigned, not subscribed to: a replica needs no group, no rebalance, and no right but READ. It is read
from its beginning, because it is compacted and small, and only what is committed, because the monitor fences its
writers by transactions.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from unship.errors import BrokerUnreachable
from unship.log.kafka.loop import LOOK_S, KafkaLoop
from unship.log.kafka.settings import client_options, topic_names
from unship.log.kafka.writer import METADATA_MS, REQUEST_MS, partition_of
from unship.log.link import Overdue, Record

BEGIN_S: Final = 10.0
"""Deadline for reading the partition from its beginning to its end."""

SILENT_S: Final = 3.0
"""Longest wait for an answer to a fetch, of which there is one every `FETCH_MS` even where there are no records."""

FETCH_MS: Final = 250
READ_RECORDS: Final = 500


class KafkaReader:
    """Read the records of one key, for one thread; of no use any more once a call has raised."""

    def __init__(self, log: str, key: bytes) -> None:
        """Name the broker and the key, without calling the broker."""
        self._log = log
        self._key = key
        self._topic = topic_names().of("control")
        self._loop = KafkaLoop(log)
        self._consumer: AIOKafkaConsumer | None = None
        self._partition = TopicPartition(self._topic, 0)
        self._partitions = 0
        self._first = 0
        self._polled_ts: int | None = None
        self._silent_s = 0.0

    def newest(self, overdue: Overdue) -> Record | None:
        """Connect, and return the newest record of the key before the end that the partition has now."""
        return self._loop.run(self._newest(), overdue, BEGIN_S)

    def history(self, end: int, overdue: Overdue) -> Iterator[Record]:
        """Yield the records of the key below an offset, oldest first, and go on after that where `newest` ended."""
        consumer = self._connected
        resume = self._loop.run(consumer.position(self._partition), overdue, BEGIN_S)
        consumer.seek(self._partition, self._first)
        position = self._first
        while position < end and not overdue():
            records = self._loop.run(self._read(), overdue, BEGIN_S)
            position = self._loop.run(consumer.position(self._partition), overdue, BEGIN_S)
            yield from (record for record in records if record.offset < end)
        consumer.seek(self._partition, resume)

    def next(self, wait_s: float, wake: threading.Event) -> list[Record]:
        """Return the next records of the key, none when time is up or `wake` is set.

        Raises:
            BrokerUnreachable: No answer for `SILENT_S` seconds, or the topic has other partitions than before.
        """
        return self._loop.run(self._next(wait_s, wake), lambda: False, wait_s + BEGIN_S)

    def end(self) -> None:
        """Close the connection."""
        self._loop.end(*(() if self._consumer is None else (self._consumer.stop,)))

    @property
    def _connected(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "newest comes first"
        return self._consumer

    async def _newest(self) -> Record | None:
        self._consumer = consumer = AIOKafkaConsumer(
            **client_options(self._log),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_MS,
            request_timeout_ms=REQUEST_MS,
            metadata_max_age_ms=METADATA_MS,
        )
        await consumer.start()
        # Asking for an offset makes the client learn the topic's partitions, among which the key's can be chosen.
        await consumer.beginning_offsets([self._partition])
        self._partitions = len(consumer.partitions_for_topic(self._topic) or ())
        self._partition = partition = TopicPartition(self._topic, partition_of(self._key, self._partitions or 1))
        self._first = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        consumer.assign([partition])
        consumer.seek(partition, self._first)
        found: Record | None = None
        # Without the right to READ the partition looks like one that nobody writes to, except that no fetch of it
        # succeeds: at least one has to, even if there is nothing to be read.
        while await consumer.position(partition) < end or consumer.last_poll_timestamp(partition) is None:
            for record in await self._read():
                found = record
        return found

    async def _next(self, wait_s: float, wake: threading.Event) -> list[Record]:
        consumer = self._connected
        left_s = wait_s
        while left_s > 0 and not wake.is_set():
            records = await self._read()
            if records:
                return records
            left_s -= LOOK_S
            self._check_alive(consumer)
        return []

    def _check_alive(self, consumer: AIOKafkaConsumer) -> None:
        """Raise if the broker is silent for too long; only time that was spent waiting counts."""
        polled_ts = consumer.last_poll_timestamp(self._partition)
        self._silent_s = 0.0 if polled_ts != self._polled_ts else self._silent_s + LOOK_S
        self._polled_ts = polled_ts
        if self._silent_s > SILENT_S:
            raise BrokerUnreachable(f"{self._log}: no answer for {SILENT_S:g} s; bring the broker back")
        if len(consumer.partitions_for_topic(self._topic) or ()) not in (0, self._partitions):
            raise BrokerUnreachable(f"{self._log}: {self._topic} no longer has {self._partitions} partitions")

    async def _read(self) -> list[Record]:
        """Wait a moment for records, and return those of the key."""
        found = await self._connected.getmany(self._partition, timeout_ms=int(LOOK_S * 1_000), max_records=READ_RECORDS)
        return [
            Record(each.offset, each.timestamp, each.key, each.value, tuple(each.headers))
            for each in found.get(self._partition, ())
            if each.key == self._key
        ]
