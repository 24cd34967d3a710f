"""A worker behind a bad network: everything is counted once, and goes on by itself."""

import asyncio
from collections.abc import Iterable

import pytest
from aiokafka import TopicPartition

from streams.kafka.clients import read_all
from streams.kafka.ingest_service import IngestRun, IngestService
from streams.kafka.topic_reader import KafkaTopics
from tests.kafka.inside import Inside, Retried, expected, living, pairs
from tests.kafka.network import FETCH, Network, behind
from tests.kafka.shared import SharedKafka
from tests.waiting import eventually
from unship.errors import BrokerUnreachable


def test_slow_narrow_reset_and_silent_network_and_lost_replies_lose_nothing_and_double_nothing(
    kafka: SharedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.kafka.clients.ANSWER_S", 1.5)

    async def run() -> None:
        site = Inside(kafka, sources=2)
        await site.make_topics()
        async with behind(site.access) as (net, access):
            retried = Retried(site.ingest(access=access))
            async with living(retried):
                await more(site, 0)
                # Replies to appends are lost: the records are there, and are sent again.
                net.replies_lost = 4
                await more(site, 1)
                assert net.lost > 0
                net.delay_s, net.bytes_per_s = 0.05, 200_000.0
                net.reset()
                await more(site, 2)
                net.delay_s, net.bytes_per_s = 0.0, None
                await silence(site, net, retried)
                assert await site.until_counted(expected(800)) == {}

    asyncio.run(run())


async def more(site: Inside, turn: int) -> None:
    await site.send(pairs(range(200 * turn, 200 * turn + 200)))
    assert await site.until_counted(expected(200 * turn + 200)) == {}


async def silence(site: Inside, net: Network, retried: Retried) -> None:
    """Nothing comes through until a life of the worker has ended of it."""
    before = len(retried.errors)
    net.silent = True
    await site.send(pairs(range(600, 800)))

    async def noticed() -> bool:
        return len(retried.errors) > before

    await eventually(noticed)
    net.silent = False


def test_worker_without_partitions_says_that_its_broker_is_silent(
    kafka: SharedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.kafka.clients.ANSWER_S", 1.5)
    monkeypatch.setattr("streams.kafka.log_checks.LOOK_S", 0.2)

    async def run() -> None:
        site = Inside(kafka, sources=1)
        await site.make_topics()
        async with behind(site.access) as (net, access):
            members = [site.ingest(access=access) for _ in range(2)]
            for member in members:
                member.run_type = Dealt
            retried = [Retried(member) for member in members]
            async with living(*retried):
                await eventually(lambda: one_has_all(members))
                idle = next(life for life in retried if not life.service.partitions)
                net.silent = True
                await idle.until_error("BrokerUnreachable")
                net.silent = False
                await more(site, 0)

    asyncio.run(run())


def test_worker_that_is_given_nothing_of_a_log_that_goes_on_says_so_and_begins_again(
    kafka: SharedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.kafka.log_checks.LOOK_S", 0.5)

    async def run() -> None:
        site = Inside(kafka)
        await site.make_topics()
        async with behind(site.access) as (net, access):
            retried = Retried(site.ingest(access=access))
            async with living(retried):
                await more(site, 0)
                net.unanswered = FETCH, b""
                await site.send(pairs(range(200, 400)))
                await retried.until_error("nothing is given out from offset")
                net.unanswered = None
                assert await site.until_counted(expected(400)) == {}

    asyncio.run(run())


def test_topic_of_which_nothing_is_shown_is_not_waited_for_without_end(
    kafka: SharedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.kafka.clients.ANSWER_S", 1.5)

    async def run() -> None:
        site = Inside(kafka)
        await site.make_topics()
        await site.send(pairs(range(10)))
        async with behind(site.access) as (net, access):
            net.unanswered = FETCH, b""

            def read() -> None:
                with KafkaTopics(access) as topics:
                    topics.read("predictions", 0, 0)

            for reading in (read_all(access, "predictions"), asyncio.to_thread(read)):
                with pytest.raises(BrokerUnreachable, match="nothing is shown of offsets 0 to 9 within"):
                    await reading

    asyncio.run(run())


class Dealt(IngestRun):
    """Knows whether it had its share of the partitions, which may be none."""

    dealt = False

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await super().on_partitions_assigned(assigned)
        self.dealt = True


async def one_has_all(members: list[IngestService]) -> bool:
    dealt = all(isinstance(member.running, Dealt) and member.running.dealt for member in members)
    return dealt and sum(bool(member.partitions) for member in members) == 1
