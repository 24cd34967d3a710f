"""SHA-256 of a range of source records, byte for byte; it can be saved in the middle of the range."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

HELD_BYTES_MAX: Final = 1_048_576
"""How many bytes may be in memory; more are hashed before the range ends."""


class SavedDigest(msgspec.Struct, frozen=True):
    """A saved `RangeDigest`."""

    prefix: bytes
    values: list[bytes]


class RangeDigest:
    """The digest of the values of a range, each with its length, so that it also depends on where each value ends.

    Where values are hashed before the end is a function of their bytes alone, so the digest is one of the range.

    >>> digest = RangeDigest(); digest.add(b"a"); digest.add(b"b")
    >>> first = digest.take()
    >>> digest.add(b"ab"); digest.take() == first, digest.take() == RangeDigest().take()
    (False, True)
    """

    def __init__(self) -> None:
        self._prefix = b""
        self._values: list[bytes] = []
        self._lengths: list[int] = []
        self._bytes = 0

    def add(self, value: bytes) -> None:
        """Add the value of the next record."""
        self._values.append(value)
        self._lengths.append(len(value))
        self._bytes += len(value) + 8
        if self._bytes >= HELD_BYTES_MAX:
            self._hold(self._digest(), [])

    def extend(self, values: Sequence[bytes]) -> None:
        """Add the values of the next records."""
        if not values:
            return
        lengths = list(map(len, values))
        size = sum(lengths) + 8 * len(values)
        if self._bytes + size >= HELD_BYTES_MAX:
            for value in values:
                self.add(value)
            return
        self._values += values
        self._lengths += lengths
        self._bytes += size

    def take(self) -> bytes:
        """Return the digest of everything since the last call."""
        if not self._bytes and not self._prefix:
            return _OF_NOTHING
        digest = self._digest()
        self._hold(b"", [])
        return digest

    def _hold(self, prefix: bytes, values: list[bytes]) -> None:
        self._prefix, self._values = prefix, values
        self._lengths = list(map(len, values))
        self._bytes = sum(self._lengths) + 8 * len(values)

    def _digest(self) -> bytes:
        count = len(self._values)
        lengths = np.fromiter(self._lengths, "<u4", count).tobytes()
        return hashlib.sha256(b"".join([self._prefix, count.to_bytes(8, "little"), lengths, *self._values])).digest()

    def save(self) -> SavedDigest:
        """Return everything needed to continue after the same record."""
        return SavedDigest(self._prefix, list(self._values))

    def load(self, saved: SavedDigest) -> None:
        """Load what `save` returned into a new digest."""
        self._hold(saved.prefix, list(saved.values))


_OF_NOTHING: Final = hashlib.sha256(bytes(8)).digest()
"""The digest of a range without a record."""
