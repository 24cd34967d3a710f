"""Slice values and names as the join keeps them: long text is cut and marked, so that no record becomes large."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, Final

import numpy as np

from detectors.base import Ints
from unship.budgets.table import SLICE_TEXT

CHARS_MAX: Final = SLICE_TEXT.limit
SOURCES_MAX: Final = 4_096
"""Label sources, and classes, that a row can name; labels of further sources are joined one by one."""

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


class SourceNames:
    """The names of label sources, or of classes, by number; the first ones can be named by a row."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._bytes = np.zeros(0, np.int64)
        self._numbers = {name: number for number, name in enumerate(names)}

    def of_row(self, name: str) -> int:
        """Return the number by which a row names a source, -1 if it cannot."""
        number = self._numbers.get(name)
        if number is None:
            return self.add(name) if len(self.names) < SOURCES_MAX else -1
        return number if number < SOURCES_MAX else -1

    def add(self, name: str) -> int:
        """Return the number of a source."""
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
        return number

    def bytes_of(self, numbers: Ints) -> Ints:
        """Return how many bytes the names of these numbers take in a ledger record."""
        if self._bytes.size < len(self.names):
            more = [text_bytes((name,)) for name in self.names[self._bytes.size :]]
            self._bytes = np.concatenate([self._bytes, np.array(more, np.int64)])
        return np.where(numbers < 0, 0, np.take(self._bytes, numbers))

    def fewer(self) -> SourceNames:
        """Return the names without those that no row names, if these are many."""
        return SourceNames(self.names[:SOURCES_MAX]) if len(self.names) > 2 * SOURCES_MAX else self
