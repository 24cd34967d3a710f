"""Every use of aiokafka's private parts, each a function of its own: no public name offers the same.

A minor release may change any of them, so its version is capped where it is required, and a test for each function
fails with a sentence that names what is gone. What is overridden of Faust is in `streams.kafka.faust_transport`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.protocol.admin import (
    AlterConfigsRequest,
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DescribeConfigsRequest,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import EndTxnRequest

from streams.join.source_records import SourceRecords, joined

PIECE_RECORDS = 4_096
"""Records of one log that are unpacked together, if it has as many."""

LOG_APPEND_TIME = 1
"""How a batch names that its records have the broker's time."""

FETCHER = ("_records", "_prefetch_backoff", "_fetch_max_wait_ms")
RECORDS = ("_unpack_records", "_consume_aborted_up_to", "_contains_abort_marker")
"""What is used of the class that fetches, and of what a broker answered for one log."""

PROBE_MS = 5_000
NOBODY = "check"
"""A member that no group has."""


async def all_metadata(consumer: AIOKafkaConsumer) -> Any:
    """Return what the brokers know of all topics; the public call knows only topics that the consumer reads."""
    return await consumer._client.fetch_all_metadata()


def leader_of(consumer: AIOKafkaConsumer, place: TopicPartition) -> int | None:
    """Return the broker that leads a partition as far as the consumer knows, None if it knows none."""
    leader: int | None = consumer._client.cluster.leader_for_partition(place)
    return None if leader is None or leader < 0 else leader


def group_of(consumer: AIOKafkaConsumer) -> str | None:
    """Return the group that a consumer was made for."""
    group: str | None = consumer._group_id
    return group


def read_committed(consumer: AIOKafkaConsumer) -> None:
    """Let a consumer that was made by others, and is not started, read no record of an aborted transaction."""
    consumer._isolation_level = "read_committed"


# Reading


def read_columns(consumer: AIOKafkaConsumer) -> bool:
    """Let a started consumer give out pieces of a log, each `SourceRecords`, in the place of single records.

    An object for each record, with all that a record may have, is three quarters of what reading costs. From here on
    each log is also fetched when it was read: by default what is held of one that is not read yet keeps all logs of
    its broker from being fetched, up to a tenth of a second.

    Returns:
        Whether it does; where aiokafka is another than this was written for, records are given out as ever.
    """
    fetcher: Any = getattr(consumer, "_fetcher", None)
    if not (
        all(hasattr(fetcher, name) for name in FETCHER) and all(hasattr(PartitionRecords, name) for name in RECORDS)
    ):
        return False
    fetcher._prefetch_backoff = 0.0
    fetcher._records = _Fetched(fetcher._records)
    return True


def wait_for_records(consumer: AIOKafkaConsumer, wait_ms: int) -> None:
    """Let the broker keep the next requests of such a consumer so long while none of their logs has a record."""
    consumer._fetcher._fetch_max_wait_ms = wait_ms


def unread(consumer: AIOKafkaConsumer) -> Collection[TopicPartition]:
    """Return the logs of which such a consumer holds something that it has not given out."""
    places: Collection[TopicPartition] = consumer._fetcher._records.keys()
    return places


class _Fetched(OrderedDict[TopicPartition, Any]):
    """What was fetched of each log; what is put in gives out pieces."""

    def __setitem__(self, place: TopicPartition, result: Any) -> None:
        records = getattr(result, "_partition_records", None)
        if records is not None:
            # Its own iterator has not begun: it was made a moment ago.
            records._records_iterator = _Pieces._unpack_records(records)
        super().__setitem__(place, result)


class _Pieces(PartitionRecords):  # type: ignore[misc]
    """What a broker answered for one log, unpacked with the same checks as by its base, a piece at a time."""

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[SourceRecords]:
        """Yield pieces of `PIECE_RECORDS` or somewhat more; `next_fetch_offset` is where the log goes on after each."""
        parts: list[SourceRecords] = []
        count, at = 0, self.next_fetch_offset
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                if parts:
                    self.next_fetch_offset = at
                    yield joined(parts)
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            # Asked of markers too: they end what is aborted.
            aborted = _Pieces._is_aborted(self, batch)
            if not aborted and not batch.is_control_batch:
                part = unpacked(batch, at)
                parts.append(part)
                count += len(part)
            # The last offset of a batch is kept where compaction has removed its record.
            at = batch.next_offset
            if count >= PIECE_RECORDS:
                self.next_fetch_offset = at
                yield joined(parts)
                parts, count = [], 0
        self.next_fetch_offset = at
        if count:
            yield joined(parts)

    def _is_aborted(self, batch: Any) -> bool:
        """Return whether a batch belongs to an aborted transaction, and is not to be read."""
        if self._isolation_level != READ_COMMITTED or batch.producer_id is None:
            return False
        self._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and self._contains_abort_marker(batch):
            self._aborted_producers.discard(batch.producer_id)
        return batch.is_transactional and batch.producer_id in self._aborted_producers


def unpacked(batch: Any, begin: int) -> SourceRecords:
    """Return the records of a batch from an offset on; a batch may begin before it."""
    records = list(batch)
    values = [record.value for record in records]
    if getattr(batch, "timestamp_type", None) == LOG_APPEND_TIME:
        # All of them have the time of their batch.
        append_ts = np.full(len(values), batch.max_timestamp, np.int64)
    else:
        append_ts = np.array([record.timestamp for record in records], np.int64)
    first = getattr(batch, "base_offset", None)
    if first is not None and batch.next_offset - first == len(values):
        offsets = np.arange(first, first + len(values), dtype=np.int64)
    else:
        # Compaction has removed some.
        offsets = np.array([record.offset for record in records], np.int64)
    skipped = int(np.searchsorted(offsets, begin))
    return SourceRecords(offsets[skipped:], append_ts[skipped:], values[skipped:])


# Sending


def cancel_sending(producer: AIOKafkaProducer) -> None:
    """End the task that appends, of a producer that waits for an answer without end."""
    task = producer._sender._sender_task
    if task is not None:
        task.cancel()


async def send_request(admin: AIOKafkaAdminClient, request: Any, node: int | None = None) -> Any:
    """Send one request of aiokafka's protocol to a broker, or to any; the client's own methods send others only."""
    client = admin._client
    return await client.send(client.get_random_node() if node is None else node, request)


async def probe(admin: AIOKafkaAdminClient, resource: str, operation: str, name: str) -> int:
    """Return the code with which a broker answers a request that needs a right, and that changes nothing."""
    request, code_in = PROBES[resource, operation]
    return int(code_in(await send_request(admin, request(name))))


def _code_of_partition(response: Any) -> int:
    ((_, ((_, code, *_),)),) = response.topics
    return int(code)


Probe = tuple[Callable[[str], Any], Callable[[Any], int]]
PROBES: dict[tuple[str, str], Probe] = {
    ("group", "READ"): (
        lambda name: HeartbeatRequest(name, -1, NOBODY),
        lambda response: response.error_code,
    ),
    ("transactional_id", "WRITE"): (
        lambda name: EndTxnRequest(name, -1, -1, False),
        lambda response: response.error_code,
    ),
    ("topic", "READ"): (
        lambda name: FetchRequest(0, 0, 1, 0, [(name, [(0, 0, 1)])]),
        _code_of_partition,
    ),
    ("topic", "WRITE"): (
        lambda name: ProduceRequest(None, -1, PROBE_MS, [(name, [(0, b"")])]),
        _code_of_partition,
    ),
    ("topic", "DESCRIBE_CONFIGS"): (
        lambda name: DescribeConfigsRequest([(ConfigResourceType.TOPIC, name, ["cleanup.policy"])], False),
        lambda response: response.resources[0][0],
    ),
    ("topic", "CREATE"): (
        lambda name: CreateTopicsRequest([(name, 1, 1, [], [])], PROBE_MS, True),
        lambda response: response.topic_errors[0][1],
    ),
    ("topic", "ALTER"): (
        lambda name: CreatePartitionsRequest([(name, (1, None))], PROBE_MS, True),
        lambda response: response.topic_errors[0][1],
    ),
    ("topic", "ALTER_CONFIGS"): (
        lambda name: AlterConfigsRequest([(ConfigResourceType.TOPIC, name, [])], True),
        lambda response: response.resources[0][0],
    ),
}
"""By resource and operation: the request, and where the code is in its response. The last argument of the requests that
make or alter something: only check it."""
