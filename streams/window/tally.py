"""Count what was not used, by reason, each with the place that caused it."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from unship.rejections import RejectCode

Row: TypeAlias = tuple[str, int, int, int]
"""Reason, change, and the place of the change: a position in each of the two logs, -1 for none."""

NOWHERE: Final = (-1, -1)
"""The place of a count that comes from neither log."""

SHOWN: Final = (RejectCode.UNMATCHED_FEEDBACK, RejectCode.LATE_FEEDBACK, RejectCode.UNUSABLE_TRUTH)
"""Why a label is of no use; a prediction that is read later shows it."""

MERGED_FROM: Final = 1_024
"""So many labels that one prediction shows to be of no use are a single change of a count.

After hours without a prediction there may be a million of them, each a change at the same line, which no record has
room for.
"""


def merged(rows: Sequence[Row]) -> list[Row]:
    """Return the changes of a batch, with those that one prediction shows in one where they are many.

    Its place is that of the last label, so that all of them are new where the prediction is.

    >>> merged([("UNMATCHED_FEEDBACK", 1, 7, 3), ("DUPLICATE", 1, 7, -1)])
    [('UNMATCHED_FEEDBACK', 1, 7, 3), ('DUPLICATE', 1, 7, -1)]
    """
    shown = Counter((row[0], row[2]) for row in rows if row[0] in SHOWN and row[2] >= 0)
    many = {key for key, count in shown.items() if count > MERGED_FROM}
    if not many:
        return list(rows)
    sums: dict[tuple[str, int], tuple[int, int]] = {}
    others: list[Row] = []
    for row in rows:
        key = row[0], row[2]
        if key in many:
            change, last = sums.get(key, (0, -1))
            sums[key] = change + row[1], max(last, row[3])
        else:
            others.append(row)
    return [*others, *((reason, change, p, last) for (reason, p), (change, last) in sorted(sums.items()))]


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


class UnusedLabels:
    """Labels that no prediction can belong to any more, until a prediction shows that: then they are counted.

    As long as none is read, each takes 24 bytes, not the hundreds of a label that may be joined.
    """

    def __init__(self) -> None:
        # Time after which the prediction has to be that shows it, position and number of the reason, for each.
        self._entries = array("q")
        self._begin = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return (len(self._entries) - self._begin) // 3

    def add(self, code: RejectCode, after: int, position: int) -> None:
        """Add a label; `after` must not fall from call to call."""
        self._entries.extend((after, position, SHOWN.index(code)))

    def count(self, tally: Tally, witness: Callable[[int], int]) -> bool:
        """Count those for which `witness` returns the position of a prediction; return whether these are all."""
        entries, begin = self._entries, self._begin
        while begin < len(entries) and (shown_by := witness(entries[begin])) >= 0:
            tally.add(SHOWN[entries[begin + 2]], (shown_by, entries[begin + 1]))
            begin += 3
        self._begin = begin
        if begin == len(entries):
            self._entries, self._begin = array("q"), 0
        return not self._entries

    def total(self) -> Counter[str]:
        """Return how many wait for a prediction, by reason, without those that are only unmatched so far."""
        counts = Counter(self._entries[self._begin + 2 :: 3])
        return Counter({SHOWN[number]: count for number, count in counts.items() if number})

    def save(self) -> list[int]:
        """Return everything."""
        return self._entries[self._begin :].tolist()

    def load(self, saved: list[int]) -> None:
        """Load what `save` returned."""
        self._entries, self._begin = array("q", saved), 0
