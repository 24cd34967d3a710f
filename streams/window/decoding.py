"""Decode whole blocks of predictions and feedback, by types that are learned from what comes.

The codec's checks cost more than parsing does. So a block is parsed by a *narrow* type: it has the fields that occurred
so far, with the contract's types, and forbids all others. What it accepts has no text that was skipped, no more levels
than its fields have, and the same values as the codec gives. Only where events have fields that the contract does not
know, text and levels are checked as the codec does. What it refuses is decoded by the codec, one by one, and the narrow
type learns the fields that it lacked.

Names and slices repeat, so the narrow type lists those that occurred: then no text is made of them. A value with
another one is parsed by the *wide* type, which has the same fields and lists nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial, reduce
from operator import attrgetter, or_
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np

from detectors.base import Ints
from unship.codec import LIMITS, decode_value
from unship.events import (
    EVENT_TYPES,
    SLICES_MAX,
    EventTimeMs,
    Feedback,
    Integer,
    Label,
    Prediction,
    ShortOutput,
    SliceValue,
)
from unship.log.packed import PACKED_BYTES_MAX, PACKED_EVENTS_MAX, unpack_value
from unship.rejections import RejectCode, Rejection
from unship.topics import EVENT_TOPICS, SOURCES

DecodeOne: TypeAlias = Callable[[bytes | None], Any]

_Decode: TypeAlias = Callable[[Any], Any]

LEARNED_MAX: Final = 128
"""So often the narrow types are made again; a stream that brings other fields each time is decoded one by one."""

LISTED: Final = frozenset({"model", "version", "source", "replica"})
LISTED_MAX: Final = 256
"""A name with more values than this is none that repeats."""

UNLISTED_MAX: Final = 64
"""After so many the rest of a block is parsed by the wide type."""

_BAD_INPUT: Final = (ValueError, RecursionError, OverflowError, TypeError)
UNKNOWN_MAX: Final = 32
_UNUSABLE: Final = re.compile(r'[\\"\x00-\x1f]')
"""What no field of a type may have in its name; an event with such a field or slice is decoded by the codec."""

ANSWERS: Final = frozenset({"output", "truth"})
"""Fields that narrow events have, though others may lack them."""

_KINDS: Final = {Prediction: "prediction", Feedback: "feedback"}


PACKED: Final = Rejection(RejectCode.BAD_EVENT, "a packed record")
"""Takes the place of a record that may be packed, until its events are decoded."""

_BEGINS_PACKED: Final = b"["


class Block(NamedTuple):
    """Decoded events, in their order; `odd` are the places of those that the codec decoded.

    `values` are what they were decoded from, or the packed record that they are in (`value_in`). Where several events
    may be in one record, `record` is the number of the record that each is in, and `inner` its place there; None where
    each record is one event.
    """

    items: list[Any]
    odd: list[int]
    values: Sequence[bytes | None]
    record: Ints | None = None
    inner: Ints | None = None

    def records_of(self, column: Ints) -> Ints:
        """Return for each event what a column has of its record."""
        return column if self.record is None else column[self.record]


class Shape(NamedTuple):
    """What narrow events have: fields, and slices, whose values are `slices.s0`, `slices.s1` and so on.

    `logical` are the slices of which a value may be true or false.
    """

    fields: frozenset[str]
    slices: tuple[str, ...]
    logical: frozenset[str] = frozenset()


class NarrowDecoder:
    """Decodes blocks of some kinds of events; `decode_one` is the codec's function for one value.

    `placed` is true where the place of an event (`at`) is part of it, as in a recording.
    """

    def __init__(self, kinds: Sequence[str], decode_one: DecodeOne, *, placed: bool = False) -> None:
        self.decode_one = decode_one
        self._placed = placed
        self._learned = 0
        self._types = {kind: NarrowType(kind, placed) for kind in kinds}
        self._narrow, self._wide = self._decoders()
        self._narrow_list = self._list_decoder()

    def shape_of(self, kind: str) -> Shape:
        """Return the shape of the narrow events of a kind that were decoded last."""
        return self._types[kind].shape

    def decode(self, values: Sequence[bytes | None]) -> Block:
        """Decode values; never raises on a value."""
        items: list[Any] = []
        odd: list[int] = []
        unlisted: list[int] = []
        left = _limited(values)
        source: Iterator[Any] = map(self._narrow, left)
        while True:
            try:
                items.extend(source)
            except _BAD_INPUT:
                # What was decoded before it is in the list already.
                value = values[len(items)]
                if not self._placed and value is not None and value.startswith(_BEGINS_PACKED):
                    # Events in it are decoded by themselves, so the codec's rejection of the whole is not needed.
                    odd.append(len(items))
                    items.append(PACKED)
                    continue
                item = None if value is None or len(value) > LIMITS.max_bytes else self._widely(value)
                if item is not None:
                    unlisted.append(len(items))
                    if len(unlisted) == UNLISTED_MAX:
                        source = map(self._wide, left)
                else:
                    item = self.decode_one(value)
                    if self._learn(value, item):
                        # Items of the former type lack the fields of the new one.
                        return self.decode(values)
                    odd.append(len(items))
                items.append(item)
            else:
                if len(unlisted) == UNLISTED_MAX:
                    unlisted += range(unlisted[-1] + 1, len(items))
                self._learn_names([items[place] for place in unlisted])
                return Block(items, odd, values)

    def decode_packed(self, value: bytes) -> list[Any] | None:
        """Return the events of a packed record if all of them are narrow; else they are decoded one by one."""
        if self._narrow_list is None or len(value) > PACKED_BYTES_MAX:
            return None
        try:
            items: list[Any] = self._narrow_list(value)
        except _BAD_INPUT:
            return None
        return items if 0 < len(items) <= PACKED_EVENTS_MAX else None

    def _widely(self, value: bytes) -> Any:
        try:
            return self._wide(value)
        except _BAD_INPUT:
            return None

    def _decoders(self) -> tuple[_Decode, _Decode]:
        decoders = []
        for made in ([each.made for each in self._types.values()], [each.wide for each in self._types.values()]):
            decode: _Decode = msgspec.json.Decoder(reduce(or_, made)).decode
            decoders.append(_careful(decode) if any(each.unknown for each in self._types.values()) else decode)
        return decoders[0], decoders[1]

    def _list_decoder(self) -> _Decode | None:
        """Return a decoder of arrays of narrow events, None where what is skipped in them has to be checked."""
        if any(each.unknown for each in self._types.values()):
            return None
        made: Any = reduce(or_, [each.made for each in self._types.values()])
        return msgspec.json.Decoder(list[made]).decode

    def _remake(self) -> None:
        self._learned += 1
        self._narrow, self._wide = self._decoders()
        self._narrow_list = self._list_decoder()

    def _learn(self, value: bytes | None, item: Any) -> bool:
        kind = _KINDS.get(item.__class__)
        if kind not in self._types or self._learned >= LEARNED_MAX or value is None:
            return False
        if not self._types[kind].learn(value):
            return False
        self._remake()
        return True

    def _learn_names(self, unlisted: list[Any]) -> None:
        if not unlisted:
            return
        if self._learned >= LEARNED_MAX:
            for narrow in self._types.values():
                narrow.suppose_logical()
            return
        for narrow in self._types.values():
            narrow.list_names([item for item in unlisted if item.__class__ is narrow.wide])
        self._remake()


class NarrowType:
    """The narrow type of one kind of events: `made` has the `fields`, and in `slices` the names, that occurred.

    `wide` is `made` without the values that are listed.
    """

    def __init__(self, kind: str, placed: bool) -> None:
        self.kind = kind
        self._every = {field.name: field for field in msgspec.structs.fields(EVENT_TYPES[kind])}
        if not placed:
            del self._every["at"]
        # Without a truth, feedback is about an engagement, or of no use; an answer without output likewise. Both, and
        # long texts, are decoded by the codec.
        self.fields = {name for name, field in self._every.items() if field.required or name in ANSWERS}
        self.slices: list[str] = []
        self.unknown: list[str] = []
        self._listed: dict[str, dict[Any, None]] = {}
        # Of the types that a slice may have besides text, those that occurred.
        self._others: dict[str, set[type]] = {}
        self.wide = self.made = self._make({}, wide=True)
        self.shape = Shape(frozenset(self.fields), ())

    def learn(self, value: bytes) -> bool:
        """Learn from an event that the codec has accepted; return whether it has anything new."""
        present = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
        new = present.keys() - self.fields - {"type", *self.unknown}
        unknown = sorted(new - self._every.keys() - {"at"})
        slices: dict[str, Any] = msgspec.json.decode(present.get("slices", b"{}"))
        names = [name for name in slices if name not in self.slices]
        if not (new & self._every.keys() or unknown or names) or any(map(_UNUSABLE.search, (*unknown, *names))):
            return False
        if len(self.slices) + len(names) > SLICES_MAX or len(self.unknown) + len(unknown) > UNKNOWN_MAX:
            return False
        self.fields |= new & self._every.keys()
        self.slices += names
        self.unknown += unknown
        self._remake()
        return True

    def list_names(self, items: list[Any]) -> None:
        """List the names and the values of slices that events have which only the wide type accepted."""
        for name in LISTED & self.fields:
            self._list(name, {getattr(item, name) for item in items})
        for place in range(len(self.slices)):
            values = {(value.__class__, value) for value in (getattr(item.slices, f"s{place}") for item in items)}
            self._list(f"s{place}", {value for _, value in values})
            self._others.setdefault(f"s{place}", set()).update(kind for kind, _ in values if kind in (int, bool))
        self._remake()

    def _list(self, name: str, values: set[Any]) -> None:
        listed = self._listed.setdefault(name, {})
        if len(listed) < LISTED_MAX:
            listed.update(dict.fromkeys(sorted(value for value in values if value.__class__ is str)[:LISTED_MAX]))

    def suppose_logical(self) -> None:
        """Suppose that every slice may have true or false: the wide type accepts them, and nothing is learned now."""
        if len(self.shape.logical) < len(self.slices):
            self.shape = self.shape._replace(logical=frozenset(self.slices))

    def _remake(self) -> None:
        logical = (name for place, name in enumerate(self.slices) if bool in self._others.get(f"s{place}", ()))
        self.shape = Shape(frozenset(self.fields), tuple(self.slices), frozenset(logical))
        self.wide = self._make({}, wide=True)
        listed = {name: tuple(values) for name, values in self._listed.items() if 0 < len(values) < LISTED_MAX}
        self.made = self._make(listed, wide=False)

    def _make(self, listed: dict[str, tuple[str, ...]], *, wide: bool) -> Any:
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for name, field in self._every.items():
            kind = Literal[listed[name]] if name in listed else field.type
            if name in ANSWERS:
                fields.append((name, ShortOutput))
            elif field.required:
                fields.append((name, kind))
            elif name in self.fields:
                fields.append(self._optional(name, kind, field.default, listed, wide))
        fields += [(f"u{place}", msgspec.Raw, msgspec.Raw()) for place in range(len(self.unknown))]
        return msgspec.defstruct(
            "Narrow", fields, gc=False, kw_only=True, tag=self.kind, tag_field="type", forbid_unknown_fields=True,
            rename={f"u{place}": name for place, name in enumerate(self.unknown)},
        )  # fmt: skip

    def _optional(
        self, name: str, kind: Any, default: Any, listed: dict[str, tuple[str, ...]], wide: bool
    ) -> tuple[str, Any, Any]:
        if name == "slices":
            made = self._make_slices(listed, wide=wide)
            return name, made, made()
        if name == "ts":
            # A time as text is the codec's to read.
            return name, EventTimeMs | None, None
        return name, kind | None if default is None else kind, default

    def _kinds_of(self, name: str, listed: dict[str, tuple[str, ...]]) -> list[Any]:
        """Return the types that the values of a slice had so far."""
        others = self._others.get(name, set())
        text: Any = Literal[listed[name]] if name in listed else Label
        return [text, *([Integer] if int in others else []), *([bool] if bool in others else [])]

    def _make_slices(self, listed: dict[str, tuple[str, ...]], *, wide: bool) -> Any:
        """Return a type with a field for each slice, named by its place: any text may be the name of a slice."""
        fields = []
        for place in range(len(self.slices)):
            name = f"s{place}"
            kind = SliceValue if wide else reduce(or_, self._kinds_of(name, listed))
            fields.append((name, kind | None, None))
        names = {f"s{place}": name for place, name in enumerate(self.slices)}
        return msgspec.defstruct("Slices", fields, gc=False, frozen=True, rename=names, forbid_unknown_fields=True)


def decoded_records(
    decoder: NarrowDecoder, kind: str, values: Sequence[bytes | None]
) -> tuple[Block, dict[int, Block]]:
    """Return the events of records, and for each packed record the events in it; never raises on a value."""
    while True:
        block, shape = decoder.decode(values), decoder.shape_of(kind)
        packed = _packed_in(decoder, block)
        if decoder.shape_of(kind) is shape:
            return block, packed


def _packed_in(decoder: NarrowDecoder, block: Block) -> dict[int, Block]:
    packed: dict[int, Block] = {}
    others: dict[int, list[bytes]] = {}
    for place in block.odd:
        value = block.values[place]
        items = decoder.decode_packed(value) if block.items[place] is PACKED and value is not None else None
        if items is not None:
            packed[place] = Block(items, [], [value] * len(items))
            continue
        found = unpack_value(value)
        if isinstance(found, list):
            others[place] = found
        elif found is not None:
            block.items[place] = found
    if others:
        packed |= _one_by_one(decoder, block, others)
    return packed


def _one_by_one(decoder: NarrowDecoder, block: Block, members: dict[int, list[bytes]]) -> dict[int, Block]:
    """Return the events of packed records that are not all narrow."""
    # All at once, because records of few events would each cost a call.
    every = decoder.decode([value for found in members.values() for value in found])
    odd, packed, begin = iter([*every.odd, len(every.items)]), dict[int, Block](), 0
    next_odd = next(odd)
    for place, found in members.items():
        end, own = begin + len(found), list[int]()
        while next_odd < end:
            own.append(next_odd - begin)
            next_odd = next(odd)
        for each in own:
            if every.items[begin + each] is PACKED:
                every.items[begin + each] = decoder.decode_one(found[each])
        packed[place] = Block(every.items[begin:end], own, [block.values[place]] * len(found))
        begin = end
    return packed


def with_packed(block: Block, packed: dict[int, Block]) -> Block:
    """Return a block of records with the events of packed ones in their places; each has its record's value."""
    if not packed:
        return block
    items: list[Any] = []
    odd: list[int] = []
    counts: list[int] = []
    values: list[bytes | None] = []
    is_odd = set(block.odd)
    for place, item in enumerate(block.items):
        inner = packed.get(place)
        if inner is None:
            inner = Block([item], [0] if place in is_odd else [], [block.values[place]])
        odd += [len(items) + each for each in inner.odd]
        items += inner.items
        values += inner.values
        counts.append(len(inner.items))
    size = np.array(counts, np.int64)
    first = np.repeat(size.cumsum() - size, size)
    return Block(items, odd, values, np.repeat(np.arange(size.size), size), np.arange(len(items)) - first)


def value_in(value: bytes | None, inner: int) -> bytes | None:
    """Return what an event was decoded from, given the value of its record and its place in it."""
    found = unpack_value(value)
    return found[inner] if isinstance(found, list) else value


def times_of(items: Sequence[Any], shapes: Sequence[Shape], odd: Sequence[int]) -> Ints | None:
    """Return the events' own times in milliseconds, -1 where they have none; None where none can have any."""
    if not odd and not any("ts" in each.fields for each in shapes):
        return None
    if not odd and all("ts" in each.fields for each in shapes):
        with suppress(TypeError):
            return np.fromiter(map(attrgetter("ts"), items), np.int64, len(items))
    found = (getattr(item, "ts", None) for item in items)
    return np.fromiter((-1 if ts is None else ts for ts in found), np.int64, len(items))


def source_decoders() -> tuple[NarrowDecoder, NarrowDecoder]:
    """Return a decoder for the values of each source topic."""
    predictions, feedback = (EVENT_TOPICS[topic] for topic in SOURCES)
    return (
        NarrowDecoder([predictions], partial(decode_value, predictions)),
        NarrowDecoder([feedback], partial(decode_value, feedback)),
    )


def _careful(decode: _Decode) -> _Decode:
    """Return a decoder that checks what is skipped as well."""

    def decode_carefully(value: bytes | None) -> Any:
        if value is None or value.count(b"{") + value.count(b"[") > LIMITS.max_depth:
            raise ValueError("perhaps too deep")
        if not value.isascii():
            value.decode()
        return decode(value)

    return decode_carefully


def _limited(values: Sequence[bytes | None]) -> Iterator[bytes | None]:
    """Return an iterator over values, None in place of those that are too large."""
    try:
        largest = max(map(len, values), default=0)  # type: ignore[arg-type]
    except TypeError:
        largest = LIMITS.max_bytes + 1
    if largest <= LIMITS.max_bytes:
        return iter(values)
    return (value if value is not None and len(value) <= LIMITS.max_bytes else None for value in values)
