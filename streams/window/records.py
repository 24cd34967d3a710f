"""Decoded records of one log as columns: what the window takes at once."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np

from detectors.base import Ints
from streams.ledger.places import INNER_MASK, hashed
from streams.losses.columns import NOTHING, Scalars, objects, scalars
from streams.window.decoding import Shape, value_in
from streams.window.fingerprints import Key
from unship.budgets.table import UNITS
from unship.events import Feedback, Prediction

_id_of: Final = attrgetter("id")


class Records(NamedTuple):
    """Decoded records of one log. `odd` are the places of items that are no narrow ones.

    `line` numbers the records of both logs in the order in which they were given.
    """

    items: list[Any]
    odd: list[int]
    shape: Shape
    values: Sequence[bytes | None]
    position: Ints
    at: Ints
    line: Ints

    def part(self, begin: int, end: int) -> Records:
        """Return the records of a range."""
        odd = [place - begin for place in self.odd if begin <= place < end]
        some = slice(begin, end)
        return Records(
            self.items[some], odd, self.shape, self.values[some], self.position[some], self.at[some], self.line[some]
        )

    def without(self, places: list[int]) -> Records:
        """Return the records but those at some places."""
        if not places:
            return self
        left = np.delete(np.arange(len(self.items)), places)
        numbers = left.tolist()
        number_of = {place: number for number, place in enumerate(numbers)}
        return Records(
            [self.items[place] for place in numbers],
            [number_of[place] for place in self.odd if place in number_of],
            self.shape,
            [self.values[place] for place in numbers],
            *(column[left] for column in (self.position, self.at, self.line)),
        )

    def keys(self) -> list[Key]:
        """Return the keys by which predictions and feedback belong together."""
        items = self.items
        ids: list[Key] = list(map(_id_of, items))
        if {"row", "target"} & self.shape.fields:
            numbers, names = self.column("row", 0), self.column("target", "")
            for place, (number, name) in enumerate(zip(numbers, names, strict=True)):
                if number or name:
                    ids[place] = (items[place].id, number, name)
        for place in self.odd:
            ids[place] = key_of(items[place])
        return ids

    def value_of(self, place: int) -> bytes | None:
        """Return what one event was decoded from; its position has its place in a packed record."""
        return value_in(self.values[place], int(self.position[place]) & INNER_MASK)

    def column(self, name: str, default: Any) -> list[Any]:
        """Return a field of narrow items, the default where an item is none or where no item has it."""
        if name not in self.shape.fields:
            return [default] * len(self.items)
        if not self.odd:
            return list(map(attrgetter(name), self.items))
        odd = set(self.odd)
        return [default if place in odd else getattr(item, name) for place, item in enumerate(self.items)]


def key_of(event: Prediction | Feedback) -> Key:
    """Return the key of one event."""
    return event.id if not event.row and not event.target else (event.id, event.row, event.target)


def scores_of(items: list[Any], shape: Shape) -> Scalars:
    """Return the scores of narrow predictions."""
    if "score" not in shape.fields:
        return _nothing(len(items))
    return score_column(list(map(attrgetter("score"), items)))


def score_column(scores: Sequence[float | None]) -> Scalars:
    """Return scores as a column, NaN where there is none."""
    column = scalars(scores)
    return Scalars(np.where(column.kinds == NOTHING, np.nan, column.numbers), column.kinds)


def units_of(hashes: Sequence[int | None]) -> Ints:
    """Return the number of each unit, from 1 on; 0 where there is none.

    What is given is hashed again: the units that one version answers have the same highest bits, and nobody keeps a
    sender from giving numbers that are no hashes.

    >>> units_of([7, None, 7, 8]).tolist()
    [44218, 0, 44218, 5588]
    """
    if None in hashes:
        given = np.array([-1 if each is None else each for each in hashes], np.int64)
        return np.where(given < 0, 0, _numbers(given))
    return _numbers(np.array(hashes, np.int64))


def unit_of(given: int | None) -> int:
    """Return the number of one unit; 0 where there is none."""
    return int(units_of([given])[0])


def _numbers(given: Ints) -> Ints:
    return (hashed(given) % np.uint64(UNITS.limit)).astype(np.int64) + 1


def spread(column: Scalars, use: Ints, size: int) -> Scalars:
    """Return a column with its entries at some places, and nothing at the others."""
    numbers, kinds = np.full(size, np.nan), np.full(size, NOTHING, np.uint8)
    numbers[use], kinds[use] = column.numbers, column.kinds
    if column.others is None:
        return Scalars(numbers, kinds)
    others = objects([None] * size)
    others[use] = column.others
    return Scalars(numbers, kinds, others)


def _nothing(size: int) -> Scalars:
    return Scalars(np.full(size, np.nan), np.full(size, NOTHING, np.uint8))
