"""Measure on a real Kafka how soon feedback becomes a command, and a command what every replica serves.

Workers of the monitor watch many models, each with a live version and a holdback, whose live version decays once,
one model after the other. Traffic obeys: once a model's command is visible, its old version answers alone.

(a) *Feedback to command*: from the moment the newest feedback of the model in the deciding ledger record was handed to
its producer, until a read_committed consumer has the command on `control`. The journal identifies that feedback: a
decision names the ledger record, and that record the offsets of what it joined. The broker's append times show where
the time goes in between.

(b) *Command to switch*: from the command visible there until `Fleet.current` of the slowest of three replicas, each in
a process of its own, is another one.

The floor is a record that the same broker takes and gives back in the same run, to the same kind of consumer, plainly
and in a transaction.

Run: python benchmarks/kafka_latency.py [--quick] [--rate 2000] [--models 200] [--seconds 60] [--workers 2] [--fleets 5]
[--expect-ms 250 --expect-switch-ms 100] [--json FILE] [--plot FILE.svg] [--markdown]. KAFKA_BOOTSTRAP_SERVERS names a
broker; without it one is started (Java needed). Exit code 1 when a p99 passes what is expected of it, or a model was
never decided.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from figures import QUANTILES, Bars, Measured, Table, options_of, processor_seconds, publish, quantiles
from kafka_machine import broker

from streams.kafka.admin import administering
from streams.kafka.clients import partition_count, read_all
from streams.ledger.entries import read_entry
from streams.ledger.records import Batch
from streams.topics.partitioner import partition_of, partitions_of
from tests.kafka.shared import prefix_of
from tests.kafka.site import KafkaSite
from unship import Fleet
from unship.commands import Command, decode_command
from unship.events import Deployment, Feedback, Prediction, Reference, Role

OLD, NEW = "v1", "v2"
LIVE: Role = "live"
HOLDBACK: Role = "holdback"
HOLDBACK_SHARE = 0.3
USUAL_LOSS, DECAYED_LOSS = 0.05, 0.9
DELAY_S = (0.3, 1.5)
TICK_S = 0.005
PROBE_S = 0.1
REPLICAS = 3
WARM_S = 5.0
TAIL_S = 60.0
SOURCES, LEDGER = 4, 2
CONFIG = """\
fleet: {max_simultaneous: 1000}
defaults:
  labels: {horizon: 1h, mature_after: 0s, early: 1m}
  losses: [zero_one]
  one_false_alarm_per: 1000
  policy: {mode: act, deployments: any}
"""
encode = msgspec.json.Encoder().encode


class World:
    """The traffic of all models; what each of them serves, and when it decays."""

    def __init__(self, models: Sequence[str], decays_at: dict[str, float], seed: int) -> None:
        self.models = models
        self.decays_at = decays_at
        self.obeyed: set[str] = set()
        self._random = random.Random(seed)
        self._made = 0

    def predict(self, now: float) -> tuple[Prediction, Feedback, float]:
        """Make the next prediction, its feedback, and when that comes."""
        chance = self._random.random
        model = self.models[self._made % len(self.models)]
        version, role = NEW, LIVE
        if model in self.obeyed:
            version = OLD
        elif chance() < HOLDBACK_SHARE:
            version, role = OLD, HOLDBACK
        loss = DECAYED_LOSS if version == NEW and now >= self.decays_at[model] else USUAL_LOSS
        self._made += 1
        id_ = f"{model}-{self._made}"
        answer = int(chance() < 0.5)
        truth = 1 - answer if chance() < loss else answer
        prediction = Prediction(id=id_, model=model, version=version, output=answer, role=role)
        return prediction, Feedback(id=id_, truth=truth), now + self._random.uniform(*DELAY_S)


class Bench:
    """One run: everything that is sent and seen, with the moments of both."""

    def __init__(self, site: KafkaSite, models: Sequence[str], rate: int, seconds: float, seed: int) -> None:
        self.site = site
        self.models = models
        self.rate = rate
        self.seconds = seconds
        self.seed = seed
        #: (partition, offset) of a feedback record -> when it was handed to the producer, and its append time.
        self.told: dict[tuple[int, int], tuple[float, float]] = {}
        self.visible: dict[str, float] = {}
        self.commanded_first: set[str] = set()
        self.command_appended: dict[str, float] = {}
        self.floors: dict[str, list[float]] = {"plain": [], "in a transaction": []}
        self.sent = 0
        self.sending_s = 0.0
        self._stop = asyncio.Event()
        self._watching: list[asyncio.Future[None]] = []

    async def run(self) -> None:
        """Announce all versions, send the traffic, and wait until every model was commanded back."""
        began_at = time.time() + WARM_S
        self.world = World(self.models, dict.fromkeys(self.models, 1e18), self.seed)
        self._watching = [
            asyncio.ensure_future(self._watch_control()),
            *(asyncio.ensure_future(self._probe(name)) for name in self.floors),
        ]
        async with self.site.access.producer() as producer:
            await self._announce(producer)
            await self._until(lambda: len(self.commanded_first) == len(self.models), 120.0, "the first commands")
            began_at = time.time() + WARM_S
            for i, model in enumerate(self.models):
                self.world.decays_at[model] = began_at + self.seconds * i / len(self.models)
            await self._send(producer, began_at + self.seconds)
        self._stop.set()
        await asyncio.gather(*self._watching)

    async def _announce(self, producer: AIOKafkaProducer) -> None:
        topic = self.site.access.names.of("deployments")
        reference = {"zero_one": Reference(USUAL_LOSS, 50_000)}
        futures = []
        for model in self.models:
            for event in (
                Deployment(model=model, version=OLD, status="holdback"),
                Deployment(model=model, version=NEW, status="live", reference=reference),
            ):
                futures.append(await producer.send(topic, encode(event), model.encode()))
        await asyncio.gather(*futures)

    async def _send(self, producer: AIOKafkaProducer, ends_at: float) -> None:
        """Send at the rate until every model was commanded back, at most `TAIL_S` longer than asked for."""
        started, made = time.time(), 0
        due: list[tuple[float, int, Feedback]] = []
        while (now := time.time()) < ends_at or (len(self.visible) < len(self.models) and now < ends_at + TAIL_S):
            predictions: list[Prediction] = []
            while made < (now - started) * self.rate / 2:
                prediction, feedback, at = self.world.predict(now)
                predictions.append(prediction)
                made += 1
                heapq.heappush(due, (at, made, feedback))
            feedbacks: list[Feedback] = []
            while due and due[0][0] <= now:
                feedbacks.append(heapq.heappop(due)[2])
            await self._send_all(producer, "predictions", predictions)
            await self._send_all(producer, "feedback", feedbacks)
            await asyncio.sleep(TICK_S)
        self.sending_s = time.time() - started

    async def _send_all(
        self, producer: AIOKafkaProducer, topic: str, events: Sequence[Prediction] | Sequence[Feedback]
    ) -> None:
        if not events:
            return
        keys = [event.id.encode() for event in events]
        name = self.site.access.names.of(topic)
        for event, key, partition in zip(events, keys, partitions_of(keys, SOURCES).tolist(), strict=True):
            handed = time.time()
            future = await producer.send(name, encode(event), key, partition=partition)
            if topic == "feedback":
                future.add_done_callback(self._acknowledged(handed))
        self.sent += len(events)

    def _acknowledged(self, handed: float) -> Callable[[Any], None]:
        def done(future: Any) -> None:
            record = future.result()
            self.told[record.partition, record.offset] = (handed, record.timestamp / 1_000)

        return done

    async def _watch_control(self) -> None:
        """Take note of when a consumer has a command; the generator obeys it from then on."""
        consumer = self.site.access.reader()
        await consumer.start()
        try:
            await self._assign(consumer, self.site.access.names.of("control"))
            while not self._stop.is_set():
                fetched = await consumer.getmany(timeout_ms=100)
                now = time.time()
                for records in fetched.values():
                    for record in records:
                        command = decode_command(record.value)
                        if isinstance(command, Command):
                            self._commanded(command, now, record.timestamp / 1_000)
        finally:
            await consumer.stop()

    def _commanded(self, command: Command, now: float, appended: float) -> None:
        if command.serve == NEW:
            self.commanded_first.add(command.model)
        elif command.model not in self.visible and command.model in self.commanded_first:
            self.visible[command.model] = now
            self.command_appended[command.model] = appended
            self.world.obeyed.add(command.model)

    async def _probe(self, name: str) -> None:
        """Send one record after the other to a topic of its own, and wait for each at a consumer."""
        topic = probe_topic(self.site, name)
        transactional = None if name == "plain" else f"{self.site.access.names.prefix}probe"
        consumer = self.site.access.reader()
        await consumer.start()
        try:
            await self._assign(consumer, topic)
            async with self.site.access.producer(transactional) as producer:
                while not self._stop.is_set():
                    handed = time.time()
                    if transactional:
                        async with producer.transaction():
                            await producer.send(topic, b"probe")
                    else:
                        await producer.send(topic, b"probe")
                    while not await consumer.getmany(timeout_ms=1_000):
                        pass
                    self.floors[name].append(1_000 * (time.time() - handed))
                    await asyncio.sleep(PROBE_S)
        finally:
            await consumer.stop()

    async def _assign(self, consumer: Any, topic: str) -> None:
        places = [TopicPartition(topic, number) for number in range(await partition_count(consumer, topic))]
        consumer.assign(places)
        for place in places:
            consumer.seek(place, 0)

    async def _until(self, met: Callable[[], bool], limit_s: float, what: str) -> None:
        deadline = time.monotonic() + limit_s
        while not met():
            for task in self._watching:
                if task.done():
                    task.result()
            if time.monotonic() > deadline:
                raise SystemExit(f"{what} did not come within {limit_s:g} s\n{self.site.output()}")
            await asyncio.sleep(0.05)

    async def steps(self) -> dict[str, list[float]]:
        """Return the milliseconds of each step between feedback and command, one value for each model."""
        ledger = {(r.partition, r.offset): r for r in await read_all(self.site.access, "ledger")}
        found: dict[str, list[float]] = {name: [] for name in STEPS}
        for journalled in await read_all(self.site.access, "decisions"):
            decision = json.loads(journalled.value)
            model = decision["model"]
            if decision["action"] != "rollback" or model not in self.visible:
                continue
            number, offset = partition_of(model.encode(), LEDGER), decision["provenance"]["ledger"][1]
            while (newest := newest_feedback(ledger[number, offset].value, model)) is None:
                # A decision that waited for what was decided of other models rests on an earlier record of its own.
                offset -= 1
            entry = ledger[number, offset]
            handed, appended = self.told[newest]
            moments = (handed, appended, entry.timestamp / 1_000, journalled.timestamp / 1_000,
                       self.command_appended[model], self.visible[model])  # fmt: skip
            for name, begin, end in zip(STEPS[1:], moments, moments[1:], strict=False):
                found[name].append(1_000 * (end - begin))
            found[STEPS[0]].append(1_000 * (moments[-1] - moments[0]))
        found["ledger records"] = [float(len(ledger))]
        return found


def newest_feedback(value: bytes, model: str) -> tuple[int, int] | None:
    """Return partition and offset of the newest feedback that a ledger record has of a model, None if it has none."""
    record = read_entry(value).record
    if isinstance(record, Batch):
        for part in record.parts:
            if part.model == model and part.outcomes.labelled_by.size:
                return record.partition, int(part.outcomes.labelled_by.max())
    return None


STEPS = (
    "**feedback handed over to command visible**",
    "to the feedback's append (producer, broker)",
    "to the ledger record's append (ingest, join)",
    "to the journal's append (fold, policy)",
    "to the command's append (transaction)",
    "to the consumer (commit, fetch)",
)


def probe_topic(site: KafkaSite, name: str) -> str:
    """Return the topic of one of the floors."""
    return f"{site.access.names.prefix}probe-{name.replace(' ', '-')}"


async def make_probe_topics(site: KafkaSite) -> None:
    """Make the topics of the floors."""
    async with administering(site.access) as admin:
        await admin.client.create_topics(
            [NewTopic(probe_topic(site, name), 1, 1) for name in ("plain", "in a transaction")]
        )


# Replicas


def replica_process(log: str, trust: str, number: int, models: Sequence[str]) -> int:
    """Follow some models until standard input ends; write when each of them switched."""
    fleets = [
        Fleet(model, NEW, on_version=lambda version: None, log=log, trust=trust, replica=f"{model}-{number}",
              state=f"replica-{number}")
        for model in models
    ]  # fmt: skip
    lines: list[str] = []

    def wait(fleet: Fleet) -> None:
        # Threads that wait for the swap itself: a loop that looks would add the time between two looks.
        if fleet.wait_for(OLD, 3_600.0):
            lines.append(json.dumps([fleet.model, time.time()]))

    threads = [threading.Thread(target=wait, args=(fleet,), daemon=True) for fleet in fleets]
    for fleet, thread in zip(fleets, threads, strict=True):
        fleet.start()
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    print("\n".join(lines), flush=True)
    return 0


@contextmanager
def replicas(site: KafkaSite, models: Sequence[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Start the processes of the replicas, and wait until they follow."""
    log = f"kafka://{site.access.servers}"
    trust = str(site.folder / "unship-keys" / "trust.json")
    environment = {**os.environ, "UNSHIP_TOPIC_PREFIX": site.access.names.prefix}
    children = []
    try:
        for number in range(REPLICAS if models else 0):
            command = [sys.executable, __file__, "--replica-child", log, trust, str(number), *models]
            children.append(
                subprocess.Popen(
                    command, cwd=site.folder, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
            )
        for child in children:
            assert child.stdout is not None
            if child.stdout.readline().strip() != "ready":
                raise SystemExit("a replica did not start")
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()


def switched(children: Sequence[subprocess.Popen[str]]) -> dict[str, list[float]]:
    """End the replicas, and return when each of them switched, by model."""
    found: dict[str, list[float]] = {}
    for child in children:
        for line in child.communicate("")[0].splitlines():
            with suppress(ValueError):
                model, at = json.loads(line)
                found.setdefault(model, []).append(at)
    return found


# Figures


def measure(options: argparse.Namespace, bootstrap: str, folder: Path) -> dict[str, Any]:
    """Run once and return all figures."""
    models = [f"m{i:03}" for i in range(options.models)]
    followed = models[:: max(1, len(models) // options.fleets)][: options.fleets] if options.fleets else []
    site = KafkaSite(folder, bootstrap, prefix_of("latency"), CONFIG, sources=SOURCES, ledger=LEDGER)
    site.make_topics()
    asyncio.run(make_probe_topics(site))
    workers = [site.start() for _ in range(options.workers)]
    load_before = os.getloadavg()[0]
    try:
        with replicas(site, followed) as children:
            bench = Bench(site, models, options.rate, options.seconds, options.seed)
            used = sum(processor_seconds(worker.pid) for worker in workers)
            began = time.time()
            asyncio.run(bench.run())
            used, took = sum(processor_seconds(worker.pid) for worker in workers) - used, time.time() - began
            at = switched(children)
    finally:
        site.stop()
    steps = asyncio.run(bench.steps())
    spread = [
        1_000 * (max(moments) - bench.visible[model])
        for model, moments in at.items()
        if model in bench.visible and len(moments) == REPLICAS
    ]
    return {
        "load": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "events_per_s": round(bench.sent / bench.sending_s),
        "asked_per_s": options.rate,
        "models": len(models),
        "decided": len(bench.visible),
        "workers": options.workers,
        "worker_cores": round(used / took, 2),
        "ledger_records_per_s": round(steps.pop("ledger records")[0] / took),
        "steps_ms": {name: quantiles(values) for name, values in steps.items()},
        "switch_ms": quantiles(spread),
        "switch_models": [len(spread), len(followed)],
        "floor_ms": {name: quantiles(values) for name, values in bench.floors.items()},
    }


def measured(figures: dict[str, Any]) -> Measured:
    """Return everything that is published."""
    floor = figures["floor_ms"]["in a transaction"]
    rows = [(name, values) for name, values in figures["steps_ms"].items()]
    rows.append((f"**command visible to all {REPLICAS} replicas switched**", figures["switch_ms"]))
    rows += [(f"floor: a record there and back, {name}", values) for name, values in figures["floor_ms"].items()]
    cells = [[name, *(f"{values[q]:.0f}" for q in QUANTILES)] for name, values in rows]
    whole = figures["steps_ms"][STEPS[0]]
    text = "\n".join(
        [
            f"{figures['events_per_s']:,} events/s of {figures['asked_per_s']:,} asked for; {figures['decided']} of "
            f"{figures['models']} models commanded back; {figures['switch_models'][0]} of "
            f"{figures['switch_models'][1]} followed models switched everywhere; {figures['workers']} workers used "
            f"{figures['worker_cores']:.2f} cores and wrote {figures['ledger_records_per_s']:,} ledger records/s.",
            f"Feedback to command is {whole['p50'] / max(floor['p50'], 0.1):.1f} times the floor in a transaction at "
            f"the median, {whole['p99'] / max(floor['p99'], 0.1):.1f} times at p99.",
        ]
    )
    names = [name.strip("*") for name, _ in rows]
    plot = Bars("From feedback to command", "ms", names, {q: [values[q] for _, values in rows] for q in ("p50", "p99")})
    return Measured("kafka-latency", figures, [Table(["ms", *QUANTILES], cells)], plot, text)


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = options_of("Measure the way from feedback to replicas on a real Kafka.")
    parser.add_argument("--rate", type=int, default=2_000, help="events/s, predictions and feedback together")
    parser.add_argument("--models", type=int, help="default 200; --quick 20")
    parser.add_argument("--seconds", type=float, help="how long the decays are spread over (default 60; --quick 10)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the monitor that share the work")
    parser.add_argument("--fleets", type=int, default=5, help="models that replicas follow")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--expect-ms", type=float, help="p99 of feedback to command")
    parser.add_argument("--expect-switch-ms", type=float, help="p99 of command to switch")
    parser.add_argument("--keep", type=Path, help="folder for the worker's output, kept")
    parser.add_argument("--replica-child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.models = options.models or (20 if options.quick else 200)
    options.seconds = options.seconds or (10.0 if options.quick else 60.0)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return an exit code: 0 if the expected times were kept."""
    options = arguments_of(arguments)
    if options.replica_child:
        log, trust, number, *models = options.replica_child
        return replica_process(log, trust, int(number), models)
    with TemporaryDirectory() as folder, broker() as bootstrap:
        where = Path(folder) if options.keep is None else options.keep
        where.mkdir(exist_ok=True)
        figures = measure(options, bootstrap, where)
    publish(measured(figures), options)
    missed = figures["decided"] < figures["models"]
    missed |= options.expect_ms is not None and figures["steps_ms"][STEPS[0]]["p99"] > options.expect_ms
    missed |= options.expect_switch_ms is not None and figures["switch_ms"]["p99"] > options.expect_switch_ms
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
