"""Readers of a real broker under what befalls its topics and its groups; an oracle counts what the ledger must hold."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewPartitions, RecordsToDelete

from streams.join.partition import KINDS
from streams.join.source_reader import SourceReader
from streams.kafka.admin import administering
from streams.kafka.clients import read_all
from streams.kafka.ingest_service import ROWS_PER_FLUSH, IngestService
from streams.kafka.source_partition import SIDES, SourcePartition
from tests.kafka.inside import (
    MODELS,
    SHORT_SESSION_MS,
    Inside,
    Retried,
    counted_by,
    cut_off,
    ended,
    expected,
    living,
    pairs,
    until_said,
)
from tests.kafka.shared import SharedKafka
from tests.simulation.readers import POISON
from tests.waiting import HANG_S, eventually
from unship.codec import decode_value
from unship.errors import ConfigurationError
from unship.log.link import wall_ms
from unship.rejections import Rejection

pytestmark = pytest.mark.usefixtures("said")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "unship")
    return caplog


class SlowlyFilling(SourcePartition):
    """Fills its window a few records at a time, so that whatever happens, happens while it does."""

    def join(self, caught_up: tuple[bool, bool], records_max: int) -> None:
        super().join(caught_up, 5 if self.reader.filling else records_max)


async def read_to_the_end(site: Inside, counts: dict[str, dict[str, int]]) -> None:
    """Let one reader count everything, and end in order, so that its positions are committed."""
    service = site.ingest()
    async with living(service) as tasks:
        assert await site.until_counted(counts) == {}
        await ended(service, tasks[0])


def test_members_that_come_and_go_while_their_windows_are_filled_count_everything_once(kafka: SharedKafka) -> None:
    async def run() -> None:
        site = Inside(kafka, sources=4, ledger=2)
        await site.make_topics()
        await site.send(pairs(range(1_000)))
        await read_to_the_end(site, expected(1_000))
        members: list[tuple[IngestService, asyncio.Task[None]]] = []
        for turn in range(4):
            service = site.ingest(SlowlyFilling)
            members.append((service, asyncio.create_task(service.run())))

            async def filling() -> bool:
                return any(pair.reader.filling for service, _ in members for pair in service.partitions.values())

            # Whoever joins or leaves now interrupts them.
            await eventually(filling)
            await site.send(pairs(range(1_000 + turn * 50, 1_050 + turn * 50)))
            if len(members) > 2:
                await cut_off(members.pop(turn % 2)[1])
        for _, member in members:
            await cut_off(member)
        await read_to_the_end(site, expected(1_200))

    asyncio.run(run())


def test_reader_without_the_group_beside_its_members_changes_no_count(kafka: SharedKafka) -> None:
    async def run() -> None:
        site = Inside(kafka, sources=2, ledger=2)
        await site.make_topics()
        await site.send(pairs(range(1_000)))
        async with living(site.ingest(), site.ingest(group="another")):
            await site.until_counted(expected(1_000))
            await site.send(pairs(range(1_000, 2_000)))
            assert await site.until_counted(expected(2_000)) == {}
        # The third one begins at the origin, with everything done.
        async with living(site.ingest(group="third")):
            await site.send(pairs(range(2_000, 2_001)))
            assert await site.until_counted(expected(2_001)) == {}

    asyncio.run(run())


def test_positions_that_are_gone_or_damaged_cost_time_and_no_count(
    kafka: SharedKafka, said: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        site = Inside(kafka)
        await site.make_topics()
        await site.send(pairs(range(500)))
        await read_to_the_end(site, expected(500))
        place = TopicPartition(site.access.names.of("predictions"), 0)
        # Another group has committed nothing; the copy of the position is at hand.
        service = site.ingest(group="another")
        async with living(service):
            await until_said(said, "partition 0: from (500, 500)")
        # What the group committed is damaged, and so is the copy: everything is read again, and passed over.
        (record,) = [each for each in await read_all(site.access, "rewind") if each.key == b"position/0"][-1:]
        damaged = record.value.replace(b'"low":[0,0]', b'"low":[9,0]')
        assert damaged != record.value
        await remake(site, "rewind")
        await site.append([("rewind", 0, b"{}")])
        consumer = site.access.member(service.access.names.prefix + "ingest", ["predictions"], None)
        try:
            await consumer.start()
            await consumer.commit({place: (500, damaged.decode())})
        finally:
            await consumer.stop()
        said.clear()
        async with living(site.ingest()):
            await until_said(said, "partition 0: from (0, 0)")
            await site.send(pairs(range(500, 600)))
            assert await site.until_counted(expected(600)) == {}

    asyncio.run(run())


async def remake(site: Inside, topic: str) -> None:
    """Delete a topic, and make it again."""
    async with administering(site.access) as admin:
        await admin.client.delete_topics([site.access.names.of(topic)])

        async def gone() -> bool:
            return site.access.names.of(topic) not in await admin.client.list_topics()

        await eventually(gone)
    await site.make_topics()


def test_topics_that_cannot_be_joined_are_refused_with_the_way_out(kafka: SharedKafka) -> None:
    async def run() -> None:
        site = Inside(kafka, sources=2)
        await site.make_topics()
        await site.send(pairs(range(10)))
        await read_to_the_end(site, expected(10))
        for topic in ("feedback", "ledger"):
            await site.set_topic(topic, cleanup_policy="compact,delete")
            with pytest.raises(ConfigurationError, match=r"cleanup.policy is compact,delete.*unship topics apply"):
                await site.ingest().run()
            await site.make_topics()
        async with administering(site.access) as admin:
            await admin.client.create_partitions({site.access.names.of("predictions"): NewPartitions(3)})
            with pytest.raises(ConfigurationError, match=r"3 partitions and .* has 2, so ids do not meet"):
                await refused(site)
            await admin.client.create_partitions({site.access.names.of("feedback"): NewPartitions(3)})
            with pytest.raises(ConfigurationError, match=r"begun with 2 source .* now there are 3 and 1; begin a new"):
                await refused(site)

    asyncio.run(run())


async def refused(site: Inside) -> None:
    """Start a reader until it sees the new partitions, which a broker tells a moment later."""

    async def seen() -> bool:
        task = asyncio.create_task(site.ingest().run())
        done, _ = await asyncio.wait((task,), timeout=0.5)
        if not done:
            await cut_off(task)
            return False
        await task
        return True

    await eventually(seen)


def test_what_retention_took_before_it_was_read_is_counted_to_the_record(
    kafka: SharedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One broker, one clock: it does not fall back, so that what comes next counts at once.
    monkeypatch.setattr(SourceReader, "fall_back_ms", 0)

    async def run() -> None:
        site = Inside(kafka, "defaults: {labels: {early: 0s}}")
        await site.make_topics()
        await in_order(site, pairs(range(500)))
        await read_to_the_end(site, expected(500))
        # Of predictions all that was read is gone, and 40 beside.
        await in_order(site, pairs(range(500, 900)))
        await take_away(site, "predictions", 540)
        left = {model: {"v1": counts["v1"] - 10} for model, counts in expected(900).items()}
        service = site.ingest()
        async with living(service) as tasks:
            assert (await site.until_counted(left))["HOLE"] == 40
            await ended(service, tasks[0])
        # Of feedback 25 are gone: they may have answered any prediction so far, so none of these counts any more.
        await in_order(site, pairs(range(900, 1_000)))
        await take_away(site, "feedback", 925)
        async with living(site.ingest()):

            async def told() -> bool:
                return (await site.counted())[1].get("HOLE") == 40 + 25

            await eventually(told)
            await in_order(site, pairs(range(1_000, 1_100)))
            after = {model: {"v1": counts["v1"] + 25} for model, counts in left.items()}
            await site.until_counted(after)

    asyncio.run(run())


async def in_order(site: Inside, events: list[Any]) -> None:
    """Send predictions before their truths, because none of them waits for the other one here."""
    for topic in ("predictions", "feedback"):
        await site.send(event for event in events if event[0] == topic)


async def take_away(site: Inside, topic: str, before: int) -> None:
    """Do what retention does: there is nothing left before an offset."""
    async with administering(site.access) as admin:
        await admin.client.delete_records({TopicPartition(site.access.names.of(topic), 0): RecordsToDelete(before)})


def test_transaction_that_does_not_end_holds_time_back_and_is_said_and_an_aborted_one_counts_nothing(
    kafka: SharedKafka, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.rounds.ingest.HELD_S", 0.5)
    # What a transaction holds back, or its end, is not taken for records that are not given out.
    monkeypatch.setattr("streams.kafka.log_checks.LOOK_S", 0.1)

    async def run() -> None:
        site = Inside(kafka)
        await site.make_topics()
        async with transactional(site, "aborts") as aborting, transactional(site, "hangs") as hanging:
            await aborting.begin_transaction()
            await write(site, aborting, pairs(range(100)))
            await aborting.abort_transaction()
            await site.send(pairs(range(100, 200)))
            ahead_ms = 0
            service = site.ingest(clock_ms=lambda: wall_ms() + ahead_ms)

            async def seen() -> bool:
                return all(log.holds for pair in service.partitions.values() for log in pair._transactions)

            async with living(service):
                counts = counts_of(range(100, 200))
                assert await site.until_counted(counts) == {}
                await hanging.begin_transaction()
                await write(site, hanging, pairs(range(200, 210)))
                await site.send(pairs(range(210, 300)))
                await eventually(seen)
                ahead_ms = 3_600_000
                assert "nothing of it is counted" in await until_said(said, "open transaction holds back")
                (fold,) = await site.folds()
                assert counted_by([fold]) == (counts, {})
                # No time passes for what stands behind the transaction, however long it hangs.
                assert fold.clock <= wall_ms()
                await hanging.commit_transaction()
                assert await site.until_counted(counts_of(range(100, 300))) == {}
                await until_said(said, "the open transaction has ended")

    asyncio.run(run())


def counts_of(numbers: range) -> dict[str, dict[str, int]]:
    return {model: {"v1": sum(n % len(MODELS) == place for n in numbers)} for place, model in enumerate(MODELS)}


@asynccontextmanager
async def transactional(site: Inside, name: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = site.access.producer(site.access.names.prefix + name)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def write(site: Inside, producer: AIOKafkaProducer, events: Any) -> None:
    for topic, _, event in events:
        await producer.send(site.access.names.of(topic), msgspec.json.encode(event), b"k", partition=0)
    await producer.flush()


def test_bytes_that_are_no_event_stop_nothing_and_get_the_same_letters_each_time_they_are_read(
    kafka: SharedKafka,
) -> None:
    poison = [
        *POISON,
        b"[" * 100_000,
        b'{"id": "' + b"x" * 500_000 + b'"}',
        b'{"id": "p-1", "truth": 1180591620717411303424}',
    ]

    async def run() -> None:
        site = Inside(kafka)
        await site.make_topics()
        await site.append((topic, 0, value) for topic in ("predictions", "feedback") for value in poison)
        await site.send(pairs(range(100)))
        rejected = Counter[str]()
        for kind in KINDS:
            events = [decode_value(kind, value) for value in poison]
            rejected.update(event.code for event in events if isinstance(event, Rejection))
        async with living(site.ingest()):
            assert await site.until_counted(expected(100)) == rejected
            letters = await site.letters()
            assert len(letters) == rejected.total()
        await remake(site, "rewind")
        async with living(site.ingest(group="another")):

            async def read_again() -> bool:
                return len(await site.letters()) == 2 * len(letters)

            await eventually(read_again)
            again = (await site.letters())[len(letters) :]
            assert sorted(again, key=str) == sorted(letters, key=str)
            await site.send(pairs(range(100, 101)))
            assert await site.until_counted(expected(101)) == rejected

    asyncio.run(run())


def test_ledger_that_takes_only_small_records_gets_smaller_batches_and_misses_no_outcome(
    kafka: SharedKafka, said: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        site = Inside(kafka)
        await site.make_topics()
        await site.set_topic("ledger", max_message_bytes="10000", message_timestamp_type="LogAppendTime")
        await site.send(pairs(range(1_500)))
        service = site.ingest()
        retried = Retried(service)
        async with living(retried):
            assert await site.until_counted(expected(1_500)) == {}
        assert service.limits.rows < ROWS_PER_FLUSH
        assert "raise max.message.bytes" in await until_said(said, "takes no larger record")
        assert max(len(record.value) for record in await read_all(site.access, "ledger")) < 10_000

    asyncio.run(run())


class Held(SourcePartition):
    """Its ledger takes nothing until it is released; `rounds` are those since its reader was full."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.released = asyncio.Event()
        self.rounds = 0

    async def work(self, flush: bool) -> tuple[bool, bool]:
        # Labels that come first are all taken into the window, so that their side has no queue.
        self.rounds = self.rounds + 1 if self.full() else 0
        return await super().work(flush)

    async def append(self, caught_up: tuple[bool, bool]) -> None:
        await self.released.wait()
        await super().append(caught_up)


def test_ledger_that_takes_nothing_lets_the_rest_wait_in_the_log(
    kafka: SharedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.join.source_reader.WAITING_MAX", 20)

    async def run() -> None:
        site = Inside(kafka)
        await site.make_topics()
        service = site.ingest(Held)
        service.limit_rows(10)
        async with living(service):

            def pairs_of() -> list[Any]:
                return list(service.partitions.values())

            async def stays_full() -> bool:
                return [pair.rounds > 50 for pair in pairs_of()] == [True]

            await site.send(pairs(range(100)))
            await eventually(stays_full)
            (pair,) = pairs_of()
            full, rounds = [side for side in SIDES if pair.reader.queued(side) > 20], pair.rounds
            held = [pair.reader.queued(side) for side in full]
            await site.send(pairs(range(100, 200)))

            async def looked_on() -> bool:
                return pair.rounds > rounds + 50

            await eventually(looked_on)
            assert [pair.reader.queued(side) for side in full] == held != []
            pair.released.set()
            assert await site.until_counted(expected(200)) == {}

    asyncio.run(run())


class Counting(SourcePartition):
    """Counts its commits."""

    commits = 0

    async def commit(self) -> None:
        self.commits += 1
        await super().commit()


def test_backlog_is_committed_while_it_is_worked_off(kafka: SharedKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.rounds.ingest.COMMIT_S", 0.05)

    async def run() -> None:
        site = Inside(kafka)
        await site.make_topics()
        await site.send(pairs(range(2_000)))
        service = site.ingest(Counting)
        service.limit_rows(10)
        async with living(service):

            async def in_the_middle() -> bool:
                return any(isinstance(pair, Counting) and pair.commits > 2 for pair in service.partitions.values())

            await eventually(in_the_middle)
            assert sum(part.reader.queued(side) for part in service.partitions.values() for side in (0, 1)) > 0

    asyncio.run(run())


def test_range_that_was_asked_for_before_its_partition_was_opened_is_read_again(
    kafka: SharedKafka, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        site = Inside(kafka)
        await site.make_topics()
        await site.send(pairs(range(100)))
        first = site.ingest()
        async with living(first) as tasks:
            assert await site.until_counted(expected(100)) == {}
            await ended(first, tasks[0])
        caplog.clear()
        second = site.ingest()
        second.requested[0] = asyncio.get_running_loop().time()
        async with living(second):
            await until_said(caplog, "partition 0: from (0, 0)")
            await site.send(pairs(range(100, 200)))
            assert await site.until_counted(expected(200)) == {}

    with caplog.at_level(logging.INFO, "unship"):
        asyncio.run(run())


def test_loop_that_stands_still_past_its_session_harms_nothing(kafka: SharedKafka) -> None:
    async def run() -> None:
        site = Inside(kafka, sources=2, session_ms=SHORT_SESSION_MS)
        await site.make_topics()
        await site.send(pairs(range(400)))
        blocked = Blocked(site)
        thread = threading.Thread(target=blocked.run)
        thread.start()
        try:
            await asyncio.to_thread(blocked.stands.wait, HANG_S)
            # Its session runs out, and another one takes its partitions over and reads on.
            async with living(site.ingest()):
                assert await site.until_counted(expected(400)) == {}
                await site.send(pairs(range(400, 600)))
                assert await site.until_counted(expected(600)) == {}
                blocked.goes_on.set()
                await asyncio.to_thread(blocked.came_back.wait, HANG_S)
                await site.send(pairs(range(600, 800)))
                assert await site.until_counted(expected(800)) == {}
        finally:
            blocked.goes_on.set()
            blocked.ends.set()
            await asyncio.to_thread(thread.join, HANG_S)

    asyncio.run(run())


class Blocked:
    """A worker on a thread of its own, whose loop stands still between two batches and then comes back."""

    def __init__(self, site: Inside) -> None:
        self.site = site
        self.stands, self.goes_on, self.came_back, self.ends = (threading.Event() for _ in range(4))
        # Loops of two threads share no client.
        blocked = self

        class Blocking(SourcePartition):
            async def append(self, caught_up: tuple[bool, bool]) -> None:
                if not blocked.stands.is_set():
                    blocked.stands.set()
                    blocked.goes_on.wait(HANG_S)
                    await super().append(caught_up)
                    blocked.came_back.set()
                else:
                    await super().append(caught_up)

        self.service = site.ingest(Blocking)

    def run(self) -> None:
        async def life() -> None:
            async with living(Retried(self.service)):
                while not self.ends.is_set():
                    await asyncio.sleep(0.05)

        asyncio.run(life())


def test_topic_whose_writers_set_the_append_times_is_refused_with_the_way_out(kafka: SharedKafka) -> None:
    async def run() -> None:
        site = Inside(kafka, sources=1)
        await site.make_topics()
        for topic in ("predictions", "feedback", "ledger"):
            await site.set_topic(topic, message_timestamp_type="CreateTime")
            with pytest.raises(ConfigurationError, match=r"CreateTime, expected LogAppendTime.*topics apply"):
                await site.ingest().run()
            await site.make_topics()

    asyncio.run(run())
