"""The controller on a real broker, with a ledger that the test writes and a clock that the test sets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actions.reconcile import Timing
from streams.config import parse
from streams.kafka.clients import producing, read_all
from streams.kafka.controller import Controller
from streams.kafka.ledger import open_ledger
from streams.ledger_lines import ledger_value
from streams.live import Signer
from streams.records import Deployed
from tests.kafka.shared import SharedKafka
from tests.kafka.site import KafkaSite
from unship.commands import Command, decode_command
from unship.events import Deployment
from unship.signing import Trust

HOUR_MS = 3_600_000
CONFIG = parse("models: {m: {policy: {mode: act}}}")
SIGNER = Signer("prod", lambda value: [("unship_sig", b"x")], Trust(keys=()))


class Clock:
    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def site(kafka: SharedKafka, tmp_path: Path) -> KafkaSite:
    made = KafkaSite(tmp_path, kafka.bootstrap, kafka.prefix, "", ledger=1, sources=1)
    made.make_topics()
    return made


@asynccontextmanager
async def controlling(site: KafkaSite, clock: Clock) -> AsyncIterator[None]:
    controller = Controller(site.access, CONFIG, clock, SIGNER, Timing(beat_ms=1_000))
    running = asyncio.create_task(controller.run())
    try:
        yield
    finally:
        controller.stop()
        await running


async def deploy(site: KafkaSite, version: str, offset: int) -> None:
    async with producing(site.access) as producer:
        await open_ledger(site.access, producer, CONFIG)
        event = Deployment(model="m", version=version, status="live", at=("deployments", 0, offset, 1_000))
        value = ledger_value(Deployed(-1, (0, -1), "", event))
        await producer.send_and_wait(site.access.names.of("ledger"), value, partition=0)


async def commanded(site: KafkaSite, met: Callable[[Command], bool]) -> Command:
    """Wait for a command on the control topic that is as asked."""

    async def found() -> Any:
        commands = [decode_command(record.value) for record in await read_all(site.access, "control")]
        return next((each for each in commands if isinstance(each, Command) and met(each)), None)

    command: Command = await site.until(found, "the command")
    return command


def test_clock_that_is_set_back_neither_silences_the_heartbeat_nor_makes_an_order_expire(site: KafkaSite) -> None:
    clock = Clock(10 * HOUR_MS)

    async def job() -> None:
        await deploy(site, "v1", 0)
        async with controlling(site, clock):
            first = await commanded(site, lambda command: command.serve == "v1")
            clock.now -= HOUR_MS
            # Read at least once before it goes on.
            await deploy(site, "v2", 1)
            order = await commanded(site, lambda command: command.serve == "v2")
            assert order.issued_ts >= first.issued_ts
            assert order.not_after_ts == order.issued_ts + Timing().valid_ms
            clock.now += 60_000
            await commanded(site, lambda command: command.issued_ts == order.issued_ts + 60_000)
        # Another controller, whose clock was never right, knows from the log how late it was.
        clock.now = HOUR_MS
        async with controlling(site, clock):
            await deploy(site, "v3", 2)
            last = await commanded(site, lambda command: command.serve == "v3")
            assert last.issued_ts >= order.issued_ts + 60_000

    asyncio.run(job())
