"""Decode the records of the topics that are copied into the ledger, and find out who signed them."""

from __future__ import annotations

from unship.codec import decode_value
from unship.events import Ack, Deployment, OperatorAct
from unship.rejections import RejectCode, Rejection
from unship.signing import Headers, SignedBy, Trust, authenticate
from unship.topics import EVENT_TOPICS


def read_control(
    topic: str, value: bytes | None, headers: Headers, trust: Trust | None, append_ms: int
) -> tuple[Deployment | OperatorAct | Ack | Rejection, SignedBy | None]:
    """Return the event of a record, or why it is left out, and who signed it.

    An act that nobody trusted has signed is left out. A deployment is not: whether it has to be signed is
    configuration, which the fold reads.

    Args:
        topic: `deployments`, `operator` or `acks`.
        value: The value of the record.
        headers: Its headers.
        trust: The trusted keys, None where there are none.
        append_ms: When the log appended it.
    """
    event = decode_value(EVENT_TOPICS[topic], value)
    assert isinstance(event, Deployment | OperatorAct | Ack | Rejection), event
    if isinstance(event, Rejection):
        # Of what a stranger appends to `operator` it does not matter whether it can be decoded.
        return (Rejection(RejectCode.UNSIGNED_ACT, event.detail) if topic == "operator" else event), None
    if isinstance(event, Ack):
        return event, None
    signer = authenticate(event, value or b"", headers, trust, append_ms)
    if isinstance(signer, Rejection):
        return signer, None
    if signer is None and isinstance(event, OperatorAct):
        return Rejection(RejectCode.UNSIGNED_ACT), None
    return event, signer
