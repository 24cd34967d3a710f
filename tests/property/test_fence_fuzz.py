"""A hundred thousand damaged control records: none is obeyed that was not signed, none is fatal, the next good one is
obeyed."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from typing import get_args

import msgspec
import pytest

from tests.effort import some_of
from tests.keys import CONTROLLER, OPERATOR, STRANGER, TRUST
from unship.commands import Command, Quarantined, encode_command
from unship.events import RefusalCode
from unship.replica.fence import FenceState, Identity, StateLoss, Target, acks, boot, judge, pending, switched
from unship.signing import COMMAND_TYPE, OPERATOR_TYPE, sign

NOW = 1_000_000
GOOD = Command(
    model="fraud",
    epoch=(1, 10, 0),
    serve="v41",
    artifact="sha256:41",
    quarantine=(Quarantined("v42", "sha256:42"), Quarantined("v39")),
    action="rollback",
    decision="d-10",
    issued_ts=NOW,
    not_after_ts=NOW + 60_000,
    audience="prod",
)
NEXT = msgspec.structs.replace(GOOD, epoch=(1, 11, 0), serve="v40", artifact=None)
VALUES = [encode_command(GOOD), encode_command(NEXT)]
HEADERS = [sign(value, CONTROLLER, COMMAND_TYPE) for value in VALUES]
REGISTERED = {"sha256:41"}
WORDS: list[object] = [
    *(None, True, 0, -1, 1, 10, 11, 2**53, 2**53 + 1, 2**70, 1.5, 1e300, "", "v40", "v42", "sha256:42", "x" * 300),
    *(
        [],
        [1, 11, 0],
        [1, 10, 0],
        [0, 10, 0],
        [2, 0, 0],
        [1, 2],
        [1, 12, -1],
        {},
        {"version": "v40"},
        [{"version": "v41"}],
    ),
    *("prod", "test", "fraud", "command", "ack", NOW, NOW - 1, NOW + 1, [[[[[[[[[[]]]]]]]]]]),
]
FRAGMENTS = [
    b"NaN",
    b"\xff",
    b"\xc3",
    b"\x00",
    b'"',
    b"\\",
    b"{",
    b"[" * 3_000,
    b'{"a":' * 900,
    b"9" * 5_000,
    b"]",
    b",",
]
FRAGMENTS += [b'"serve":"v42",', b'"epoch":[9,9,9],', b"z" * 70_000]


def damaged_bytes(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        position = chance.randrange(len(changed) + 1)
        kind = chance.randrange(4)
        if kind == 0 and position < len(changed):
            changed[position] = chance.randrange(256)
        elif kind == 1:
            changed[position:position] = chance.choice(FRAGMENTS)
        elif kind == 2:
            del changed[position : position + chance.choice((1, 3, 400))]
        else:
            changed[position:position] = changed[: chance.randrange(len(changed) + 1)]
    return bytes(changed)


def damaged_fields(value: bytes, chance: random.Random) -> bytes:
    fields = json.loads(value)
    for _ in range(chance.randint(1, 2)):
        fields[chance.choice([*fields, "more"])] = chance.choice(WORDS)
    if chance.random() < 0.1:
        fields.pop(chance.choice(list(fields)))
    return json.dumps(fields).encode()


def damaged_headers(headers: list[tuple[str, bytes]], chance: random.Random) -> list[tuple[str, bytes]]:
    signature, hint = headers
    kind = chance.randrange(6)
    if kind == 0:
        return [hint]
    if kind == 1:
        return [signature, signature, hint]
    if kind == 2:
        return [("unship_sig", base64.b64encode(chance.randbytes(chance.choice((0, 63, 64, 65))))), hint]
    if kind == 3:
        return [("unship_sig", chance.randbytes(chance.choice((0, 1, 87, 88, 89, 5_000)))), hint]
    if kind == 4:
        return [("unship_sig", signature[1][:-2]), ("unship_key", chance.randbytes(8))]
    return [("Unship_Sig", signature[1]), hint]


def record(chance: random.Random) -> tuple[bytes, list[tuple[str, bytes]], bool]:
    """Return value, headers, and whether the controller signed exactly this for this type."""
    which = chance.randrange(2)
    value, headers = VALUES[which], HEADERS[which]
    kind = chance.randrange(20)
    if kind < 4:
        return damaged_bytes(value, chance), headers, False
    if kind < 5:
        return value, HEADERS[1 - which], False
    if kind < 13:
        return value, damaged_headers(headers, chance), False
    if kind < 15:
        changed = damaged_fields(value, chance)
        key, payload_type = chance.choice(
            ((STRANGER, COMMAND_TYPE), (OPERATOR, COMMAND_TYPE), (CONTROLLER, OPERATOR_TYPE))
        )
        return changed, sign(changed, key, payload_type), False
    if kind < 16:
        return chance.randbytes(chance.randrange(300)), damaged_headers(headers, chance), False
    changed = damaged_fields(value, chance) if kind < 19 else damaged_bytes(value, chance)
    return changed, sign(changed, CONTROLLER, COMMAND_TYPE), True


def obeying() -> FenceState:
    state = boot(FenceState(model="fraud", audience="prod"), "v42", "sha256:42")
    state, verdict = judge(state, VALUES[0], HEADERS[0], TRUST, NOW)
    assert verdict.kind == "ACCEPT"
    target = pending(state)
    assert target is not None
    return switched(state, target)


@pytest.mark.parametrize("seed", range(some_of(4)))
def test_damaged_control_records_are_never_obeyed_and_never_fatal(seed: int) -> None:
    chance = random.Random(seed)
    state = obeying()
    said: Counter[str] = Counter()
    for number in range(25_000):
        value, headers, by_controller = record(chance)
        if number % 100 == 0:
            value, headers, by_controller = VALUES[1], HEADERS[1], True
        registered = REGISTERED if number % 2 else None
        after, verdict = judge(state, value, headers, TRUST, NOW, registered)
        assert acks(after, verdict, Identity("r", "b"), NOW)
        if verdict.kind == "REFUSED":
            assert after is state
            assert verdict.code is not None
            said[verdict.code] += 1
            assert number % 100 != 0
            continue
        said[verdict.kind] += 1
        # Damage can leave a command whole; then it must be the controller's own words, for us, and newer or the same.
        assert by_controller or value in VALUES
        fields = json.loads(value)
        assert (fields["model"], fields["audience"]) == ("fraud", "prod")
        assert after.serving == state.serving or fields["serve"] == "v41"
        if verdict.kind == "ACCEPT":
            assert tuple(fields["epoch"]) > (1, 10, 0)
            assert after.wanted == Target(fields["serve"], fields.get("artifact"), tuple(fields["epoch"]))
            assert fields["not_after_ts"] >= NOW
    assert said.total() == 25_000
    # Damage that never reached one of the answers would prove nothing about it.
    expected = set(get_args(RefusalCode)) - {"LOAD_FAILED", *get_args(StateLoss)} | {"ACCEPT", "REFRESH"}
    assert set(said) == expected, said
