"""A replica that judges commands, and the commands that it judges."""

from __future__ import annotations

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from unship.commands import Command, Quarantined, encode_command
from unship.replica.fence import (
    FenceState,
    Identity,
    Target,
    Verdict,
    boot,
    judge,
    pending,
    switched,
)
from unship.signing import COMMAND_TYPE, Trust, TrustedKey, public_bytes, sign

CONTROLLER, NEW_CONTROLLER, OPERATOR, STRANGER = (
    Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3, 4)
)


def trust_of(*controllers: Ed25519PrivateKey) -> Trust:
    keys = [TrustedKey(f"controller-{n}", public_bytes(key), ("controller",)) for n, key in enumerate(controllers)]
    return Trust((*keys, TrustedKey("operator", public_bytes(OPERATOR), ("operator",))), "prod")


TRUST = trust_of(CONTROLLER)
WHO = Identity("r-1", "b-1")
NOW = 1_772_409_600_000
BASE = Command(
    model="fraud",
    epoch=(1, 10, 0),
    serve="v41",
    artifact="sha256:41",
    quarantine=(Quarantined("v42", "sha256:42"),),
    action="rollback",
    decision="d-10",
    issued_ts=NOW,
    not_after_ts=NOW + 60_000,
    audience="prod",
)
FIRST = FenceState(model="fraud", audience="prod")
BOOTED = boot(FIRST, "v42", "sha256:42")


def command(**changes) -> Command:
    return msgspec.structs.replace(BASE, **changes)


def judged(state: FenceState, order: Command, now_ms: int = NOW, key=CONTROLLER, trust: Trust = TRUST, registered=None):
    value = encode_command(order)
    return judge(state, value, sign(value, key, COMMAND_TYPE), trust, now_ms, registered)


def accepted(state: FenceState, order: Command, **options) -> FenceState:
    state, verdict = judged(state, order, **options)
    assert verdict.kind == "ACCEPT", verdict
    return state


def obeyed(state: FenceState, order: Command, **options) -> FenceState:
    """Accept a command and load what it wants."""
    state = accepted(state, order, **options)
    target = pending(state)
    return state if target is None else switched(state, target)


SERVING = obeyed(BOOTED, BASE)


def owed(state: FenceState) -> Target:
    """Return what is to be loaded, where something must be."""
    target = pending(state)
    assert target is not None
    return target


def assert_refused(state: FenceState, result: tuple[FenceState, Verdict], code: str) -> Verdict:
    after, verdict = result
    assert (verdict.kind, verdict.code) == ("REFUSED", code)
    assert after is state
    assert verdict.detail
    return verdict
