"""Define checkpoints: what the monitor signs of its ledger and its journal, so that nothing can be cut off unnoticed.

A checkpoint is a record of the topic `decisions`, under a key that no model has, signed like a decision. What it states
follows from the ledger up to its offset, so an audit computes it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

CHECKPOINT_KEY: Final = b"\x00checkpoint"

CHECKPOINT_MS: Final = 3_600_000
"""A ledger goes on for no longer than this after its newest checkpoint, by append times."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="checkpoint"):
    """Hold what was in the log when a fold had taken all records of a ledger partition below `ledger`.

    `chain` is the digest of these records, `decisions` is how many decisions they led to, and `journal` is the digest
    of the newest one of each model. `ends` has the offset after the last record of partitions, as `topic/partition`.
    """

    audience: str
    ts: int
    partition: int
    ledger: int
    chain: str
    decisions: int
    journal: str
    ends: dict[str, int] = {}


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Checkpoint)


def checkpoint_bytes(checkpoint: Checkpoint) -> bytes:
    """Return the value of a checkpoint's record."""
    return _encoder.encode(checkpoint)


def read_checkpoint(value: bytes | None) -> Checkpoint | None:
    """Return the checkpoint that a record of `decisions` holds, None if it holds none.

    >>> read_checkpoint(b'{"type":"decision"}') is None
    True
    """
    try:
        return _decoder.decode(value or b"")
    except (ValueError, RecursionError):
        return None


def journal_digest(newest: Iterable[tuple[str, str]]) -> str:
    """Return the digest of a journal by the digest of the newest decision of each model.

    >>> journal_digest([("b", "2"), ("a", "1")]) == journal_digest([("a", "1"), ("b", "2")])
    True
    """
    return hashlib.sha256(_encoder.encode(sorted(newest))).hexdigest()
