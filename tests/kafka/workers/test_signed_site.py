"""What a stranger without keys appends to `control`, `decisions`, `deployments` and `operator` changes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.kafka.clients import read_all
from tests.kafka.shared import SharedKafka
from tests.kafka.site import KafkaSite
from unship.commands import Command, encode_command
from unship.events import INTEGER_MAX, TS_MS_MAX

CONFIG = "models: {fraud: {policy: {mode: act}}}\n"


@pytest.fixture
def site(kafka: SharedKafka, tmp_path: Path) -> Iterator[KafkaSite]:
    with KafkaSite(tmp_path, kafka.bootstrap, kafka.prefix, CONFIG, sources=2, ledger=1) as made:
        yield made


def forged(model: str, epoch: tuple[int, int, int]) -> bytes:
    return encode_command(
        Command(
            model=model, epoch=epoch, serve="evil", quarantine=(), action="deploy", issued_ts=TS_MS_MAX - 1,
            not_after_ts=TS_MS_MAX, audience="default",
        )
    )  # fmt: skip


async def attack(site: KafkaSite) -> None:
    """Append forged records, and copies of signed ones."""
    async with site.access.producer() as producer:

        async def send(topic: str, key: str, value: bytes) -> None:
            await producer.send_and_wait(site.access.names.of(topic), value, key.encode())

        for model, epoch in (("nobody", (0, INTEGER_MAX, 0)), ("fraud", (INTEGER_MAX, 0, 0))):
            await send("control", model, forged(model, epoch))
        await send("decisions", "fraud", b'{"type":"decision","id":"d","model":"fraud","version":"v","action":"page"}')
        deployment = {"model": "fraud", "version": "evil", "status": "live"}
        await send("deployments", "fraud", json.dumps(deployment).encode())
        act = {"act": "rollback", "model": "fraud", "to": "evil", "reason": "x", "by": "x"}
        await send("operator", "fraud", json.dumps(act).encode())
        # Signed records of others, once more.
        for topic in ("deployments", "operator"):
            for record in await read_all(site.access, topic):
                name = site.access.names.of(topic)
                await producer.send_and_wait(name, record.value, record.key, headers=list(record.headers))


def test_forged_records_of_every_kind_stop_nobody_through_restarts_and_a_change_of_keys(site: KafkaSite) -> None:
    def deploy(version: str) -> None:
        event = json.dumps({"model": "fraud", "version": version, "status": "live"})
        done = site.unship("emit", "deployment", event)
        assert done.returncode == 0, done.stderr

    async def commanded(version: str, incarnation: int = 0) -> None:
        async def newest() -> bool:
            values = [json.loads(record.value) for record in await read_all(site.access, "control") if record.headers]
            return bool(values) and (values[-1]["serve"], values[-1]["epoch"][0]) == (version, incarnation)

        await site.until(newest, f"the command for {version}")

    async def rejected() -> dict[str, int]:
        status = json.loads((await asyncio.to_thread(site.unship, "--json", "status")).stdout)
        assert "halted" not in status, status
        found: dict[str, int] = status["rejected"]
        return found

    async def run() -> None:
        worker: Any = site.start()
        deploy("v1")
        await commanded("v1")
        await attack(site)
        worker.terminate()
        await asyncio.to_thread(worker.wait, 60)
        site.start()
        deploy("v2")
        await commanded("v2")
        hold = await asyncio.to_thread(site.unship, "ctl", "hold", "fraud", "--reason", "drill")
        resume = await asyncio.to_thread(site.unship, "ctl", "resume", "fraud", "--reason", "drill")
        assert (hold.returncode, resume.returncode) == (0, 0), hold.stderr + resume.stderr
        await attack(site)

        async def counted() -> bool:
            found = await rejected()
            return found.get("UNSIGNED_DEPLOYMENT", 0) >= 2 and found.get("ACT_REPEATED", 0) >= 5

        await site.until(counted, "the counts of what is left out")
        # Other keys, while it runs.
        for arguments in (("keys", "revoke", "controller"), ("keys", "new", "--role", "controller")):
            assert site.unship(*arguments).returncode == 0
        renewed = await asyncio.to_thread(site.unship, "ctl", "renew", "fraud", "--reason", "drill")
        assert renewed.returncode == 0, renewed.stderr
        await commanded("v2", incarnation=1)
        assert (await rejected())["FORGED_CONTROL"] >= 1

    asyncio.run(run())
