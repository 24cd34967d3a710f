"""The journal: decisions as they are written, each carrying the digest of the one before.

The bytes of a decision are a pure function of the ledger. Facts of the environment (versions of libraries, the
processor) stand in the journal's envelope, outside of these bytes.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from actions.evidence import Scalar


class Decision(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="decision"):
    """One decision: every act and every non-act that differs from the last one of its model."""

    id: str
    model: str
    version: str
    action: str
    to: str | None
    verdict: str
    reason: str
    mode: str
    epoch: tuple[int, int, int]
    ts: int
    slice: dict[str, Scalar] | None
    outcomes: int
    evidence: dict[str, Any]
    provenance: dict[str, Any]
    digests: dict[str, str]


_encoder = msgspec.json.Encoder()


def decision_bytes(decision: Decision) -> bytes:
    """Return the bytes of a decision: one line of JSON, without a line feed."""
    return _encoder.encode(decision)


def read_decision(value: bytes | None) -> Decision | None:
    """Return the decision that a record of the journal holds, None if it holds none.

    >>> read_decision(b"no decision") is None
    True
    """
    try:
        return msgspec.json.decode(value or b"", type=Decision)
    except (msgspec.DecodeError, ValueError):
        return None


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of bytes as hexadecimal text."""
    return hashlib.sha256(data).hexdigest()


def decision_id(model: str, epoch: tuple[int, int, int], previous: str) -> str:
    """Return a short name that the same ledger always gives to the same decision.

    >>> decision_id("fraud", (0, 12, 0), "")
    'd-12-0-44e680'
    """
    name = hashlib.sha256(f"{model}\x00{epoch}\x00{previous}".encode()).hexdigest()
    return f"d-{epoch[1]}-{epoch[2]}-{name[:6]}"


def rests_on(provenance: Mapping[str, Any]) -> str:
    """Return in words which source records a decision rests on: lines of a recording, or offsets of partitions.

    >>> rests_on({"ledger": [0, 9], "lines": [0, 41]})
    'source lines 0..41'
    >>> rests_on({"ledger": [0, 9], "predictions": {"0": [0, 70]}, "feedback": {"0": [0, 0], "1": [5, 6]}})
    'predictions[0]@0..69, feedback[1]@5..5'
    """
    if "lines" in provenance:
        first, last = provenance["lines"]
        return f"source lines {first}..{last}"
    ranges = [
        f"{topic}[{partition}]@{begin}..{end - 1}"
        for topic in ("predictions", "feedback")
        for partition, (begin, end) in provenance[topic].items()
        if end > begin
    ]
    return ", ".join(ranges) or "no source record"
