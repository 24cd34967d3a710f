"""Put several events of one partition into one record, as a JSON array, and take them out again.

A record costs its broker and its reader about as much as the event in it. Where events come by the thousand, a record
of 64 costs little more than a record of one. The events of an array are the values that plain records would hold, byte
for byte and in their order, so packing changes nothing of what is read; an event's place is then the record's offset
and its index in the array.

Unpacking is total, as decoding is (`unship.codec`): any bytes give values, a rejection, or None where they are no
array. It splits, and looks into no event, so one bad event costs only itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from unship.budgets.table import PACKED_EVENTS
from unship.codec import LIMITS, decode_value
from unship.events import Event
from unship.rejections import RejectCode, Rejection
from unship.text import is_deeper_than
from unship.topics import EVENT_TOPICS, SOURCES

PACKED_EVENTS_MAX: Final = PACKED_EVENTS.limit
"""Events in a record: six bits hold an index, and more of them would make a record hardly cheaper."""

PACKED_BYTES_MAX: Final = LIMITS.max_bytes
"""Bytes of a packed record, which is what one event may have: whatever reads plain records has room for it."""

PACKED_KINDS: Final = frozenset(EVENT_TOPICS[topic] for topic in SOURCES)
"""The kinds of events that may be packed: the many. The others are few, and each is one record."""

NESTED_MAX: Final = 1 + 5 * PACKED_EVENTS_MAX
"""Levels of a packed record that the parser is called with: no more than the brackets of 64 events with slices, scores,
an epoch and a ranking each. Where there are no more brackets than that, counting them settles it. An event that is too
deep by itself is rejected when it is decoded."""

_BLANKS: Final = b" \t\r\n"
_split = msgspec.json.Decoder(list[msgspec.Raw]).decode


def pack_values(values: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield the values of records that hold these events of one partition in order, each with its number of events.

    A single event, and one that is too large to share a record, is the value of a plain record.

    Example:
        >>> list(pack_values([b'{"id":"p-1"}', b'{"id":"p-2"}']))
        [(b'[{"id":"p-1"},{"id":"p-2"}]', 2)]
        >>> list(pack_values([b'{"id":"p-1"}']))
        [(b'{"id":"p-1"}', 1)]
    """
    held: list[bytes] = []
    size = 0
    for value in values:
        # Each event brings a comma or a bracket with it, and the array one bracket more.
        if held and (len(held) == PACKED_EVENTS_MAX or size + len(value) + 2 > PACKED_BYTES_MAX):
            yield _packed(held), len(held)
            held, size = [], 0
        held.append(value)
        size += len(value) + 1
    if held:
        yield _packed(held), len(held)


def unpack_value(value: bytes | None) -> list[bytes] | Rejection | None:
    """Return the values of the events in a packed record, a rejection of the whole record, or None if it is not packed.

    A record is packed if its first byte that is not blank is `[`. It is rejected as a whole where it cannot be split
    (`BAD_JSON`, `TOO_DEEP`), exceeds a limit (`TOO_LARGE`) or is empty (`BAD_EVENT`). What the values are worth is
    for `unship.codec.decode_value` to find, one by one.

    Example:
        >>> unpack_value(b'[{"id": "p-1"}, 7]'), unpack_value(b'{"id": "p-1"}'), unpack_value(None)
        ([b'{"id": "p-1"}', b'7'], None, None)
        >>> unpack_value(b'[{"id": "p-1"}').code.value
        'BAD_JSON'
    """
    # Nearly every plain record begins with a brace.
    if value is None or value.startswith(b"{") or not value.lstrip(_BLANKS).startswith(b"["):
        return None
    if len(value) > PACKED_BYTES_MAX:
        return Rejection(RejectCode.TOO_LARGE, f"{len(value)} bytes > limit {PACKED_BYTES_MAX} bytes")
    # A parser's own bound is what is left of the stack, which is no function of the bytes.
    if value.count(b"[") + value.count(b"{") > NESTED_MAX and is_deeper_than(NESTED_MAX, value):
        return Rejection(RejectCode.TOO_DEEP, f"nested deeper than limit {NESTED_MAX}")
    try:
        raws = _split(value)
    except RecursionError:
        return Rejection(RejectCode.TOO_DEEP, "nested deeper than the parser allows")
    except ValueError as error:
        return Rejection(
            RejectCode.BAD_JSON, str(error) if isinstance(error, msgspec.DecodeError) else type(error).__name__
        )
    if not 0 < len(raws) <= PACKED_EVENTS_MAX:
        code = RejectCode.TOO_LARGE if raws else RejectCode.BAD_EVENT
        return Rejection(code, f"Expected 1 to {PACKED_EVENTS_MAX} events, got {len(raws)}")
    return list(map(bytes, raws))


def decode_values(kind: str, value: bytes | None) -> list[Event | Rejection]:
    """Decode every event in a record from the topic of `kind`, packed or plain; never raises on a value.

    Raises:
        KeyError: `kind` is none of `unship.events.EVENT_TYPES`; that is a mistake of the program, not of the input.

    Example:
        >>> [event.truth for event in decode_values("feedback", b'[{"id":"p-1","truth":1},{"id":"p-2","truth":0}]')]
        [1, 0]
        >>> decode_values("feedback", b'{"id":"p-1","truth":1}')[0].id
        'p-1'
    """
    values = unpack_value(value) if kind in PACKED_KINDS else None
    if isinstance(values, Rejection):
        return [values]
    return [decode_value(kind, each) for each in ((value,) if values is None else values)]


def _packed(values: list[bytes]) -> bytes:
    return values[0] if len(values) == 1 else b"[%b]" % b",".join(values)
