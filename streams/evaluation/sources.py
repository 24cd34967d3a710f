"""Number the label sources of a model, so that each can be left out: as the configuration lists them, or by outcomes.

Names of sources are what their writers declare. A list in the configuration (`labels.sources`) makes the listed ones
places of their own, and all others one pool. Without it the first to appear have the places, and when there are more
than places, a source with many of the newest outcomes takes the place of one with few: a name that was used a few times
keeps none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from detectors.base import Ints
from streams.config.resolved import OTHER
from streams.ledger.records import Coded
from unship.budgets.table import LABEL_SOURCES

LABEL_SOURCES_MAX = LABEL_SOURCES.limit
SEATS_WINDOW = 1_000
"""Labelled outcomes after which places are given again, where there are more sources than places."""

SEAT_SHARE = 0.05
"""A source with less of them takes no place: only those with a tenth of the labels are ever left out."""

CANDIDATES_MAX = 32
"""Names without a place that are counted; one with a thirty-third of the outcomes is always among them."""


class SourceTable(msgspec.Struct):
    """Hold the names that have places, `listed` of them by the configuration; all others share the last place.

    `overflowed` is whether there are any others. From then on `seats` counts the outcomes of each place and
    `candidates` those of names without one, over the newest `counted` outcomes.
    """

    names: list[str]
    listed: int = 0
    overflowed: bool = False
    seats: list[int] = []
    candidates: dict[str, int] = {}
    counted: int = 0

    @property
    def other(self) -> int:
        """Return the number of the place that all others share."""
        return self.listed or LABEL_SOURCES_MAX

    @property
    def places(self) -> int:
        """Return how many places there are, that of all others included."""
        return self.other + 1 if self.overflowed or self.listed else len(self.names)

    def name(self, place: int) -> str:
        """Return the name of a place."""
        return self.names[place] if place < len(self.names) else OTHER

    def is_pool(self, place: int) -> bool:
        """Return whether a place is shared by all that the configuration does not list."""
        return self.listed > 0 and place == self.other

    def known(self, values: Sequence[Any]) -> list[int] | None:
        """Return the places of sources, None if one of them has none yet, or if places may change hands."""
        places = {name: place for place, name in enumerate(self.names)}
        if not self.listed and (self.overflowed or any(value not in places for value in values)):
            return None
        return [places.get(value, self.other) for value in values]

    def encode(self, column: Coded) -> Ints:
        """Return the place of each entry, -1 for one without a source."""
        if not column.values:
            return column.codes
        names = [str(value) for value in column.values]
        if not self.listed and (self.overflowed or any(name not in self.names for name in names)):
            counts = np.bincount(column.codes[column.codes >= 0], minlength=len(names)).tolist()
            places = [self._place(name) if count else self.other for name, count in zip(names, counts, strict=True)]
            if self.overflowed:
                self._count(names, places, counts)
        else:
            places = [self.names.index(name) if name in self.names else self.other for name in names]
        # The last entry is that of no source.
        return np.array([*places, -1], np.int64)[column.codes]

    def _place(self, name: str) -> int:
        """Return the place of a name; a new one takes a free place."""
        if name in self.names:
            return self.names.index(name)
        if name == OTHER or len(self.names) >= LABEL_SOURCES_MAX:
            self.overflowed = True
            return self.other
        self.names.append(name)
        return len(self.names) - 1

    def _count(self, names: list[str], places: list[int], counts: list[int]) -> None:
        """Count outcomes of places and of names without one (Misra and Gries, "Finding repeated elements", 1982)."""
        self.seats += [0] * (len(self.names) - len(self.seats))
        for name, place, count in zip(names, places, counts, strict=True):
            self.counted += count
            if place < len(self.names):
                self.seats[place] += count
            elif count and name != OTHER:
                self.candidates[name] = self.candidates.get(name, 0) + count
        if len(self.candidates) > CANDIDATES_MAX:
            least = sorted(self.candidates.values(), reverse=True)[CANDIDATES_MAX]
            self.candidates = {name: count - least for name, count in self.candidates.items() if count > least}

    def reseat(self, fixed: bool) -> list[int]:
        """Give places to names that had more outcomes, once enough were counted; return the places with a new name.

        Args:
            fixed: no place may change hands now, so that the count only begins again.
        """
        if self.counted < SEATS_WINDOW:
            return []
        taken: list[int] = []
        least = max(1, int(SEAT_SHARE * self.counted))
        seats = self.seats + [0] * (len(self.names) - len(self.seats))
        for name, count in sorted(self.candidates.items(), key=lambda entry: (-entry[1], entry[0])):
            place = min(range(len(seats)), key=lambda place: (seats[place], place), default=None)
            if fixed or place is None or count < least or count < 2 * seats[place]:
                break
            self.names[place], seats[place] = name, count
            taken.append(place)
        self.seats, self.candidates, self.counted = [], {}, 0
        return taken


def source_table(listed: list[str]) -> SourceTable:
    """Return a table that knows only the listed sources.

    >>> table = source_table(["crm"])
    >>> table.encode(Coded(["crm", "x", "y"], np.array([0, 1, 2, 0]))).tolist()
    [0, 1, 1, 0]
    >>> [table.name(place) for place in range(table.places)]
    ['crm', '__other__']
    """
    return SourceTable(list(listed), len(listed))
