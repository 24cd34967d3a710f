"""A supervisor runs its service again after an error, logs that once, and waits for its end for a bounded time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from streams.kafka import supervisor as module
from streams.kafka.clients import Access
from streams.kafka.supervisor import Supervisor
from tests.waiting import HANG_S
from unship.errors import BrokerUnreachable
from unship.topics import TopicNames

ACCESS = Access({"bootstrap_servers": ["nowhere:1"]}, TopicNames("t."))


def supervisor_of(run: Callable[[], Awaitable[None]], stop: Callable[[], None] = lambda: None) -> Supervisor:
    return Supervisor("ingest", ACCESS, run, stop)


async def ended_after(count: int, trouble: Callable[[], Awaitable[None]]) -> tuple[Supervisor, int]:
    """Run until the run of this number is stopped; each one before has trouble. Return how many began."""
    begun = 0

    async def run() -> None:
        nonlocal begun
        begun += 1
        if begun == count:
            supervisor.stop()
            return
        await trouble()

    supervisor = supervisor_of(run)
    await supervisor.run()
    await supervisor.join()
    return supervisor, begun


def test_error_starts_another_run_and_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_MIN_S", 0.0)

    async def trouble() -> None:
        raise BrokerUnreachable("no answer")

    with caplog.at_level(logging.WARNING, "unship"):
        supervisor, begun = asyncio.run(ended_after(4, trouble))
    assert supervisor.ended
    assert supervisor.error is None
    assert begun == 4
    assert [record.getMessage() for record in caplog.records] == [
        "ingest stopped: kafka nowhere:1: no answer; it is retried"
    ]


def test_wait_that_was_cancelled_elsewhere_starts_another_run(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_MIN_S", 0.0)

    async def trouble() -> None:
        sending = asyncio.ensure_future(asyncio.sleep(60))
        sending.cancel()
        await sending

    with caplog.at_level(logging.WARNING, "unship"):
        supervisor, begun = asyncio.run(ended_after(2, trouble))
    assert supervisor.ended
    assert begun == 2
    assert "what it waited for was cancelled" in caplog.text


def test_run_that_is_cancelled_itself_ends() -> None:
    async def main() -> None:
        supervisor = supervisor_of(lambda: asyncio.sleep(60))
        running = asyncio.create_task(supervisor.run())
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())


def test_stop_in_a_pause_does_not_wait_for_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_MIN_S", 1_000.0)
    monkeypatch.setattr(module, "RETRY_MAX_S", 1_000.0)

    async def main() -> None:
        failed = asyncio.Event()

        async def run() -> None:
            failed.set()
            raise BrokerUnreachable("no answer")

        supervisor = supervisor_of(run)
        running = asyncio.create_task(supervisor.run())
        await failed.wait()
        supervisor.stop()
        await asyncio.wait_for(running, HANG_S)
        assert isinstance(supervisor.error, BrokerUnreachable)

    asyncio.run(main())


def test_run_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHUTDOWN_S", 0.01)

    async def main() -> None:
        supervisor = supervisor_of(asyncio.Event().wait)  # type: ignore[arg-type]
        running = asyncio.create_task(supervisor.run())
        await asyncio.wait_for(supervisor.join(), HANG_S)
        assert not supervisor.ended
        running.cancel()

    asyncio.run(main())
