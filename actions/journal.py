"""Define decisions as they are written to the journal, each carrying the digest of the one before.

The bytes of a decision are a pure function of the ledger. Facts of the environment (versions of libraries, the
processor) are in the journal's envelope, outside of these bytes.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import UNSET, UnsetType

from actions.evidence_tree import Evidence, Slice
from actions.reasons import Action, Reason, Verdict


class Provenance(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Hold which records everything up to a decision rests on.

    `ledger` and `lines` (of a recording) name the first and the last one; `predictions` and `feedback` give for each
    partition the first offset and the one behind the last.
    """

    ledger: tuple[int, int]
    lines: tuple[int, int] | UnsetType = UNSET
    predictions: dict[str, tuple[int, int]] | UnsetType = UNSET
    feedback: dict[str, tuple[int, int]] | UnsetType = UNSET


class Digests(msgspec.Struct, frozen=True, kw_only=True):
    """Hold digests: of the model's decision before, of all ledger records so far, and of the configuration."""

    previous: str
    ledger: str
    config: str


class Decision(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="decision"):
    """Hold one decision: every act and every non-act that differs from the last one of its model."""

    id: str
    model: str
    version: str
    action: Action
    to: str | None
    verdict: Verdict
    reason: Reason
    mode: str
    epoch: tuple[int, int, int]
    ts: int
    slice: Slice | None
    outcomes: int
    evidence: Evidence
    provenance: Provenance
    digests: Digests


class DecisionHead(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="decision"):
    """Hold what identifies a decision, whichever build wrote it: its evidence is not looked at."""

    id: str
    model: str
    version: str
    action: str
    to: str | None
    reason: str
    epoch: tuple[int, int, int]
    ts: int = 0


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Decision)
_head_decoder = msgspec.json.Decoder(DecisionHead)


def decision_bytes(decision: Decision) -> bytes:
    """Return the bytes of a decision: one line of JSON, without a line feed."""
    return _encoder.encode(decision)


def decode_decision(line: bytes) -> Decision:
    """Return the decision whose bytes these are.

    Raises:
        ValueError: the bytes are no decision, or one of another shape; names the place.
    """
    return _decoder.decode(line)


def read_decision(value: bytes | None) -> DecisionHead | None:
    """Return the head of the decision that a record of the journal holds, None if it holds none.

    >>> read_decision(b"no decision") is None
    True
    """
    try:
        return _head_decoder.decode(value or b"")
    except ValueError:
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


def rests_on(provenance: Provenance) -> str:
    """Return as text which source records a decision rests on: lines of a recording, or offsets of partitions.

    >>> rests_on(Provenance(ledger=(0, 9), lines=(0, 41)))
    'source lines 0..41'
    >>> feedback = {"0": (0, 0), "1": (5, 6)}
    >>> rests_on(Provenance(ledger=(0, 9), predictions={"0": (0, 70)}, feedback=feedback))
    'predictions[0]@0..69, feedback[1]@5..5'
    """
    if provenance.lines is not UNSET:
        first, last = provenance.lines
        return f"source lines {first}..{last}"
    ranges = [
        f"{topic}[{partition}]@{begin}..{end - 1}"
        for topic, partitions in (("predictions", provenance.predictions), ("feedback", provenance.feedback))
        if partitions is not UNSET
        for partition, (begin, end) in partitions.items()
        if end > begin
    ]
    return ", ".join(ranges) or "no source record"
