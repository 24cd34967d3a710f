"""Snapshots of the monitor in its log: two, written in turn, so that one of them is whole at any time.

A snapshot may be larger than a transaction, so its parts are appended one by one, and its head last. The head has the
digest of all parts: where a part is missing, cut off or of another snapshot, this one is no snapshot, and the other is
used. A monitor without any folds its ledger from the beginning. Parts are compressed, which takes less time than
writing what it saves.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import msgspec

from unship.log.embedded.log import EmbeddedLog, Fence, Message
from unship.log.link import Record

SLOTS: Final = (b"monitor/a", b"monitor/b")
TOPIC: Final = "snapshots"
PART_BYTES: Final = 4 << 20
COMPRESSION: Final = 1
PARTS_MAX: Final = 4_096
"""16 GiB: a head that names more is damaged."""


class Head(msgspec.Struct, frozen=True):
    """What a snapshot holds, and how far its monitor had come.

    Attributes:
        parts: The number of records that hold it.
        digest: The SHA-256 of their values together.
        offset: The ledger record that comes next.
        clock: The source clock, in milliseconds.
        keep_ms: How long source records are needed under the configuration in force.
        positions: The offset that comes next, by source topic.
    """

    parts: int
    digest: str
    offset: int
    clock: int
    keep_ms: int
    positions: dict[str, int]


class Stored(NamedTuple):
    """A head with the offset of its record, and its slot."""

    offset: int
    slot: bytes
    head: Head


class Kept(Protocol):
    """A log that keeps snapshots, open for writing or only for reading."""

    @property
    def folder(self) -> Path:
        """Return where the log is."""

    def newest(self, topic: str, key: bytes) -> Record | None:
        """Return the newest record of a key of a compacted topic."""


def heads(log: Kept) -> list[Stored]:
    """Return the heads that can be read, the newest first."""
    found = []
    for slot in SLOTS:
        record = log.newest(TOPIC, slot)
        if record is None:
            continue
        try:
            head = msgspec.json.decode(record.value or b"", type=Head)
        except msgspec.MsgspecError:
            continue
        if 0 < head.parts <= PARTS_MAX:
            found.append(Stored(record.offset, slot, head))
    return sorted(found, reverse=True, key=lambda each: each.offset)


def load(log: Kept, remark: Callable[[str], None]) -> Iterator[tuple[Head, bytes]]:
    """Yield the snapshots that are whole, the newest first; call `remark` with a sentence for each that is not."""
    known = heads(log)
    for slot in SLOTS:
        if slot not in [each.slot for each in known] and log.newest(TOPIC, slot) is not None:
            remark(f"{log.folder}: the snapshot {slot.decode()} cannot be used: its head cannot be read")
    for _, slot, head in known:
        parts = [log.newest(TOPIC, _key(slot, number)) for number in range(head.parts)]
        packed = [part.value or b"" for part in parts if part is not None]
        if _digest(packed) == head.digest:
            yield head, b"".join(zlib.decompress(part) for part in packed)
        else:
            remark(f"{log.folder}: the snapshot {slot.decode()} cannot be used: its parts are not those of its head")


def save(log: EmbeddedLog, fence: Fence, data: bytes, head: Head) -> None:
    """Append a snapshot in the place of the older one; `parts` and `digest` of its head are filled in.

    Raises:
        WriterFenced: A newer monitor took over.
        EmbeddedLogError: The log takes nothing now; the newest snapshot is still there.
    """
    known = [each.slot for each in heads(log)]
    slot = next((slot for slot in SLOTS if slot not in known), known[-1] if known else SLOTS[0])
    begins = range(0, max(1, len(data)), PART_BYTES)
    parts = [zlib.compress(data[begin : begin + PART_BYTES], COMPRESSION) for begin in begins]
    for number, part in enumerate(parts):
        log.append(TOPIC, [Message(part, _key(slot, number))], fence=fence)
    head = msgspec.structs.replace(head, parts=len(parts), digest=_digest(parts))
    log.append(TOPIC, [Message(msgspec.json.encode(head), slot)], fence=fence)


def _digest(parts: list[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _key(slot: bytes, number: int) -> bytes:
    return b"%b/%d" % (slot, number)
