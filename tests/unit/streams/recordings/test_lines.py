"""Lines of recordings: the record comes back to the byte, whatever bytes it has, and no changed line passes for one."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.recordings.lines import KIND_OF, Taken, line_of, read_line
from unship.codec import decode_line, decode_value
from unship.errors import RecordingError
from unship.rejections import Rejection

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
values = st.one_of(st.none(), st.binary(max_size=20), texts, compact, st.just(PREDICTION))
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
    assert shown["type"] in (kind, "raw")
    if shown["type"] == kind and kind not in ("ledger", "decision", "command"):
        # Who reads the line as an event sees what the monitor saw, with its place.
        event = decode_value(kind, taken.value)
        assert not isinstance(event, Rejection)
        again = decode_line(line)
        assert not isinstance(again, Rejection)
        assert type(again) is type(event)
        assert getattr(again, "ts", None) == getattr(event, "ts", None)


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
