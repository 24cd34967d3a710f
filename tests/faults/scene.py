"""What every fault meets: three brokers, workers of the monitor, replicas that answer, and a version that decays."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka.errors import KafkaError

from streams.config.file import load
from streams.config.resolved import Config
from streams.kafka.clients import Access, answered, producing, read_all
from streams.topics.partitioner import partition_of
from tests.faults.weak import make_weak
from tests.kafka.cluster import Broker, Cluster
from tests.kafka.site import KafkaSite
from tests.waiting import HANG_S
from unship.codec import encode_line
from unship.errors import UnshipError
from unship.events import Deployment, Feedback, Prediction
from unship.log.link import wall_ms

ROOT = Path(__file__).resolve().parents[2]
#: One model of each ledger partition that has replicas, and one of each that only tells whether the work goes on.
MODELS = ("fraud", "churn")
PROBES = ("probe-a", "probe")
SOURCES, LEDGER = 4, 2
#: In which the monitor has to go on after a fault.
DEADLINE_S = 120.0
PARTITIONS = {"predictions": SOURCES, "feedback": SOURCES, "ledger": LEDGER, "acks": LEDGER, "snapshots": LEDGER}
REPLICAS = ("r1", "r2", "r3")
USUAL, BAD = 0.05, 0.45
#: From the moment when nothing is broken any more.
PROGRESS_S = 30.0
#: Short, because whoever starts reads the last horizon again.
CONFIG = """\
defaults:
  labels: {horizon: 10m, early: 2m, mature_after: 0s}
  policy: {mode: act, deployments: any, cooldown: 0s, max_switches: 1000 per 1d}
fleet: {max_simultaneous: 1000}
"""


Event = Prediction | Feedback | Deployment


class Scene:
    """One cluster with its monitor and its fleet; used in a `with`."""

    def __init__(self, folder: Path, cluster: Cluster, seed: int, bootstrap: str | None = None) -> None:
        self.folder = folder
        self.cluster = cluster
        self.chance = np.random.default_rng(seed)
        self.site = KafkaSite(folder, bootstrap or cluster.bootstrap, "unship.", CONFIG, sources=SOURCES, ledger=LEDGER)
        self.log = f"kafka://{bootstrap or cluster.bootstrap}"
        self.replicas: dict[str, subprocess.Popen[bytes]] = {}
        self.orders: dict[str, Any] = {"rate": 25, "usual": USUAL, "errors": {}, "beside": {}}
        self.decayed: list[tuple[str, str, str]] = []
        self.figures: dict[str, Any] = {}
        self.declared: dict[str, int] = {}
        self.before: dict[str, dict[str, int]] = {}
        self.brokers_lost = False
        self.broken_at_ms = 0
        self._probed = self._said = 0

    @property
    def config(self) -> Config:
        """What the monitor runs under."""
        return load(self.folder / "unship.yaml")

    def broker(self, node: int) -> Broker:
        """Return a broker by its number."""
        return next(broker for broker in self.cluster.brokers if broker.node_id == node)

    def breaks(self) -> None:
        """Take note that the fault begins."""
        self.broken_at_ms = wall_ms()
        self._said = len(self.said())

    def said_since_broken(self) -> list[str]:
        """Return what the workers said since the fault began."""
        return self.said()[self._said :].splitlines()

    def said(self) -> str:
        """Return all that the workers said, one worker after the other was started."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("run-*.log")))

    @property
    def access(self) -> Access:
        """How to reach the log."""
        return self.site.access

    def __enter__(self) -> "Scene":
        """Make the topics and start nothing yet."""
        assert [partition_of(name.encode(), LEDGER) for name in MODELS] == [0, 1]
        assert [partition_of(name.encode(), LEDGER) for name in PROBES] == [0, 1]
        self._order()
        return self

    def __exit__(self, *_: object) -> None:
        """End everything that still runs, however it was left."""
        for process in [*self.replicas.values(), *self.site.workers]:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()

    # Replicas

    def start_replica(self, name: str) -> None:
        """Start a replica, or start it again under the same name."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sdk")])}
        command = [sys.executable, "-m", "tests.faults.replica", name, self.log, str(self.folder), *MODELS]
        with (self.folder / f"{name}.log").open("ab") as output:
            self.replicas[name] = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)

    def _order(self) -> None:
        file = self.folder / "orders.json.new"
        file.write_text(json.dumps(self.orders))
        file.rename(self.folder / "orders.json")

    def decay(self, model: str, version: str, to: str) -> None:
        """Let a version err from now on, for which it has to be taken back."""
        self.orders["errors"][f"{model}/{version}"] = BAD
        self._order()
        self.decayed.append((model, version, to))

    async def deploy(self, model: str, version: str, beside: str | None = None) -> None:
        """Deploy a version, and let another one answer beside it; return when the monitor wants it."""
        events = [Deployment(model=model, version=version, status="live", previous=beside)]
        if beside is not None:
            events.append(Deployment(model=model, version=beside, status="holdback"))
        sent: list[tuple[str, int | None, Event, str]] = [("deployments", None, event, model) for event in events]
        await self._send_surely(sent, time.monotonic() + HANG_S)

        async def wanted() -> Any:
            return (await self.site.models()).get(model, {}).get("desired") == version

        await self.site.until(wanted, f"{model} {version} is desired")
        self.orders["beside"][model] = beside
        self._order()

    # Looking

    async def counted(self, model: str, version: str, least: int, deadline_s: float = HANG_S) -> None:
        """Wait until so many outcomes of a version are counted."""

        async def met() -> Any:
            return (await self.site.outcomes()).get(model, {}).get(version, 0) >= least

        await self.site.until(met, f"{least} outcomes of {model} {version}", deadline_s)

    async def progress(self) -> float:
        """Send an event to each source partition for each ledger partition; return the seconds until all count."""
        begun = time.monotonic()
        self._probed += 1
        ids: dict[int, str] = {}
        for number in range(10_000):
            name = f"probe-{self._probed}-{number}"
            ids.setdefault(partition_of(name.encode(), SOURCES), name)
            if len(ids) == SOURCES:
                break
        events: list[tuple[str, int | None, Event, str]] = [
            (topic, number, event, id_) for number, id_ in ids.items() for topic, event in _probe_events(id_)
        ]
        await self._send_surely(events, begun + PROGRESS_S)
        wanted = SOURCES * self._probed
        while True:
            found = {} if (read := await self._looked()) is None else read
            if all(found.get(probe, {}).get("p1", 0) == wanted for probe in PROBES):
                return time.monotonic() - begun
            if time.monotonic() - begun > PROGRESS_S:
                raise AssertionError(f"no progress within {PROGRESS_S:g} s of healing: {found}\n{self.site.output()}")
            await asyncio.sleep(0.1)

    async def _looked(self) -> dict[str, dict[str, int]] | None:
        with suppress(KafkaError, OSError, UnshipError, TimeoutError):
            return await asyncio.wait_for(self.site.outcomes(), 10.0)
        return None

    async def _send_surely(self, events: Iterable[tuple[str, int | None, Event, str]], deadline: float) -> None:
        """Send events, (topic, partition, event, key), one after the other whatever the brokers do."""
        waiting = list(events)
        while waiting:
            try:
                async with producing(self.access) as producer:
                    while waiting:
                        topic, number, event, key = waiting[0]
                        name, value = self.access.names.of(topic), encode_line(event)
                        await answered(producer.send_and_wait(name, value, key.encode(), partition=number))
                        del waiting[0]
            except (KafkaError, OSError, UnshipError):
                assert time.monotonic() < deadline, "events could not be sent"
                await asyncio.sleep(0.2)

    # The story that every fault interrupts

    async def begin(self, workers: int = 1, weak: Collection[str] = ()) -> None:
        """Have version v1 counted, and v2 live beside it, of both models; `weak` topics can lose what they hold."""
        if weak:
            await make_weak(self.site, PARTITIONS, weak)
        else:
            await asyncio.to_thread(self.site.make_topics)
        for _ in range(workers):
            self.site.start()
        for model in MODELS:
            await self.deploy(model, "v1")
        for name in REPLICAS:
            self.start_replica(name)
        for model in MODELS:
            await self.counted(model, "v1", 700)
            await self.deploy(model, "v2", beside="v1")
        for model in MODELS:
            await self.counted(model, "v2", 150)

    async def rolled_back(self, deadline_s: float = HANG_S) -> None:
        """Wait until what decayed was taken back, and every replica serves what it was taken back to."""

        async def met() -> Any:
            found = [
                (d["model"], d["version"], d["to"]) for d in await self.site.decisions() if d["action"] == "rollback"
            ]
            return sorted(found) == sorted(self.decayed)

        await self.site.until(met, f"rollbacks of {self.decayed}", deadline_s)

        async def obeyed() -> Any:
            newest = {model: to for model, _, to in self.decayed}
            return all(self.serving(name).get(model) == to for name in REPLICAS for model, to in newest.items())

        await self.site.until(obeyed, "all replicas obey", deadline_s)

    def obeyed(self, name: str) -> list[dict[str, Any]]:
        """Return what a replica wrote down."""
        file = self.folder / f"{name}.obeyed"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def waiting(self, name: str) -> int:
        """Return how many events wait in a replica."""
        return int((self.folder / f"{name}.waiting").read_text() or 0)

    def serving(self, name: str) -> dict[str, str]:
        """Return what a replica serves, by model."""
        return {line["model"]: line["version"] for line in self.obeyed(name) if "version" in line}

    async def end_traffic(self) -> None:
        """Let the replicas send the rest and end."""
        for process in self.replicas.values():
            process.send_signal(signal.SIGTERM)
        for name, process in self.replicas.items():
            code = await asyncio.to_thread(process.wait, 120)
            assert code == 0, f"{name} ended with {code}: {(self.folder / f'{name}.log').read_text()[-2_000:]}"

    async def records(self, topic: str) -> list[Any]:
        """Return all records of a topic."""
        return await read_all(self.access, topic)


def _probe_events(id_: str) -> list[tuple[str, Prediction | Feedback]]:
    events: list[tuple[str, Prediction | Feedback]] = [
        ("predictions", Prediction(id=id_, model=model, version="p1", output=1)) for model in PROBES
    ]
    return [*events, ("feedback", Feedback(id=id_, truth=1))]
