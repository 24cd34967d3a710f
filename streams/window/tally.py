"""Count what was not used, by reason, each with the place that caused it."""

from __future__ import annotations

from collections import Counter
from typing import Final, TypeAlias

Row: TypeAlias = tuple[str, int, int, int]
"""Reason, change, and the place of the change: a position in each of the two logs, -1 for none."""

NOWHERE: Final = (-1, -1)
"""The place of a count that comes from neither log."""


class Tally:
    """Collect changes of counts, each with the place (prediction, feedback) that caused it.

    A reader that starts again reads some records twice and counts them twice. By its place a count is filtered by
    coverage, like an outcome.

    >>> tally = Tally()
    >>> tally.add("DUPLICATE", (7, -1))
    >>> tally.total(), tally.take(), tally.take()
    (Counter({'DUPLICATE': 1}), [('DUPLICATE', 1, 7, -1)], [])
    """

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def __len__(self) -> int:
        """Return how many changes wait to be taken."""
        return len(self._rows)

    def add(self, reason: str, at: tuple[int, int] = NOWHERE, by: int = 1) -> None:
        """Change the count of a reason."""
        self._rows.append((reason, by, *at))

    def total(self) -> Counter[str]:
        """Return the sum by reason of what was not taken yet."""
        counts: Counter[str] = Counter()
        for reason, change, _, _ in self._rows:
            counts[reason] += change
        return counts

    def take(self) -> list[Row]:
        """Return the changes since the last call."""
        taken, self._rows = self._rows, []
        return taken

    def save(self) -> list[Row]:
        """Return the changes that were not taken yet."""
        return list(self._rows)

    def load(self, saved: list[Row]) -> None:
        """Load what `save` returned."""
        self._rows = saved
