"""Clients that are not ours write events and read commands: kcat, and Java's console producer."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.kafka.clients import read_all
from tests.kafka.jars import jars, java
from tests.kafka.shared import SharedKafka, skip_or_fail
from tests.kafka.site import KafkaSite
from tests.waiting import HANG_S

VERIFY = Path(__file__).resolve().parents[3] / "examples" / "verify_command.py"
CONFIG = "models: {fraud: {policy: {mode: act, deployments: any}}}\n"
COUNT = 200


@pytest.fixture
def site(kafka: SharedKafka, tmp_path: Path) -> Iterator[KafkaSite]:
    if shutil.which("kcat") is None:
        skip_or_fail("kcat is not installed; install it with: make tools")
    with KafkaSite(tmp_path, kafka.bootstrap, kafka.prefix, CONFIG) as made:
        made.start()
        yield made


def predictions() -> list[tuple[str, dict[str, Any]]]:
    return [(f"p-{i}", {"id": f"p-{i}", "model": "fraud", "version": "v1", "output": 1}) for i in range(COUNT)]


def truths() -> list[tuple[str, dict[str, Any]]]:
    return [(f"p-{i}", {"id": f"p-{i}", "truth": i % 2}) for i in range(COUNT)]


def kcat(site: KafkaSite, topic: str, events: list[tuple[str, dict[str, Any]]], *options: str) -> None:
    lines = "".join(f"{key}\t{json.dumps(event)}\n" for key, event in events)
    servers, name = ",".join(site.access.options["bootstrap_servers"]), site.access.names.of(topic)
    command = ["kcat", "-P", "-b", servers, "-t", name, "-K", "\t", *options]
    subprocess.run(command, input=lines, text=True, check=True, timeout=HANG_S)


def console_producer(site: KafkaSite, topic: str, events: list[tuple[str, dict[str, Any]]]) -> None:
    lines = "".join(f"{key}\t{json.dumps(event)}\n" for key, event in events)
    servers, name = ",".join(site.access.options["bootstrap_servers"]), site.access.names.of(topic)
    command = [java(), "-cp", f"{jars()}/*", "org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", servers]
    command += ["--topic", name, "--property", "parse.key=true", "--property", "key.separator=\t"]
    subprocess.run(command, input=lines, text=True, check=True, timeout=HANG_S, capture_output=True)


async def counted(site: KafkaSite, expected: dict[str, dict[str, int]]) -> None:
    async def met() -> Any:
        return await site.outcomes() == expected

    await site.until(met, f"status counts {expected}")


def test_events_of_kcat_and_of_java_are_joined_and_the_command_verifies_with_the_script(site: KafkaSite) -> None:
    kcat(site, "deployments", [("fraud", {"model": "fraud", "version": "v1", "status": "live"})])
    kcat(site, "predictions", predictions(), "-X", "partitioner=murmur2_random")
    console_producer(site, "feedback", truths())
    asyncio.run(counted(site, {"fraud": {"v1": COUNT}}))

    async def commanded() -> Any:
        return await read_all(site.access, "control")

    asyncio.run(site.until(commanded, "a command"))
    servers, name = ",".join(site.access.options["bootstrap_servers"]), site.access.names.of("control")
    read = ["kcat", "-C", "-J", "-e", "-q", "-o", "beginning", "-b", servers, "-t", name]
    records = subprocess.run(read, capture_output=True, check=True, timeout=HANG_S).stdout
    trust = site.folder / "unship-keys" / "trust.json"
    verify = [sys.executable, str(VERIFY), str(trust)]
    said = subprocess.run(verify, input=records, capture_output=True, check=True, timeout=HANG_S).stdout.decode()
    assert said.startswith("good: fraud is to serve v1, epoch [0, ")
    forged = records.replace(b'\\"serve\\":\\"v1\\"', b'\\"serve\\":\\"v0\\"')
    assert forged != records
    assert subprocess.run(verify, input=forged, capture_output=True, check=False, timeout=HANG_S).returncode != 0


def test_events_that_plain_kcat_misroutes_are_rejected_with_the_option_that_helps(site: KafkaSite) -> None:
    kcat(site, "predictions", predictions())

    async def rejected() -> Any:
        return await read_all(site.access, "rejected")

    letters = [json.loads(record.value) for record in asyncio.run(site.until(rejected, "a dead letter"))]
    assert {letter["code"] for letter in letters} == {"MISROUTED"}
    assert all("partitioner=murmur2_random" in letter["detail"] for letter in letters)
