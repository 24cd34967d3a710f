"""The controller on a real broker, with a ledger that the test writes and a clock that the test sets."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actions.evidence_tree import Evidence
from actions.facts import ReplicaChange
from actions.journal import decision_bytes
from actions.reconcile import AHEAD_MAX_MS, Timing
from streams.config.parse import parse
from streams.kafka.clients import producing, read_all
from streams.kafka.control_service import ControlService
from streams.kafka.ledger_topic import open_ledger
from streams.kafka.snapshots import read_status
from streams.ledger.entries import entry_of
from streams.ledger.records import Deployed, Operated, Record, ReplicaFacts
from tests.decisions import decision
from tests.kafka.control.signer import SIGNER
from tests.kafka.shared import SharedKafka
from tests.kafka.site import KafkaSite
from unship.commands import Command, decode_command, encode_command
from unship.events import TS_MS_MAX, Deployment, OperatorAct

HOUR_MS = 3_600_000
CONFIG = parse("models: {m: {policy: {mode: act, deployments: any}}}")


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
    controller = ControlService(site.access, CONFIG, clock, SIGNER, Timing(beat_ms=1_000))
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
        # Another controller, whose clock is somewhat late, goes on from the time of the log.
        clock.now = order.issued_ts - AHEAD_MAX_MS // 2
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
        async with controlling(site, Clock(HOUR_MS)):
            first = await commanded(site, lambda command: command.serve == "v1")
            change = ReplicaChange("r0", False, "refused", "v0", first.epoch, "REGRESSION", 1_000, ("acks", 0, 0))
            await append(site, ReplicaFacts(-1, "m", [change]))

            async def told() -> bool:
                return any("unship ctl renew 'm'" in record.getMessage() for record in caplog.records)

            await site.until(told, "a line that says what to do")
            at = ("operator", 0, 0, 1_000)
            act = OperatorAct(act="renew", model="m", reason="the disk is gone", by="ann", incarnation=1, at=at)
            await append(site, Operated(-1, act))
            command = await commanded(site, lambda command: command.epoch[0] == 1)
            assert (command.serve, command.epoch[0]) == ("v1", 1)

    with caplog.at_level(logging.WARNING, "unship"):
        asyncio.run(job())


@pytest.mark.parametrize(
    ("model", "epoch", "issued_ts"),
    [("no-such-model", (0, 2**53, 0), 0), ("m", (9, 9, 9), HOUR_MS), ("m", (0, 0, 0), TS_MS_MAX - 1)],
    ids=["unknown-model", "higher-epoch", "far-future"],
)
def test_forged_record_neither_halts_a_partition_nor_moves_its_clock(
    site: KafkaSite, caplog: pytest.LogCaptureFixture, model: str, epoch: tuple[int, int, int], issued_ts: int
) -> None:
    forged = Command(
        model=model, epoch=epoch, serve="x", quarantine=(), action="deploy", issued_ts=issued_ts,
        not_after_ts=TS_MS_MAX, audience="prod",
    )  # fmt: skip

    async def job() -> None:
        await deploy(site, "v1", 0)
        async with producing(site.access) as producer:
            await producer.send_and_wait(site.access.names.of("control"), encode_command(forged), model.encode())
        async with controlling(site, Clock(10 * HOUR_MS)):
            genuine = await commanded(site, lambda command: command.serve == "v1")
            assert genuine.issued_ts == 10 * HOUR_MS

            async def counted() -> bool:
                return (await asyncio.to_thread(read_status, site.access))[0].rejected == {"FORGED_CONTROL": 1}

            await site.until(counted, "the forged record is counted once")
        assert (await asyncio.to_thread(read_status, site.access))[0].halted == []

    with caplog.at_level(logging.WARNING, "unship"):
        asyncio.run(job())
    assert caplog.text.count("records of control are ignored") == 1


def test_forged_decision_does_not_halt_a_partition(site: KafkaSite, caplog: pytest.LogCaptureFixture) -> None:
    forged = decision(Evidence(), epoch=(0, 2**53, 0))

    async def job() -> None:
        await deploy(site, "v1", 0)
        async with producing(site.access) as producer:
            await producer.send_and_wait(site.access.names.of("decisions"), decision_bytes(forged), b"m")
        async with controlling(site, Clock(10 * HOUR_MS)):
            await commanded(site, lambda command: command.serve == "v1")
        assert (await asyncio.to_thread(read_status, site.access))[0].halted == []

    with caplog.at_level(logging.WARNING, "unship"):
        asyncio.run(job())
    assert "1 records of decisions are ignored" in caplog.text
