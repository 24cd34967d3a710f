"""Snapshots of folds in a compacted topic: only a shortcut, because the ledger gives the same again.

A snapshot carries its own position; a group's committed offset is never asked. Each ledger partition has a few slots
that are written in turn, so that a controller that was thought dead can spoil at most one: the newest good one counts.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec
from aiokafka import AIOKafkaProducer

from streams.config.resolved import Config
from streams.fold.fold import Fold, LedgerMismatch, SavedFold
from streams.join.source_reader import Fingerprint
from streams.kafka.clients import Access, answered, read_all
from streams.ledger.encoding import unpack

log = logging.getLogger("unship.control")

SLOTS = 4
#: Begins the keys under which operators are told how things stand.
STATUS = b"status/"
#: Begins the keys under which they are told why a ledger partition is not folded any more; empty if it is.
HALT = b"halted/"
PART_BYTES = 900_000
PARTS_MAX = 64


Saved: TypeAlias = dict[bytes | None, bytes | None]
Loaded: TypeAlias = tuple[Fold, Fingerprint | None]
Stands: TypeAlias = Callable[[Fingerprint], Awaitable[bool]]


class _Head(msgspec.Struct):
    """What makes the parts of a slot one snapshot; `last` is the ledger record before its offset."""

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
        head = _Head(offset, hashlib.sha256(data).hexdigest(), len(parts), last)
        value = msgspec.json.encode(head)
        await answered(self._producer.send_and_wait(self._topic, value, _key(number, slot, "head"), partition=0))

    async def tell(self, number: int, status: bytes) -> None:
        """Write what operators ask for of a ledger partition."""
        await answered(self._producer.send_and_wait(self._topic, status, STATUS + b"%d" % number, partition=0))

    async def tell_halt(self, number: int, why: str) -> None:
        """Write why a ledger partition is not folded any more; nothing where it is."""
        key = HALT + b"%d" % number
        await answered(self._producer.send_and_wait(self._topic, why.encode(), key, partition=0))

    async def read(self) -> Saved:
        """Return the newest record of each key, of all ledger partitions."""
        return {record.key: record.value for record in await read_all(self._access, "snapshots", [0])}

    async def load(self, saved: Saved, number: int, config: Config, stands: Stands) -> Loaded | None:
        """Return the newest fold that was saved whole and fits this program and this ledger, None if there is none.

        With it comes what its last record was; `stands` says whether a ledger record is still there.
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
        if found:
            # The next one is written over the oldest.
            self._slot[number] = max(found, key=lambda each: each[:2])[1]
        for _, _, data, last in sorted(found, key=lambda each: each[:2], reverse=True):
            if last is not None and not await stands(last):
                log.warning("ledger partition %d: a snapshot is passed over: its ledger was another one", number)
                continue
            try:
                fold = Fold(config)
                fold.load(unpack(data, SavedFold))
            except (msgspec.DecodeError, ValueError, TypeError, LedgerMismatch) as error:
                log.info("ledger partition %d: a snapshot is passed over: %s", number, error)
            else:
                return fold, last
        return None


def _key(number: int, slot: int, part: str) -> bytes:
    return f"{number}/{slot}/{part}".encode()
