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
from streams.window.stored_rows import (
    DamagedRows,
    Kept,
    Rows,
    RowStore,
    checksum_of_labels,
    checksum_of_predictions,
    new_rows,
)

ROWS_LEAST: Final = 32_768
ROWS_MOST: Final = 524_288
GROWTH: Final = 4
ROWS_LARGEST: Final = 4_194_304
"""A generation may be larger than `ROWS_MOST` in a window that has more than four of that size: up to this."""

WAITS, MOVED, CLOSED = range(3)
"""A row's state: it is the only prediction of its key; its key is kept elsewhere; it takes no label any more."""

_LOADED_ROWS: Final = 65_536
_ROW_BITS: Final = np.uint64(32)
_ROW_MASK: Final = np.uint64(0xFFFF_FFFF)
Bytes: TypeAlias = NDArray[np.uint8]


OBJECTS_BYTES: Final = 8 * 1_048_576
"""A generation with so many bytes of texts and lists takes no more rows: what has left the window is dropped by
generations, and rows of numbers alone would let a much larger one fill.
"""


class AnswerColumns:
    """What each row answered, and for which unit. `objects` has what is no number: outputs, and scores by class."""

    def __init__(self, rows: Rows) -> None:
        self.objects: dict[int, tuple[Any, Any]] = {}
        self.bytes = 0
        self.use(rows)

    def keep(self, row: int, other: Any, by_class: dict[str, float] | None) -> None:
        """Keep what a row answered that is no number."""
        self.objects[row] = (other, by_class)
        self.bytes += object_bytes(other) + object_bytes(by_class)

    def load(self, objects: dict[int, tuple[Any, Any]]) -> None:
        """Load what was saved of `objects`."""
        for row, (other, by_class) in objects.items():
            self.keep(row, other, by_class)

    def use(self, rows: Rows) -> None:
        """Have the columns in these rows."""
        self.output: Floats = rows["output"]
        self.kind: Bytes = rows["kind"]
        self.score: Floats = rows["score"]
        self.unit: NDArray[np.uint16] = rows["unit"]

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

    def __init__(self, rows: Rows) -> None:
        self.others: dict[int, Any] = {}
        self.bytes = 0
        self.use(rows)

    def keep(self, row: int, other: Any) -> None:
        """Keep the truth of a row that is no number."""
        self.others[row] = other
        self.bytes += object_bytes(other)

    def load(self, truths: dict[int, Any]) -> None:
        """Load what was saved of `others`."""
        for row, other in truths.items():
            self.keep(row, other)

    def use(self, rows: Rows) -> None:
        """Have the columns in these rows."""
        self.position: Ints = rows["label_position"]
        self.at: Ints = rows["label_at"]
        self.truth: Floats = rows["truth"]
        self.kind: Bytes = rows["truth_kind"]
        self.source: NDArray[np.int32] = rows["source"]
        self.named: Bools = rows["named"]

    def truths(self, rows: Ints) -> Scalars:
        """Return the truths of labelled rows."""
        kinds, others = self.kind[rows], None
        if self.others and (kinds == OTHER).any():
            others = objects([self.others.get(row) for row in rows.tolist()])
        return Scalars(self.truth[rows], kinds, others)


def object_bytes(value: Any) -> int:
    """Return about how many bytes of memory an answer or a truth takes that is no number.

    >>> object_bytes(None), object_bytes("abcd"), object_bytes(["abcd", 1]), object_bytes({"a": 0.5})
    (0, 60, 188, 185)
    """
    if value is None:
        return 0
    if isinstance(value, str):
        return 56 + len(value)
    if isinstance(value, dict):
        return 64 + sum(120 + len(name) for name in value)
    return 64 + sum(8 + (56 + len(item) if isinstance(item, str) else 48) for item in value)


class Generation:
    """A fixed number of rows; `newest` is the join clock of the last one."""

    def __init__(self, rows: int | Kept, cells: Cells) -> None:
        self.cells = cells
        self.size = 0
        self.newest = -1
        self.kept = rows if isinstance(rows, Kept) else None
        self.rows: Rows = new_rows(rows) if isinstance(rows, int) else rows.rows
        self.index = KeyIndex(self.rows, outside=self.kept is not None)
        self.state: Bytes = np.zeros(self.rows.size, np.uint8)
        self.answers = AnswerColumns(self.rows)
        self.label = LabelColumns(self.rows)
        # The checksum of the labels, and that of the predictions of so many rows.
        self._labels = 0
        self._predictions = (0, 0)

    @property
    def position(self) -> Ints:
        """Return the position of each prediction."""
        column: Ints = self.rows["position"]
        return column

    @property
    def at(self) -> Ints:
        """Return the join clock at each prediction."""
        column: Ints = self.rows["at"]
        return column

    @property
    def cell(self) -> NDArray[np.int32]:
        """Return the cell of each prediction."""
        column: NDArray[np.int32] = self.rows["cell"]
        return column

    @property
    def memory(self) -> int:
        """Return how many bytes of memory it takes: table, texts and lists, and the rows if they are nowhere else."""
        texts = self.answers.bytes + self.label.bytes
        return self.index.bytes + self.state.nbytes + texts + (0 if self.kept else self.rows.nbytes)

    def move(self, store: RowStore) -> bool:
        """Move the rows out of memory; return whether they are."""
        if self.kept is None:
            self.kept = store.keep(self.rows, self.size)
            if self.kept is None:
                return False
            self.rows = self.kept.rows
            self.index.use(self.rows, outside=True)
            self.answers.use(self.rows)
            self.label.use(self.rows)
            for begin in range(0, self.size, _LOADED_ROWS):
                self._sum_labels(begin, min(begin + _LOADED_ROWS, self.size))
                store.touched(_LOADED_ROWS)
        return True

    def _sum_labels(self, begin: int, end: int) -> None:
        found = begin + np.flatnonzero(self.label.position[begin:end] >= 0)
        self._labels += checksum_of_labels(self.rows, found)

    def labelled(self, rows: Ints) -> None:
        """Note that rows were labelled, each for the first time."""
        if self.kept is not None:
            self._labels += checksum_of_labels(self.rows, rows)

    @property
    def room(self) -> int:
        """Return how many rows can be added."""
        return 0 if self.answers.bytes + self.label.bytes >= OBJECTS_BYTES else self.rows.size - self.size

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
        high, low = self.index.prints_of(rows)
        integers: list[NDArray[Any]] = [
            high.view(np.int64), low.view(np.int64), self.position[rows], self.at[rows], cell, self.answers.kind[rows],
            self.answers.unit[rows], self.state[rows], label.position[rows], label.at[rows], label.kind[rows],
            label.source[rows], label.named[rows],
        ]  # fmt: skip
        numbers = [self.answers.output[rows], self.answers.score[rows], label.truth[rows]]
        columns = [column.astype(np.int64) for column in integers]
        return SavedGeneration(self.rows.size, columns, numbers, self.answers.objects, label.others)

    def save_kept(self, cells: int, store: RowStore) -> SavedKept:
        """Return everything but the rows, which are in a store; `cells` is the number of their cells."""
        assert self.kept is not None, "the rows are in memory"
        counted, total = self._predictions
        for begin in range(counted, self.size, _LOADED_ROWS):
            total += checksum_of_predictions(self.rows, begin, min(begin + _LOADED_ROWS, self.size))
            store.touched(_LOADED_ROWS)
        self._predictions = (self.size, total)
        checksum = (total + self._labels) % 2**64
        states = [np.packbits(self.state[: self.size] == state).tobytes() for state in (MOVED, CLOSED)]
        return SavedKept(
            self.kept.name, self.size, self.newest, cells, checksum, states, self.answers.objects, self.label.others
        )

    def load_kept(self, saved: SavedKept, feedback: int, store: RowStore) -> None:
        """Load what `save_kept` returned over its rows, which may have been written to since.

        Args:
            saved: What was saved.
            feedback: The position in the feedback log at which it was saved: later labels are not known yet.
            store: What has the rows.

        Raises:
            DamagedRows: The rows are not those that were saved.
        """
        if saved.size > self.rows.size:
            raise DamagedRows(f"{saved.name}: expected {saved.size} rows, was {self.rows.size}")
        for state, packed in zip((MOVED, CLOSED), saved.states, strict=True):
            bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=saved.size)
            self.state[: saved.size][bits.view(np.bool_)] = state
        predictions = 0
        for begin in range(0, saved.size, _LOADED_ROWS):
            predictions += self._load_part(begin, min(begin + _LOADED_ROWS, saved.size), feedback)
            store.touched(_LOADED_ROWS)
        self._predictions = (saved.size, predictions)
        if (self._labels + self._predictions[1]) % 2**64 != saved.checksum:
            raise DamagedRows(f"{saved.name}: the checksum of its {saved.size} rows is another one")
        self.size, self.newest = saved.size, saved.newest
        self.answers.load(saved.objects)
        self.label.load(saved.truths)

    def _load_part(self, begin: int, end: int, feedback: int) -> int:
        """Load rows of a range, and let them be found whose keys are nowhere else; return their checksum."""
        position = self.label.position[begin:end]
        position[position >= feedback] = -1
        self._sum_labels(begin, end)
        found = begin + np.flatnonzero(self.state[begin:end] != MOVED)
        self.index.put(self.index.prints_of(found), found)
        return checksum_of_predictions(self.rows, begin, end)


class SavedGeneration(msgspec.Struct, frozen=True):
    """A saved `Generation`: its columns of integers and of numbers in the order in which `save` lists them."""

    rows: int
    integers: list[Ints]
    numbers: list[Floats]
    objects: dict[int, tuple[Any, Any]]
    truths: dict[int, Any]


class SavedKept(msgspec.Struct, frozen=True):
    """A saved `Generation` whose rows are kept outside memory.

    `states` are one bit for each row, of those that moved and of those that are closed.
    """

    name: str
    size: int
    newest: int
    cells: int
    checksum: int
    states: list[bytes]
    objects: dict[int, tuple[Any, Any]]
    truths: dict[int, Any]


def loaded(saved: SavedGeneration, cells: Cells) -> Generation:
    """Return the generation that was saved, under these cells."""
    generation = Generation(saved.rows, cells)
    high, low, position, at, cell, kind, unit, state, *of_label = saved.integers
    labelled_by, labelled_at, truth_kind, source, named = of_label
    output, score, truth = saved.numbers
    if not position.size:
        return generation
    prints = Fingerprints(high.view(np.uint64), low.view(np.uint64))
    kinds = kind.astype(np.uint8)
    rows = generation.add(prints, position, at, cell, Scalars(output, kinds), Scalars(score, kinds))
    generation.state[rows], generation.answers.unit[rows] = state, unit
    found = np.flatnonzero(state != MOVED)
    # A row that has moved is found by no key that the table still needs: the key is kept elsewhere.
    generation.index.put(prints.part(found), found)
    label = generation.label
    label.position[rows], label.at[rows], label.truth[rows] = labelled_by, labelled_at, truth
    label.kind[rows], label.source[rows], label.named[rows] = truth_kind, source, named
    label.load(saved.truths)
    generation.answers.load(saved.objects)
    return generation


class KeyIndex:
    """Finds rows by their fingerprints: open addressing, and every hit compared in full.

    It is a quarter full at most, half full if it is large. Most predictions are new, and of those most find an empty
    spot at once.
    """

    def __init__(self, rows: Rows, *, outside: bool = False) -> None:
        # A long window is looked up less often than its tables take room.
        spots = 4 if rows.size <= ROWS_MOST else 2
        bits = max(spots * rows.size - 1, 1).bit_length()
        self._table: Words = np.zeros(1 << bits, np.uint64)
        self._shift = np.uint64(64 - bits)
        self._mask = (1 << bits) - 1
        self.use(rows, outside=outside)

    @property
    def bytes(self) -> int:
        """Return the size of the table."""
        return self._table.nbytes

    def use(self, rows: Rows, *, outside: bool) -> None:
        """Have the fingerprints in these rows, which may lie outside memory."""
        self._zero: Bytes | None = rows["zero"] if outside else None
        self._high: Words = rows["high"]
        self._low: Words = rows["low"]

    def note(self, rows: slice, prints: Fingerprints) -> None:
        """Note the fingerprints of rows."""
        self._high[rows], self._low[rows] = prints

    def prints_of(self, rows: slice | Ints) -> Fingerprints:
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
        found = np.full(active.size, -1, np.int64)
        alike = np.flatnonzero((entries >> _ROW_BITS) == (low >> _ROW_BITS))
        if alike.size:
            rows = (entries[alike] & _ROW_MASK).astype(np.int64) - 1
            if self._zero is not None:
                self._zero[rows] = 0
            same = (self._low[rows] == low[alike]) & (self._high[rows] == prints.high[active[alike]])
            found[alike[same]] = rows[same]
        return found
