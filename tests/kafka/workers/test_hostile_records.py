"""Whatever was appended to the topics that others write, a worker on Kafka goes on: then, and after a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError
from hypothesis import Phase, given, seed, settings

from tests.hostile.records import FLOODS, hostile_records
from tests.kafka.shared import SharedKafka
from tests.kafka.site import KafkaSite
from unship.log.link import Message

CONFIG = """
models:
  honest: {}
  fraud: {policy: {mode: act}, slices: {by: [m, fraud]}}
  m: {labels: {mature_after: 2s, horizon: 60s, early: 5s}, losses: [zero_one, brier]}
"""


@pytest.fixture
def site(kafka: SharedKafka, tmp_path: Path) -> Iterator[KafkaSite]:
    with KafkaSite(tmp_path, kafka.bootstrap, kafka.prefix, CONFIG, sources=2, ledger=1) as made:
        yield made


def examples(count: int) -> list[tuple[str, Message]]:
    """Return hostile records, the same ones in every run."""
    found: list[tuple[str, Message]] = []

    @seed(13)
    @settings(max_examples=count, database=None, phases=[Phase.generate])
    @given(hostile_records())
    def collect(record: tuple[str, Message]) -> None:
        found.append(record)

    collect()
    return found


def test_honest_outcomes_are_counted_after_any_records_and_after_a_restart(site: KafkaSite) -> None:
    async def append(records: list[tuple[str, Message]]) -> None:
        async with site.access.producer() as producer:
            for topic, record in records:
                if record.key is None and (record.value is None or topic in ("acks", "control")):
                    # Neither a producer nor a compacted topic takes it.
                    continue
                try:
                    await producer.send(
                        site.access.names.of(topic), record.value, record.key, headers=list(record.headers)
                    )
                except KafkaError:
                    # Too large for this producer.
                    continue
            await producer.flush()

    async def counted(number: int) -> None:
        """Let an honest prediction be answered, and wait until all so far are counted."""
        event = {"id": f"honest-{number}", "model": "honest", "version": "v1", "output": 1}
        for topic, value in (("predictions", event), ("feedback", {"id": event["id"], "truth": 1})):
            await append([(topic, Message(json.dumps(value).encode(), f"honest-{number}".encode()))])
        await site.until(lambda: met(number), f"{number} honest outcomes")

    async def met(number: int) -> bool:
        done = await asyncio.to_thread(site.unship, "--json", "status")
        models = json.loads(done.stdout)["models"] if done.stdout else {}
        return bool(models.get("honest", {}).get("outcomes", {}).get("v1") == number)

    async def run() -> None:
        worker = site.start()
        await counted(1)
        await append(examples(300))
        await counted(2)
        await append([*chain.from_iterable(flood(model, 600, 0) for flood in FLOODS for model in ("fraud", "m"))])
        await counted(3)
        assert worker.poll() is None, site.output()
        site.kill(worker)
        site.start()
        await counted(4)

    asyncio.run(run())
