"""The bytes of a command: one reading only, or none."""

from __future__ import annotations

import json

import msgspec
import pytest

from unship.commands import (
    COMMAND_BYTES_MAX,
    Command,
    Malformed,
    Quarantined,
    content_digest,
    decode_command,
    encode_command,
    is_quarantined,
)

COMMAND = Command(
    model="fraud",
    epoch=(1, 7, 0),
    serve="v41",
    artifact="sha256:aa",
    quarantine=(Quarantined("v42", "sha256:bb"), Quarantined("v40")),
    action="rollback",
    decision="d-7",
    issued_ts=1_000,
    not_after_ts=61_000,
    audience="prod",
)
FIELDS = json.loads(encode_command(COMMAND))


def text_with(**changes) -> bytes:
    return json.dumps({**FIELDS, **changes}).encode()


def text_without(name: str) -> bytes:
    return json.dumps({key: value for key, value in FIELDS.items() if key != name}).encode()


def test_command_carries_every_field_of_the_contract_and_nothing_is_left_out():
    assert list(FIELDS) == [
        "type",
        "schema",
        "model",
        "epoch",
        "serve",
        "artifact",
        "quarantine",
        "action",
        "decision",
        "issued_ts",
        "not_after_ts",
        "audience",
    ]
    assert FIELDS["quarantine"][1] == {"version": "v40", "artifact": None}
    assert decode_command(encode_command(COMMAND)) == COMMAND


@pytest.mark.parametrize("name", ["type", "schema"])
def test_type_and_schema_may_be_absent_because_the_topic_says_them(name):
    assert decode_command(text_without(name)) == COMMAND


@pytest.mark.parametrize(
    "name", ["model", "epoch", "serve", "quarantine", "action", "issued_ts", "not_after_ts", "audience"]
)
def test_command_without_a_required_field_is_malformed(name):
    assert decode_command(text_without(name)) == Malformed(f"Object missing required field `{name}`")


def test_absent_artifact_and_decision_are_unknown():
    assert decode_command(text_without("artifact")) == msgspec.structs.replace(COMMAND, artifact=None)
    assert decode_command(text_without("decision")) == msgspec.structs.replace(COMMAND, decision=None)


def test_unknown_field_is_ignored():
    assert decode_command(text_with(weights={"v41": 1.0})) == COMMAND


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "ack"},
        {"type": 1},
        {"schema": 2},
        {"schema": "1"},
        {"schema": None},
        {"epoch": [1, 7]},
        {"epoch": [1, 7, 0, 0]},
        {"epoch": [1, -7, 0]},
        {"epoch": [1, 7.5, 0]},
        {"epoch": [1, 2**53 + 1, 0]},
        {"serve": ""},
        {"serve": 41},
        {"serve": "v" * 129},
        {"quarantine": None},
        {"quarantine": [{"artifact": "sha256:aa"}]},
        {"quarantine": [{"version": "v"}] * 501},
        {"issued_ts": "1970-01-01T00:00:00Z"},
        {"not_after_ts": -1},
        {"audience": ""},
        {"more": [[[[[[[[1]]]]]]]]},
    ],
)
def test_command_of_another_type_schema_or_shape_is_malformed(changes):
    assert isinstance(decode_command(text_with(**changes)), Malformed)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b"\xef\xbb\xbf" + encode_command(COMMAND),
        encode_command(COMMAND)[:-1],
        encode_command(COMMAND) + b"{}",
        encode_command(COMMAND)[:-1] + b',"x":NaN}',
        encode_command(COMMAND)[:-1] + b',"x":"\xff"}',
        encode_command(COMMAND)[:-1] + b',"x":' + b"9" * 6_000 + b"e}",
        b"[" * COMMAND_BYTES_MAX,
        b'{"a":' * (COMMAND_BYTES_MAX // 5),
        b" " * (COMMAND_BYTES_MAX + 1),
    ],
)
def test_bytes_that_are_no_single_json_object_within_the_limits_are_malformed(value):
    assert isinstance(decode_command(value), Malformed)


@pytest.mark.parametrize(
    "value",
    [
        encode_command(COMMAND)[:-1] + b',"serve":"v42"}',
        encode_command(COMMAND)[:-1] + rb',"\u0073erve":"v42"}',
        encode_command(COMMAND).replace(b'"version":"v40"', b'"version":"v40","version":"v41"'),
        encode_command(COMMAND)[:-1] + b',"more":{"a":1,"a":1}}',
        b'{"type":"command",' + encode_command(COMMAND)[1:],
    ],
)
def test_key_that_stands_twice_is_malformed_at_every_depth(value):
    assert json.loads(value)["model"] == "fraud"
    assert decode_command(value) == Malformed("a key occurs twice in one object")


def test_detail_never_quotes_the_sender():
    for value in (
        text_with(type="jane.doe"),
        text_with(schema="jane.doe"),
        text_with(serve={"jane.doe": 1}),
        b"jane.doe",
    ):
        answer = decode_command(value)
        assert isinstance(answer, Malformed)
        assert "jane" not in answer.detail


def test_renewed_command_says_the_same():
    renewed = msgspec.structs.replace(COMMAND, issued_ts=5_000, not_after_ts=65_000, epoch=(1, 8, 0))
    assert content_digest(renewed) == content_digest(COMMAND)


def test_order_of_the_quarantine_says_nothing():
    turned = msgspec.structs.replace(COMMAND, quarantine=COMMAND.quarantine[::-1])
    assert content_digest(turned) == content_digest(COMMAND)


@pytest.mark.parametrize(
    "change",
    [
        {"serve": "v40"},
        {"artifact": None},
        {"artifact": "sha256:ab"},
        {"quarantine": ()},
        {"quarantine": (Quarantined("v42"), Quarantined("v40"))},
        {"action": "pin"},
        {"decision": None},
        {"decision": "d-8"},
        {"audience": "test"},
    ],
)
def test_every_other_change_says_something_else(change):
    assert content_digest(msgspec.structs.replace(COMMAND, **change)) != content_digest(COMMAND)


@pytest.mark.parametrize(
    ("entry", "version", "artifact", "expected"),
    [
        (Quarantined("v42", "a"), "v42", "a", True),
        (Quarantined("v42", "a"), "v43", "a", True),
        (Quarantined("v42", "a"), "v42", "b", False),
        (Quarantined("v42", "a"), "v42", None, True),
        (Quarantined("v42", None), "v42", "b", True),
        (Quarantined("v42", None), "v42", None, True),
        (Quarantined("v42", "a"), "v43", None, False),
        (Quarantined("v42", None), "v43", "a", False),
        (Quarantined("v42", None), "v43", None, False),
    ],
)
def test_quarantine_goes_by_artifact_and_by_name_where_one_is_unknown(entry, version, artifact, expected):
    assert is_quarantined([entry], version, artifact) is expected
    assert is_quarantined([Quarantined("other", "other"), entry], version, artifact) is expected
    assert is_quarantined([], version, artifact) is False


def test_shares_travel_with_the_epoch_that_units_are_dealt_out_by_and_say_something_else():
    with_shares = msgspec.structs.replace(COMMAND, shares={"v41": 0.05}, period_epoch=(0, 7, 0))
    assert decode_command(encode_command(with_shares)) == with_shares
    assert b"shares" not in encode_command(COMMAND)
    raised = msgspec.structs.replace(with_shares, shares={"v41": 0.3})
    digests = {content_digest(each) for each in (COMMAND, with_shares, raised)}
    assert len(digests) == 3


@pytest.mark.parametrize(
    "shares",
    [{"v41": 0.5000001}, {"v41": 0.0}, {"v41": -0.1}, {"v41": True}, {"": 0.1}, {"a": 0.1, "b": 0.1}, [["v41", 0.05]]],
)
def test_shares_above_the_half_or_of_another_shape_are_malformed(shares):
    value = msgspec.json.decode(encode_command(msgspec.structs.replace(COMMAND, period_epoch=(0, 7, 0))))
    assert isinstance(decode_command(msgspec.json.encode(value | {"shares": shares})), Malformed)


def test_shares_without_the_epoch_that_units_are_dealt_out_by_are_malformed():
    found = decode_command(encode_command(msgspec.structs.replace(COMMAND, shares={"v41": 0.05})))
    assert found == Malformed("shares without period_epoch")
