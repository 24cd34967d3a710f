"""The topic `snapshots`: folds, the status of their models, and halts, by ledger partition.

A snapshot is only a shortcut, because the ledger gives the same again.

A snapshot carries its own position; a group's committed offset is never asked. Each ledger partition has a few slots
that are written in turn, so that a controller that was thought dead can spoil at most one: the newest good one counts.
With each snapshot goes a checkpoint (`actions.checkpoints`), which is a record of the journal.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias

import msgspec
from aiokafka import AIOKafkaProducer

from actions.checkpoints import checkpoint_bytes
from actions.reconcile import Signer
from streams.config.resolved import Config
from streams.fold.fold import Fold, LedgerMismatch, SavedFold
from streams.fold.status import Status
from streams.fold.status_records import StatusRecord, merged
from streams.join.source_reader import Fingerprint
from streams.kafka.clients import Access, answered, read_all, run
from streams.kafka.rewinds import Rewinds
from streams.ledger.encoding import unpack
from streams.recordings.lines import Taken
from unship.topics import TopicNames

log = logging.getLogger("unship.control")

SLOTS = 4
HALT = b"halted/"
"""Begins the keys of why a ledger partition is not folded any more; empty if it is."""

PART_BYTES = 900_000
PARTS_MAX = 64


Saved: TypeAlias = dict[bytes | None, bytes | None]
Loaded: TypeAlias = tuple[Fold, Fingerprint | None]
Holds: TypeAlias = Callable[[Fingerprint], Awaitable[bool]]


class _Head(msgspec.Struct):
    """What makes the parts of a slot one snapshot; `last` is the fingerprint of the ledger record before its offset."""

    offset: int
    digest: str
    parts: int
    last: Fingerprint | None = None


class SnapshotStore:
    """Saves and loads the snapshots of ledger partitions."""

    def __init__(self, access: Access, producer: AIOKafkaProducer) -> None:
        self._access = access
        self._producer = producer
        self._topic = access.names.of("snapshots")
        self._slot: dict[int, int] = {}

    async def save(self, number: int, offset: int, data: bytes, last: Fingerprint | None = None) -> None:
        """Write a snapshot of a ledger partition: its packed fold, the offset of it, and what the last record was."""
        parts = [data[i : i + PART_BYTES] for i in range(0, len(data), PART_BYTES)]
        if len(parts) > PARTS_MAX:
            log.warning("ledger partition %d: a snapshot of %d bytes is too large to keep", number, len(data))
            return
        slot = self._slot[number] = (self._slot.get(number, -1) + 1) % SLOTS
        # All under one key's partition, so that they are read in the order they were written.
        for i, part in enumerate(parts):
            await answered(self._producer.send_and_wait(self._topic, part, _key(number, slot, str(i)), partition=0))
        # In a thread: of a large fold it takes long, and needs no lock of the interpreter.
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        head = _Head(offset, digest, len(parts), last)
        value = msgspec.json.encode(head)
        await answered(self._producer.send_and_wait(self._topic, value, _key(number, slot, "head"), partition=0))

    async def report(self, records: Iterable[StatusRecord]) -> None:
        """Write status records."""
        for key, value in records:
            await answered(self._producer.send_and_wait(self._topic, value, key, partition=0))

    async def report_halt(self, number: int, why: str) -> None:
        """Write why a ledger partition is not folded any more; nothing where it is."""
        key = HALT + b"%d" % number
        await answered(self._producer.send_and_wait(self._topic, why.encode(), key, partition=0))

    async def read(self) -> Saved:
        """Return the newest record of each key, of all ledger partitions."""
        return {record.key: record.value for record in await read_all(self._access, "snapshots", [0])}

    async def load(self, saved: Saved, number: int, config: Config, holds: Holds) -> Loaded | None:
        """Return the newest fold that was saved whole and fits this program and this ledger, None if there is none.

        With it comes the fingerprint of its last record; `holds` returns whether the ledger still holds a record.
        """
        found = whole(saved, number)
        if found:
            # The next one is written over the oldest.
            self._slot[number] = max(found, key=lambda each: each[:2])[1]
        for _, _, data, last in found:
            if last is not None and not await holds(last):
                log.warning("ledger partition %d: a snapshot is ignored: its ledger was another one", number)
                continue
            try:
                fold = Fold(config)
                fold.load(unpack(data, SavedFold))
            except (msgspec.DecodeError, ValueError, TypeError, LedgerMismatch) as error:
                log.info("ledger partition %d: a snapshot is ignored: %s", number, error)
            else:
                return fold, last
        return None


def whole(saved: Mapping[bytes | None, bytes | None], number: int) -> list[tuple[int, int, bytes, Fingerprint | None]]:
    """Return the snapshots of a ledger partition that were saved whole, the newest first.

    Each is its offset, its slot, the packed fold, and the fingerprint of the ledger record before its offset.
    """
    found: list[tuple[int, int, bytes, Fingerprint | None]] = []
    for slot in range(SLOTS):
        value = saved.get(_key(number, slot, "head"))
        if value is None:
            continue
        try:
            head = msgspec.json.decode(value, type=_Head)
        except (msgspec.DecodeError, ValueError):
            continue
        data = b"".join(saved.get(_key(number, slot, str(i))) or b"" for i in range(min(head.parts, PARTS_MAX)))
        if hashlib.sha256(data).hexdigest() == head.digest:
            found.append((head.offset, slot, data, head.last))
    return sorted(found, key=lambda each: each[:2], reverse=True)


class Checkpoints:
    """Makes the checkpoints of a ledger partition, each of a fold that went on since the last one.

    What is stated of other topics is where the controller's own records ended: where the topics themselves end, a
    transaction may have left offsets without a record.
    """

    def __init__(self, names: TopicNames) -> None:
        self._names = names
        self._ends: dict[str, int] = {}
        self._offset = -1

    def appended(self, metadata: Any) -> None:
        """Note the place of a record that was appended."""
        topic = self._names.plain(metadata.topic)
        if topic in ("decisions", "control"):
            place = f"{topic}/{metadata.partition}"
            self._ends[place] = max(self._ends.get(place, 0), metadata.offset + 1)

    def of(self, fold: Fold, number: int, signer: Signer | None, now_ms: int) -> bytes | None:
        """Return the value of a checkpoint, None if there is nothing new, or nobody to sign it."""
        if signer is None or fold.offset == self._offset:
            return None
        self._offset = fold.offset
        return checkpoint_bytes(fold.checkpoint(signer.audience, number, now_ms, self._ends))


def _key(number: int, slot: int, part: str) -> bytes:
    return f"{number}/{slot}/{part}".encode()


def read_snapshots(access: Access, number: int) -> list[bytes]:
    """Return the packed folds of a ledger partition that were saved whole, the newest first.

    Raises:
        BrokerUnreachable: no broker answers.
    """
    records = run(access, read_all(access, "snapshots", [0]))
    return [data for _, _, data, _ in whole({record.key: record.value for record in records}, number)]


def read_status(access: Access) -> tuple[Status, list[Taken]]:
    """Return the status of all models, and the newest ack of each replica in the order of their offsets.

    Each controller reports its partitions, and this merges them.

    Raises:
        BrokerUnreachable: no broker answers.
    """
    return run(access, _read_status(access))


async def _read_status(access: Access) -> tuple[Status, list[Taken]]:
    newest = {record.key or b"": record.value or b"" for record in await read_all(access, "snapshots", [0])}
    status = merged(newest)
    halts = [why.decode(errors="replace") for key, why in sorted(newest.items()) if key.startswith(HALT) and why]
    acks = [
        Taken("acks", record.partition, record.offset, record.timestamp, record.key, record.value)
        for record in {record.key: record for record in await read_all(access, "acks")}.values()
    ]
    sources = Rewinds(access)
    await sources.learn()
    return msgspec.structs.replace(status, halted=[*sources.halted(), *halts]), acks
