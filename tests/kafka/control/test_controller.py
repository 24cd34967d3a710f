"""The controller on a real broker, with a ledger that the test writes and a clock that the test sets."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actions.facts import ReplicaChange
from actions.reconcile import Signer, Timing
from streams.config.parse import parse
from streams.kafka.clients import producing, read_all
from streams.kafka.control_service import Controller
from streams.kafka.ledger_topic import open_ledger
from streams.ledger.entries import entry_of
from streams.ledger.records import Deployed, Operated, Record, ReplicaFacts
from tests.kafka.shared import SharedKafka
from tests.kafka.site import KafkaSite
from unship.commands import Command, decode_command
from unship.events import Deployment, OperatorAct
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


async def append(site: KafkaSite, record: Record) -> None:
    """Append to the ledger, as the services beside the controller do."""
    async with producing(site.access) as producer:
        await open_ledger(site.access, producer, CONFIG)
        await producer.send_and_wait(site.access.names.of("ledger"), entry_of(record).value, partition=0)


async def deploy(site: KafkaSite, version: str, offset: int) -> None:
    event = Deployment(model="m", version=version, status="live", at=("deployments", 0, offset, 1_000))
    await append(site, Deployed(-1, event))


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


def test_replica_that_knows_another_ledger_is_told_of_and_obeys_after_an_operators_order(
    site: KafkaSite, caplog: pytest.LogCaptureFixture
) -> None:
    async def job() -> None:
        await deploy(site, "v1", 0)
        change = ReplicaChange("r0", False, "serving", "v0", (0, 1_000, 0), None, 1_000, ("acks", 0, 0))
        await append(site, ReplicaFacts(-1, "m", [change]))
        async with controlling(site, Clock(HOUR_MS)):

            async def told() -> bool:
                return any("unship ctl renew 'm'" in record.getMessage() for record in caplog.records)

            await site.until(told, "a line that says what to do")
            at = ("operator", 0, 0, 1_000)
            act = OperatorAct(act="renew", model="m", reason="the disk is gone", by="ann", incarnation=1, at=at)
            await append(site, Operated(-1, act))
            command = await commanded(site, lambda command: command.epoch > (0, 1_000, 0))
            assert (command.serve, command.epoch[0]) == ("v1", 1)

    with caplog.at_level(logging.WARNING, "unship"):
        asyncio.run(job())
