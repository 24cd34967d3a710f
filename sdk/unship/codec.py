"""Turn bytes into events, totally: every input gives an event, a marker or a rejection, and nothing raises.

A monitor that reads what a whole fleet writes meets every kind of bad bytes sooner or later, and one that stops at
them stops watching. So decoding is a function of the bytes alone, without clock, environment or log: the same bytes
give the same answer in the live service, in a replay and in an audit.

Order of the checks, cheapest first: size, nesting, UTF-8, then one pass of msgspec that reads JSON and checks the types
and limits of `unship.events` together, then the few rules that a type cannot express. Nesting is bounded before the
parser runs, because a parser's own bound is the depth of the stack that happens to be left: not a function of the
bytes. UTF-8 is checked as a whole, because a parser skips the text of fields it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeAlias, cast

import msgspec
from msgspec import Meta, Struct, ValidationError

from unship.budgets.table import EVENT, EVENT_DEPTH, OTHER_LINE
from unship.events import (
    EVENT_TYPES,
    INTEGER_MAX,
    TEXT_CHARS_MAX,
    TS_MS_MAX,
    TS_MS_MIN,
    Deployment,
    Event,
    Feedback,
    Prediction,
)
from unship.rejections import RejectCode, Rejection
from unship.text import is_deeper_than, quotes_nothing, shortened


class Limits(Struct, frozen=True):
    """Bound what is read: sizes in bytes, depth in nested arrays and objects (a flat event has depth 1).

    An event fits in 64 KiB with 1,000 scores; depth 8 leaves room for a model card. `max_other_bytes` bounds the
    lines that are passed on undecoded: a ledger batch of 4,096 outcomes of 1 KiB takes 4 MiB.
    """

    max_bytes: int = EVENT.limit
    max_depth: int = EVENT_DEPTH.limit
    max_other_bytes: int = OTHER_LINE.limit


LIMITS = Limits()


class OtherLine(Struct, frozen=True, gc=False):
    """Mark a recording's line that is no event; its bytes belong to the reader of that kind."""

    kind: str


class _LedgerLine(Struct, tag_field="type", tag="ledger"):
    """Recognise the tag; every field is skipped."""


class _DecisionLine(Struct, tag_field="type", tag="decision"):
    """Recognise the tag; every field is skipped."""


class _CommandLine(Struct, tag_field="type", tag="command"):
    """Recognise the tag; every field is skipped."""


class _RawLine(Struct, tag_field="type", tag="raw"):
    """Recognise the tag; every field is skipped."""


Decoded: TypeAlias = Event | OtherLine | Rejection
_Decode: TypeAlias = Callable[[bytes], Any]

_OTHER_LINES: dict[type[Struct], OtherLine] = {
    _LedgerLine: OtherLine("ledger"),
    _DecisionLine: OtherLine("decision"),
    _CommandLine: OtherLine("command"),
    _RawLine: OtherLine("raw"),
}
OTHER_KINDS: tuple[str, ...] = tuple(line.kind for line in _OTHER_LINES.values())
"""The kinds of lines that a recording carries besides events, and that the codec only recognises."""

_decode_any_line: _Decode = msgspec.json.Decoder(Event | _LedgerLine | _DecisionLine | _CommandLine | _RawLine).decode
# A decoder of one tagged type accepts a value without the tag: a topic already determines the type of its values.
_decode_by_kind: dict[str, _Decode] = {
    kind: cast(_Decode, msgspec.json.Decoder(event_type).decode) for kind, event_type in EVENT_TYPES.items()
}
_encode = msgspec.json.Encoder().encode

# What msgspec raises for bad input (its own errors and UnicodeDecodeError are ValueErrors) and no more, so that a
# mistake in this module is not taken for bad input.
_BAD_INPUT = (ValueError, RecursionError, OverflowError)


def decode_line(line: bytes, limits: Limits = LIMITS) -> Decoded:
    """Decode one line of a recording, with or without its line end; never raises.

    A line of a kind that is decoded elsewhere gives its `OtherLine`. When such a line is larger or deeper than an
    event may be, it is recognised only by a leading `"type"`, which is where writers put it, and is not parsed.

    Example:
        >>> decode_line(b'{"type":"feedback","id":"p-1","truth":1,"ts":"2000-01-01T00:00:01Z"}').ts
        946684801000
        >>> decode_line(b'{"type":"ledger","batch":1}')
        OtherLine(kind='ledger')
        >>> decode_line(b'{"type":"feedback","id":"p-1"').code.value
        'BAD_JSON'
    """
    return _decode(_decode_any_line, line, limits)


def decode_value(kind: str, value: bytes | None, limits: Limits = LIMITS) -> Event | Rejection:
    """Decode the value of a record from the topic of `kind` ("prediction", "feedback", ...); never raises on a value.

    The value may leave out `type`. A tombstone (None) is a rejection. A place in the log (`at`) that the sender wrote
    into the value is dropped: only the reader of the log knows it.

    Raises:
        KeyError: `kind` is none of `unship.events.EVENT_TYPES`; that is a mistake of the program, not of the input.

    Example:
        >>> decode_value("feedback", b'{"id":"p-1","truth":true}').truth
        True
        >>> decode_value("feedback", None)
        Rejection(code=<RejectCode.BAD_EVENT: 'BAD_EVENT'>, detail='the record has no value')
    """
    decode = _decode_by_kind[kind]
    if value is None:
        return Rejection(RejectCode.BAD_EVENT, "the record has no value")
    # A decoder of one event type never yields an OtherLine, and none is guessed from oversized values.
    event = cast(Event | Rejection, _decode(decode, value, limits))
    if event.__class__ is not Rejection and cast(Event, event).at is not None:
        return msgspec.structs.replace(event, at=None)
    return event


def encode_line(event: Event) -> bytes:
    """Encode an event as tagged JSON in field order, without defaults and without a line end.

    Limits are not checked here: `decode_line` of the result shows what the monitor will read. A NaN or an
    infinity becomes null, as JSON has neither.

    Raises:
        OverflowError: An integer does not fit in 64 bits.
        UnicodeEncodeError: A string holds half of a surrogate pair.

    Example:
        >>> from unship.events import Prediction
        >>> encode_line(Prediction(id="p-1", model="fraud", version="v42", output=1))
        b'{"type":"prediction","id":"p-1","model":"fraud","version":"v42","output":1}'
    """
    return _encode(event)


def _decode(decode: _Decode, data: bytes, limits: Limits) -> Decoded:
    # Counting opening brackets is cheap and settles nearly every line: there cannot be more levels than brackets. Only
    # a line with more of them is scanned exactly.
    if len(data) > limits.max_bytes or data.count(b"[") + data.count(b"{") > limits.max_depth:
        exceeded = _exceeded(data, limits, others=decode is _decode_any_line)
        if exceeded is not None:
            return exceeded
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            return Rejection(RejectCode.NOT_UTF8, f"byte {error.start} is not UTF-8")
    try:
        event = decode(data)
    except _BAD_INPUT as error:
        return _rejection(error)
    kind = event.__class__
    if len(data) > TEXT_CHARS_MAX and (kind is Prediction or kind is Feedback):
        event = _with_short_texts(event)
    if kind is Prediction or (kind is Feedback and (event.truth is not None or event.engagement is not None)):
        # Nearly every event ends here; `ts` is text only until `_settle` has replaced it.
        return cast(Event, event) if event.ts.__class__ is not str else _with_time_ms(event)
    return _settle(event)


_OTHER_LINE_HEAD = re.compile(rb'\s*\{\s*"type"\s*:\s*"(%s)"' % "|".join(OTHER_KINDS).encode())
_OTHER_LINE_OF = {line.kind.encode(): line for line in _OTHER_LINES.values()}


def _exceeded(data: bytes, limits: Limits, *, others: bool) -> Decoded | None:
    """Return the answer for data that is too large or too deep, or None if it is neither."""
    max_bytes = limits.max_bytes
    if others:
        head = _OTHER_LINE_HEAD.match(data)
        if head is not None:
            if len(data) <= limits.max_other_bytes:
                return _OTHER_LINE_OF[head[1]]
            max_bytes = limits.max_other_bytes
    if len(data) > max_bytes:
        return Rejection(RejectCode.TOO_LARGE, f"{len(data)} bytes > limit {max_bytes} bytes")
    if is_deeper_than(limits.max_depth, data):
        return Rejection(RejectCode.TOO_DEEP, f"nested deeper than limit {limits.max_depth}")
    return None


def _settle(event: Any) -> Decoded:
    """Apply the rules that types cannot express, and translate the lines that are decoded elsewhere."""
    other = _OTHER_LINES.get(event.__class__)
    if other is not None:
        return other
    if event.__class__ is Feedback and event.truth is None and event.engagement is None and not event.retract:
        return Rejection(RejectCode.BAD_EVENT, "Expected `truth` or `engagement`, got neither - at `$`")
    if event.__class__ is Deployment and event.card.__class__ is dict and not _integers_fit(event.card):
        return Rejection(RejectCode.NUMBER_OUT_OF_RANGE, "Integer value out of range - at `$.card`")
    return _with_time_ms(event) if event.ts.__class__ is str else cast(Event, event)


def _integers_fit(value: Any) -> bool:
    """Return whether every integer inside free-form JSON has at most the magnitude that all integers may have."""
    pending = [value]
    while pending:
        item = pending.pop()
        if item.__class__ is dict:
            pending.extend(item.values())
        elif item.__class__ is list:
            pending.extend(item)
        elif item.__class__ is int and not -INTEGER_MAX <= item <= INTEGER_MAX:
            return False
    return True


def with_short_texts(value: Any) -> Any:
    """Return an answer or a truth with text of at most 1,024 characters; longer text is cut, with its SHA-256.

    Example:
        >>> with_short_texts("a"), len(with_short_texts("alpha " * 1000))
        ('a', 1024)
    """
    if value.__class__ is str:
        return shortened(value, TEXT_CHARS_MAX)
    if value.__class__ is list:
        return [shortened(each, TEXT_CHARS_MAX) if each.__class__ is str else each for each in value]
    return value


def _with_short_texts(event: Any) -> Any:
    name = "output" if event.__class__ is Prediction else "truth"
    return msgspec.structs.replace(event, **{name: with_short_texts(getattr(event, name))})


_EPOCH_START = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_AwareTime = Annotated[datetime, Meta(tz=True)]


def _with_time_ms(event: Any) -> Event | Rejection:
    """Replace RFC 3339 text in `ts` by milliseconds (rounded down); without a zone a text names no instant."""
    try:
        instant: datetime = msgspec.convert(event.ts, _AwareTime)
    except ValidationError:
        return Rejection(RejectCode.BAD_TIME, "Expected RFC 3339 with a zone - at `$.ts`")
    ts_ms = (instant - _EPOCH_START) // _MILLISECOND
    if not TS_MS_MIN <= ts_ms <= TS_MS_MAX:
        return Rejection(RejectCode.BAD_TIME, "Expected a time from 2000 to 2100 - at `$.ts`")
    return cast(Event, msgspec.structs.replace(event, ts=ts_ms))


_PATH = re.compile(r" - at (?:`key` in )?`([^`]*)`\Z")
_OUT_OF_RANGE = re.compile(r"Integer value out of range|Number out of range|Expected `(?:int|float)` [<>]")
_TIME_PATHS = ("$.ts", "$.at[3]")
_BEFORE_2000 = f"Expected `int` >= {TS_MS_MIN}"
_SECONDS = "Expected milliseconds from 2000-01-01 on, was before; are they seconds? - at `$.ts`"
_NO_TYPE = "Object missing required field `type`"


def _rejection(error: ValueError | RecursionError | OverflowError) -> Rejection:
    """Translate what the parser raised; keep its message only where it cannot hold values of the event."""
    message = str(error)
    if isinstance(error, RecursionError):
        return Rejection(RejectCode.TOO_DEEP, "nested deeper than the parser allows")
    if not isinstance(error, ValidationError):
        detail = message if isinstance(error, msgspec.DecodeError) else type(error).__name__
        return Rejection(RejectCode.BAD_JSON, detail)
    # The path comes last, so text inside a quoted value cannot pass for it.
    found = _PATH.search(message)
    path = found[1] if found is not None else "$"
    detail = message if quotes_nothing(message) else f"Expected a word of the contract - at `{path}`"
    if path == "$.type" or message == _NO_TYPE:
        return Rejection(RejectCode.UNKNOWN_TYPE, detail)
    if path in _TIME_PATHS:
        detail = _SECONDS if message.startswith(_BEFORE_2000) else detail
        return Rejection(RejectCode.BAD_TIME, detail)
    if _OUT_OF_RANGE.match(message):
        return Rejection(RejectCode.NUMBER_OUT_OF_RANGE, detail)
    return Rejection(RejectCode.BAD_EVENT, detail)
