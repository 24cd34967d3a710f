"""The services of a worker on a real broker, run inside of the test: a life begins and is cut off in milliseconds.

What was counted is read off the ledger, by folding it as a controller does.
"""

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from streams.config.parse import parse
from streams.config.resolved import Config
from streams.fold.fold import Fold
from streams.kafka.admin import connected
from streams.kafka.clients import Access, administering, read_all
from streams.kafka.ingest_service import Ingest
from streams.ledger.entries import read_entry
from streams.ledger.records import Record
from streams.topics.partitioner import partition_of
from streams.topics.plan import plan, specs
from tests.kafka.shared import VARIABLE, SharedKafka
from tests.waiting import HANG_S, eventually
from unship.errors import UnshipError
from unship.log.link import wall_ms

log = logging.getLogger("tests")
#: How long a member may at least be silent. A broker that was given may ask for more than those of the tests.
SHORT_SESSION_MS = 6_000 if os.environ.get(VARIABLE) else 1_500
MODELS = ("a", "b", "c", "d")
Events = Iterable[tuple[str, str, dict[str, Any]]]


class Inside:
    """A log on the shared broker with a configuration, and what is known of it."""

    def __init__(
        self, kafka: SharedKafka, config: str = "", *, sources: int = 1, ledger: int = 1, session_ms: int = 6_000
    ) -> None:
        topics = f"{{prefix: {kafka.prefix}, partitions: {sources}, ledger_partitions: {ledger}, replication: 1}}"
        self.config: Config = parse(f"log: {kafka.log}\nkafka: {{topics: {topics}}}\n{config}")
        self.access = Access({"bootstrap_servers": kafka.bootstrap.split(",")}, kafka.names, session_ms)
        self.sources, self.ledger = sources, ledger
        self._folds = [self.new_fold() for _ in range(ledger)]

    async def make_topics(self) -> None:
        """Make all topics as an operator does."""
        wanted = specs(self.config)
        async with connected(self.access.options) as admin:
            await admin.apply(plan(wanted, await admin.facts([spec.name for spec in wanted]), 1, None))

    async def set_topic(self, topic: str, **settings: str) -> None:
        """Give a topic these settings of its own, and no others."""
        configs = {name.replace("_", "."): value for name, value in settings.items()}
        async with administering(self.access) as admin:
            await admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, self.access.names.of(topic), configs=configs)]
            )

    def ingest(self, kind: type[Ingest] = Ingest, group: str = "unship.ingest", **settings: Any) -> Ingest:
        """Return an ingest service that is not running yet."""
        settings = dict[str, Any](tick_s=0.2, access=self.access, clock_ms=wall_ms) | settings
        return kind(config=self.config, group=group, **settings)

    async def send(self, events: Events) -> None:
        """Append events, (topic, key, value), where their keys belong."""
        await self.append(
            (topic, partition_of(key.encode(), self.sources), msgspec.json.encode(event))
            for topic, key, event in events
        )

    async def append(self, records: Iterable[tuple[str, int, bytes | None]]) -> None:
        """Append records, (topic, partition, value)."""
        async with self.access.producer() as producer:
            sent = [
                await producer.send(self.access.names.of(topic), value, b"k", partition=partition)
                for topic, partition, value in records
            ]
            await asyncio.gather(*sent)

    def new_fold(self) -> Fold:
        """Return a fold that has read nothing."""
        return Fold(self.config)

    async def records(self) -> list[Record]:
        """Return the records of the ledger's first partition."""
        return [read_entry(record.value).record for record in await read_all(self.access, "ledger", [0])]

    async def folds(self) -> list[Fold]:
        """Fold the ledger up to its end of now."""
        for record in await read_all(self.access, "ledger"):
            fold = self._folds[record.partition]
            if record.offset >= fold.offset:
                fold.offset = record.offset
                fold.step(read_entry(record.value))
        return self._folds

    async def counted(self) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
        """Return the outcomes of each model and version, and what was rejected, as the ledger has them."""
        return counted_by(await self.folds())

    async def until_counted(self, expected: dict[str, dict[str, int]]) -> dict[str, int]:
        """Wait until the outcomes are these, and return what was rejected."""
        seen: Any = None

        async def met() -> bool:
            nonlocal seen
            seen = await self.counted()
            return bool(seen[0] == expected)

        await eventually(met, lambda: f"{seen}, expected {expected}")
        rejected: dict[str, int] = seen[1]
        return rejected

    async def letters(self) -> list[dict[str, Any]]:
        """Return the dead letters."""
        return [json.loads(record.value) for record in await read_all(self.access, "rejected")]


def counted_by(folds: Iterable[Fold]) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Return the outcomes of each model and version, and what was rejected."""
    outcomes: dict[str, dict[str, int]] = {}
    rejected = Counter[str]()
    for fold in folds:
        outcomes |= {name: dict(sorted(model.state.outcomes.items())) for name, model in fold.models.items()}
        rejected += fold.counts()
    return {name: counts for name, counts in sorted(outcomes.items()) if counts}, dict(rejected)


def pairs(numbers: Iterable[int], models: tuple[str, ...] = MODELS) -> list[tuple[str, str, dict[str, Any]]]:
    """Return a prediction and its truth for each number."""
    found = []
    for number in numbers:
        key = f"p-{number}"
        event = {"id": key, "model": models[number % len(models)], "version": "v1", "output": 1}
        found += [("predictions", key, event), ("feedback", key, {"id": key, "truth": number % 2})]
    return found


def expected(count: int, models: tuple[str, ...] = MODELS) -> dict[str, dict[str, int]]:
    """Return how many outcomes `pairs(range(count))` have."""
    return {model: {"v1": len(range(place, count, len(models)))} for place, model in enumerate(models)}


@asynccontextmanager
async def living(*services: Any) -> AsyncIterator[list["asyncio.Task[None]"]]:
    """Let services run; at the end they are cut off in the middle of whatever they do, except those that ended."""
    tasks = [asyncio.create_task(service.run()) for service in services]
    for task in tasks:
        task.add_done_callback(_note)
    try:
        yield tasks
    finally:
        for task in tasks:
            if not task.done():
                await cut_off(task)


def _note(task: "asyncio.Task[None]") -> None:
    """Log why a service ended, for the message of a failure: what waits for it may wait in vain."""
    if not task.cancelled() and task.exception() is not None:
        log.error("a service ended: %r", task.exception())


async def cut_off(task: "asyncio.Task[None]") -> None:
    """End a life where it is; what it raised by itself before is raised."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def ended(service: Any, task: "asyncio.Task[None]") -> None:
    """Let a service end in order."""
    service.stop()
    await asyncio.wait_for(task, HANG_S)


async def until_said(caplog: Any, text: str) -> str:
    """Wait until a line with a text was logged, and return it."""

    async def met() -> bool:
        return any(text in record.getMessage() for record in caplog.records)

    await eventually(met, lambda: [record.getMessage() for record in caplog.records])
    return next(record.getMessage() for record in caplog.records if text in record.getMessage())


class Lives:
    """A service that begins again whatever the broker does to it, as the worker lets it."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.errors: list[str] = []

    async def run(self) -> None:
        """Live until cut off."""
        while True:
            try:
                await self.service.run()
            except (KafkaError, OSError, TimeoutError, UnshipError) as error:
                self.errors.append(repr(error))
                await asyncio.sleep(0.1)

    async def until_error(self, text: str) -> None:
        """Wait until a life has ended of an error that says this."""

        async def ended_of_it() -> bool:
            return any(text in error for error in self.errors)

        await eventually(ended_of_it, lambda: self.errors)
