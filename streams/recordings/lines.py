"""Lines of a recording that was taken from a log: each can be read back to exactly the record that it was written from.

A line is the record's own JSON with its place in the log at the end: `"at": [topic, partition, offset, append time]`.
A ledger record, which a log holds as columns of bytes, is written as text. What does not follow from these two is in
`"raw"`, in base64: the value where it is not such JSON to the byte, the key where it is not the usual one, and the
headers. Values that are no event become lines of type `raw`. A record of several events is one line of type `packed`,
with the array as the log holds it.

The text of a line is a function of the record. So a reader that encodes what it has read again, and compares, finds
every byte that was changed, even where the changed line is valid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec

from streams.ledger.entries import read_entry
from streams.ledger.lines import ledger_line, read_ledger_line
from unship.codec import decode_value, encode_line
from unship.errors import RecordingError
from unship.events import EVENT_TYPES, At, Event
from unship.log.packed import PACKED_KINDS, decode_values, unpack_value
from unship.rejections import RejectCode, Rejection
from unship.topics import EVENT_TOPICS, key_of

KIND_OF: Final = {**EVENT_TOPICS, "ledger": "ledger", "decisions": "decision", "control": "command"}
"""The topics that are recorded, in the order in which records of one append time are written: causes before effects."""

RANK: Final = {topic: rank for rank, topic in enumerate(KIND_OF)}
Place: TypeAlias = tuple[str, int]


class Taken(msgspec.Struct, frozen=True, gc=False):
    """A record as the log holds it, with its place there; `append_ts` in milliseconds."""

    topic: str
    partition: int
    offset: int
    append_ts: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


class Topics(Protocol):
    """Topics of a log that grows, or of a recording of one. Offsets rise, and may have holes."""

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has."""

    def first(self, topic: str, partition: int) -> int:
        """Return the smallest offset that is kept, or the end if none is."""

    def ends(self) -> Mapping[Place, int]:
        """Return the offset after the last record of each (topic, partition), causes no older than their effects."""

    def read(self, topic: str, partition: int, offset: int) -> Sequence[Taken]:
        """Return some records from `offset` on, in order; none only at the end."""


class _Raw(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What does not follow from the rest of a line. Bytes are base64 in JSON."""

    key: bytes | msgspec.UnsetType | None = msgspec.UNSET
    value: bytes | msgspec.UnsetType | None = msgspec.UNSET
    headers: tuple[tuple[str, bytes | None], ...] = ()


class _Tail(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    at: At
    raw: _Raw | msgspec.UnsetType = msgspec.UNSET


class _Keyed(msgspec.Struct):
    """Any JSON object; the key of its record is usually its model."""

    model: str | None = None
    at: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    raw: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_NO_EVENT = b'{"type":"raw"'
_PACKED = b'{"type":"packed","events":'
_encode = msgspec.json.Encoder().encode
_keyed = msgspec.json.Decoder(_Keyed).decode
_tail = msgspec.json.Decoder(_Tail).decode


def line_of(taken: Taken) -> bytes:
    """Return a record's line, without a line feed.

    >>> value = b'{"type":"feedback","id":"p-1","truth":1}'
    >>> line_of(Taken("feedback", 0, 7, 1_000, b"p-1", value)).decode()
    '{"type":"feedback","id":"p-1","truth":1,"at":["feedback",0,7,1000]}'
    >>> line_of(Taken("feedback", 0, 8, 1_000, b"p-1", b"{")).decode()
    '{"type":"raw","at":["feedback",0,8,1000],"raw":{"key":"cC0x","value":"ew=="}}'
    """
    head, value, key = _head(taken)
    raw = _Raw(msgspec.UNSET if taken.key == key else taken.key, value, taken.headers)
    place = (taken.topic, taken.partition, taken.offset, taken.append_ts)
    return head + b"," + _encode(_Tail(place, msgspec.UNSET if raw == _Raw() else raw))[1:]


def read_line(line: bytes) -> Taken:
    """Return the record that `line_of` wrote as this line; a line feed at its end is no part of it.

    Raises:
        RecordingError: No record has this line.
    """
    text = line.removesuffix(b"\n")
    taken = read_sound_line(text)
    if line_of(taken) != text:
        raise RecordingError(f"it is not the line that a recording has of {place_of(taken)}")
    return taken


def read_sound_line(line: bytes) -> Taken:
    """Return the record of a line that `read_line` has read before, without comparing every byte again.

    Raises:
        RecordingError: The line has no place, or none that is recorded.
    """
    text = line.removesuffix(b"\n")
    begin = text.rfind(b',"at":[')
    if begin < 0:
        raise RecordingError("it has no place in a log")
    try:
        tail = _tail(b"{" + text[begin + 1 :])
    except ValueError as error:
        raise RecordingError(f"its place in the log cannot be read: {error}") from error
    topic, partition, offset, append_ts = tail.at
    if topic not in KIND_OF:
        raise RecordingError(f"it is of a topic that is not recorded: {topic!r}")
    raw = _Raw() if isinstance(tail.raw, msgspec.UnsetType) else tail.raw
    value, key = raw.value, raw.key
    if isinstance(value, msgspec.UnsetType):
        value = text[len(_PACKED) : begin] if text.startswith(_PACKED) else text[:begin] + b"}"
        if topic == "ledger":
            value = read_ledger_line(value).value
    if isinstance(key, msgspec.UnsetType):
        key = None if text.startswith(_NO_EVENT) or topic == "ledger" else _usual_key(KIND_OF[topic], value)
    return Taken(topic, partition, offset, append_ts, key, value, raw.headers)


def is_packed(line: bytes) -> bool:
    """Return whether a line is that of a packed record."""
    return line.startswith(_PACKED)


def unpacked(line: bytes) -> list[Event | Rejection] | None:
    """Return the events of a packed record's line, each with the place of the record; None for any other line.

    >>> line = b'{"type":"packed","events":[{"id":"p-1","truth":1},{"id":"p-2","truth":0}],"at":["feedback",0,7,1000]}'
    >>> [(event.id, event.at) for event in unpacked(line)]
    [('p-1', ('feedback', 0, 7, 1000)), ('p-2', ('feedback', 0, 7, 1000))]
    """
    if not is_packed(line):
        return None
    try:
        taken = read_sound_line(line.rstrip(b"\r\n"))
    except RecordingError as error:
        return [Rejection(RejectCode.BAD_EVENT, f"a packed record: {error}")]
    kind = KIND_OF[taken.topic]
    if kind not in PACKED_KINDS:
        return [Rejection(RejectCode.UNKNOWN_TYPE, "a packed record of a topic that has none")]
    place = (taken.topic, taken.partition, taken.offset, taken.append_ts)
    return [
        event if isinstance(event, Rejection) else msgspec.structs.replace(event, at=place)
        for event in decode_values(kind, taken.value)
    ]


def is_of(line: bytes, topic: str, partition: int) -> bool:
    """Return whether a line that `read_line` accepts is of a partition, without decoding it."""
    begin = line.rfind(b',"at":[')
    return begin >= 0 and line.startswith(b',"at":["%b",%d,' % (topic.encode(), partition), begin)


def place_of(taken: Taken) -> str:
    """Return the place of a record as text."""
    return f"{taken.topic}[{taken.partition}]@{taken.offset}"


def records_of(topics: Topics, topic: str, partition: int) -> Iterator[Taken]:
    """Yield the records of a partition up to its end in `ends`."""
    end = topics.ends().get((topic, partition), 0)
    offset = topics.first(topic, partition) if end else 0
    while offset < end and (page := topics.read(topic, partition, offset)):
        yield from (taken for taken in page if taken.offset < end)
        offset = page[-1].offset + 1


def order_of(taken: Taken) -> tuple[int, int, int, int]:
    """Return the key by which recordings are sorted."""
    return taken.append_ts, RANK[taken.topic], taken.partition, taken.offset


def _head(taken: Taken) -> tuple[bytes, bytes | msgspec.UnsetType | None, bytes | None]:
    """Return the beginning of the line, the value if that does not contain it, and the usual key of such a record."""
    kind, value = KIND_OF[taken.topic], taken.value
    if kind == "ledger":
        text = _ledger_text(value)
        return (_NO_EVENT, value, None) if text is None else (text[:-1], msgspec.UNSET, None)
    values = _packed_in(kind, value)
    if value is not None and values is not None and not _breaks_line(value) and _is_utf8(value):
        return _PACKED + value, msgspec.UNSET, _usual_key(kind, values[0])
    decoded = _decoded(kind, value)
    if decoded is None or value is None:
        return _NO_EVENT, value, None
    key = _key_of(decoded)
    begin = b'{"type":"%b",' % kind.encode()
    if value.startswith(begin) and value.endswith(b"}") and not _is_ambiguous(value):
        return value[:-1], msgspec.UNSET, key
    if isinstance(decoded, _Keyed):
        return _NO_EVENT, value, None
    return encode_line(decoded)[:-1], value, key


def _ledger_text(value: bytes | None) -> bytes | None:
    """Return the line of a ledger record, None where the same bytes do not follow from the text."""
    try:
        text = ledger_line(read_entry(value).record)
        return text if read_ledger_line(text).value == value else None
    except RecordingError:
        return None


def _packed_in(kind: str, value: bytes | None) -> list[bytes] | None:
    """Return the values of the events in a packed record, None if it is plain or cannot be split."""
    values = unpack_value(value) if kind in PACKED_KINDS else None
    return values if isinstance(values, list) else None


def _breaks_line(value: bytes) -> bool:
    """Return whether a value cannot be part of a line of text."""
    return b"\n" in value or b"\r" in value


def _is_utf8(value: bytes) -> bool:
    try:
        return value.isascii() or bool(value.decode())
    except UnicodeDecodeError:
        return False


def _is_ambiguous(value: bytes) -> bool:
    """Return whether a value has line breaks, or fields that the line itself adds."""
    if _breaks_line(value):
        return True
    if b'"at"' not in value and b'"raw"' not in value:
        return False
    fields = _keyed(value)
    return fields.at is not msgspec.UNSET or fields.raw is not msgspec.UNSET


def _decoded(kind: str, value: bytes | None) -> Event | _Keyed | None:
    """Return the event in a value, or its key where the kind is no event; None if it cannot be decoded."""
    if kind in EVENT_TYPES:
        event = decode_value(kind, value)
        return None if isinstance(event, Rejection) else event
    try:
        (value or b"").decode()
        return _keyed(value or b"")
    except (ValueError, RecursionError):
        return None


def _usual_key(kind: str, value: bytes | None) -> bytes | None:
    values = _packed_in(kind, value)
    decoded = _decoded(kind, value if values is None else values[0])
    return None if decoded is None else _key_of(decoded)


def _key_of(decoded: Event | _Keyed) -> bytes | None:
    if isinstance(decoded, _Keyed):
        return None if decoded.model is None else decoded.model.encode()
    return key_of(decoded)
