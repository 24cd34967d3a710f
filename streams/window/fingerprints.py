"""Fingerprints of prediction ids: 128 bits each, of whole blocks at once.

A window of millions of predictions keeps the fingerprint of an id, not the id. It is two sums of the id's 32-bit words,
each word times a 64-bit number, modulo 2^64; the numbers follow from a secret. The upper halves of the sums are
strongly universal (Lemire and Kaser, "Strongly universal string hashing is fast", 2014): without the secret, two ids
have one fingerprint by chance only, with a probability of 2^-64 at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Words: TypeAlias = NDArray[np.uint64]
Key: TypeAlias = str | tuple[str, int, str]
"""An id, or (id, row, target) where one request is answered by several rows or for several targets."""

BYTES_MAX: Final = 128
"""Longer keys are replaced by a digest, so that one of them does not widen a whole block."""

PUBLIC: Final = b"the events were chosen before this program read them"
"""The secret of programs that read a recording: nobody can answer to what they do."""


class Fingerprints(NamedTuple):
    """One fingerprint an entry, in two halves."""

    high: Words
    low: Words

    def part(self, index: slice | NDArray[np.int64]) -> Fingerprints:
        """Return the entries of an index."""
        return Fingerprints(self.high[index], self.low[index])


class Fingerprinter:
    """Computes fingerprints under one secret.

    >>> two = Fingerprinter(PUBLIC).of(["a", ("a", 1, ""), "a"])
    >>> bool(two.high[0] == two.high[2]), bool(two.high[0] == two.high[1])
    (True, False)
    """

    def __init__(self, secret: bytes) -> None:
        words = BYTES_MAX // 4 + 1
        drawn = hashlib.shake_256(secret).digest(2 * words * 8)
        self._factors = np.frombuffer(drawn, np.uint64).reshape(2, words)

    def of(self, keys: Sequence[Key]) -> Fingerprints:
        """Return the fingerprints of keys."""
        words = _words(keys)
        # The last factor is that of the length, so that padding is no part of a key.
        high, low = (self._sum(words, factors) for factors in self._factors)
        return Fingerprints(high, low)

    @staticmethod
    def _sum(words: Words, factors: Words) -> Words:
        total: Words = words[0] * factors[-1]
        for word, factor in zip(words[1:], factors[:-1], strict=False):
            total += word * factor
        return total


def _words(keys: Sequence[Key]) -> Words:
    """Return the length of each key and its words, of shape (1 + words, keys)."""
    try:
        joined = "".join(keys)  # type: ignore[arg-type]
    except TypeError:
        return _words_of([_bytes_of(key) for key in keys])
    data = joined.encode()
    if len(data) != len(joined):
        return _words_of([_bytes_of(key) for key in keys])
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    if lengths.size and int(lengths.max()) > BYTES_MAX:
        return _words_of([_bytes_of(key) for key in keys])
    return _padded(data, lengths)


def _words_of(keys: list[bytes]) -> Words:
    return _padded(b"".join(keys), np.fromiter(map(len, keys), np.int64, len(keys)))


def _padded(data: bytes, lengths: NDArray[np.int64]) -> Words:
    size = lengths.size
    longest = int(lengths.max(initial=0))
    width = -(-longest // 4) * 4
    table = np.zeros((size, max(width, 4)), np.uint8)
    if size and int(lengths.min()) == longest:
        # The usual case: ids made in one way are of one length.
        table[:, :longest] = np.frombuffer(data, np.uint8).reshape(size, longest)
    else:
        begins = np.arange(size) * table.shape[1] - (lengths.cumsum() - lengths)
        table.reshape(-1)[np.repeat(begins, lengths) + np.arange(len(data))] = np.frombuffer(data, np.uint8)
    words = np.empty((1 + table.shape[1] // 4, size), np.uint64)
    words[0] = lengths
    words[1:] = table.view(np.uint32).T
    return words


def _bytes_of(key: Key) -> bytes:
    """Return a key as bytes. No text in UTF-8 begins with the first byte of what is not a plain id of usual length."""
    if isinstance(key, str):
        plain = key.encode()
        return plain if len(plain) <= BYTES_MAX else b"\xff" + hashlib.sha256(plain).digest()
    name, row, target = key
    return b"\xfe" + hashlib.sha256(f"{len(name)}:{name}{row}:{target}".encode()).digest()
