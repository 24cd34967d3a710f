"""Every code of the decoder is given for its cause, and good input is read as it was meant."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from unship.codec import OTHER_KINDS, Limits, OtherLine, decode_line, decode_value, encode_line
from unship.events import (
    EVENT_TYPES,
    TS_MS_MAX,
    TS_MS_MIN,
    Ack,
    Deployment,
    Event,
    Feedback,
    OperatorAct,
    Prediction,
    Reference,
    RefusalCode,
)
from unship.rejections import DECODING_CODES, RejectCode, Rejection

PREDICTION: dict[str, Any] = {"type": "prediction", "id": "p-1", "model": "fraud", "version": "v42", "output": 1}
FEEDBACK: dict[str, Any] = {"type": "feedback", "id": "p-1", "truth": 1}
DEPLOYMENT: dict[str, Any] = {"type": "deployment", "model": "fraud", "version": "v42", "status": "live"}
OPERATOR: dict[str, Any] = {"type": "operator", "act": "hold", "model": "fraud", "reason": "audit", "by": "ana"}
ACK: dict[str, Any] = {
    "type": "ack",
    "model": "fraud",
    "replica": "r-1",
    "boot": "b-1",
    "epoch": [1, 20, 0],
    "stage": "serving",
}
MINIMAL = {"prediction": PREDICTION, "feedback": FEEDBACK, "deployment": DEPLOYMENT, "operator": OPERATOR, "ack": ACK}


def line(event: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps(event | fields).encode()


def code_of(data: bytes) -> RejectCode:
    result = decode_line(data)
    assert isinstance(result, Rejection), f"expected a rejection, was {result!r}"
    return result.code


def good(data: bytes) -> Event:
    result = decode_line(data)
    assert isinstance(result, Event), f"expected an event, was {result!r}"
    return result


@pytest.mark.parametrize("kind", MINIMAL)
def test_event_with_only_required_fields_is_accepted(kind: str) -> None:
    event = good(line(MINIMAL[kind]))
    assert type(event) is EVENT_TYPES[kind]
    assert event.ts is None
    assert event.at is None


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (kind, field)
        for kind, event in MINIMAL.items()
        for field in event
        if field != "type" and (kind, field) not in (("feedback", "truth"), ("prediction", "output"))
    ],
)
def test_event_without_a_required_field_is_a_bad_event_naming_it(kind: str, field: str) -> None:
    partial = {name: value for name, value in MINIMAL[kind].items() if name != field}
    result = decode_line(line(partial))
    assert result == Rejection(RejectCode.BAD_EVENT, f"Object missing required field `{field}`")


def test_all_fields_of_a_prediction_are_read() -> None:
    event = good(
        line(
            PREDICTION,
            ts=1_760_000_000_000,
            row=3,
            target="churn",
            score=0.93,
            scores={"a": 0.25, "b": 0.75},
            role="shadow",
            slices={"country": "DE", "tier": 2, "new": True},
            latency_ms=12.5,
            replica="r-1",
            epoch=[1, 2, 3],
            artifact="sha256:ab",
            at=["unship.predictions", 0, 17, 1_760_000_000_005],
            unknown={"is": ["ignored", None]},
        )
    )
    assert event == Prediction(
        id="p-1",
        model="fraud",
        version="v42",
        output=1,
        ts=1_760_000_000_000,
        row=3,
        target="churn",
        score=0.93,
        scores={"a": 0.25, "b": 0.75},
        role="shadow",
        slices={"country": "DE", "tier": 2, "new": True},
        latency_ms=12.5,
        replica="r-1",
        epoch=(1, 2, 3),
        artifact="sha256:ab",
        at=("unship.predictions", 0, 17, 1_760_000_000_005),
    )


def test_all_fields_of_the_low_rate_events_are_read() -> None:
    deployed = good(line(DEPLOYMENT, previous="v41", reference={"zero_one": {"mean": 0.1, "n": 500}}, card={"a": [1]}))
    assert deployed == Deployment(
        model="fraud",
        version="v42",
        status="live",
        previous="v41",
        reference={"zero_one": Reference(mean=0.1, n=500)},
        card={"a": [1]},
    )
    act = good(line(OPERATOR, act="rollback", to="v41", override=True, decision="d-1"))
    assert act == OperatorAct(
        act="rollback", model="fraud", reason="audit", by="ana", to="v41", override=True, decision="d-1"
    )
    refusal = good(line(ACK, stage="refused", serving="v41", code="QUARANTINED"))
    assert refusal == Ack(
        model="fraud",
        replica="r-1",
        boot="b-1",
        epoch=(1, 20, 0),
        stage="refused",
        serving="v41",
        code="QUARANTINED",
    )


@pytest.mark.parametrize("value", [True, False, 0, -3, 2.5, 1.0, "cat", ["a", 1, 2.5, False], []])
def test_output_and_truth_keep_their_json_type(value: object) -> None:
    predicted, fed_back = good(line(PREDICTION, output=value)), good(line(FEEDBACK, truth=value))
    assert isinstance(predicted, Prediction)
    assert isinstance(fed_back, Feedback)
    for read in (predicted.output, fed_back.truth):
        assert read == value
        assert type(read) is type(value)


@pytest.mark.parametrize("code", get_args(RefusalCode))
def test_every_refusal_code_is_accepted_in_an_ack(code: str) -> None:
    event = good(line(ACK, stage="refused", code=code))
    assert isinstance(event, Ack)
    assert event.code == code


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_line_decoded_elsewhere_is_only_marked(kind: str) -> None:
    assert decode_line(line({"type": kind, "anything": [[1], {"a": None}]})) == OtherLine(kind)
    assert decode_line(line({"anything": 1, "type": kind})) == OtherLine(kind)


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_line_decoded_elsewhere_may_be_larger_and_deeper_than_an_event(kind: str) -> None:
    deep = b'{"type":"%s","a":%s1%s}' % (kind.encode(), b"[" * 20, b"]" * 20)
    large = b'{"type":"%s","a":"%s"}' % (kind.encode(), b"x" * 70_000)
    assert decode_line(deep) == OtherLine(kind)
    assert decode_line(large) == OtherLine(kind)
    limits = Limits(max_other_bytes=66_000)
    assert decode_line(large, limits) == Rejection(RejectCode.TOO_LARGE, f"{len(large)} bytes > limit 66000 bytes")


def test_large_event_is_not_taken_for_a_line_decoded_elsewhere() -> None:
    assert code_of(b'{"id":"x","note":"\\"type\\":\\"ledger\\"","pad":"%s"}' % (b"x" * 70_000)) is RejectCode.TOO_LARGE


# More brackets than the depth limit, none of them nested: such a line takes the exact scan.
FLAT_BRACKETS: list[list[int]] = [[]] * 12


@pytest.mark.parametrize("extra", [None, FLAT_BRACKETS])
def test_event_at_the_size_limit_is_read_and_one_byte_more_is_too_large(extra: object) -> None:
    frame = line(PREDICTION, extra=extra, pad="")
    at_limit = frame.replace(b'"pad": ""', b'"pad": "%s"' % (b"x" * (65_536 - len(frame))))
    assert len(at_limit) == 65_536
    good(at_limit)
    result = decode_line(at_limit.replace(b"xx", b"xxx", 1))
    assert result == Rejection(RejectCode.TOO_LARGE, "65537 bytes > limit 65536 bytes")


@pytest.mark.parametrize("extra", [None, FLAT_BRACKETS])
def test_event_at_the_depth_limit_is_read_and_one_level_more_is_too_deep(extra: object) -> None:
    def nested(levels: int) -> bytes:
        return line(PREDICTION, extra=extra).replace(b"}", b', "deep": %s%s}' % (b"[" * levels, b"]" * levels))

    good(nested(7))
    result = decode_line(nested(8))
    assert result == Rejection(RejectCode.TOO_DEEP, "nested deeper than limit 8")


def test_brackets_that_close_or_stand_in_strings_are_not_depth() -> None:
    good(line(PREDICTION, output='[[[[[[[[{{{{"\\', extra=FLAT_BRACKETS))


@pytest.mark.parametrize(
    "data", [b'{"[[[[[[[[[', b'{"[[[[[[[[[\\', b'{"[[[[[[[[[\\\\\\', b'{"' + b'\\"' * 30_000 + b"[" * 20]
)
def test_brackets_in_an_unfinished_string_are_not_depth(data: bytes) -> None:
    assert code_of(data) is RejectCode.BAD_JSON


@pytest.mark.parametrize("depth", [9, 1_000, 60_000])
def test_deep_nesting_is_too_deep_whatever_its_depth(depth: int) -> None:
    assert code_of(b"[" * depth) is RejectCode.TOO_DEEP
    assert code_of(b'{"a":' * min(depth, 10_000)) is RejectCode.TOO_DEEP


@pytest.mark.parametrize(
    "data",
    [
        line(PREDICTION).replace(b"fraud", b"fr\xffud"),
        line(PREDICTION).replace(b"fraud", b"fr\xc3"),
        line(PREDICTION).replace(b"fraud", b"\xed\xa0\x80"),
        line(PREDICTION, unknown="?").replace(b"?", b"\xfe"),
        line({"type": "ledger", "a": "?"}).replace(b"?", b"\x80"),
        b"\xff\xfe",
    ],
)
def test_bytes_that_are_not_utf8_are_rejected_even_in_unknown_fields(data: bytes) -> None:
    assert code_of(data) is RejectCode.NOT_UTF8


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" \t ",
        b"\n",
        b"\x00",
        b"\xef\xbb\xbf" + line(PREDICTION),
        line(PREDICTION)[:-1],
        line(PREDICTION) + b"x",
        line(PREDICTION) + line(PREDICTION),
        line(PREDICTION).replace(b"fraud", b"fr\x00ud"),
        line(PREDICTION, output="?").replace(b"?", b"\\ud800"),
        line(PREDICTION, output="?").replace(b"?", b"\\udc00"),
        line(PREDICTION, output="?").replace(b"?", b"\\x"),
        line(PREDICTION).replace(b": 1", b": 01"),
        b"{'type': 'prediction'}",
        *(line(PREDICTION, output="?").replace(b'"?"', word) for word in (b"NaN", b"Infinity", b"-Infinity")),
        *(line(PREDICTION, unknown="?").replace(b'"?"', word) for word in (b"NaN", b"Infinity", b"-Infinity")),
    ],
)
def test_text_that_is_not_one_json_value_is_bad_json(data: bytes) -> None:
    assert code_of(data) is RejectCode.BAD_JSON


@pytest.mark.parametrize("data", [b"[]", b"1", b'"prediction"', b"null", b"true"])
def test_json_that_is_no_object_is_a_bad_event(data: bytes) -> None:
    assert code_of(data) is RejectCode.BAD_EVENT


@pytest.mark.parametrize("type_", ["Prediction", "", "commands", 3, None, ["prediction"], {}])
def test_unknown_or_wrong_type_is_an_unknown_type(type_: object) -> None:
    assert code_of(line(PREDICTION, type=type_)) is RejectCode.UNKNOWN_TYPE


def test_line_without_type_is_an_unknown_type() -> None:
    assert code_of(b'{"id":"p-1","truth":1}') is RejectCode.UNKNOWN_TYPE
    assert code_of(b"{}") is RejectCode.UNKNOWN_TYPE


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (PREDICTION, {"id": ""}),
        (PREDICTION, {"id": "x" * 129}),
        (PREDICTION, {"id": 7}),
        (PREDICTION, {"model": ""}),
        (PREDICTION, {"version": ""}),
        (PREDICTION, {"version": 42}),
        (PREDICTION, {"output": {"a": 1}}),
        (PREDICTION, {"output": [1] * 1001}),
        (PREDICTION, {"output": [[1]]}),
        (PREDICTION, {"row": "0"}),
        (PREDICTION, {"row": 1.0}),
        (PREDICTION, {"target": "x" * 129}),
        (PREDICTION, {"role": "canary"}),
        (PREDICTION, {"score": "0.5"}),
        (PREDICTION, {"scores": {"x" * 129: 0.5}}),
        (PREDICTION, {"scores": {str(n): 0.5 for n in range(1001)}}),
        (PREDICTION, {"slices": {"x" * 65: 1}}),
        (PREDICTION, {"slices": {"a": "x" * 129}}),
        (PREDICTION, {"slices": {"a": 1.5}}),
        (PREDICTION, {"slices": {str(n): 1 for n in range(33)}}),
        (PREDICTION, {"replica": "x" * 129}),
        (PREDICTION, {"artifact": "x" * 257}),
        (PREDICTION, {"epoch": [1, 2]}),
        (PREDICTION, {"epoch": "1.2.3"}),
        (PREDICTION, {"at": ["t", 0, 0]}),
        (FEEDBACK, {"source": "x" * 129}),
        (FEEDBACK, {"truth": {}}),
        (DEPLOYMENT, {"status": "gone"}),
        (DEPLOYMENT, {"reference": {"zero_one": {"mean": 0.5}}}),
        (DEPLOYMENT, {"card": "x" * 2049}),
        (DEPLOYMENT, {"artifact": "SHA256:aa"}),
        (DEPLOYMENT, {"artifact": "sha256:AA"}),
        (DEPLOYMENT, {"artifact": " sha256:aa"}),
        (DEPLOYMENT, {"artifact": "sha256:aa\n"}),
        (DEPLOYMENT, {"artifact": "sha256:"}),
        (DEPLOYMENT, {"artifact": "sha256:" + "a" * 65}),
        (DEPLOYMENT, {"artifact": "aa"}),
        (DEPLOYMENT, {"artifact": ""}),
        (OPERATOR, {"act": "reboot"}),
        (OPERATOR, {"override": 1}),
        (OPERATOR, {"reason": "x" * 1025}),
        (ACK, {"stage": "asleep"}),
        (ACK, {"code": "TIRED"}),
    ],
)
def test_wrong_type_length_or_word_is_a_bad_event(event: dict[str, Any], fields: dict[str, Any]) -> None:
    assert code_of(line(event, **fields)) is RejectCode.BAD_EVENT


def test_feedback_needs_truth_or_engagement() -> None:
    good(line({"type": "feedback", "id": "p-1", "engagement": 0.5}))
    good(line({"type": "feedback", "id": "p-1", "engagement": 0.0, "truth": None}))
    assert code_of(line({"type": "feedback", "id": "p-1"})) is RejectCode.BAD_EVENT
    assert code_of(line(FEEDBACK, truth=None)) is RejectCode.BAD_EVENT


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (PREDICTION, {"score": 1.000001}),
        (PREDICTION, {"score": -1}),
        (PREDICTION, {"scores": {"a": 2}}),
        (PREDICTION, {"row": -1}),
        (PREDICTION, {"row": 1_000_001}),
        (PREDICTION, {"latency_ms": -0.1}),
        (PREDICTION, {"output": 2**53 + 1}),
        (PREDICTION, {"output": -(2**53) - 1}),
        (PREDICTION, {"output": 10**29}),
        (PREDICTION, {"output": [10**4000]}),
        (PREDICTION, {"slices": {"a": 2**60}}),
        (PREDICTION, {"epoch": [0, -1, 0]}),
        (PREDICTION, {"at": ["t", -1, 0, 0]}),
        (FEEDBACK, {"engagement": 1.5}),
        (DEPLOYMENT, {"reference": {"zero_one": {"mean": 1.5, "n": 10}}}),
        (DEPLOYMENT, {"reference": {"zero_one": {"mean": 0.5, "n": 0}}}),
        (DEPLOYMENT, {"card": {"parameters": [{"count": 10**29}]}}),
    ],
)
def test_number_outside_the_range_of_its_field_is_rejected(event: dict[str, Any], fields: dict[str, Any]) -> None:
    assert code_of(line(event, **fields)) is RejectCode.NUMBER_OUT_OF_RANGE


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"9" * 5000])
def test_number_that_no_float_can_hold_is_rejected(number: bytes) -> None:
    for field in ("output", "latency_ms"):
        data = line(PREDICTION, **{field: "?"}).replace(b'"?"', number)
        assert code_of(data) is RejectCode.NUMBER_OUT_OF_RANGE


def test_numbers_at_the_ends_of_their_ranges_are_accepted() -> None:
    for fields in ({"score": 0}, {"score": 1}, {"row": 1_000_000}, {"output": 2**53}, {"output": -(2**53)}):
        good(line(PREDICTION, **fields))


@pytest.mark.parametrize(
    ("text", "ts_ms"),
    [
        ("2000-01-01T00:00:00Z", TS_MS_MIN),
        ("2025-10-09T08:53:20Z", 1_760_000_000_000),
        ("2025-10-09T10:53:20.123456+02:00", 1_760_000_000_123),
        ("2025-10-09t08:53:20.5z", 1_760_000_000_500),
        ("2100-01-01T00:00:00Z", TS_MS_MAX),
    ],
)
def test_rfc_3339_time_becomes_milliseconds(text: str, ts_ms: int) -> None:
    for event in MINIMAL.values():
        assert good(line(event, ts=text)).ts == ts_ms


@pytest.mark.parametrize(
    "ts",
    [
        -1,
        TS_MS_MAX + 1,
        10**29,
        1.5e12,
        1.0,
        True,
        [],
        "",
        "yesterday",
        "1760000000000",
        "2025-10-09",
        "2025-10-09T08:53:20",
        "2025-02-30T00:00:00Z",
        0,
        TS_MS_MIN - 1,
        1_760_000_000,
        "1999-12-31T23:59:59.999Z",
        "2100-01-01T00:00:00.001Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2025-10-09T08:53:20." + "0" * 60 + "Z",
    ],
)
def test_bad_or_absurd_time_is_rejected(ts: object) -> None:
    for event in MINIMAL.values():
        assert code_of(line(event, ts=ts)) is RejectCode.BAD_TIME


def test_time_in_seconds_is_named_as_what_it_probably_is() -> None:
    for event in MINIMAL.values():
        rejected = decode_line(line(event, ts=1_760_000_000))
        assert isinstance(rejected, Rejection)
        assert "are they seconds?" in rejected.detail
        assert isinstance(decode_line(line(event, ts=1_760_000_000_000)), type(good(line(event))))


def test_absurd_append_time_of_a_recorded_line_is_a_bad_time() -> None:
    assert code_of(line(PREDICTION, at=["t", 0, 0, TS_MS_MAX + 1])) is RejectCode.BAD_TIME


def test_time_null_is_the_same_as_absent() -> None:
    assert good(line(PREDICTION, ts=None)).ts is None


SECRET = "jane.doe"


@pytest.mark.parametrize(
    "data",
    [
        line(PREDICTION, type=SECRET),
        line(PREDICTION, role=SECRET),
        line(PREDICTION, role=f"{SECRET} - at `$.ts`"),
        line(PREDICTION, slices={SECRET: [1]}),
        line(PREDICTION, slices={SECRET * 20: 1}),
        line(PREDICTION, scores={SECRET: 7}),
        line(PREDICTION, output={SECRET: SECRET}),
        line(PREDICTION, ts=SECRET),
        line(PREDICTION, id=SECRET * 20),
        line(ACK, code=SECRET),
        line(OPERATOR, act=SECRET),
        line(DEPLOYMENT, card={SECRET: 10**29}),
        line(PREDICTION, output=SECRET)[:-1],
        line(PREDICTION, output=SECRET).replace(b"fraud", b"\xff"),
        line(PREDICTION, output=SECRET * 10_000),
    ],
)
def test_detail_of_a_rejection_never_repeats_the_input(data: bytes) -> None:
    result = decode_line(data)
    assert isinstance(result, Rejection)
    assert result.code in DECODING_CODES
    assert result.detail
    assert SECRET not in result.detail


def test_quoted_value_cannot_pass_for_the_path_of_an_error() -> None:
    assert code_of(line(PREDICTION, role="x - at `$.ts`")) is RejectCode.BAD_EVENT
    assert code_of(line(PREDICTION, type="x - at `$.ts`")) is RejectCode.UNKNOWN_TYPE


@pytest.mark.parametrize("kind", MINIMAL)
def test_record_value_may_leave_out_its_type_or_repeat_it(kind: str) -> None:
    untagged = {name: value for name, value in MINIMAL[kind].items() if name != "type"}
    assert decode_value(kind, line(untagged)) == decode_value(kind, line(MINIMAL[kind])) == good(line(MINIMAL[kind]))


def test_record_value_of_another_type_is_an_unknown_type() -> None:
    result = decode_value("prediction", line(FEEDBACK))
    assert isinstance(result, Rejection)
    assert result.code is RejectCode.UNKNOWN_TYPE


def test_tombstone_on_an_event_topic_is_a_bad_event() -> None:
    assert decode_value("prediction", None) == Rejection(RejectCode.BAD_EVENT, "the record has no value")


def test_place_in_the_log_claimed_by_the_sender_is_dropped() -> None:
    value = decode_value("prediction", line(PREDICTION, at=["unship.predictions", 0, 5, 5]))
    assert value == good(line(PREDICTION))


def test_oversized_record_value_is_never_taken_for_a_line_decoded_elsewhere() -> None:
    result = decode_value("prediction", b'{"type":"ledger","pad":"%s"}' % (b"x" * 70_000))
    assert isinstance(result, Rejection)
    assert result.code is RejectCode.TOO_LARGE


def test_unknown_topic_kind_is_a_mistake_of_the_program() -> None:
    with pytest.raises(KeyError):
        decode_value("predictions", b"{}")


def test_encoded_line_is_tagged_and_leaves_out_defaults() -> None:
    event = Prediction(id="p-1", model="fraud", version="v42", output=1, slices={}, row=0)
    assert encode_line(event) == b'{"type":"prediction","id":"p-1","model":"fraud","version":"v42","output":1}'


def test_every_decoding_code_is_reachable() -> None:
    reached = {
        code_of(data)
        for data in (
            b"x" * 70_000,
            b"\xff",
            b"",
            b"[" * 9,
            b"{}",
            b"[]",
            line(PREDICTION, ts=-1),
            line(PREDICTION, score=2),
        )
    }
    assert reached == DECODING_CODES


def test_slice_that_is_null_is_taken_as_absent():
    event = decode_line(line(PREDICTION, slices={"country": None, "tier": 2}))
    assert isinstance(event, Prediction)
    assert (event.slices.get("country"), event.slices["tier"]) == (None, 2)
