"""Lay out rows of text in columns, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a line for each row, with columns as wide as their longest text.

    >>> list(aligned([("model", "state"), ("a", "HEALTHY")]))
    ['model  state', 'a      HEALTHY']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
