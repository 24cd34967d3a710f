"""Records that hold several events: what is packed together, and what becomes of arrays that are no such record."""

from __future__ import annotations

import pytest

from unship.codec import LIMITS, decode_value, encode_line
from unship.events import Feedback
from unship.log.packed import (
    NESTED_MAX,
    PACKED_BYTES_MAX,
    PACKED_EVENTS_MAX,
    decode_values,
    pack_values,
    unpack_value,
)
from unship.rejections import RejectCode, Rejection


def values(count: int) -> list[bytes]:
    return [encode_line(Feedback(id=f"p-{number}", truth=1)) for number in range(count)]


def of_size(size: int) -> bytes:
    return b'{"id":"%b"}' % (b"x" * (size - 9))


def test_limits_are_those_of_the_contract():
    assert (PACKED_EVENTS_MAX, PACKED_BYTES_MAX) == (64, 65_536)


def test_events_beyond_64_begin_another_record():
    assert [count for _, count in pack_values(values(64))] == [64]
    assert [count for _, count in pack_values(values(150))] == [64, 64, 22]


def test_single_event_is_a_plain_record():
    (value,) = values(1)
    assert list(pack_values([value])) == [(value, 1)]
    assert [count for _, count in pack_values(values(65))] == [64, 1]
    assert not [record for record, _ in pack_values(values(65))][1].startswith(b"[")


def test_record_is_filled_to_its_last_byte_and_not_beyond():
    first, second = of_size(30_000), of_size(PACKED_BYTES_MAX - 30_000 - 3)
    ((record, count),) = pack_values([first, second])
    assert (len(record), count) == (PACKED_BYTES_MAX, 2)
    assert [count for _, count in pack_values([first, second + b" "])] == [1, 1]


def test_event_too_large_to_share_is_a_plain_record_between_its_neighbours():
    a, b, c, d = values(4)
    large = of_size(PACKED_BYTES_MAX)
    assert list(pack_values([a, b, large, c, d])) == [(b"[%b,%b]" % (a, b), 2), (large, 1), (b"[%b,%b]" % (c, d), 2)]


def test_no_events_make_no_record():
    assert list(pack_values([])) == []


@pytest.mark.parametrize(
    "value", [None, b"", b" ", b"{}", b' {"id":[]}', b"7", b'"["', b"\xef\xbb\xbf[{}]", b"\x00[{}]"]
)
def test_value_that_is_no_array_is_not_packed(value):
    assert unpack_value(value) is None


def test_blanks_around_the_array_and_its_events_are_no_part_of_an_event():
    assert unpack_value(b' \t\r\n[ {"id": "a"} ,\n{"id":"b"} ]\n') == [b'{"id": "a"}', b'{"id":"b"}']


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"[]", RejectCode.BAD_EVENT),
        (b"[", RejectCode.BAD_JSON),
        (b"[{}", RejectCode.BAD_JSON),
        (b"[{},]", RejectCode.BAD_JSON),
        (b"[{}] {}", RejectCode.BAD_JSON),
        (b"[{} {}]", RejectCode.BAD_JSON),
        (b"[NaN]", RejectCode.BAD_JSON),
        (b'[{"a":"\\ud800"}]', RejectCode.BAD_JSON),
        (b"[" + b",".join([b"{}"] * 65) + b"]", RejectCode.TOO_LARGE),
        (b"[" + b" " * PACKED_BYTES_MAX + b"{}]", RejectCode.TOO_LARGE),
        (b"[" * (NESTED_MAX + 1) + b"]" * (NESTED_MAX + 1), RejectCode.TOO_DEEP),
        (b"[" * 60_000, RejectCode.TOO_DEEP),
    ],
)
def test_array_that_is_no_packed_record_is_rejected_as_a_whole(value, code):
    found = unpack_value(value)
    assert isinstance(found, Rejection)
    assert found.code == code
    assert found.detail
    assert decode_values("prediction", value) == [found]


def test_record_of_the_largest_size_is_unpacked():
    event = of_size(PACKED_BYTES_MAX - 2)
    assert unpack_value(b"[%b]" % event) == [event]


def test_a_bad_event_costs_only_itself():
    good, other = values(2)
    deep = b'{"id":"p","truth":1,"x":' + b"[" * LIMITS.max_depth + b"]" * LIMITS.max_depth + b"}"
    bad = [b"7", b"[]", b"null", b'{"id":"p"}', b'{"id":"\xff","truth":1}', deep]
    events = decode_values("feedback", b"[%b]" % b",".join([good, *bad, other]))
    assert [event.id for event in events if isinstance(event, Feedback)] == ["p-0", "p-1"]
    codes = [event.code.value for event in events if isinstance(event, Rejection)]
    assert codes == ["BAD_EVENT", "BAD_EVENT", "BAD_EVENT", "BAD_EVENT", "NOT_UTF8", "TOO_DEEP"]


def test_many_brackets_that_nest_little_are_unpacked():
    wide = b'{"x":[%b]}' % b",".join([b"[]"] * NESTED_MAX)
    assert unpack_value(b"[%b]" % wide) == [wide]


def test_only_predictions_and_feedback_may_be_packed():
    deployment = b'{"model":"fraud","version":"v42","status":"live"}'
    packed = b"[%b]" % deployment
    assert decode_values("deployment", packed) == [decode_value("deployment", packed)]
    assert decode_values("deployment", deployment) == [decode_value("deployment", deployment)]
