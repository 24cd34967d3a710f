"""The labels that a window keeps for predictions that are read later, and how many it takes of one request.

Of one request (id, row, target), and for each model that labels name, the first 8 labels of each *interval* of the join
clock are taken, an eighth of the longest early time. Whether a label is taken follows from its own interval alone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Collection, Iterator
from heapq import heappop, heappush
from typing import Any, Final

import msgspec

from streams.window.fingerprints import Key
from streams.window.series import INTERVALS
from unship.budgets.table import LABEL_JOINS, LABELS_OF_REQUEST

LABELS_MAX: Final = LABELS_OF_REQUEST.limit
"""The first is joined, and the others are only counted."""


class PendingFeedback(msgspec.Struct, gc=False):
    """A truth whose prediction may still be read; `code` is the one it is counted under until then.

    `late` and `unfit` are the reasons why it labelled no prediction: it came after the horizon, or has nothing that the
    model's losses need. `bytes` are those of the outcomes and pairs that it gave besides the first outcome.
    """

    key: Key
    position: int
    at: int
    truth: Any
    source: str
    model: str | None
    engagement: float | None = None
    matched: bool = False
    code: str = ""
    late: bool = False
    unfit: bool = False
    bytes: int = 0

    @property
    def retract(self) -> bool:
        """Return whether it takes a label back: then it has nothing that would be one."""
        return self.truth is None and self.engagement is None

    def takes(self, size: int) -> bool:
        """Return whether one more prediction, of so many bytes in the ledger, may be joined with it; the first may."""
        if self.matched:
            self.bytes += size
        return self.bytes <= LABEL_JOINS.limit

    def match(self) -> None:
        """Note that it is the first label of a prediction."""
        self.matched, self.code = True, ""

    def repeat(self, code: str) -> None:
        """Note under which code it is counted, as long as it is the first label of none."""
        self.code = code

    def miss(self, *, late: bool = False, unfit: bool = False) -> None:
        """Note why it does not label a prediction."""
        self.late, self.unfit = self.late or late, self.unfit or unfit


class SavedLabels(msgspec.Struct, frozen=True):
    """Saved `EarlyLabels`."""

    kept: list[PendingFeedback]
    interval: int
    taken: list[tuple[Key, str | None, int]]


class EarlyLabels:
    """Labels of the last `early_ms`; those of a request that name the same model are in the order of their log."""

    def __init__(self, early_ms: int) -> None:
        self.early_ms = early_ms
        self.interval_ms = max(early_ms // INTERVALS, 1)
        self._kept: dict[Key, dict[str | None, list[PendingFeedback]]] = {}
        self._leaving: deque[PendingFeedback] = deque()
        # Labels that were joined elsewhere, by (time, position): they come in any order, and none is counted.
        self._adopted: list[tuple[int, int, PendingFeedback]] = []
        # How many labels of the newest interval were taken.
        self._interval = -1
        self._taken: dict[Key, dict[str | None, int]] = {}

    def __contains__(self, key: Key) -> bool:
        """Return whether anything is known of the labels of a request."""
        return key in self._kept or key in self._taken

    def __iter__(self) -> Iterator[PendingFeedback]:
        """Yield the labels of this window's own."""
        return iter(self._leaving)

    @property
    def tables(self) -> tuple[Collection[Key], Collection[Key]]:
        """The requests with labels, and those with labels in the newest interval."""
        return self._kept, self._taken

    def begin_of(self, at: int) -> int:
        """Return when the interval begins that labels of a join clock are in."""
        return at - at % self.interval_ms

    def take(self, key: Key, model: str | None, at: int) -> bool:
        """Return whether the next label of a request, which names this model, is one of the first in its interval."""
        interval = at // self.interval_ms
        if interval > self._interval:
            self._interval, self._taken = interval, {}
        if interval < self._interval:
            return True
        taken = self._taken.setdefault(key, {})
        taken[model] = taken.get(model, 0) + 1
        return taken[model] <= LABELS_MAX

    def add(self, feedback: PendingFeedback) -> None:
        """Keep the next label."""
        self._insert(feedback)
        self._leaving.append(feedback)

    def adopt(self, feedback: PendingFeedback) -> None:
        """Keep the first label of a request, which was joined elsewhere."""
        self.take(feedback.key, feedback.model, feedback.at)
        self._insert(feedback)
        heappush(self._adopted, (feedback.at, feedback.position, feedback))

    def _insert(self, feedback: PendingFeedback) -> None:
        named = self._kept.setdefault(feedback.key, {})
        insort(named.setdefault(feedback.model, []), feedback, key=_position)

    def of(self, key: Key, model: str, begin: int, end: int) -> list[PendingFeedback]:
        """Return the labels of a request from one join clock to another, in order, that may be of a model."""
        named = self._kept.get(key)
        if named is None:
            return []
        found: list[PendingFeedback] = []
        for name in (None, model):
            labels = named.get(name, ())
            found += labels[bisect_left(labels, begin, key=_at) : bisect_right(labels, end, key=_at)]
        found.sort(key=_position)
        return found

    @property
    def oldest(self) -> PendingFeedback | None:
        """The oldest label of this window's own, None if there is none."""
        return self._leaving[0] if self._leaving else None

    @property
    def newest_at(self) -> int:
        """The join clock at the newest label of this window's own, -1 if there is none."""
        return self._leaving[-1].at if self._leaving else -1

    def pop(self) -> PendingFeedback:
        """Evict the oldest label of this window's own, and return it."""
        feedback = self._leaving.popleft()
        self._remove(feedback)
        return feedback

    def evict_adopted(self, before: int) -> None:
        """Evict labels joined elsewhere that no prediction can belong to from a join clock on."""
        while self._adopted and before > self._adopted[0][0] + self.early_ms:
            self._remove(heappop(self._adopted)[2])

    def _remove(self, feedback: PendingFeedback) -> None:
        named = self._kept[feedback.key]
        labels = named[feedback.model]
        if len(labels) > 1:
            del labels[bisect_left(labels, feedback.position, key=_position)]
            return
        del named[feedback.model]
        if not named:
            del self._kept[feedback.key]

    def save(self) -> SavedLabels:
        """Return everything."""
        kept = sorted([*self._leaving, *(each for _, _, each in self._adopted)], key=_position)
        taken = [(key, model, count) for key, named in self._taken.items() for model, count in named.items()]
        return SavedLabels(kept, self._interval, taken)

    def load(self, saved: SavedLabels) -> None:
        """Load what `save` returned."""
        for feedback in saved.kept:
            self._insert(feedback)
        self._leaving = deque(saved.kept)
        self._interval = saved.interval
        for key, model, count in saved.taken:
            self._taken.setdefault(key, {})[model] = count


def _position(feedback: PendingFeedback) -> int:
    return feedback.position


def _at(feedback: PendingFeedback) -> int:
    return feedback.at
