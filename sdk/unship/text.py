"""Treat foreign text with care: bound the nesting of JSON before it is parsed, and show only what is safe to show."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

# One token per match, and an unfinished string runs to the end: each byte is looked at once, so that no input makes
# the scan quadratic. The possessive `*+` keeps the matcher from going back into a string.
_STRING_OR_BRACKET: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)

# Only messages that are made of types, sizes and field names of the contract. The others quote the input.
_QUOTES_NOTHING: Final = re.compile(r"Expected `|Object missing required field `|Integer value out|Number out of range")


def printable(text: str, limit: int | None = None) -> str:
    """Return text without characters that control a terminal or break a log line, cut to `limit` characters.

    Example:
        >>> printable("v41" + chr(27) + "[2J")
        'v41?[2J'
        >>> printable("v41-rollback", 3)
        'v41…'
    """
    shown = text if limit is None or len(text) <= limit else f"{text[:limit]}…"
    return shown if shown.isprintable() else "".join(each if each.isprintable() else "?" for each in shown)


def shortened(text: str, limit: int) -> str:
    """Return text of at most `limit` characters; one that is longer is cut and has the SHA-256 of all of it at its end.

    So two long texts are equal after it if and only if they were, and composed and decomposed characters are one.

    Example:
        >>> shortened("alpha", 100), len(shortened("alpha " * 100, 100))
        ('alpha', 100)
    """
    if len(text) <= limit:
        return text
    whole = unicodedata.normalize("NFC", text)
    digest = hashlib.sha256(whole.encode()).hexdigest()
    return f"{whole[: limit - len(digest) - 1]}…{digest}"


def is_deeper_than(depth_max: int, data: bytes) -> bool:
    """Return whether arrays and objects nest deeper than `depth_max`; brackets inside strings do not count.

    Example:
        >>> is_deeper_than(1, b'{"a": "[["}'), is_deeper_than(1, b'{"a": []}')
        (False, True)
    """
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(data):
        token = match[0]
        if token in (b"[", b"{"):
            depth += 1
            if depth > depth_max:
                return True
        elif token in (b"]", b"}"):
            depth -= 1
    return False


def quotes_nothing(message: str) -> bool:
    """Return whether a message of msgspec holds no text of the input, so that it may be shown and stored."""
    return _QUOTES_NOTHING.match(message) is not None
