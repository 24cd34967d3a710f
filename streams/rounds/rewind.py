"""Records of the topic `rewind`: requests to read a source partition again, halts, copies of committed positions."""

from __future__ import annotations

import hashlib

import msgspec

from streams.join.source_reader import Position

POSITION = b"position/"
"""Begins the keys of copies of committed positions."""

HALTED = b"halted/"
"""Begins the keys of what stops the reading of a partition until its next incarnation."""

CHECK_DIGITS = 16
"""Hexadecimal digits of a digest that precede a committed position."""


class Rewind(msgspec.Struct, frozen=True):
    """A partition pair is read again from `corner` on; in a new incarnation, from its beginning.

    `at` is the ledger offset that shows the gap, -1 where an operator declared that the topics were made again.
    """

    partition: int
    corner: tuple[int, int]
    at: int
    incarnation: int = 0


class Halt(msgspec.Struct, frozen=True):
    """A partition pair is not read any more in this incarnation, because its log is not the one that was read."""

    partition: int
    incarnation: int
    why: str


def position_text(position: Position) -> str:
    """Return a position as it is committed: with a digest, because a low water that is wrong would lose pairs silently.

    >>> position_of(position_text(Position(4)).encode()) == Position(4)
    True
    >>> position_of(position_text(Position(4)).replace(":4,", ":5,").encode()) is None
    True
    """
    text = msgspec.json.encode(position).decode()
    return f"{_check(text.encode())} {text}"


def position_of(value: bytes | None) -> Position | None:
    """Return the position that was committed, None for what was changed: from the origin on everything is safe."""
    check, _, text = (value or b"").partition(b" ")
    if check != _check(text).encode():
        return None
    try:
        return msgspec.json.decode(text, type=Position)
    except (msgspec.DecodeError, ValueError):
        return None


def _check(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:CHECK_DIGITS]
