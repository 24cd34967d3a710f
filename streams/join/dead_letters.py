"""What is kept of an event that was rejected: its place, its digest and the code, but not its value."""

from __future__ import annotations

import hashlib

import msgspec

from unship.log.packed import unpack_value
from unship.rejections import Rejection


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record of the topic `rejected`; `digest` is the SHA-256 of the value that was refused.

    `index` is that of an event in a packed record.
    """

    topic: str
    partition: int
    offset: int
    digest: str
    code: str
    detail: str
    index: int | None = None

    def encoded(self) -> bytes:
        """Return the record's value: one object of JSON."""
        return msgspec.json.encode(self)


def dead_letter(
    topic: str, partition: int, offset: int, value: bytes | None, why: Rejection, index: int = 0
) -> DeadLetter:
    """Return the dead letter of the event in a record, or of that with an index in a packed one.

    >>> from unship.rejections import RejectCode
    >>> dead_letter("feedback", 0, 7, b"x", Rejection(RejectCode.BAD_JSON)).digest[:8]
    '2d711642'
    >>> dead_letter("feedback", 0, 7, b"[7,8]", Rejection(RejectCode.BAD_EVENT), 1).index
    1
    """
    values = unpack_value(value)
    packed = isinstance(values, list)
    digest = hashlib.sha256((values[index] if isinstance(values, list) else value) or b"").hexdigest()
    return DeadLetter(topic, partition, offset, digest, why.code, why.detail, index if packed else None)
