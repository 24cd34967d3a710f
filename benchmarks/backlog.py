"""What the benchmarks of a backlog on Kafka share: its events, how the broker gets them, and workers that are watched.

The events are those of a contract-shaped service: eight models with a live version and a holdback, two slices, and a
truth for each prediction some thousand predictions later. The versions of four models decay for a while, one after the
other. The broker stamps them, so that a backlog that is loaded at once is dense in its append times.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from figures import processor_seconds

from streams.topics.partitioner import partitions_of
from tests.kafka.shared import prefix_of
from tests.kafka.site import KafkaSite

MODELS = tuple(f"model-{number}" for number in range(8))
COUNTRIES = ("DE", "US", "FR", "IN", "BR", "JP", "GB", "ES")
DEVICES = ("ios", "web", "tv", "android")
DELAY = 5_000
"""Predictions between one and its truth, give or take a half."""

USUAL_LOSS, DECAYED_LOSS = 0.10, 0.25
BLOCK = 4_000
"""Predictions that are sent together, with the truths that are due then."""

PARTITIONS = 8
BATCH_BYTES = 262_144
PROGRAM_CORE, BROKER_CORE = 0, 1
SAMPLE_S = 0.05
BUSY_SHARE = 0.3
"""A worker that uses less than this share of its core has worked off what there was."""

LOOK_S, LOOK_BUSY_S, QUIET_S = 0.5, 5.0, 2.0
"""How long before the outcomes are looked at, of an idle worker and of a busy one; how long it goes on at the end."""

READY_S = 12.0
"""How long workers need to start and to share out the partitions."""

HANG_S = 900.0

Events = list[tuple[bytes, bytes]]


def blocks(pairs: int, seed: int = 7, block: int = BLOCK) -> Iterator[tuple[Events, Events]]:
    """Yield (id, value) of predictions and of feedback in the order of their time, a block of predictions at a time."""
    draw = random.Random(seed)
    due: dict[int, Events] = {}
    for begin in range(0, pairs + 2 * DELAY, block):
        predictions: Events = []
        feedback: Events = []
        for i in range(begin, begin + block):
            if i < pairs:
                key, prediction, truth = _pair(draw, i / pairs)
                predictions.append((key, prediction))
                due.setdefault(i + DELAY // 2 + draw.randrange(DELAY), []).append((key, truth))
            feedback += due.pop(i, ())
        yield predictions, feedback


def _pair(draw: random.Random, share: float) -> tuple[bytes, bytes, bytes]:
    """Make a prediction and its feedback at a share of the whole."""
    key = f"{draw.getrandbits(128):032x}"
    model, live, answer = draw.randrange(len(MODELS)), draw.random() < 0.5, draw.randrange(2)
    decays = live and model < 4 and (model + 1) / 6 <= share < (model + 2.5) / 6
    truth = answer ^ (draw.random() < (DECAYED_LOSS if decays else USUAL_LOSS))
    version, role = ("v1", "live") if live else ("v2", "holdback")
    slices = f'{{"country":"{draw.choice(COUNTRIES)}","device":"{draw.choice(DEVICES)}"}}'
    prediction = (
        f'{{"id":"{key}","model":"{MODELS[model]}","version":"{version}","output":{answer},'
        f'"score":{draw.random():.3f},"role":"{role}","slices":{slices}}}'
    )
    return key.encode(), prediction.encode(), f'{{"id":"{key}","truth":{truth}}}'.encode()


class Loader:
    """Sends events to a site in whole batches; use it as an asynchronous context."""

    def __init__(self, site: KafkaSite) -> None:
        self._site = site
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Loader:
        """Connect."""
        self._producer = AIOKafkaProducer(
            **self._site.access.options, acks="all", enable_idempotence=True, max_batch_size=BATCH_BYTES
        )
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        assert self._producer is not None
        await self._producer.stop()

    async def announce(self) -> None:
        """Send which version of each model is live."""
        assert self._producer is not None
        topic = self._site.access.names.of("deployments")
        for model in MODELS:
            value = json.dumps({"model": model, "version": "v1", "status": "live"}).encode()
            await self._producer.send_and_wait(topic, value, model.encode())

    async def send(self, predictions: Events, feedback: Events) -> None:
        """Send a block, and wait until the broker has it."""
        sent = [*await self._sending("predictions", predictions), *await self._sending("feedback", feedback)]
        await asyncio.gather(*sent)

    async def _sending(self, topic: str, events: Events) -> list[asyncio.Future[object]]:
        producer, name = self._producer, self._site.access.names.of(topic)
        assert producer is not None
        by_partition: list[Events] = [[] for _ in range(PARTITIONS)]
        numbers = partitions_of([key for key, _ in events], PARTITIONS) if events else ()
        for event, number in zip(events, numbers, strict=True):
            by_partition[number].append(event)
        sent = []
        for number, part in enumerate(by_partition):
            batch = producer.create_batch()
            for key, value in part:
                if batch.append(key=key, value=value, timestamp=None) is None:
                    sent.append(await producer.send_batch(batch, name, partition=number))
                    batch = producer.create_batch()
                    batch.append(key=key, value=value, timestamp=None)
            if batch.record_count():
                sent.append(await producer.send_batch(batch, name, partition=number))
        return sent


async def load(site: KafkaSite, pairs: int, seed: int = 7) -> None:
    """Send a whole backlog as fast as the broker takes it."""
    async with Loader(site) as loader:
        await loader.announce()
        for predictions, feedback in blocks(pairs, seed):
            await loader.send(predictions, feedback)


def new_site(folder: Path, bootstrap: str, name: str, mature_after: str, *, slices: bool = True) -> KafkaSite:
    """Return a site of its own topics on a broker, which are made."""
    folder.mkdir(parents=True)
    model = {"losses": ["zero_one"], "labels": {"horizon": "1h", "mature_after": mature_after}}
    if slices:
        model["slices"] = {"by": ["country", "device"]}
    config = f"defaults: {json.dumps(model)}\n"
    site = KafkaSite(folder, bootstrap, prefix_of(name), config, sources=PARTITIONS, ledger=PARTITIONS)
    site.make_topics()
    return site


def pin(pid: int, core: int) -> None:
    """Let all threads of a process, and those that they begin, run on one core only."""
    if (os.cpu_count() or 1) > core:
        for thread in os.listdir(f"/proc/{pid}/task"):
            os.sched_setaffinity(int(thread), {core})


class Worked(NamedTuple):
    """What workers used for a backlog: `samples` are (seconds, processor seconds of all), up to when it had matured.

    `counted_s` is when they were busy last before every outcome was counted.
    """

    samples: list[tuple[float, float]]
    counted_s: float
    memory_mb: int

    @property
    def processor_s(self) -> float:
        """Return the processor time of the whole life."""
        return self.samples[-1][1]

    def took_s(self, startup_s: float) -> float:
        """Return how long they took after a start that takes so much processor time."""
        begin = next((at for at, used in self.samples if used >= startup_s), 0.0)
        return max(self.counted_s - begin, SAMPLE_S)


def watch(
    site: KafkaSite, workers: int, expected: int, mature_s: float, when_ready: Callable[[], None] | None = None
) -> Worked:
    """Run workers, each on a core, until they have counted so many outcomes and judged what matures; end them.

    With `when_ready`, what comes before it is called, once they have shared out the partitions, is left out.
    """
    started = [site.start() for _ in range(workers)]
    for core, worker in enumerate(started):
        pin(worker.pid, core)
    before = 0.0
    if when_ready is not None:
        time.sleep(READY_S)
        before = sum(processor_seconds(worker.pid) for worker in started)
        when_ready()
    began, samples = time.monotonic(), [(0.0, 0.0)]
    busy_s, looked_s, counted_s = 0.0, 0.0, -1.0
    try:
        while counted_s < 0 or samples[-1][0] - counted_s < mature_s + QUIET_S:
            time.sleep(SAMPLE_S)
            at, used = time.monotonic() - began, sum(processor_seconds(worker.pid) for worker in started) - before
            if used - samples[-1][1] > BUSY_SHARE * (at - samples[-1][0]):
                busy_s = at
            samples.append((at, used))
            # A worker that is never idle is asked less often, because answering takes time too.
            if counted_s < 0 and at - looked_s > (LOOK_S if at - busy_s > LOOK_S else LOOK_BUSY_S):
                looked_s = at
                counted_s = busy_s if outcomes_of(site) >= expected else -1.0
            if at > HANG_S:
                raise SystemExit(f"{outcomes_of(site)} of {expected} outcomes within {HANG_S:g} s\n{site.output()}")
        memory = max(peak_mb(worker.pid) for worker in started)
    finally:
        site.stop()
    return Worked(samples, counted_s, memory)


def outcomes_of(site: KafkaSite) -> int:
    """Return how many outcomes the status has."""
    models = asyncio.run(site.models())
    return sum(sum(model["outcomes"].values()) for model in models.values())


def peak_mb(pid: int) -> int:
    """Return the largest memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) // 1_024
