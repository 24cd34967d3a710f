"""What the fence keeps of a command with shares, what it refuses, and what older files and libraries make of it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from tests.unit.sdk.replica.judging import (
    BOOTED,
    CONTROLLER,
    NOW,
    TRUST,
    accepted,
    assert_refused,
    command,
    judged,
    obeyed,
)
from unship.commands import Command, encode_command
from unship.replica.fence import FenceState, boot, encode_state, holdback, judge, pending, restore
from unship.signing import COMMAND_TYPE, sign

SHARED = command(shares={"v40": 0.05}, period_epoch=(1, 10, 0))
OBEYED = obeyed(BOOTED, SHARED)


def refusal_of(value: bytes, code: str) -> None:
    """Judge bytes that the controller signed."""
    assert_refused(BOOTED, judge(BOOTED, value, sign(value, CONTROLLER, COMMAND_TYPE), TRUST, NOW), code)


def test_shares_of_a_command_are_kept_over_a_restart():
    state, loss = restore(encode_state(OBEYED), "fraud", "prod")
    assert (loss, state) == (None, OBEYED)
    assert (state.shares, state.period_epoch, holdback(boot(state, "v42"))) == ({"v40": 0.05}, (1, 10, 0), "v40")


def test_state_of_before_shares_is_read_and_has_none():
    fields = json.loads(encode_state(obeyed(BOOTED, command())).splitlines()[1])
    del fields["shares"], fields["period_epoch"]
    body = json.dumps(fields).encode()
    state, loss = restore(
        b"unship-fence 1 %b\n%b\n" % (hashlib.sha256(body).hexdigest().encode(), body), "fraud", "prod"
    )
    assert (loss, state.epoch, state.shares, state.period_epoch) == (None, (1, 10, 0), {}, None)


def test_other_shares_under_a_higher_epoch_load_nothing_that_serves_again():
    raised = accepted(OBEYED, command(epoch=(1, 11, 0), shares={"v40": 0.3}, period_epoch=(1, 10, 0)))
    assert pending(raised) is None
    assert raised.serving is not None
    assert (raised.serving.epoch, raised.shares, raised.period_epoch) == ((1, 11, 0), {"v40": 0.3}, (1, 10, 0))
    dropped = accepted(raised, command(epoch=(1, 12, 0)))
    assert (pending(dropped), dropped.shares, dropped.period_epoch) == (None, {}, (1, 12, 0))


@pytest.mark.parametrize("shares", [{"v40": 0.3}, {"v39": 0.05}, UNSET])
def test_other_shares_under_the_same_epoch_are_equivocation(shares):
    other = msgspec.structs.replace(SHARED, shares=shares)
    assert_refused(OBEYED, judged(OBEYED, other), "EQUIVOCATION")


def test_shares_changed_after_the_signature_are_refused():
    value = encode_command(SHARED)
    forged = value.replace(b"0.05", b"0.50")
    assert forged != value
    assert_refused(BOOTED, judge(BOOTED, forged, sign(value, CONTROLLER, COMMAND_TYPE), TRUST, NOW), "BAD_SIGNATURE")


@pytest.mark.parametrize(
    "shares",
    [{"v40": 0.51}, {"v40": 0}, {"v40": -0.1}, {"v40": "0.1"}, {"v40": 0.1, "v39": 0.1}, {"": 0.1}, ["v40"], 0.1, None],
)
def test_shares_that_are_none_are_refused_though_signed(shares):
    refusal_of(json.dumps({**json.loads(encode_command(SHARED)), "shares": shares}).encode(), "UNSUPPORTED_SCHEMA")


def test_shares_without_the_epoch_that_deals_units_out_are_refused_though_signed():
    fields = json.loads(encode_command(SHARED))
    del fields["period_epoch"]
    refusal_of(json.dumps(fields).encode(), "UNSUPPORTED_SCHEMA")


def test_share_of_the_version_that_serves_is_no_second_version():
    assert holdback(obeyed(BOOTED, command(shares={"v41": 0.05}, period_epoch=(1, 10, 0)))) is None


def test_library_without_shares_reads_a_command_and_a_state_with_shares():
    kept = [
        (field.encode_name, field.type, msgspec.NODEFAULT if field.default is msgspec.NODEFAULT else field.default)
        for field in msgspec.structs.fields(Command)
        if field.name not in ("shares", "period_epoch")
    ]
    older: Any = msgspec.defstruct(
        "Command",
        [(name, kind) if default is msgspec.NODEFAULT else (name, kind, default) for name, kind, default in kept],
        kw_only=True,
        tag_field="type",
        tag="command",
    )
    read = msgspec.json.decode(encode_command(SHARED), type=older)
    assert (read.serve, read.epoch, hasattr(read, "shares")) == ("v41", (1, 10, 0), False)
    state: Any = msgspec.defstruct(
        "FenceState", [(each.name, each.type) for each in msgspec.structs.fields(FenceState)[:-2]], kw_only=True
    )
    assert msgspec.json.decode(encode_state(OBEYED).splitlines()[1], type=state).epoch == (1, 10, 0)
