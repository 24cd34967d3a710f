"""What is kept of a record that was rejected: its place, its digest and the code, but not its value."""

from __future__ import annotations

import hashlib

import msgspec

from unship.rejections import Rejection


class DeadLetter(msgspec.Struct, frozen=True):
    """A record of the topic `rejected`; `digest` is the SHA-256 of the value that was refused."""

    topic: str
    partition: int
    offset: int
    digest: str
    code: str
    detail: str

    def encoded(self) -> bytes:
        """Return the record's value: one object of JSON."""
        return msgspec.json.encode(self)


def dead_letter(topic: str, partition: int, offset: int, value: bytes | None, why: Rejection) -> DeadLetter:
    """Return the dead letter of one record.

    >>> from unship.rejections import RejectCode
    >>> dead_letter("feedback", 0, 7, b"x", Rejection(RejectCode.BAD_JSON)).digest[:8]
    '2d711642'
    """
    digest = hashlib.sha256(value or b"").hexdigest()
    return DeadLetter(topic, partition, offset, digest, why.code, why.detail)
