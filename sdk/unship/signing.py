"""Sign and verify the exact bytes of a record, so that a replica obeys only its monitor.

What is signed is DSSE's pre-authentication encoding[^1] of the value and of its type, with Ed25519[^2]. The exact bytes
are signed: JSON needs no canonical form, and nothing is parsed before its writer is known. The type is part of what is
signed, so a signed act of an operator is not a command, whatever its fields.

The header `unship_key` only names the key to try first. It is not signed and never decides: a record whose hint is
wrong, missing or of an unknown key is still checked with every trusted key of the role. Roles come from the
local trust file, never from the record.

Operators' acts and deployments move a fleet as well, and signed bytes can be copied and appended again by everybody who
may write their topic. So they hold what ends their use: for which installation they are meant, from when to when they
may be appended, and a nonce by which a second copy is recognised. The time that counts is the one at which the log
appended the record: no sender chooses it.

Verification is total: any value and any headers give the key or a refusal code. `cryptography` is loaded when it is
first needed, because `import unship` in a serving process must cost next to nothing.

[^1]: Dead Simple Signing Envelope, protocol 1.0.2, "Signature definition".
[^2]: RFC 8032, section 5.1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from unship.codec import encode_line
from unship.events import Deployment, Epoch, OperatorAct, TimeMs
from unship.rejections import RejectCode, Rejection

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

COMMAND_TYPE = "application/vnd.unship.command+json"
OPERATOR_TYPE = "application/vnd.unship.operator+json"
DEPLOYMENT_TYPE = "application/vnd.unship.deployment+json"
DECISION_TYPE = "application/vnd.unship.decision+json"

SIGNATURE_HEADER = "unship_sig"
KEY_HEADER = "unship_key"

Headers: TypeAlias = Sequence[tuple[str, bytes]]
"""The headers of a record, in the form that clients of Kafka use."""

Role: TypeAlias = Literal["controller", "operator", "deployer"]
SignatureRefusal: TypeAlias = Literal["BAD_SIGNATURE", "UNKNOWN_KEY"]

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

_SIGNATURE_BYTES = 64
# 64 bytes in base64, which is all that is ever looked at.
_SIGNATURE_TEXT_BYTES = 88


class Revoked(Struct, frozen=True, omit_defaults=True):
    """State from when on a key is not trusted any more.

    What the log appended before `from_ts` (milliseconds) holds, and so does a command or a decision of an epoch below
    `from_epoch`. Nobody but the log states when a record was appended, so a command alone is never before a time.
    """

    from_ts: TimeMs | None = None
    from_epoch: Epoch | None = None

    def spares(self, at_ms: int | None = None, epoch: Epoch | None = None) -> bool:
        """Return whether what was appended at `at_ms` (None: unknown), or is of an epoch, still holds."""
        early = self.from_ts is not None and at_ms is not None and at_ms < self.from_ts
        return early or (self.from_epoch is not None and epoch is not None and epoch < self.from_epoch)


class TrustedKey(Struct, frozen=True):
    """Hold a public key (32 raw bytes) with its name and what it may sign for."""

    name: str
    public: bytes
    roles: tuple[Role, ...]
    revoked: Revoked | None = None

    def holds(self, at_ms: int | None = None, epoch: Epoch | None = None) -> bool:
        """Return whether a signature of the key is trusted.

        Args:
            at_ms: When the log appended what was signed; None if that is not known.
            epoch: The epoch of a command or a decision.

        Example:
            >>> key = TrustedKey("old", b"", ("controller",), Revoked(from_ts=9, from_epoch=(1, 0, 0)))
            >>> key.holds(), key.holds(at_ms=8), key.holds(epoch=(0, 7, 0)), key.holds(at_ms=9, epoch=(1, 0, 0))
            (False, True, True, False)
        """
        return self.revoked is None or self.revoked.spares(at_ms, epoch)

    @property
    def id(self) -> str:
        """Return the key's id, derived from the key itself."""
        return key_id(self.public)


class Trust(Struct, frozen=True):
    """Hold the keys that a replica or a monitor trusts, and its audience: the content of `trust.json`.

    The audience binds a command to one installation: a command of the test environment is refused in production,
    even if both share keys.
    """

    keys: tuple[TrustedKey, ...]
    audience: str = "default"

    def having(self, role: Role) -> tuple[TrustedKey, ...]:
        """Return the keys that may sign for a role now."""
        return tuple(key for key in self.keys if role in key.roles and key.revoked is None)

    def binds(self, key: str, epoch: Epoch) -> bool:
        """Return whether a command's epoch still counts that the key of this id has signed."""
        return any(each.id == key and "controller" in each.roles and each.holds(epoch=epoch) for each in self.keys)


def key_id(public: bytes) -> str:
    """Return the id of a public key: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding: type and payload with their lengths, so that neither can run over.

    Example:
        >>> pae("http://example.com/HelloWorld", b"hello world")
        b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def public_bytes(private_key: Ed25519PrivateKey) -> bytes:
    """Return the 32 raw bytes of the public key that belongs to a private one."""
    return private_key.public_key().public_bytes_raw()


def sign(payload: bytes, private_key: Ed25519PrivateKey, payload_type: str) -> list[tuple[str, bytes]]:
    """Sign a value; return the headers to send with it; neither may be changed."""
    signature = private_key.sign(pae(payload_type, payload))
    hint = key_id(public_bytes(private_key))
    return [(SIGNATURE_HEADER, base64.b64encode(signature)), (KEY_HEADER, hint.encode())]


def verify(
    value: bytes,
    headers: Headers,
    trust: Trust,
    role: Role,
    payload_type: str,
    *,
    at_ms: int | None = None,
    epoch_of: Callable[[bytes], Epoch | None] | None = None,
) -> TrustedKey | SignatureRefusal:
    """Return the trusted key that signed exactly this value for this type, or why there is none; never raises.

    Args:
        value: The bytes that were signed.
        headers: The headers of their record.
        trust: The trusted keys.
        role: What the key has to be trusted for.
        payload_type: The type that was signed.
        at_ms: When the log appended the record, if that is known.
        epoch_of: Returns the epoch in a value, if it has one; called for a value that a revoked key has signed.

    Returns:
        The key; or UNKNOWN_KEY if no trusted key has the role, or if the record names a key that is not trusted for
        it, or that is revoked; or BAD_SIGNATURE for everything else: no signature, two of them, not 64 bytes of base64,
        or wrong.
    """
    candidates = [key for key in trust.keys if role in key.roles]
    if not candidates:
        return "UNKNOWN_KEY"
    signature = _signature_of(headers)
    if signature is None:
        return "BAD_SIGNATURE"
    hint = _only(headers, KEY_HEADER)
    signed = pae(payload_type, value)
    # The hinted key first: with one key in use, one verification is all there is.
    for key in sorted(candidates, key=lambda key: key.id.encode() != hint):
        if _is_signed_by(key.public, signature, signed):
            epoch = None if key.revoked is None or epoch_of is None else epoch_of(value)
            return key if key.holds(at_ms, epoch) else "UNKNOWN_KEY"
    return "BAD_SIGNATURE" if hint is None or any(key.id.encode() == hint for key in candidates) else "UNKNOWN_KEY"


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
    signer = _signer(event, value, headers, trust, append_ms)
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


def _signer(event: SignedEvent, value: bytes, headers: Headers, trust: Trust | None, append_ms: int) -> SignedBy | None:
    if trust is None:
        return None
    kind = type(event)
    for role in ROLES_OF[kind]:
        key = verify(value, headers, trust, role, TYPE_OF[kind], at_ms=append_ms)
        if isinstance(key, TrustedKey):
            return SignedBy(key.id, role)
    return None


def _signature_of(headers: Headers) -> bytes | None:
    text = _only(headers, SIGNATURE_HEADER)
    if text is None or len(text) != _SIGNATURE_TEXT_BYTES:
        return None
    try:
        signature = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return signature if len(signature) == _SIGNATURE_BYTES else None


def _only(headers: Headers, name: str) -> bytes | None:
    """Return the value of a header that occurs exactly once: of two, one reader takes the first, another the last."""
    found = [value for header, value in headers if header == name]
    # A client of Kafka gives None for a header without a value.
    return found[0] if len(found) == 1 and isinstance(found[0], bytes) else None


def _is_signed_by(public: bytes, signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    key = _public_key(public)
    if key is None:
        return False
    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


# The trusted keys are few and come from a local file, so the cache stays as small as that file.
@cache
def _public_key(public: bytes) -> Ed25519PublicKey | None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey as PublicKey

    try:
        return PublicKey.from_public_bytes(public)
    except ValueError:
        # Not a key: nothing was ever signed with it. Reading the trust file reports it with its path.
        return None
