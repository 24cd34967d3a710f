"""What a consumer fetched is given out as columns: the same as its single records, with the same checks."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import aiokafka
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import NoGroupCoordinator
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from hypothesis import given
from hypothesis import strategies as st

from streams.join.source_records import SourceRecords
from streams.kafka import private_parts
from streams.kafka.clients import Feed

CHANGED = f"aiokafka {aiokafka.__version__}: {{}}; look at streams/kafka/private_parts.py before you raise its limit"
PLACE, OTHER = TopicPartition("t", 0), TopicPartition("t", 1)
ATTRIBUTES, CRC = 21, 17
APPEND_TIME, TRANSACTIONAL, CONTROL = 0x08, 0x10, 0x20
COMMIT, ABORT = struct.pack(">hh", 0, 1), struct.pack(">hh", 0, 0)
WRITER = 7


class Log(NamedTuple):
    """The bytes of some batches, where each aborted transaction began, and where the log ends."""

    data: bytes
    aborted: list[tuple[int, int]]
    end: int


def batch(base: int, values: dict[int, bytes | None], *, flags: int = 0, gzip: bool = False, last: int = -1) -> bytes:
    """Encode a batch as a broker holds it: values by offset, compacted up to an offset that is kept."""
    writer = WRITER if flags & TRANSACTIONAL else -1
    builder = DefaultRecordBatchBuilder(2, int(gzip), bool(flags & TRANSACTIONAL), writer, 0, 0, 1 << 20)
    for offset, value in values.items():
        key = value if flags & CONTROL else b"k"
        builder.append(offset - base, 1_000 + offset, key, value, [("h", b"x")])
    data = bytearray(builder.build())
    data[:8] = struct.pack(">q", base)
    (attributes,) = struct.unpack_from(">h", data, ATTRIBUTES)
    struct.pack_into(">h", data, ATTRIBUTES, attributes | flags)
    struct.pack_into(">i", data, ATTRIBUTES + 2, max(last, *values) - base)
    struct.pack_into(">I", data, CRC, calc_crc32c(bytes(data[ATTRIBUTES:])))
    return bytes(data)


def fetched(log: Log, begin: int) -> PartitionRecords:
    """Return what a broker's answer becomes in the client."""
    return PartitionRecords(PLACE, MemoryRecords(log.data), list(log.aborted), begin, None, None, True, READ_COMMITTED)


def with_consumer(look: Callable[[AIOKafkaConsumer, Any], Awaitable[None]]) -> None:
    """Look at a consumer that would fetch, if it had a broker."""

    async def work() -> None:
        consumer = AIOKafkaConsumer(isolation_level="read_committed")
        fetcher = consumer._fetcher = Fetcher(
            consumer._client, consumer._subscription, auto_offset_reset="none", isolation_level="read_committed"
        )
        consumer._coordinator = NoGroupCoordinator(consumer._client, consumer._subscription)
        consumer.assign([PLACE, OTHER])
        consumer.seek(PLACE, 0)
        consumer.seek(OTHER, 0)
        # Its tasks begin, or they could not be ended.
        await asyncio.sleep(0)
        try:
            await look(consumer, fetcher)
        finally:
            await consumer.stop()

    asyncio.run(work())


def hold(consumer: Any, fetcher: Any, place: TopicPartition, records: PartitionRecords) -> None:
    """Let a consumer hold an answer of its broker."""
    consumer.seek(place, records.next_fetch_offset)
    assignment = consumer._subscription.subscription.assignment
    fetcher._records[place] = FetchResult(place, assignment=assignment, partition_records=records, backoff=60.0)


def taken(log: Log, begin: int) -> tuple[list[tuple[int, int, bytes | None]], int]:
    """Return what a feed gives out of a log, and where the consumer is then."""
    found: list[tuple[int, int, bytes | None]] = []
    position = -1

    async def look(consumer: Any, fetcher: Any) -> None:
        nonlocal position
        feed = Feed(consumer)
        hold(consumer, fetcher, PLACE, fetched(log, begin))
        while PLACE in fetcher._records:
            for records in (await feed.take([PLACE], 0)).values():
                assert isinstance(records, SourceRecords), CHANGED.format("what is given out is no piece of columns")
                found.extend(zip(records.offsets.tolist(), records.append_ts.tolist(), records.values, strict=True))
        position = await consumer.position(PLACE)

    with_consumer(look)
    return found, position


def expected(log: Log, begin: int) -> tuple[list[tuple[int, int, bytes | None]], int]:
    """Return what the client itself gives out."""
    records = fetched(log, begin)
    return [(each.offset, each.timestamp, each.value) for each in records], records.next_fetch_offset


VALUES = st.one_of(st.none(), st.binary(max_size=4))


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Draw a log: compacted and compressed batches of either time, transactions that were committed or aborted."""
    data, aborted, at = b"", [], draw(st.integers(0, 5))
    for _ in range(draw(st.integers(1, 6))):
        kept = sorted(draw(st.sets(st.integers(at, at + 6), min_size=1, max_size=5)))
        values = {offset: draw(VALUES) for offset in kept}
        flags = draw(st.sampled_from([0, APPEND_TIME])) | draw(st.sampled_from([0, TRANSACTIONAL]))
        last = kept[-1] + draw(st.integers(0, 2))
        data += batch(at, values, flags=flags, gzip=draw(st.booleans()), last=last)
        begun, at = at, last + 1
        if flags & TRANSACTIONAL:
            ended = draw(st.sampled_from([COMMIT, ABORT]))
            data += batch(at, {at: ended}, flags=TRANSACTIONAL | CONTROL)
            aborted += [(WRITER, begun)] if ended == ABORT else []
            at += 1
    return Log(data, aborted, at)


@given(logs(), st.integers(0, 20), st.sampled_from([1, 3, 2_048]))
def test_columns_of_any_log_are_what_its_records_are(log: Log, begin: int, piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_parts, "PIECE_RECORDS", piece)
        assert taken(log, begin) == expected(log, begin), CHANGED.format("columns differ from the client's records")


def test_log_in_the_format_before_batches_is_given_out_as_well() -> None:
    builder = LegacyRecordBatchBuilder(1, 0, 1 << 20)
    for offset in range(3):
        builder.append(offset, 1_000 + offset, b"k", b"v%d" % offset)
    log = Log(bytes(builder.build()), [], 3)
    assert taken(log, 1) == expected(log, 1) == ([(1, 1_001, b"v1"), (2, 1_002, b"v2")], 3)


def test_damaged_batch_is_an_error_and_is_not_passed_over() -> None:
    good, bad = batch(0, {0: b"a"}), bytearray(batch(1, {1: b"b"}))
    bad[-1] ^= 1

    async def look(consumer: Any, fetcher: Any) -> None:
        feed = Feed(consumer)
        hold(consumer, fetcher, PLACE, fetched(Log(good + bytes(bad), [], 2), 0))
        with pytest.raises(CorruptRecordException):
            await feed.take([PLACE], 0)
        assert await consumer.position(PLACE) == 0

    with_consumer(look)


def test_client_with_other_private_parts_gives_out_the_same_as_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_parts, "FETCHER", ("_no_such_part",))
    log = Log(batch(0, {0: b"a", 2: None}, flags=APPEND_TIME), [], 3)
    assert taken(log, 0) == expected(log, 0)


def requested(fetcher: Any, consumer: Any) -> list[TopicPartition]:
    """Return the logs that the client would fetch now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consumer._client.cluster, "leader_for_partition", lambda place: 1)
        requests = fetcher._get_actions_per_node(consumer._subscription.subscription.assignment)[0]
    return [TopicPartition(topic, number) for _, each in requests for topic, logs in each.topics for number, *_ in logs]


def test_log_that_is_not_read_keeps_no_other_log_from_being_fetched() -> None:
    log = Log(batch(0, {0: b"a"}), [], 1)

    async def look(consumer: Any, fetcher: Any) -> None:
        hold(consumer, fetcher, PLACE, fetched(log, 0))
        assert requested(fetcher, consumer) == [], CHANGED.format("a log that is held delays no other one any more")
        feed = Feed(consumer)
        fetcher._records.clear()
        hold(consumer, fetcher, PLACE, fetched(log, 0))
        fetcher._records[PLACE]._backoff = fetcher._prefetch_backoff
        assert requested(fetcher, consumer) == [OTHER], CHANGED.format("_prefetch_backoff is not what delays a fetch")
        feed.behind(True)
        assert fetcher._fetch_max_wait_ms < 250, CHANGED.format("_fetch_max_wait_ms is not how long a fetch waits")

    with_consumer(look)
