"""A monitor on a real broker: topics, workers as processes, and the events of a generated world played into it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from aiokafka.errors import KafkaError

from actions.checkpoints import CHECKPOINT_KEY
from streams.fold.status_records import merged
from streams.kafka.clients import Access, read_all
from streams.ledger.entries import read_entry
from streams.ledger.records import Deployed
from streams.topics.partitioner import partition_of
from tests.waiting import HANG_S
from unship.codec import decode_line
from unship.errors import UnshipError
from unship.events import Deployment, Feedback, Prediction
from unship.keys import DEPLOYER_FILE, TRUST_FILE, load_private_key, load_trust, new_nonce
from unship.log.link import wall_ms
from unship.signing import sign_event
from unship.topics import TopicNames

UNSHIP = Path(sys.executable).with_name("unship")
TOPIC_OF = {Prediction: "predictions", Feedback: "feedback", Deployment: "deployments"}


class KafkaSite:
    """One log on a broker, with a folder for the configuration, the keys and the workers' output."""

    def __init__(
        self, folder: Path, bootstrap: str, prefix: str, config: str, *, sources: int = 4, ledger: int = 2
    ) -> None:
        self.folder = folder
        self.access = Access({"bootstrap_servers": bootstrap.split(",")}, TopicNames(prefix))
        self.sources = sources
        self.patience_s = HANG_S
        self.workers: list[subprocess.Popen[bytes]] = []
        topics = f"prefix: {prefix}, partitions: {sources}, ledger_partitions: {ledger}"
        text = f"log: kafka://{bootstrap}\nkafka: {{topics: {{{topics}}}}}\n{config}"
        (folder / "unship.yaml").write_text(text)
        subprocess.run([UNSHIP, "-q", "keys", "new"], cwd=folder, check=True)

    def __enter__(self) -> "KafkaSite":
        """Make all topics."""
        self.make_topics()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers."""
        self.stop()

    def make_topics(self) -> None:
        """Make all topics, as an operator does."""
        made = self.unship("topics", "apply")
        assert made.returncode == 0, made.stdout.decode() + made.stderr.decode()

    def unship(self, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        """Run a command of an operator."""
        return subprocess.run(
            [str(UNSHIP), "-q", *arguments], cwd=self.folder, capture_output=True, timeout=self.patience_s, check=False
        )

    def start(self) -> "subprocess.Popen[bytes]":
        """Start one more worker of the monitor."""
        with (self.folder / f"run-{len(self.workers)}.log").open("wb") as output:
            worker = subprocess.Popen(
                [str(UNSHIP), "-l", "info", "run"], cwd=self.folder, stdout=output, stderr=subprocess.STDOUT
            )
        self.workers.append(worker)
        return worker

    def kill(self, worker: "subprocess.Popen[bytes]") -> None:
        """End a worker as a machine that loses power does."""
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()

    def stop(self) -> None:
        """End all workers that still run, in order."""
        for worker in self.workers:
            if worker.poll() is None:
                os.kill(worker.pid, signal.SIGCONT)
                worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            worker.wait(timeout=HANG_S)

    def output(self) -> str:
        """Return what the workers said, for the message of a failure."""
        return "\n".join(path.read_text()[-3_000:] for path in sorted(self.folder.glob("run-*.log")))

    async def play(
        self, lines: Iterable[bytes], at: dict[int, Callable[[], Awaitable[None]]] | None = None, pause_s: float = 0.0
    ) -> None:
        """Send a recording's events to their topics; before line number n what `at` names happens."""
        keys = self.folder / "unship-keys"
        deployer, audience = load_private_key(keys / DEPLOYER_FILE), load_trust(keys / TRUST_FILE).audience
        async with self.access.producer() as producer:
            futures: list[Any] = []
            for number, line in enumerate(lines):
                if at and number in at:
                    await at[number]()
                event = decode_line(line)
                assert isinstance(event, Prediction | Feedback | Deployment), event
                topic = self.access.names.of(TOPIC_OF[type(event)])
                key = (event.model if isinstance(event, Deployment) else event.id).encode()
                partition = None if isinstance(event, Deployment) else partition_of(key, self.sources)
                headers: tuple[tuple[str, bytes], ...] = ()
                value = line.rstrip(b"\n")
                if isinstance(event, Deployment):
                    value, headers = sign_event(event, deployer, audience, wall_ms(), new_nonce())
                futures.append(await producer.send(topic, value, key, partition=partition, headers=list(headers)))
                if isinstance(event, Deployment):
                    await futures[-1]
                    await self.until(partial(self._copied, event), f"the copy of {event.version}, {event.status}")
                if number % 500 == 499 and pause_s:
                    await asyncio.sleep(pause_s)
            await asyncio.gather(*futures)

    async def _copied(self, event: Deployment) -> bool:
        """Whether the ledger knows of a deployment: what is answered next is then answered after it."""
        records = [read_entry(entry.value).record for entry in await read_all(self.access, "ledger")]
        known = [record.event for record in records if isinstance(record, Deployed)]
        return (event.version, event.status) in [(each.version, each.status) for each in known]

    async def until(
        self, met: Callable[[], Awaitable[Any]], what: str = "the condition", deadline_s: float = HANG_S
    ) -> Any:
        """Wait until something holds, and return it; the workers' output stands in the message if it never does.

        A broker that does not answer just now does not make it hold.
        """
        deadline, trouble = time.monotonic() + deadline_s, ""
        while time.monotonic() < deadline:
            try:
                if found := await met():
                    return found
                trouble = ""
            except (KafkaError, OSError, UnshipError) as error:
                trouble = f" ({error!r})"
            await asyncio.sleep(0.3)
        raise AssertionError(f"{what} was not met within {deadline_s:g} s{trouble}\n{self.output()}")

    async def decisions(self) -> list[dict[str, Any]]:
        """Return the journal, repeats left out as every reader leaves them out."""
        seen: dict[tuple[Any, ...], dict[str, Any]] = {}
        for record in await read_all(self.access, "decisions"):
            if record.key == CHECKPOINT_KEY:
                continue
            decision = json.loads(record.value)
            seen.setdefault((decision["model"], tuple(decision["epoch"])), decision)
        return list(seen.values())

    async def outcomes(self) -> dict[str, dict[str, int]]:
        """Return the counted outcomes of each model and version, as the monitor tells them."""
        return {name: model["outcomes"] for name, model in (await self.models()).items()}

    async def models(self) -> dict[str, dict[str, Any]]:
        """Return the status of each model, as the monitor tells it."""
        newest = {record.key: record.value for record in await read_all(self.access, "snapshots", [0])}
        found: dict[str, dict[str, Any]] = json.loads(msgspec.json.encode(merged(newest).models))
        return found


def expected_outcomes(lines: Iterable[bytes]) -> dict[str, dict[str, int]]:
    """Count by hand what has to be counted: each version's predictions whose id got any truth."""
    answered: dict[str, list[Prediction]] = {}
    told: set[str] = set()
    for line in lines:
        event = decode_line(line)
        if isinstance(event, Prediction):
            answered.setdefault(event.id, []).append(event)
        elif isinstance(event, Feedback):
            told.add(event.id)
    counted: dict[str, Counter[str]] = {}
    for id_ in told:
        for model, version in {(event.model, event.version) for event in answered.get(id_, ())}:
            counted.setdefault(model, Counter())[version] += 1
    return {model: dict(sorted(versions.items())) for model, versions in counted.items()}
