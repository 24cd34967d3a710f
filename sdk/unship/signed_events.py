"""Sign the events that move a fleet, operators' acts and deployments, and find out who signed one.

Signed bytes can be copied and appended again by everybody who may write their topic. So they hold what ends their use:
for which installation they are meant, from when to when they may be appended, and a nonce by which a second copy is
recognised. The time that counts is the one at which the log appended the record: no sender chooses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec
from msgspec import Struct

from unship.codec import encode_line
from unship.events import Deployment, OperatorAct
from unship.rejections import RejectCode, Rejection
from unship.signing import DEPLOYMENT_TYPE, OPERATOR_TYPE, Headers, Role, Trust, TrustedKey, sign, verify

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SignedEvent: TypeAlias = OperatorAct | Deployment

VALID_MS: Final = 600_000
"""How long a signed event may wait to be appended: an order that waited longer may not be wanted any more."""

VALID_MS_MAX: Final = 3_600_000
"""Longest time that a signed event may state."""

AHEAD_MS_MAX: Final = 300_000
"""How far the clock of who signs may be ahead of the log's."""

TYPE_OF: Final[dict[type[SignedEvent], str]] = {OperatorAct: OPERATOR_TYPE, Deployment: DEPLOYMENT_TYPE}

ROLES_OF: Final[dict[type[SignedEvent], tuple[Role, ...]]] = {
    OperatorAct: ("operator",),
    Deployment: ("deployer", "operator"),
}
"""Who may sign what: an operator may also deploy."""


class SignedBy(Struct, frozen=True):
    """Name the id of the key that signed an event, and the role in which it did."""

    key: str
    role: str


def sign_event(
    event: SignedEvent, key: Ed25519PrivateKey, audience: str, now_ms: int, nonce: str, valid_ms: int = VALID_MS
) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    """Return the value and the headers of the record of an event; neither may be changed.

    Args:
        event: What is ordered or announced.
        key: That of an operator; for a deployment also that of a deployer.
        audience: The installation that it is for, as in the `trust.json` of its monitor.
        now_ms: The time, by a clock near that of the log, in milliseconds since the epoch.
        nonce: What no other event has (`unship.keys.new_nonce`).
        valid_ms: How long it may wait to be appended, `VALID_MS_MAX` at most.
    """
    limited = msgspec.structs.replace(
        event, audience=audience, issued_ts=now_ms, not_after_ts=now_ms + valid_ms, nonce=nonce
    )
    value = encode_line(limited)
    return value, tuple(sign(value, key, TYPE_OF[type(event)]))


def authenticate(
    event: SignedEvent, value: bytes, headers: Headers, trust: Trust | None, append_ms: int
) -> SignedBy | Rejection | None:
    """Return who signed exactly these bytes; None if nobody did who is trusted for them; never raises.

    Args:
        event: What was decoded from the value.
        value: The value of the record.
        headers: Its headers.
        trust: The trusted keys; without any nobody is trusted.
        append_ms: When the log appended the record.

    Returns:
        A rejection if somebody trusted signed it, but for another installation or another time.
    """
    signer = _signer(event, value, headers, trust)
    if signer is None or trust is None:
        return None
    if event.audience != trust.audience:
        return Rejection(RejectCode.WRONG_AUDIENCE, f"expected the audience {trust.audience!r}")
    issued, until = event.issued_ts, event.not_after_ts
    if issued is None or until is None:
        return Rejection(RejectCode.ACT_EXPIRED, "the signed bytes hold no issued_ts and not_after_ts")
    if not event.nonce:
        return Rejection(RejectCode.ACT_REPEATED, "the signed bytes hold no nonce")
    if not 0 <= until - issued <= VALID_MS_MAX:
        return Rejection(RejectCode.ACT_EXPIRED, f"valid for {until - issued} ms, expected at most {VALID_MS_MAX}")
    if not issued - AHEAD_MS_MAX <= append_ms <= until:
        return Rejection(RejectCode.ACT_EXPIRED, f"appended at {append_ms}, expected {issued} to {until}")
    return signer


def _signer(event: SignedEvent, value: bytes, headers: Headers, trust: Trust | None) -> SignedBy | None:
    if trust is None:
        return None
    kind = type(event)
    for role in ROLES_OF[kind]:
        key = verify(value, headers, trust, role, TYPE_OF[kind])
        if isinstance(key, TrustedKey):
            return SignedBy(key.id, role)
    return None
