"""The disk of a broker that fills up: what was acknowledged is there when there is room again, and is counted once."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError

from streams.kafka.clients import producing
from tests.kafka.cluster import Cluster
from tests.kafka.inside import Inside, Lives, expected, living, pairs
from tests.kafka.shared import SharedKafka
from tests.waiting import HANG_S, eventually


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give a small disk of its own, which only root may make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_full_disk_of_a_broker_stops_it_and_loses_nothing_that_was_acknowledged(
    own_kafka: type[Cluster], disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.kafka.clients.ANSWER_S", 2.0)
    with own_kafka(settings={"log.dirs": str(disk / "data"), "log.index.size.max.bytes": "65536"}) as cluster:
        broker = cluster.brokers[0]

        async def fill(site: Inside) -> None:
            """Write until the broker gives up, beside a writer of events."""
            async with producing(site.access) as producer:
                name = site.access.names.of("acks")
                while broker.alive:
                    try:
                        await asyncio.wait_for(producer.send_and_wait(name, bytes(500_000), b"x"), 1.0)
                    except (KafkaError, TimeoutError):
                        continue

        async def run() -> None:
            site = Inside(SharedKafka(cluster.bootstrap, "unship."))
            await site.make_topics()
            lives = Lives(site.ingest())
            async with living(lives):
                await site.send(pairs(range(300)))
                await site.until_counted(expected(300))
                await site.send(pairs(range(300, 600)))
                await asyncio.wait_for(fill(site), HANG_S)

                async def noticed() -> bool:
                    return bool(lives.errors)

                await eventually(noticed)
                subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
                broker.start()
                await asyncio.to_thread(cluster.wait_ready)
                assert await site.until_counted(expected(600)) == {}
                await site.send(pairs(range(600, 700)))
                assert await site.until_counted(expected(700)) == {}

        asyncio.run(run())
