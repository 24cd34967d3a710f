"""Make ids that nobody can guess: a label for an id that is not used yet would count, and the first label wins."""

from __future__ import annotations

import itertools
import os
from binascii import b2a_base64
from typing import Final

TOKEN_CHARS: Final = 22
"""Characters of an id that come from chance: 132 bits, six in each."""

POOL_TOKENS: Final = 256
"""Tokens made at once, by one call of the kernel."""

_SAFE: Final = bytes.maketrans(b"+/", b"_.")


class Ids:
    """Make ids of one process; may be called from any thread. The child of a fork needs ids of its own.

    Example:
        >>> ids = Ids()
        >>> first, second = ids.make(1_767_600_000_000), ids.make(1_767_600_000_000)
        >>> len(first), first < second, first.split("-")[:2]
        (44, True, ['019b8d2b8c00', '00000000'])
    """

    def __init__(self) -> None:
        """Make it without a token."""
        self._count = itertools.count()
        self._tokens: list[str] = []

    def make(self, now_ms: int) -> str:
        """Return an id of time, number and chance, which sorts after earlier ones unless the clock was set back."""
        try:
            # One step of the interpreter, so that no two threads get the same one.
            token = self._tokens.pop()
        except IndexError:
            fresh = _tokens()
            token = fresh.pop()
            self._tokens.extend(fresh)
        return f"{now_ms:012x}-{next(self._count):08x}-{token}"


def _tokens() -> list[str]:
    # Each character carries six bits of its own, so that a cut at any character leaves independent parts.
    text = b2a_base64(os.urandom(POOL_TOKENS * TOKEN_CHARS * 6 // 8), newline=False)  # noqa: TID251
    text = text.translate(_SAFE)
    shown = text.decode("ascii")
    return [shown[begin : begin + TOKEN_CHARS] for begin in range(0, POOL_TOKENS * TOKEN_CHARS, TOKEN_CHARS)]
