"""The monitor as workers on a real broker: killed, frozen, doubled, without their broker; counted by an oracle."""

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.kafka.admin import administering
from streams.kafka.clients import read_all
from tests.kafka.cluster import Cluster
from tests.kafka.shared import SharedKafka
from tests.kafka.site import KafkaSite, expected_outcomes
from tests.waiting import HANG_S
from tests.worlds.generator import generate
from tests.worlds.scenarios import scenario
from unship.commands import Command, decode_command
from unship.keys import load_trust
from unship.signing import COMMAND_TYPE, TrustedKey, verify

#: The world's fleet does not know of the rollback, so v42 answers on, and v41 as a holdback.
ANSWERED_AFTERWARDS = ("STILL_SERVED", "ROLE_MISMATCH", "DUPLICATE_DEPLOYMENT", "NOT_JUDGED")
#: As many lines as make 60,000 predictions.
LINES = 120_000
#: How long the broker is away; every service looks for it a dozen times meanwhile.
OUTAGE_S = 60.0
REASONS_MAX = 6


@pytest.fixture(scope="module")
def world() -> tuple[list[bytes], str]:
    """A silent decay by a generator of its own; outcomes count on arrival, because a broker stamps the real time."""
    built = scenario("decay", seed=1, lines=LINES)
    config = built.config.replace("mature_after: 3600s", "mature_after: 0s").replace(
        "log: embedded:./unship-data\n", ""
    )
    assert "mature_after: 0s" in config
    return list(generate(built.world).lines), config


@pytest.fixture
def site(kafka: SharedKafka, tmp_path: Path, world: tuple[list[bytes], str]) -> Iterator[KafkaSite]:
    with KafkaSite(tmp_path, kafka.bootstrap, kafka.prefix, world[1]) as made:
        yield made


async def ended_well(site: KafkaSite, lines: list[bytes]) -> None:
    """Every outcome was counted once, one rollback was decided, and one command for it was signed."""
    expected = expected_outcomes(lines)

    async def counted() -> Any:
        return await site.outcomes() == expected

    await site.until(counted, f"status counts {expected}")
    rollbacks = [decision for decision in await site.decisions() if decision["action"] == "rollback"]
    assert [(decision["version"], decision["to"]) for decision in rollbacks] == [("v42", "v41")]
    trust = load_trust(site.folder / "unship-keys" / "trust.json")
    epochs: dict[tuple[int, int, int], Command] = {}
    for record in await read_all(site.access, "control"):
        assert isinstance(verify(record.value, record.headers, trust, "controller", COMMAND_TYPE), TrustedKey)
        command = decode_command(record.value)
        assert isinstance(command, Command)
        # A heartbeat says the same under the same epoch.
        known = epochs.setdefault(command.epoch, command)
        assert (command.serve, command.action, command.decision) == (known.serve, known.action, known.decision)
    assert list(epochs) == sorted(epochs)
    newest = epochs[max(epochs)]
    assert (newest.serve, newest.decision) == ("v41", rollbacks[0]["id"])
    assert [command.action for command in epochs.values()].count("rollback") == 1
    await asyncio.to_thread(operators_see_the_same, site, expected, rollbacks[0]["id"])


def operators_see_the_same(site: KafkaSite, expected: dict[str, dict[str, int]], decision: str) -> None:
    """Status, audit, recording, replay and explanation agree with the topics."""
    status = json.loads(site.unship("--json", "status").stdout)
    assert {name: model["outcomes"] for name, model in status["models"].items()} == expected
    assert {reason: count for reason, count in status["rejected"].items() if reason not in ANSWERED_AFTERWARDS} == {}
    log = f"kafka://{site.access.servers}"
    audited = site.unship("audit", log)
    assert audited.returncode == 0, audited.stdout.decode() + audited.stderr.decode()
    assert site.unship("record", "r.ndjson").returncode == 0
    audited = site.unship("audit", "r.ndjson")
    assert audited.returncode == 0, audited.stdout.decode() + audited.stderr.decode()
    replayed = site.unship("replay", "r.ndjson").stdout.splitlines()
    journal = asyncio.run(site.decisions())
    assert sorted(map(json.loads, replayed), key=lambda entry: entry["id"]) == sorted(
        journal, key=lambda entry: entry["id"]
    )
    assert b"TARGET_BETTER" in site.unship("explain", decision).stdout


def test_worker_killed_in_the_middle_counts_everything_once(site: KafkaSite, world: tuple[list[bytes], str]) -> None:
    lines, _ = world
    worker = site.start()

    async def kill() -> None:
        nonlocal worker
        site.kill(worker)
        worker = site.start()

    async def run() -> None:
        await site.play(lines, {LINES // 4: kill, LINES // 2: kill}, pause_s=0.02)
        await ended_well(site, lines)

    asyncio.run(run())


def test_worker_frozen_past_its_session_comes_back_and_harms_nothing(
    site: KafkaSite, world: tuple[list[bytes], str]
) -> None:
    lines, _ = world
    frozen = site.start()

    async def freeze() -> None:
        os.kill(frozen.pid, signal.SIGSTOP)
        site.start()

    async def thaw() -> None:
        # The other worker has taken over once it folds: only then is the first one a zombie.
        before = await site.outcomes()

        async def taken_over() -> Any:
            return await site.outcomes() != before

        await site.until(taken_over, "the second worker counts")
        os.kill(frozen.pid, signal.SIGCONT)

    async def run() -> None:
        await site.play(lines, {LINES // 4: freeze, LINES // 2: thaw}, pause_s=0.02)
        await ended_well(site, lines)

    asyncio.run(run())


def test_two_workers_share_the_work_and_the_second_may_leave(site: KafkaSite, world: tuple[list[bytes], str]) -> None:
    lines, _ = world
    site.start()
    second = site.start()

    async def leave() -> None:
        second.send_signal(signal.SIGTERM)
        second.wait(timeout=HANG_S)

    async def run() -> None:
        await site.play(lines, {LINES // 2: leave}, pause_s=0.02)
        await ended_well(site, lines)

    asyncio.run(run())


def test_broker_gone_for_a_minute_loses_nothing_and_is_said_in_one_line(
    own_kafka: type[Cluster], tmp_path: Path, world: tuple[list[bytes], str]
) -> None:
    lines, config = world
    lines = lines[: LINES // 4]
    with own_kafka(1) as cluster:
        site = KafkaSite(tmp_path, cluster.bootstrap, "unship.", config)
        try:
            site.make_topics()
            worker, leaver = site.start(), site.start()
            asyncio.run(site.play(lines[: LINES // 8], pause_s=0.02))
            # One that has no partitions yet has nothing to miss.
            asyncio.run(site.until(each_reads(site), "each worker reads"))
            cluster.brokers[0].kill()
            back_at = time.monotonic() + OUTAGE_S
            asyncio.run(site.until(each_said_that_broker_is_away(site), "a line of each worker on the outage"))
            ends_without_its_broker(site, leaver)
            asked = site.unship("status")
            assert (asked.returncode, asked.stdout, asked.stderr.count(b"\n")) == (3, b"", 1)
            assert b"no broker answers there" in asked.stderr
            threading.Event().wait(back_at - time.monotonic())
            assert worker.poll() is None
            # One line for each reason of each service that waits, however often they look again.
            assert (tmp_path / "run-0.log").read_text().count("it is retried") <= REASONS_MAX
            cluster.brokers[0].start()
            cluster.wait_ready()
            asyncio.run(site.play(lines[LINES // 8 :], pause_s=0.02))
            expected = expected_outcomes(lines)

            async def counted() -> Any:
                return await site.outcomes() == expected

            asyncio.run(site.until(counted, f"status counts {expected}"))
            assert worker.poll() is None
            assert "Traceback" not in site.output()
        finally:
            site.stop()


def each_reads(site: KafkaSite) -> Any:
    async def reads() -> bool:
        return all("window from" in path.read_text() for path in site.folder.glob("run-*.log"))

    return reads


def each_said_that_broker_is_away(site: KafkaSite) -> Any:
    async def said() -> bool:
        texts = [path.read_text() for path in site.folder.glob("run-*.log")]
        return all("it is retried" in text for text in texts)

    return said


def ends_without_its_broker(site: KafkaSite, leaver: "subprocess.Popen[bytes]") -> None:
    """A worker that is told to end while its broker is away does not wait for it, and says so in one line."""
    leaver.send_signal(signal.SIGTERM)
    assert leaver.wait(timeout=HANG_S) == 3
    lines = (site.folder / f"run-{site.workers.index(leaver)}.log").read_text().splitlines()
    assert lines[-1].startswith("run: ")
    assert "what was not committed is read again" in lines[-1]
    # Whatever goes wrong again and again is said once.
    warnings = [line.partition(" WARNING ")[2] for line in lines if " WARNING " in line]
    assert len(warnings) == len(set(warnings))
    assert not [line for line in lines if "Traceback" in line or " ERROR " in line]


def test_topics_made_again_wait_for_an_operator_and_then_count_once_on_top_of_what_was_counted(
    site: KafkaSite, world: tuple[list[bytes], str]
) -> None:
    lines = world[0][:9_000]
    worker = site.start()

    async def counted(expected: dict[str, dict[str, int]]) -> None:
        async def met() -> Any:
            return await site.outcomes() == expected

        await site.until(met, f"status counts {expected}")

    async def make_again() -> None:
        names = [site.access.names.of(topic) for topic in ("predictions", "feedback")]
        async with administering(site.access) as admin:
            await admin.client.delete_topics(names)

            async def gone() -> Any:
                return not set(names) & set(await admin.client.list_topics())

            await site.until(gone, "the topics are gone")

    first, second, third = lines[:4_000], lines[4_000:8_000], lines[8_000:]
    asyncio.run(site.play(first))
    before = expected_outcomes(first)
    asyncio.run(counted(before))
    # Stopped in order, so that its position is committed.
    worker.send_signal(signal.SIGTERM)
    worker.wait(timeout=HANG_S)
    asyncio.run(make_again())
    site.make_topics()
    asyncio.run(site.play(second, at={}))
    worker = site.start()

    async def refused() -> Any:
        return "topics renew" in site.output()

    asyncio.run(site.until(refused, "a line that says what happened"))
    assert asyncio.run(site.outcomes()) == before
    for partition in range(4):
        assert site.unship("topics", "renew", str(partition)).returncode == 0
    asyncio.run(counted(on_top(before, expected_outcomes(second))))
    # What was begun anew is gone on with like anything else.
    site.kill(worker)
    asyncio.run(site.play(third, at={}))
    site.start()
    asyncio.run(counted(on_top(before, expected_outcomes(second + third))))
    audited = site.unship("audit", f"kafka://{site.access.servers}")
    assert audited.returncode == 0, audited.stdout.decode() + audited.stderr.decode()
    assert b"batches of an earlier incarnation of their source topics" in audited.stdout


def on_top(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Add the counts of each model's versions."""
    return {model: dict(Counter(before.get(model, {})) + Counter(after.get(model, {}))) for model in before | after}
