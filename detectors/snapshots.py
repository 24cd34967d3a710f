"""Seal a detector's snapshot: MessagePack with a schema behind a magic number and a digest, never pickle.

Most of a snapshot is floating point numbers, in which a flipped bit decodes without an error and would change every
later decision unnoticed; the digest detects it.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TypeVar

import msgspec

from unship.errors import SnapshotError

MAGIC = b"unship.detector\n"
FORMAT = 1
DIGEST_SIZE = 16

_T = TypeVar("_T")


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name the detector that a payload belongs to."""

    format: int
    name: str
    payload: bytes


def seal(name: str, content: msgspec.Struct) -> bytes:
    """Return the bytes of a snapshot of the detector ``name``."""
    body = msgspec.msgpack.encode(Envelope(FORMAT, name, msgspec.msgpack.encode(content)))
    return MAGIC + blake2b(body, digest_size=DIGEST_SIZE).digest() + body


def unseal(data: bytes) -> Envelope:
    """Return the envelope of a snapshot.

    Raises:
        SnapshotError: The bytes are no detector snapshot, are damaged or cut short, or have another format.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise SnapshotError(f"expected a detector snapshot as bytes, was {type(data).__name__}")
    raw = bytes(data)
    if not raw.startswith(MAGIC):
        raise SnapshotError(f"expected a detector snapshot, was {len(raw)} bytes beginning {raw[:16]!r}")
    start = len(MAGIC) + DIGEST_SIZE
    stated, body = raw[len(MAGIC) : start], raw[start:]
    found = blake2b(body, digest_size=DIGEST_SIZE).digest()
    if stated != found:
        raise SnapshotError(f"damaged detector snapshot: states digest {stated.hex()}, content has {found.hex()}")
    envelope = decoded(body, Envelope)
    if envelope.format != FORMAT:
        raise SnapshotError(f"expected a detector snapshot of format {FORMAT}, was {envelope.format}")
    return envelope


def decoded(payload: bytes, kind: type[_T]) -> _T:
    """Return the payload as a record of ``kind``.

    Raises:
        SnapshotError: The payload does not have that shape.
    """
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SnapshotError(f"expected a {kind.__name__} in the snapshot: {error}") from error
