"""Readers of a real broker under what befalls its topics and its groups; an oracle counts what the ledger must hold."""

import asyncio
import logging
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions, RecordsToDelete

from streams.kafka.clients import read_all
from streams.kafka.ingest import Ingest
from tests.kafka.inside import Inside, cut_off, ended, expected, living, pairs, until, until_said
from tests.kafka.shared import SharedKafka
from unship.errors import ConfigurationError

pytestmark = pytest.mark.usefixtures("said")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "unship")
    return caplog


class SlowlyFilling(Ingest):
    """Fills its window a few records at a time, so that whatever happens, happens while it does."""

    async def _work(self, partition: Any) -> None:
        whole = partition.reader.advance
        if partition.reader.filling:
            partition.reader.advance = lambda caught_up, records_max: whole(caught_up, 5)
        try:
            await super()._work(partition)
        finally:
            partition.reader.advance = whole

    @property
    def filling(self) -> bool:
        return any(partition.reader.filling for partition in self.partitions.values())


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
        members: list[tuple[SlowlyFilling, asyncio.Task[None]]] = []
        for turn in range(6):
            service = site.ingest(SlowlyFilling)
            members.append((service, asyncio.create_task(service.run())))

            async def filling() -> bool:
                return any(service.filling for service, _ in members)

            # Whoever joins or leaves now interrupts them.
            await until(filling)
            await site.send(pairs(range(1_000 + turn * 50, 1_050 + turn * 50)))
            if len(members) > 2:
                await cut_off(members.pop(turn % 2)[1])
        for _, member in members:
            await cut_off(member)
        await read_to_the_end(site, expected(1_300))

    asyncio.run(run())


def test_reader_without_the_group_beside_its_members_changes_no_count(kafka: SharedKafka) -> None:
    async def run() -> None:
        site = Inside(kafka, sources=2, ledger=2)
        await site.make_topics()
        await site.send(pairs(range(1_000)))
        async with living(site.ingest(), site.ingest(group="unship.another")):
            await site.until_counted(expected(1_000))
            await site.send(pairs(range(1_000, 2_000)))
            assert await site.until_counted(expected(2_000)) == {}
        # The third one begins at the origin, with everything done.
        async with living(site.ingest(group="unship.third")):
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
        service = site.ingest(group="unship.another")
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
    admin = site.access.admin()
    await admin.start()
    try:
        await admin.delete_topics([site.access.names.of(topic)])

        async def gone() -> bool:
            return site.access.names.of(topic) not in await admin.list_topics()

        await until(gone)
    finally:
        await admin.close()
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
        admin = site.access.admin()
        await admin.start()
        try:
            await admin.create_partitions({site.access.names.of("predictions"): NewPartitions(3)})
            with pytest.raises(ConfigurationError, match=r"3 partitions and .* has 2, so ids do not meet"):
                await refused(site)
            await admin.create_partitions({site.access.names.of("feedback"): NewPartitions(3)})
            with pytest.raises(ConfigurationError, match=r"begun with 2 source .* now there are 3 and 1; begin a new"):
                await refused(site)
        finally:
            await admin.close()

    asyncio.run(run())


async def refused(site: Inside) -> None:
    """Start a reader until it sees the new partitions, which a broker tells a moment later."""

    async def seen() -> bool:
        task = asyncio.create_task(site.ingest().run())
        done, _ = await asyncio.wait((task,), timeout=1.0)
        if not done:
            await cut_off(task)
            return False
        await task
        return True

    await until(seen)


def test_what_retention_took_before_it_was_read_is_counted_to_the_record(kafka: SharedKafka) -> None:
    async def run() -> None:
        site = Inside(kafka, "defaults: {labels: {early: 0s}}")
        await site.make_topics()
        await site.send(pairs(range(500)))
        await read_to_the_end(site, expected(500))
        # Of predictions all that was read is gone, and 40 beside.
        await site.send(pairs(range(500, 900)))
        await take_away(site, "predictions", 540)
        left = {model: {"v1": counts["v1"] - 10} for model, counts in expected(900).items()}
        service = site.ingest()
        async with living(service) as tasks:
            assert (await site.until_counted(left))["HOLE"] == 40
            await ended(service, tasks[0])
        # Of feedback 25 are gone: they may have answered any prediction so far, so none of these counts any more.
        await site.send(pairs(range(900, 1_000)))
        await take_away(site, "feedback", 925)
        async with living(site.ingest()):

            async def told() -> bool:
                return (await site.counted())[1].get("HOLE") == 40 + 25

            await until(told)
            await site.send(pairs(range(1_000, 1_100)))
            after = {model: {"v1": counts["v1"] + 25} for model, counts in left.items()}
            await site.until_counted(after)

    asyncio.run(run())


async def take_away(site: Inside, topic: str, before: int) -> None:
    """Do what retention does: there is nothing left before an offset."""
    admin = site.access.admin()
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(site.access.names.of(topic), 0): RecordsToDelete(before)})
    finally:
        await admin.close()
