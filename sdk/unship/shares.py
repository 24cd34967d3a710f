"""Deal out units of traffic to versions by a hash, so that every replica answers a unit by the same version.

A unit is whom or what an answer is for: a customer, a session, a prediction's id where nothing else is known. Its hash
is the first 8 bytes of the SHA-256 of the model, the epoch of the live period and the unit, as a compact JSON array. A
version with a share of 5 % answers the units whose hash lies in the lowest 5 % of all hashes: a raised share only adds
units, and a new live period deals them out differently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from unship.events import Epoch

HASHES: Final = 2**64
_encode = msgspec.json.Encoder().encode


def hash_of(model: str, period_epoch: Epoch, unit: str) -> int:
    """Return the hash of a unit, from 0 to 2**64 - 1.

    Example:
        >>> hash_of("fraud", (0, 7, 0), "customer-1") == hash_of("fraud", (0, 7, 0), "customer-1")
        True
    """
    return int.from_bytes(hashlib.sha256(_encode((model, period_epoch, unit))).digest()[:8], "big")


def unit_hash(hashed: int) -> int:
    """Return the 32 bits of a hash that a prediction carries: its highest ones."""
    return hashed >> 32


def chosen(hashed: int, serve: str, shares: Mapping[str, float]) -> str:
    """Return the version that answers a unit: one with a share, or `serve`.

    Example:
        >>> chosen(0, "v2", {"v1": 0.05}), chosen(2**63, "v2", {"v1": 0.05})
        ('v1', 'v2')
    """
    end = 0.0
    for version in sorted(shares):
        end += shares[version]
        if hashed < end * HASHES:
            return version
    return serve
