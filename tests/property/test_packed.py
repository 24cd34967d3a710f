"""Packing: whatever the events, each comes back to the byte and in order, and whatever the bytes, nothing raises."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from unship.codec import decode_value
from unship.log.link import Message, records_of
from unship.log.packed import PACKED_BYTES_MAX, PACKED_EVENTS_MAX, decode_values, pack_values, unpack_value
from unship.rejections import DECODING_CODES, Rejection

fields = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
small = st.builds(
    lambda truth, other, indent: json.dumps({"id": "p", "truth": truth, "x": other}, indent=indent).encode(),
    fields,
    fields,
    st.sampled_from([None, 1]),
)
large = st.integers(9, PACKED_BYTES_MAX).map(lambda size: b'{"id":"%b"}' % (b"x" * (size - 9)))
# Repeated, because a list of hundreds of different events is more than an example can have.
runs = st.lists(st.tuples(small | large, st.integers(1, 70)), max_size=6).map(
    lambda parts: [value for value, count in parts for _ in range(count if len(value) < 1_000 else 1)]
)


@given(runs)
def test_events_come_back_to_the_byte_in_order_from_records_within_the_limits(values):
    unpacked = []
    for record, count in pack_values(values):
        assert len(record) <= PACKED_BYTES_MAX
        assert 1 <= count <= PACKED_EVENTS_MAX
        found = unpack_value(record)
        assert (found is None) == (count == 1)
        assert not isinstance(found, Rejection)
        events = [record] if found is None else found
        assert len(events) == count
        unpacked += events
    assert unpacked == values


@given(runs)
def test_no_two_records_would_fit_into_one(values):
    records = [record for record, _ in pack_values(values)]
    counts = [count for _, count in pack_values(values)]
    firsts = [values[sum(counts[:i])] for i in range(len(counts))]
    for i in range(len(records) - 1):
        # A plain record gets two brackets where it is joined by another event.
        size = len(records[i]) + (2 if counts[i] == 1 else 0) + 1 + len(firsts[i + 1])
        assert counts[i] == PACKED_EVENTS_MAX or size > PACKED_BYTES_MAX


@given(runs, st.booleans())
def test_messages_are_carried_once_each_in_order_under_the_key_of_the_first(values, pack):
    messages = [Message(value, b"%d" % number) for number, value in enumerate(values)]
    found = list(records_of(messages, pack=pack))
    assert [message for _, carried in found for message in carried] == messages
    assert all(record.key == carried[0].key for record, carried in found)
    assert pack or all(record is carried[0] for record, carried in found)


@given(runs)
def test_events_of_a_packed_record_are_decoded_as_those_of_plain_records(values):
    packed = [event for record, _ in pack_values(values) for event in decode_values("feedback", record)]
    assert packed == [decode_value("feedback", value) for value in values]


brackets = st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b",", b"1", b"\\", b"\xff", b" ", b'{"id":"p"}']))
cut_off = st.builds(
    lambda values, begin, end: (b"[" + b",".join(values) + b"]")[begin:end],
    st.lists(small, min_size=1, max_size=3),
    st.integers(0, 3),
    st.integers(-5, 200),
)
foreign = st.binary(max_size=50) | brackets.map(b"".join) | cut_off | small


@given(foreign, st.sampled_from([b"", b"[", b" [", b"[" * 400]), st.sampled_from(["prediction", "feedback", "ack"]))
def test_any_bytes_are_answered_without_raising(value, before, kind):
    found = unpack_value(before + value)
    if isinstance(found, Rejection):
        assert found.code in DECODING_CODES
    elif found is not None:
        assert 1 <= len(found) <= PACKED_EVENTS_MAX
        assert all(each in before + value for each in found)
    events = decode_values(kind, before + value)
    assert events
    assert all(event.code in DECODING_CODES for event in events if isinstance(event, Rejection))
