"""The keys that tests sign with: the same in every run, so that what they signed is the same too."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from actions.reconcile import Signer
from unship.codec import decode_value
from unship.events import Deployment, OperatorAct
from unship.log.embedded.log import Message
from unship.signing import (
    COMMAND_TYPE,
    DECISION_TYPE,
    SignedBy,
    SignedEvent,
    Trust,
    TrustedKey,
    key_id,
    public_bytes,
    sign,
    sign_event,
)
from unship.topics import key_of

CONTROLLER, OPERATOR, STRANGER, DEPLOYER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3, 4))
TRUST = Trust(
    (
        TrustedKey("controller", public_bytes(CONTROLLER), ("controller",)),
        TrustedKey("operator", public_bytes(OPERATOR), ("operator",)),
        TrustedKey("deployer", public_bytes(DEPLOYER), ("deployer",)),
    ),
    "prod",
)
SIGNER = Signer(
    TRUST.audience,
    lambda value: sign(value, CONTROLLER, COMMAND_TYPE),
    TRUST,
    lambda value: sign(value, CONTROLLER, DECISION_TYPE),
)
BY_DEPLOYER = SignedBy(key_id(public_bytes(DEPLOYER)), "deployer")
BY_OPERATOR = SignedBy(key_id(public_bytes(OPERATOR)), "operator")


def signed(
    event: SignedEvent | dict[str, Any] | bytes,
    now_ms: int,
    key: Ed25519PrivateKey | None = None,
    audience: str = TRUST.audience,
    nonce: str | None = None,
) -> Message:
    """Return the record of a deployment or an act, signed by the test's deployer or operator, or by another key.

    The nonce is made of content and time, so that only the same event at the same time is a repeat.
    """
    if not isinstance(event, Deployment | OperatorAct):
        value = event if isinstance(event, bytes) else msgspec.json.encode(event)
        kind = "operator" if b'"act"' in value else "deployment"
        decoded = decode_value(kind, value)
        assert isinstance(decoded, Deployment | OperatorAct), decoded
        event = decoded
    if key is None:
        key = OPERATOR if isinstance(event, OperatorAct) else DEPLOYER
    if nonce is None:
        nonce = hashlib.sha256(repr((event, now_ms)).encode()).hexdigest()[:32]
    value, headers = sign_event(event, key, audience, now_ms, nonce)
    return Message(value, key_of(event), headers)
