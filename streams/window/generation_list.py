"""The generations of one window: how large the next one is, which are in memory, and which row a key has."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from detectors.base import Ints
from streams.window.cells import Cells, SavedCells
from streams.window.fingerprints import Fingerprints
from streams.window.generations import (
    GROWTH,
    ROWS_LARGEST,
    ROWS_LEAST,
    ROWS_MOST,
    Generation,
    SavedGeneration,
    SavedKept,
    loaded,
)
from streams.window.stored_rows import RowStore


class GenerationList(list[Generation]):
    """Generations, oldest first; those whose rows are kept outside memory are before the others.

    Args:
        store: Where rows go that are beyond `memory_max`; None where all are in memory.
        memory_max: Bytes of memory for rows and for the tables that find them.
    """

    def __init__(self, cells: Cells, store: RowStore | None = None, memory_max: int = 0) -> None:
        super().__init__([Generation(ROWS_LEAST, cells)])
        self._store = store
        self._memory_max = memory_max
        self._rows_most, self._rows_largest = ROWS_MOST, ROWS_LARGEST
        # The join clock below which rows have left the window.
        self._oldest = -1
        self._touched = 0

    def limit(self, rows: int, cells: Cells) -> None:
        """Have only generations of so many rows, from the first one on, instead of larger and larger ones."""
        self._rows_most = self._rows_largest = rows
        self[:] = [Generation(rows, cells)]

    def begin(self, cells: Cells) -> Generation:
        """Begin another generation; return it."""
        self.append(Generation(self._next_size(), cells))
        self._keep_beyond_memory()
        return self[-1]

    def _next_size(self) -> int:
        """Return how many rows the next generation has.

        As long as every row is in the window, its size is not known, and each generation is larger than the one before;
        then it is half of the window. One of a large window is a quarter of it at most: a generation leaves as a whole.
        """
        held, newest = sum(each.size for each in self), self[-1]
        quarter = 1 << (held // 4).bit_length() >> 1
        most = min(max(self._rows_most, quarter), self._rows_largest)
        if newest.size < newest.rows.size:
            # One that ended before it was full shows that the next one need not be larger.
            most = min(most, newest.rows.size)
        inside = self._in_window()
        size = GROWTH * newest.rows.size if inside == held else 1 << (inside // 2).bit_length() >> 1
        return min(max(size, ROWS_LEAST), most)

    def _in_window(self) -> int:
        """Return how many rows had not left the window when it was asked last which have."""
        return sum(each.size - int(np.searchsorted(each.at[: each.size], self._oldest)) for each in self)

    def _keep_beyond_memory(self) -> None:
        if self._store is None:
            return
        memory = sum(each.memory for each in self)
        for each in self[:-1]:
            if memory <= self._memory_max:
                break
            memory -= each.memory
            if not each.move(self._store):
                break
            memory += each.memory

    def drop(self, oldest: int) -> None:
        """Drop the generations of which all rows are older than a join clock."""
        self._oldest = max(self._oldest, oldest)
        while len(self) > 1 and self[0].newest < oldest:
            del self[0]

    def find(self, prints: Fingerprints, end: int) -> tuple[Ints, Ints]:
        """Return the newest generation below number `end` that has each key, and its row; -1 where none has it."""
        if self._touched and self._store is not None:
            # Ahead of this block, not behind the one before: what was found is labelled yet.
            self._store.touched(self._touched)
            self._touched = 0
        where, row = np.full(prints.high.size, -1, np.int64), np.full(prints.high.size, -1, np.int64)
        left = np.arange(prints.high.size)
        for number in range(end - 1, -1, -1):
            some = prints if left.size == where.size else prints.part(left)
            found = self[number].index.find(some)
            hit = found >= 0
            if hit.any():
                where[left[hit]], row[left[hit]] = number, found[hit]
                if self[number].kept is not None:
                    self._touched += int(hit.sum())
                left = left[~hit]
                if not left.size:
                    break
        return where, row

    # Snapshots

    def keep_all(self) -> bool:
        """Keep all rows outside memory if that is limited; return whether there was room."""
        store = self._store
        return store is None or all(each.move(store) for each in self)

    def save(
        self, present: Cells, current: Callable[[Cells, Ints], Ints]
    ) -> tuple[list[SavedCells], list[SavedKept], list[SavedGeneration]]:
        """Return the tables of cells, the present one first, and the generations.

        Args:
            present: The present cells.
            current: Returns codes of other cells as those of the present ones.
        """
        tables = [present]
        kept: list[SavedKept] = []
        in_memory: list[SavedGeneration] = []
        for each in self:
            if each.kept is None or self._store is None:
                in_memory.append(each.save(current(each.cells, each.cells_used())))
                continue
            if not any(table is each.cells for table in tables):
                tables.append(each.cells)
            number = next(n for n, table in enumerate(tables) if table is each.cells)
            kept.append(each.save_kept(number, self._store))
        return [table.save() for table in tables], kept, in_memory

    def load(
        self, tables: list[Cells], kept: Iterable[SavedKept], in_memory: Iterable[SavedGeneration], feedback: int
    ) -> None:
        """Load what `save` returned; `feedback` is the position in the feedback log at which it was saved.

        Raises:
            DamagedRows: Rows outside memory are not those that were saved.
        """
        generations = []
        for saved in kept:
            assert self._store is not None, "rows were kept, and there is no store"
            generation = Generation(self._store.kept(saved.name), tables[saved.cells])
            generation.load_kept(saved, feedback, self._store)
            generations.append(generation)
        generations += [loaded(saved, tables[0]) for saved in in_memory]
        self[:] = generations
