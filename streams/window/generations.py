"""Predictions that wait for their label, as rows of columns; each generation finds its rows by a hash table of its own.

A generation never grows: when it is full the next one, of four times the size, takes new rows, and when its newest row
has left the window all of it is dropped at once. So nothing is copied to make room, and no row is deleted by itself.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Bools, Floats, Ints
from streams.losses.columns import OTHER, Objects, Scalars, objects
from streams.window.cells import Cells
from streams.window.fingerprints import Fingerprints, Words

ROWS_LEAST: Final = 32_768
ROWS_MOST: Final = 524_288
GROWTH: Final = 4

WAITS, MOVED, CLOSED = range(3)
"""A row's state: it is the only prediction of its key; its key is kept elsewhere; it takes no label any more."""

_ROW_BITS: Final = np.uint64(32)
_ROW_MASK: Final = np.uint64(0xFFFF_FFFF)
Bytes: TypeAlias = NDArray[np.uint8]


class AnswerColumns:
    """What each row answered. `objects` has what is no number, by row: an output, and scores by class."""

    def __init__(self, rows: int) -> None:
        self.output: Floats = np.zeros(rows, np.float64)
        self.kind: Bytes = np.zeros(rows, np.uint8)
        self.score: Floats = np.zeros(rows, np.float64)
        self.objects: dict[int, tuple[Any, Any]] = {}

    def outputs(self, rows: Ints) -> Scalars:
        """Return the outputs of rows."""
        kinds, others = self.kind[rows], None
        if self.objects and (kinds == OTHER).any():
            others = objects([self.others_of(row)[0] for row in rows.tolist()])
        return Scalars(self.output[rows], kinds, others)

    def others_of(self, row: int) -> tuple[Any, dict[str, float] | None]:
        """Return what a row answered where that is no number, and its scores by class; None for none."""
        return self.objects.get(row, (None, None))

    def more_of(self, rows: Ints) -> Objects | None:
        """Return (scores by class, None, None) for each row, None if none has any."""
        if not self.objects:
            return None
        scores = [self.others_of(row)[1] for row in rows.tolist()]
        return None if not any(scores) else objects([(each, None, None) for each in scores])


class LabelColumns:
    """The label of each row: its position (-1 for none), time, truth and source, and whether it named its model."""

    def __init__(self, rows: int) -> None:
        self.position: Ints = np.zeros(rows, np.int64)
        self.at: Ints = np.zeros(rows, np.int64)
        self.truth: Floats = np.zeros(rows, np.float64)
        self.kind: Bytes = np.zeros(rows, np.uint8)
        self.source: NDArray[np.int32] = np.zeros(rows, np.int32)
        self.named: Bools = np.zeros(rows, np.bool_)
        self.others: dict[int, Any] = {}

    def truths(self, rows: Ints) -> Scalars:
        """Return the truths of labelled rows."""
        kinds, others = self.kind[rows], None
        if self.others and (kinds == OTHER).any():
            others = objects([self.others.get(row) for row in rows.tolist()])
        return Scalars(self.truth[rows], kinds, others)


class Generation:
    """A fixed number of rows; `newest` is the join clock of the last one."""

    def __init__(self, rows: int, cells: Cells) -> None:
        self.cells = cells
        self.size = 0
        self.newest = -1
        self.index = KeyIndex(rows)
        self.position: Ints = np.zeros(rows, np.int64)
        self.at: Ints = np.zeros(rows, np.int64)
        self.cell: NDArray[np.int32] = np.zeros(rows, np.int32)
        self.state: Bytes = np.zeros(rows, np.uint8)
        self.answers = AnswerColumns(rows)
        self.label = LabelColumns(rows)

    @property
    def room(self) -> int:
        """Return how many rows can be added."""
        return self.position.size - self.size

    def add(self, prints: Fingerprints, position: Ints, at: Ints, cell: Ints, output: Scalars, score: Scalars) -> slice:
        """Add rows that can be found only after `index.put`; return which they are."""
        rows, answers = slice(self.size, self.size + position.size), self.answers
        self.index.note(rows, prints)
        self.position[rows], self.at[rows], self.cell[rows] = position, at, cell
        answers.output[rows], answers.kind[rows], answers.score[rows] = output.numbers, output.kinds, score.numbers
        self.state[rows] = WAITS
        self.label.position[rows] = -1
        self.size = rows.stop
        self.newest = max(self.newest, int(at[-1]))
        return rows

    def cells_used(self) -> Ints:
        """Return the cells of all rows."""
        return self.cell[: self.size].astype(np.int64)

    def save(self, cell: Ints) -> SavedGeneration:
        """Return everything, with other codes for the cells."""
        rows, label = slice(0, self.size), self.label
        high, low = self.index.prints(rows)
        integers: list[NDArray[Any]] = [
            high.view(np.int64), low.view(np.int64), self.position[rows], self.at[rows], cell, self.answers.kind[rows],
            self.state[rows], label.position[rows], label.at[rows], label.kind[rows], label.source[rows],
            label.named[rows],
        ]  # fmt: skip
        numbers = [self.answers.output[rows], self.answers.score[rows], label.truth[rows]]
        columns = [column.astype(np.int64) for column in integers]
        return SavedGeneration(self.position.size, columns, numbers, self.answers.objects, label.others)


class SavedGeneration(msgspec.Struct, frozen=True):
    """A saved `Generation`: its columns of integers and of numbers in the order in which `save` lists them."""

    rows: int
    integers: list[Ints]
    numbers: list[Floats]
    objects: dict[int, tuple[Any, Any]]
    truths: dict[int, Any]


def loaded(saved: SavedGeneration, cells: Cells) -> Generation:
    """Return the generation that was saved, under these cells."""
    generation = Generation(saved.rows, cells)
    high, low, position, at, cell, kind, state, labelled_by, labelled_at, truth_kind, source, named = saved.integers
    output, score, truth = saved.numbers
    if not position.size:
        return generation
    prints = Fingerprints(high.view(np.uint64), low.view(np.uint64))
    kinds = kind.astype(np.uint8)
    rows = generation.add(prints, position, at, cell, Scalars(output, kinds), Scalars(score, kinds))
    generation.state[rows] = state
    found = np.flatnonzero(state != MOVED)
    # A row that has moved is found by no key that the table still needs: the key is kept elsewhere.
    generation.index.put(prints.part(found), found)
    label = generation.label
    label.position[rows], label.at[rows], label.truth[rows] = labelled_by, labelled_at, truth
    label.kind[rows], label.source[rows], label.named[rows] = truth_kind, source, named
    label.others.update(saved.truths)
    generation.answers.objects.update(saved.objects)
    return generation


class KeyIndex:
    """Finds rows by their fingerprints: open addressing, a quarter full at most, and every hit compared in full.

    Most predictions are new, and of those most find an empty spot at once.
    """

    def __init__(self, rows: int) -> None:
        bits = max(4 * rows - 1, 1).bit_length()
        self._table: Words = np.zeros(1 << bits, np.uint64)
        self._shift = np.uint64(64 - bits)
        self._mask = (1 << bits) - 1
        self._high: Words = np.zeros(rows, np.uint64)
        self._low: Words = np.zeros(rows, np.uint64)

    def note(self, rows: slice, prints: Fingerprints) -> None:
        """Note the fingerprints of rows."""
        self._high[rows], self._low[rows] = prints

    def prints(self, rows: slice) -> Fingerprints:
        """Return the fingerprints of rows."""
        return Fingerprints(self._high[rows], self._low[rows])

    def find(self, prints: Fingerprints) -> Ints:
        """Return the row of each key, -1 where there is none."""
        found = np.full(prints.high.size, -1, np.int64)
        spots = (prints.high >> self._shift).astype(np.int64)
        entries = self._table[spots]
        active = entries.nonzero()[0]
        entries = entries[active]
        while active.size:
            rows = self._matching(entries, prints, active)
            hit = rows >= 0
            found[active[hit]] = rows[hit]
            active = active[~hit]
            spots[active] = (spots[active] + 1) & self._mask
            entries = self._table[spots[active]]
            taken = entries != 0
            active, entries = active[taken], entries[taken]
        return found

    def put(self, prints: Fingerprints, rows: Ints) -> Ints:
        """Let rows be found; return for each key the row that it has now, another one if the key has one already."""
        owners = rows.copy()
        mine = (prints.low & ~_ROW_MASK) | (rows + 1).astype(np.uint64)
        spots = (prints.high >> self._shift).astype(np.int64)
        active = np.arange(rows.size)
        while active.size:
            some, spot = mine[active], spots[active]
            free = self._table[spot] == 0
            self._table[spot[free]] = some[free]
            # Two keys may have taken one spot; what is there now decides.
            entries = self._table[spot]
            left = entries != some
            active, entries = active[left], entries[left]
            found = self._matching(entries, prints, active)
            hit = found >= 0
            owners[active[hit]] = found[hit]
            active = active[~hit]
            spots[active] = (spots[active] + 1) & self._mask
        return owners

    def _matching(self, entries: Words, prints: Fingerprints, active: Ints) -> Ints:
        """Return the rows of table entries where they are those of the active keys, -1 where not."""
        low = prints.low[active]
        rows = (entries & _ROW_MASK).astype(np.int64) - 1
        same = (entries >> _ROW_BITS) == (low >> _ROW_BITS)
        if same.any():
            same &= (self._low[rows] == low) & (self._high[rows] == prints.high[active])
        return np.where(same, rows, -1)
