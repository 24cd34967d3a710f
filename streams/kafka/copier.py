"""Copy what a decision reads besides outcomes into the ledger: deployments, operators' acts, news of replicas' acks.

What is refused of them becomes a dead letter, and a ledger record by which it is counted once.

A copy holds its place (topic, partition, offset), and the fold drops repeats; so a copier may restart anywhere before
the first record that is not copied yet, and two may copy at once. One copier copies a partition in order, each record
acknowledged before the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from actions.replica_watch import ReplicaWatch
from streams.config.resolved import Config
from streams.join.dead_letters import dead_letter
from streams.join.signed import read_control
from streams.kafka.clients import Access, answered, end_producer, explained
from streams.kafka.ledger_topic import open_ledger
from streams.ledger.entries import entry_of
from streams.ledger.records import Deployed, Operated, Refused, ReplicaFacts, replica_facts
from streams.topics.partitioner import partition_of
from unship.errors import UnshipError
from unship.events import Ack, Deployment
from unship.rejections import Rejection
from unship.signing import Headers, Trust

log = logging.getLogger("unship.copy")


class Place(msgspec.Struct, frozen=True):
    """The place of a record: topic without its prefix, partition, offset and append time."""

    topic: str
    partition: int
    offset: int
    append_ts: int


class Copier:
    """Appends copies to the ledger; what is no event, or no operator's act, becomes a dead letter."""

    def __init__(self, access: Access, config: Config, trust: Callable[[], Trust | None]) -> None:
        self.access = access
        self.config = config
        self.trust = trust
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._ledger_count = 0
        self._watch = ReplicaWatch(config.places.replicas, config.models)
        self._news: list[ReplicaFacts] = []

    async def start(self) -> None:
        """Connect; several copies may need it at once."""
        async with self._starting:
            if self._producer is not None:
                return
            producer = self.access.producer()
            try:
                await answered(producer.start())
                shape = await open_ledger(self.access, producer, self.config)
            except BaseException:
                await end_producer(producer)
                raise
            # Last, because a copy uses any producer there is: the ledger has to have begun.
            self._ledger_count, self._producer = shape.ledger, producer

    async def stop(self) -> None:
        """Disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await end_producer(producer)

    async def copy_surely(self, place: Place, value: bytes | None, headers: Headers) -> None:
        """Copy one record, whatever the broker does meanwhile: a producer that failed is replaced by a new one."""
        pause, logged = 0.2, ""
        while True:
            try:
                if self._producer is None:
                    await self.start()
                await self.copy(place, value, headers)
            except Exception as error:  # noqa: BLE001 - Faust takes a record as done whose agent raised, whatever it was
                known = isinstance(error, KafkaError | OSError | TimeoutError | UnshipError)
                if (text := explained(error, self.access) if known else repr(error)) != logged:
                    log.warning("copying to the ledger is retried: %s", text)
                    logged = text
                await self.stop()
                await asyncio.sleep(pause)
                pause = min(2 * pause, 10.0)
            else:
                return

    async def copy(self, place: Place, value: bytes | None, headers: Headers) -> None:
        """Copy one record, and return when the ledger has it."""
        event, signed_by = read_control(place.topic, value, headers, self.trust(), place.append_ts)
        if isinstance(event, Rejection):
            letter = dead_letter(self.access.names.of(place.topic), place.partition, place.offset, value, event)
            await self._send("rejected", letter.encoded(), None, None)
            log.info("%s %d/%d: %s", place.topic, place.partition, place.offset, event.code)
            refused = Refused(-1, (place.topic, place.partition, place.offset, place.append_ts), event.code)
            await self._send("ledger", entry_of(refused).value, None, 0)
            return
        if isinstance(event, Ack):
            await self._copy_news(event, place)
            return
        at = (place.topic, place.partition, place.offset, place.append_ts)
        event = msgspec.structs.replace(event, at=at)
        # Time is the fold's own: a copy does not show how far the sources were read.
        record = Deployed(-1, event, signed_by) if isinstance(event, Deployment) else Operated(-1, event, signed_by)
        key = event.model.encode()
        await self._send("ledger", entry_of(record).value, key, partition_of(key, self._ledger_count))

    async def _copy_news(self, ack: Ack, place: Place) -> None:
        """Copy an ack if it differs from the last one, because heartbeats are many; what was not sent is kept."""
        where = place.topic, place.partition, place.offset
        if self._watch.acknowledged(ack, where, place.append_ts):
            self._news += replica_facts(-1, self._watch.take())
        while self._news:
            key = self._news[0].model.encode()
            await self._send("ledger", entry_of(self._news[0]).value, key, partition_of(key, self._ledger_count))
            del self._news[0]

    async def _send(self, topic: str, value: bytes, key: bytes | None, partition: int | None) -> None:
        assert self._producer is not None, "not started"
        await answered(self._producer.send_and_wait(self.access.names.of(topic), value, key, partition))
