"""Status as records of a log: one for each model, and a head for each ledger partition.

The key of a model's record is `status/N/MODEL`, that of the head `status/N`, for ledger partition N, which is 0 in an
embedded log. A record is written only if it changed, at most twice a second, and is cut to its budget, so that nothing
that a stranger names makes it grow. The head states at which offset its monitor wrote for the first time: a record of
before is of a model that is not known any more. It is written again every `TICK_MS`, so that its age shows whether the
monitor runs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from actions.replicas import Replica
from streams.fold.fold import Fold
from streams.fold.status import ModelStatus, Seen, Status, model_status
from unship.budgets.table import STATUS_RECORD

PREFIX = b"status/"
EARLIER_KEY = b"status"
"""The key of the one record that held everything in an embedded log of earlier builds."""

STATUS_MS = 500
TICK_MS = 10_000
"""How often a monitor at least reports that it runs."""

BYTES_MAX = STATUS_RECORD.limit
EARLIER_BYTES_MAX = 8 * 2**20
_SHARES = {"quarantine": 8, "not_judged": 8, "outcomes": 4, "replicas": 2}
"""Which part of what is left of the bytes a list may take, in this order, where not everything fits."""

T = TypeVar("T")


class StatusRecord(NamedTuple):
    """A record to be written; an empty value takes the model's back."""

    key: bytes
    value: bytes


class ModelRecord(msgspec.Struct, frozen=True):
    """The status of a model, by a monitor that wrote its first status at the ledger offset `began`."""

    began: int
    status: ModelStatus


class HeadRecord(msgspec.Struct, frozen=True):
    """What belongs to no model, and when it was reported; records of earlier builds hold all `models` here.

    `offset` is that of the ledger record which the fold takes next: the models' records are as of the ones before.
    """

    clock: int
    rejected: dict[str, int]
    began: int = 0
    models: dict[str, ModelStatus] = {}
    seen: Seen | None = None
    offset: int = -1


class StatusReport:
    """Finds the status records of a ledger partition that have to be written."""

    def __init__(self, number: int) -> None:
        self._number = str(number)
        self._head = PREFIX + b"%d" % number
        self._began: int | None = None
        self._at: int | None = None
        self._ticked: int | None = None
        self._written: dict[bytes, bytes] = {}

    def is_due(self, now_ms: int) -> bool:
        """Return whether the last time was half a second ago, by the wall clock `now_ms`."""
        return self._at is None or not self._at <= now_ms < self._at + STATUS_MS

    def records(self, fold: Fold, head: Status, now_ms: int) -> Iterator[StatusRecord | None]:
        """Yield for each model that was touched since the last time its record, None if that did not change.

        Args:
            fold: of the ledger partition.
            head: the clock, the counts, and when this is.
            now_ms: the wall clock.
        """
        self._at = now_ms
        if self._began is None:
            self._began = fold.offset
        for name in fold.take_touched():
            model = fold.models.get(name)
            value = b"" if model is None else encode_model(model_status(model, head.clock), self._began)
            yield self._new(self._head + b"/" + name.encode(), value)
        # Last, so that what it makes visible is there.
        found = HeadRecord(head.clock, head.rejected, self._began, offset=fold.offset)
        yield self._tick(found, head.monitors.get(self._number), now_ms)

    def _tick(self, head: HeadRecord, seen: Seen | None, now_ms: int) -> StatusRecord | None:
        """Return the head if it changed, or if it was written too long ago to show that the monitor runs."""
        ticked = self._ticked is not None and self._ticked <= now_ms < self._ticked + TICK_MS
        if self._new(self._head, msgspec.json.encode(head)) is None and ticked:
            return None
        self._ticked = now_ms
        return StatusRecord(self._head, msgspec.json.encode(msgspec.structs.replace(head, seen=seen)))

    def _new(self, key: bytes, value: bytes) -> StatusRecord | None:
        digest = hashlib.blake2b(value, digest_size=16).digest()
        if self._written.get(key) == digest:
            return None
        if value:
            self._written[key] = digest
        else:
            self._written.pop(key, None)
        return StatusRecord(key, value)


def encode_model(status: ModelStatus, began: int) -> bytes:
    """Return the record of a model, cut to `BYTES_MAX`."""
    value = msgspec.json.encode(ModelRecord(began, status))
    if len(value) <= BYTES_MAX:
        return value
    faults = status.lagging(status.replicas)
    served = status.desired

    def of_replica(entry: tuple[str, Replica]) -> tuple[bool, int]:
        return entry[0] not in faults, -entry[1].heard

    def of_version(entry: tuple[str, int]) -> tuple[bool, int]:
        return entry[0] != served, -entry[1]

    left = BYTES_MAX - len(_encoded(ModelRecord(began, msgspec.structs.replace(status, **_NOTHING))))
    cut: dict[str, int] = {}
    quarantine = _fitting(reversed(status.quarantine), left // _SHARES["quarantine"])
    left -= len(_encoded(quarantine))
    not_judged = _fitting(sorted(status.not_judged.items(), key=of_version), left // _SHARES["not_judged"])
    left -= len(_encoded(dict(not_judged)))
    outcomes = _fitting(sorted(status.outcomes.items(), key=of_version), left // _SHARES["outcomes"])
    left -= len(_encoded(dict(outcomes)))
    replicas = _fitting(sorted(status.replicas.items(), key=of_replica), left // _SHARES["replicas"])
    for name, kept, whole in (
        ("quarantine", len(quarantine), len(status.quarantine)),
        ("not_judged", len(not_judged), len(status.not_judged)),
        ("outcomes", len(outcomes), len(status.outcomes)),
        ("replicas", len(replicas), len(status.replicas)),
    ):
        if kept < whole:
            cut[name] = whole - kept
    some = msgspec.structs.replace(
        status,
        quarantine=quarantine[::-1],
        not_judged=dict(sorted(not_judged)),
        outcomes=dict(sorted(outcomes)),
        replicas=dict(sorted(replicas)),
        cut=cut,
    )
    return _encoded(ModelRecord(began, some))


_NOTHING: Mapping[str, object] = {"quarantine": [], "not_judged": {}, "outcomes": {}, "replicas": {}}
_encoded: Callable[[object], bytes] = msgspec.json.encode


def _fitting(entries: Iterable[T], room: int) -> list[T]:
    """Return the first entries that fit into so many bytes."""
    found = []
    for entry in entries:
        room -= len(_encoded(entry)) + 1
        if room < 0:
            break
        found.append(entry)
    return found


def merged(records: Mapping[bytes, bytes | None]) -> Status:
    """Return the status that records of a log hold, those of earlier builds too; `unread` names what is no status.

    >>> merged({b"status/0": b"{", b"status/0/m": None, b"monitor/a": b"x"}).unread
    ['the status record status/0 cannot be read (Input data was truncated); the monitor writes it again']
    """
    heads: dict[bytes, HeadRecord] = {}
    found: dict[bytes, ModelRecord] = {}
    unread: list[str] = []
    for key, value in sorted(records.items()):
        if not value or not key.startswith(EARLIER_KEY):
            continue
        try:
            if key.count(b"/") < 2:
                heads[key] = _decoded(value, HeadRecord, EARLIER_BYTES_MAX)
            else:
                found[key] = _decoded(value, ModelRecord, BYTES_MAX)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            name = key.decode(errors="replace")
            unread.append(f"the status record {name} cannot be read ({error}); the monitor writes it again")
    if len(heads) > 1:
        heads.pop(EARLIER_KEY, None)
    models = {name: model for head in heads.values() for name, model in head.models.items()}
    partitions = {name: _partition(key) for key, head in heads.items() for name in head.models}
    for key, record in found.items():
        partition, _, name_bytes = key.removeprefix(PREFIX).partition(b"/")
        head = heads.get(PREFIX + partition)
        if head is None or record.began >= head.began:
            name = name_bytes.decode(errors="replace")
            models[name], partitions[name] = record.status, partition.decode(errors="replace")
    rejected = Counter[str]()
    for head in heads.values():
        rejected.update(head.rejected)
    clock = max((head.clock for head in heads.values()), default=-1)
    monitors = {_partition(key): head.seen for key, head in heads.items() if head.seen is not None}
    return Status(
        clock,
        dict(sorted(models.items())),
        dict(sorted(rejected.items())),
        unread=unread,
        monitors=monitors,
        partitions=dict(sorted(partitions.items())),
    )


def _partition(key: bytes) -> str:
    """Return the ledger partition that the key of a head names."""
    return key.removeprefix(PREFIX).decode(errors="replace")


def folded_of(records: Mapping[bytes, bytes | None], number: int) -> int:
    """Return the ledger offset before which everything of a ledger partition is in its status, -1 if not known.

    >>> folded_of({b"status/0": b'{"clock": 9, "rejected": {}, "offset": 4}'}, 0), folded_of({}, 0)
    (4, -1)
    """
    try:
        return _decoded(records.get(PREFIX + b"%d" % number) or b"", HeadRecord, EARLIER_BYTES_MAX).offset
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return -1


def _decoded(value: bytes, kind: type[T], most: int) -> T:
    if len(value) > most:
        raise ValueError(f"{len(value)} bytes > limit {most} bytes")
    return msgspec.json.decode(value, type=kind)
