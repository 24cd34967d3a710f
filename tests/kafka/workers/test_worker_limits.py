"""A worker that is told to end twice, or gets no more memory: whatever it does then, the next one counts exactly."""

import asyncio
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kafka.inside import Inside, expected, pairs
from tests.kafka.shared import SharedKafka
from tests.kafka.site import KafkaSite


@pytest.fixture
def site(kafka: SharedKafka, tmp_path: Path) -> Iterator[KafkaSite]:
    with KafkaSite(tmp_path, kafka.bootstrap, kafka.prefix, "", sources=2, ledger=1) as made:
        yield made


def told_twice(worker: "subprocess.Popen[bytes]") -> None:
    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGTERM)


def out_of_memory(worker: "subprocess.Popen[bytes]") -> None:
    """Give it nothing beyond what it has now."""
    pages = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (limit, limit))


def test_worker_that_is_told_to_end_twice_or_runs_out_of_memory_is_replaced_and_everything_counts_once(
    site: KafkaSite, kafka: SharedKafka
) -> None:
    async def run() -> None:
        inside = Inside(kafka, sources=2)
        count = 0

        async def more(until_dead: "subprocess.Popen[bytes] | None") -> None:
            """Send events, until a worker has died of them or, without one, once."""
            nonlocal count
            step = 400 if until_dead is None else 2_000
            while True:
                await inside.send(pairs(range(count, count + step)))
                count += step
                if until_dead is None or until_dead.poll() is not None or count > 60_000:
                    return

        worker = site.start()
        await more(None)
        await inside.until_counted(expected(count))
        await more(None)
        told_twice(worker)
        await asyncio.to_thread(worker.wait, 60)
        worker = site.start()
        await inside.until_counted(expected(count))
        out_of_memory(worker)
        await more(worker)
        assert worker.poll() not in (None, 0), site.output()
        site.start()
        assert await inside.until_counted(expected(count)) == {}

    asyncio.run(run())
