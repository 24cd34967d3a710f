"""Places of events as one number each: the offset of the record, and above it the index in a packed one.

A plain record's event has the index 0, so its place is its offset, and a ledger of plain records has the same bytes
whether or not packed records are read. What was read is a prefix of records: places are compared with corners by their
offsets alone. A place is unique in its partition; numbers order places by index before offset, which is enough where
any order that follows from the log serves.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.base import Ints

INDEX_BITS: Final = 6
"""Holds the index of one of 64 events."""

INNER_MASK: Final = (1 << INDEX_BITS) - 1
"""What of a position is the index."""

OFFSET_BITS: Final = 42
"""Offsets below 2 ** 41 leave a sign, which -1 for "none" needs: 70 years of a thousand records a second."""

_GAMMA: Final = 0x9E3779B97F4A7C15
_FACTORS: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
"""The increment and the two multipliers of splitmix64."""

_OFFSET: Final = (1 << OFFSET_BITS) - 1


def place(offset: int, index: int = 0) -> int:
    """Return the place of an event in a record.

    >>> place(7), place(7, 2) == 2 * 2**OFFSET_BITS + 7
    (7, True)
    """
    return index << OFFSET_BITS | offset


def offset_of(number: int) -> int:
    """Return the offset of one place, -1 of -1.

    >>> offset_of(place(7, 2)), offset_of(-1)
    (7, -1)
    """
    return number if number < 0 else number & _OFFSET


def offsets_of(places: Ints) -> Ints:
    """Return the offsets of places, -1 of -1.

    >>> offsets_of(np.array([7, place(7, 2), -1])).tolist()
    [7, 7, -1]
    """
    unused = 64 - OFFSET_BITS
    return (places << unused) >> unused


def rising(offset: int, index: int = 0) -> int:
    """Return a number of an event that rises along its log, for tables that are searched by it; see `places_of`.

    >>> [rising(7), rising(7, 2), rising(8)]
    [448, 450, 512]
    """
    return offset << INDEX_BITS | index


def places_of(numbers: Ints) -> Ints:
    """Return the places of numbers that `rising` made, -1 of -1.

    >>> places_of(np.array([rising(7), rising(7, 2), -1])).tolist() == [7, place(7, 2), -1]
    True
    """
    return (numbers & ((1 << INDEX_BITS) - 1)) << OFFSET_BITS | numbers >> INDEX_BITS


def place_of(number: int) -> int:
    """Return the place of a number that `rising` made, -1 of -1.

    >>> place_of(rising(7, 2)) == place(7, 2), place_of(-1)
    (True, -1)
    """
    return number if number < 0 else place(number >> INDEX_BITS, number & ((1 << INDEX_BITS) - 1))


def later_of(places: Ints, others: Ints) -> Ints:
    """Return of each two places the one that was read later.

    >>> later_of(np.array([7, place(7, 1)]), np.array([place(5, 3), 7])).tolist() == [7, place(7, 1)]
    True
    """
    offsets, other_offsets = offsets_of(places), offsets_of(others)
    # In one record the larger index is the larger number.
    later = (offsets > other_offsets) | ((offsets == other_offsets) & (places > others))
    return np.where(later, places, others)


def hashed(numbers: Ints) -> NDArray[np.uint64]:
    """Return splitmix64 of places, or of other numbers; one number has one hash, and another number has another.

    With its partition a place is one number. So the order of hashes is a function of the log, and knows nothing of
    time, output or truth.

    >>> [f"{key:016x}" for key in hashed(np.array([0, 1])).tolist()]
    ['e220a8397b1dcdaf', '910a2dec89025cc1']
    """
    key = numbers.astype(np.uint64)
    key += np.uint64(_GAMMA)
    for shift, factor in ((30, _FACTORS[0]), (27, _FACTORS[1])):
        key ^= key >> np.uint64(shift)
        key *= np.uint64(factor)
    key ^= key >> np.uint64(31)
    return key


def shown(number: int) -> str:
    """Return a place as text.

    >>> shown(7), shown(place(7, 2))
    ('7', '7[2]')
    """
    offset, index = number & _OFFSET, number >> OFFSET_BITS
    return f"{offset}[{index}]" if index else str(offset)
