"""Slice values as the join keeps them: long text is cut and marked, so that no value makes a ledger record large."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

from unship.budgets.table import SLICE_TEXT

CHARS_MAX: Final = SLICE_TEXT.limit
_DIGITS: Final = 16
_MARK: Final = "\u2026"
_MARKED: Final = re.compile(f"{_MARK}[0-9a-f]{{{_DIGITS}}}$")


def shortened(value: Any) -> Any:
    """Return a slice value as it is kept: longer text by its beginning, a mark and a digest of all of it.

    Two values are kept as the same one only if their digests are equal: a value that looks like a cut one is cut too.

    >>> shortened("DE"), shortened(True), len(shortened("a" * 65))
    ('DE', True, 64)
    >>> shortened("a" * 65)[44:]
    'aaa…635361c48bb9eab1'
    >>> shortened(shortened("a" * 65)) == shortened("a" * 65)
    False
    """
    if value.__class__ is not str or (len(value) <= CHARS_MAX and not _MARKED.search(value)):
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:_DIGITS]
    return f"{value[: CHARS_MAX - _DIGITS - 1]}{_MARK}{digest}"


def text_bytes(values: Iterable[Any]) -> int:
    """Return how many bytes some values take in a ledger record at most; None takes none.

    >>> text_bytes(["DE", None, 7, "\u00e4" * 64])
    149
    """
    return sum(len(value.encode()) + 5 if value.__class__ is str else 9 for value in values if value is not None)
