"""What is encoded is decoded to the same event, and any bytes at all are answered."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from unship.codec import LIMITS, OtherLine, decode_line, decode_value, encode_line
from unship.events import (
    EVENT_TYPES,
    INTEGER_MAX,
    TS_MS_MAX,
    TS_MS_MIN,
    Event,
    Feedback,
    Prediction,
    Reference,
    RefusalCode,
)
from unship.rejections import DECODING_CODES, Rejection
from unship.sending.sendable import reads_back

integers = st.integers(-INTEGER_MAX, INTEGER_MAX)
naturals = st.integers(0, INTEGER_MAX)
probabilities = st.floats(0, 1)
names = st.text(min_size=1, max_size=128)
labels = st.text(max_size=128)
times = st.integers(TS_MS_MIN, TS_MS_MAX)
scalars = st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=40)
outputs = scalars | st.lists(scalars, max_size=10)
epochs = st.tuples(naturals, naturals, naturals)
places = st.tuples(labels, naturals, naturals, times)
json_values = st.recursive(
    st.none() | scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(labels, inner, max_size=3)
)


def events_of(kind: str, required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[Any]:
    optional = {"ts": times, "at": places} | optional
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: EVENT_TYPES[kind](**fields))


predictions = events_of(
    "prediction",
    {"id": names, "model": names, "version": names, "output": outputs},
    {
        "row": st.integers(0, 1_000_000),
        "target": labels,
        "score": probabilities,
        "scores": st.dictionaries(labels, probabilities, max_size=10),
        "role": st.sampled_from(["live", "shadow", "holdback"]),
        "slices": st.dictionaries(st.text(max_size=64), labels | integers | st.booleans(), max_size=8),
        "latency_ms": st.floats(0, allow_infinity=False),
        "replica": labels,
        "epoch": epochs,
        "artifact": st.text(max_size=256),
    },
)
feedbacks = events_of(
    "feedback",
    {"id": names, "truth": outputs},
    {"model": names, "row": st.integers(0, 1_000_000), "target": labels, "source": labels, "engagement": probabilities},
)
deployments = events_of(
    "deployment",
    {"model": names, "version": names, "status": st.sampled_from(["live", "shadow", "holdback", "retired"])},
    {
        "previous": names,
        "artifact": st.binary(min_size=1, max_size=32).map(lambda data: f"sha256:{data.hex()}"),
        "reference": st.dictionaries(
            labels, st.builds(Reference, mean=probabilities, n=st.integers(1, INTEGER_MAX)), max_size=4
        ),
        "card": st.text(max_size=100) | st.dictionaries(labels, st.lists(scalars, max_size=3), max_size=4),
    },
)
operator_acts = events_of(
    "operator",
    {"act": st.sampled_from(["approve", "pin", "release"]), "model": names, "reason": labels, "by": names},
    {"version": names, "to": names, "decision": labels, "override": st.booleans()},
)
acks = events_of(
    "ack",
    {
        "model": names,
        "replica": names,
        "boot": labels,
        "epoch": epochs,
        "stage": st.sampled_from(["received", "refused"]),
    },
    {"serving": names, "code": st.sampled_from(get_args(RefusalCode))},
)
events = st.one_of(predictions, feedbacks, deployments, operator_acts, acks)
texts = st.text(st.characters(), max_size=300) | st.sampled_from(["x" * 65, "x" * 129, "x" * 1_025, "\ud800", "live"])
numbers = st.integers() | st.floats() | st.sampled_from([2**53, 2**53 + 1, -1, 1_000_001, TS_MS_MAX + 1, -0.0])
anything = st.recursive(
    st.none() | st.booleans() | numbers | texts | st.binary(max_size=3),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner, inner),
        st.dictionaries(texts | numbers, inner, max_size=4),
    ),
)


@given(event=events)
def test_encoded_event_decodes_to_itself(event: Event) -> None:
    encoded = encode_line(event)
    decoded = decode_line(encoded)
    assert decoded == event
    assert isinstance(decoded, Event)
    # 1, 1.0 and True are equal in Python; equal bytes say that the JSON types survived too.
    assert encode_line(decoded) == encoded
    assert b"\n" not in encoded


@given(event=events)
def test_record_value_differs_from_its_line_only_by_its_place(event: Event) -> None:
    kind = msgspec.json.decode(encode_line(event))["type"]
    assert decode_value(kind, encode_line(event)) == msgspec.structs.replace(event, at=None)


@given(event=st.one_of(predictions, feedbacks), data=st.data())
def test_what_is_sent_without_decoding_reads_back_equal(event: Prediction | Feedback, data: st.DataObject) -> None:
    """Any field may hold any object of an application: what is not certain is left to the decoder."""
    field = data.draw(st.sampled_from(event.__struct_fields__), label="field")
    like, event = event, msgspec.structs.replace(event, **{field: data.draw(anything, label="value")})
    if not reads_back(event, msgspec.structs.replace(like, at=None)):
        return
    try:
        encoded = encode_line(event)
    except (TypeError, UnicodeEncodeError):
        return
    decoded = decode_line(encoded)
    if len(encoded) <= LIMITS.max_bytes:
        assert decoded == event
        assert encode_line(decoded) == encoded


@given(event=st.one_of(predictions, feedbacks))
def test_flat_events_are_sent_without_decoding(event: Prediction | Feedback) -> None:
    flat = {"scores": None} if isinstance(event, Prediction) else {}
    event = msgspec.structs.replace(event, at=None, ts=event.ts or TS_MS_MIN, **flat)
    answer = event.output if isinstance(event, Prediction) else event.truth
    assert reads_back(event, event) is not isinstance(answer, list)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_answered(data: bytes) -> None:
    result = decode_line(data)
    assert isinstance(result, Event | OtherLine | Rejection)
    assert decode_line(data) == result
    for kind in EVENT_TYPES:
        assert isinstance(decode_value(kind, data), Event | Rejection)


@given(event=events, field=st.sampled_from(["id", "output", "truth", "ts", "slices", "model", "x"]), value=json_values)
def test_any_json_in_any_field_is_answered(event: Event, field: str, value: object) -> None:
    line = json.dumps(json.loads(encode_line(event)) | {field: value}).encode()
    result = decode_line(line)
    if isinstance(result, Rejection):
        assert result.code in DECODING_CODES
    else:
        assert isinstance(result, Event)
        assert result.ts is None or type(result.ts) is int
        assert decode_line(encode_line(result)) == result
