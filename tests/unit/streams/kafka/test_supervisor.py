"""A service's lives: trouble begins another one and is said once, and an end is not waited for longer than a while."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from streams.kafka import supervisor as module
from streams.kafka.clients import Access
from streams.kafka.supervisor import Lives
from tests.waiting import HANG_S
from unship.errors import BrokerUnreachable
from unship.topics import TopicNames

ACCESS = Access({"bootstrap_servers": ["nowhere:1"]}, TopicNames("t."))


def lives_of(run: Callable[[], Awaitable[None]], stop: Callable[[], None] = lambda: None) -> Lives:
    return Lives("ingest", ACCESS, run, stop)


async def ended_after(count: int, trouble: Callable[[], Awaitable[None]]) -> tuple[Lives, int]:
    """Live until the life of this number is told to finish; each one before has trouble. Return how many began."""
    begun = 0

    async def run() -> None:
        nonlocal begun
        begun += 1
        if begun == count:
            lives.finish()
            return
        await trouble()

    lives = lives_of(run)
    await lives.live()
    await lives.finished()
    return lives, begun


def test_trouble_begins_another_life_and_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_MIN_S", 0.0)

    async def trouble() -> None:
        raise BrokerUnreachable("no answer")

    with caplog.at_level(logging.WARNING, "unship"):
        lives, begun = asyncio.run(ended_after(4, trouble))
    assert lives.ended
    assert lives.error is None
    assert begun == 4
    assert [record.getMessage() for record in caplog.records] == [
        "ingest stopped: kafka nowhere:1: no answer; it begins again by itself"
    ]


def test_wait_that_somebody_else_gave_up_begins_another_life(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_MIN_S", 0.0)

    async def trouble() -> None:
        sending = asyncio.ensure_future(asyncio.sleep(60))
        sending.cancel()
        await sending

    with caplog.at_level(logging.WARNING, "unship"):
        lives, begun = asyncio.run(ended_after(2, trouble))
    assert lives.ended
    assert begun == 2
    assert "what it waited for was given up" in caplog.text


def test_life_that_is_cancelled_itself_ends() -> None:
    async def main() -> None:
        lives = lives_of(lambda: asyncio.sleep(60))
        living = asyncio.create_task(lives.live())
        await asyncio.sleep(0)
        living.cancel()
        with pytest.raises(asyncio.CancelledError):
            await living

    asyncio.run(main())


def test_end_in_a_pause_does_not_wait_for_the_next_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_MIN_S", 1_000.0)
    monkeypatch.setattr(module, "RETRY_MAX_S", 1_000.0)

    async def main() -> None:
        failed = asyncio.Event()

        async def run() -> None:
            failed.set()
            raise BrokerUnreachable("no answer")

        lives = lives_of(run)
        living = asyncio.create_task(lives.live())
        await failed.wait()
        lives.finish()
        await asyncio.wait_for(living, HANG_S)
        assert isinstance(lives.error, BrokerUnreachable)

    asyncio.run(main())


def test_life_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ORDER_S", 0.01)

    async def main() -> None:
        lives = lives_of(asyncio.Event().wait)  # type: ignore[arg-type]
        living = asyncio.create_task(lives.live())
        await asyncio.wait_for(lives.finished(), HANG_S)
        assert not lives.ended
        living.cancel()

    asyncio.run(main())
