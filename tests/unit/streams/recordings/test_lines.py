"""Lines of recordings: the record comes back to the byte, whatever bytes it has, and no changed line passes for one."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.recordings.lines import KIND_OF, Taken, line_of, read_line, unpacked
from unship.codec import decode_line, decode_value
from unship.errors import RecordingError
from unship.events import Feedback
from unship.log.packed import decode_values
from unship.rejections import RejectCode, Rejection

PREDICTION = b'{"type":"prediction","id":"p-1","model":"fraud","version":"v42","output":1,"score":0.93}'

words = st.sampled_from(["p-1", "at", "raw", "ä\n", '"', "{", ""])
events = st.fixed_dictionaries(
    {"type": st.sampled_from(list(KIND_OF.values())), "id": words, "model": words, "version": words, "output": words},
    optional={
        "truth": words,
        "at": st.just(["feedback", 0, 1, 2]),
        "raw": words,
        "slices": st.dictionaries(words, words),
        "ts": st.sampled_from([5, "2026-01-05T00:00:00.1234Z"]),
        "unknown": words,
        "status": st.just("live"),
        "replica": words,
    },
)
texts = st.builds(
    lambda event, indent, ascii_only: json.dumps(event, indent=indent, ensure_ascii=ascii_only).encode(),
    events,
    st.sampled_from([None, 1]),
    st.booleans(),
)
compact = events.map(lambda event: json.dumps(event, separators=(",", ":")).encode())
packed = st.builds(
    lambda parts, blank: b"[" + blank + b",".join(parts) + b"]",
    st.lists(st.one_of(texts, compact, st.just(PREDICTION), st.just(b"7"), st.just(b'"\xff"')), max_size=3),
    st.sampled_from([b"", b" ", b"\n"]),
)
values = st.one_of(st.none(), st.binary(max_size=20), texts, compact, st.just(PREDICTION), packed)
keys = st.one_of(st.none(), st.just(b"p-1"), st.just(b"fraud"), st.binary(max_size=5))
headers = st.lists(st.tuples(words, st.one_of(st.none(), st.binary(max_size=4))), max_size=2).map(tuple)
records = st.builds(
    Taken,
    st.sampled_from(list(KIND_OF)),
    st.integers(0, 3),
    st.integers(0, 99),
    st.integers(0, 99),
    keys,
    values,
    headers,
)


@given(records)
def test_record_comes_back_from_its_line_whatever_its_bytes(taken: Taken) -> None:
    line = line_of(taken)
    assert read_line(line) == read_line(line + b"\n") == taken
    assert b"\n" not in line
    shown = json.loads(line)
    assert shown["at"] == [taken.topic, taken.partition, taken.offset, taken.append_ts]
    kind = KIND_OF[taken.topic]
    assert shown["type"] in (kind, "raw", "packed")
    if shown["type"] == "packed":
        # Who reads the line sees the events that the monitor saw, with the place of their record.
        assert kind in ("prediction", "feedback")
        assert shown["events"] == json.loads(taken.value or b"")
        expected = decode_values(kind, taken.value)
        assert [without_place(event) for event in unpacked(line) or []] == expected
    if shown["type"] == kind and kind not in ("ledger", "decision", "command"):
        # Who reads the line as an event sees what the monitor saw, with its place.
        event = decode_value(kind, taken.value)
        assert not isinstance(event, Rejection)
        again = decode_line(line)
        assert not isinstance(again, Rejection)
        assert type(again) is type(event)
        assert getattr(again, "ts", None) == getattr(event, "ts", None)


def without_place(event: Any) -> Any:
    return event if isinstance(event, Rejection) else msgspec.structs.replace(event, at=None)


@given(records, st.integers(0, 10_000), st.integers(0, 255))
def test_changed_byte_is_refused_or_gives_another_record(taken: Taken, place: int, byte: int) -> None:
    line = bytearray(line_of(taken))
    if line[place % len(line)] == byte:
        return
    line[place % len(line)] = byte
    with suppress(RecordingError):
        assert read_line(bytes(line)) != taken


def test_usual_event_needs_nothing_beside_its_place() -> None:
    line = line_of(Taken("predictions", 2, 5, 1_000, b"p-1", PREDICTION))
    assert line == PREDICTION[:-1] + b',"at":["predictions",2,5,1000]}'


def test_packed_record_is_one_line_that_people_can_read() -> None:
    value = b'[{"type":"feedback","id":"p-1","truth":1},{"type":"feedback","id":"p-2","truth":0}]'
    line = line_of(Taken("feedback", 2, 5, 1_000, b"p-1", value))
    assert line == b'{"type":"packed","events":' + value + b',"at":["feedback",2,5,1000]}'
    assert read_line(line) == Taken("feedback", 2, 5, 1_000, b"p-1", value)
    first, second = unpacked(line + b"\n") or []
    assert isinstance(first, Feedback)
    assert isinstance(second, Feedback)
    assert (first.id, first.at, second.id) == ("p-1", ("feedback", 2, 5, 1_000), "p-2")


def test_packed_record_of_the_largest_size_comes_back_from_its_line() -> None:
    value = b'[{"id":"p-1","truth":1,"x":"%b"},[[[[[[[[[[]]]]]]]]]]]' % (b"x" * 65_000)
    taken = Taken("feedback", 0, 0, 1, b"p-1", value)
    line = line_of(taken)
    assert line.startswith(b'{"type":"packed",')
    assert read_line(line) == taken
    codes = [event.code for event in unpacked(line) or [] if isinstance(event, Rejection)]
    assert codes == [RejectCode.TOO_DEEP]


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        ("feedback", b"[]"),
        ("feedback", b'[{"id":"p-1","truth":1},]'),
        ("feedback", b'[{"id":"p-1",\n"truth":1}]'),
        ("feedback", b'[{"id":"\xff","truth":1}]'),
        ("deployments", b'[{"model":"fraud","version":"v42","status":"live"}]'),
        ("acks", b"[{}]"),
    ],
)
def test_array_that_is_no_packed_record_or_no_line_is_kept_as_bytes(topic: str, value: bytes) -> None:
    taken = Taken(topic, 0, 0, 1, None, value)
    line = line_of(taken)
    assert line.startswith(b'{"type":"raw",')
    assert read_line(line) == taken
    assert unpacked(line) is None


@pytest.mark.parametrize("tail", [b"}", b',"at":["feedback",0,0]}', b',"at":["control",0,0,1]}', b',"at":["x",0,0,1]}'])
def test_packed_line_without_a_place_in_a_source_topic_is_a_rejection(tail: bytes) -> None:
    (found,) = unpacked(b'{"type":"packed","events":[{"id":"p-1","truth":1}]' + tail) or []
    assert isinstance(found, Rejection)


def test_signature_is_kept_and_nothing_else_is_repeated() -> None:
    act = b'{"type":"operator","act":"hold","model":"m","reason":"r","by":"ann"}'
    line = json.loads(line_of(Taken("operator", 0, 0, 1, b"m", act, (("unship_sig", b"xyz"),))))
    assert line["raw"] == {"headers": [["unship_sig", "eHl6"]]}


@pytest.mark.parametrize(
    "line", [b"", b"{}", PREDICTION, b'{"type":"raw","at":["snapshots",0,0,1],"raw":{"value":null}}']
)
def test_line_that_no_record_has_is_refused(line: bytes) -> None:
    with pytest.raises(RecordingError):
        read_line(line)
