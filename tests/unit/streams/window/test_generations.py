"""The hash table of a generation finds every row that was put, and no other; generations have the size of a window."""

from __future__ import annotations

import numpy as np
import pytest

from streams.losses.columns import scalars
from streams.window.cells import Cells
from streams.window.fingerprints import PUBLIC, Fingerprinter, Fingerprints, Words
from streams.window.generation_list import GenerationList
from streams.window.generations import ROWS_LEAST, KeyIndex
from streams.window.series import SeriesTable, WindowRule
from streams.window.stored_rows import Kept, Rows, new_rows


def prints_of(first: int, count: int) -> Fingerprints:
    return Fingerprinter(PUBLIC).of([f"p{number}" for number in range(first, first + count)])


def noted(index: KeyIndex, rows: slice, prints: Fingerprints) -> list[int]:
    index.note(rows, prints)
    owners: list[int] = index.put(prints, np.arange(rows.start, rows.stop)).tolist()
    return owners


@pytest.mark.parametrize("rows", [1, 2, 7, 64, 1_000])
@pytest.mark.parametrize("block", [1, 3, 1_000])
def test_full_table_finds_everything_that_was_put_and_nothing_else(rows: int, block: int) -> None:
    index, prints = KeyIndex(new_rows(rows)), prints_of(0, rows)
    for begin in range(0, rows, block):
        some = slice(begin, min(begin + block, rows))
        assert noted(index, some, prints.part(some)) == list(range(some.start, some.stop))
    assert index.find(prints).tolist() == list(range(rows))
    assert index.find(prints_of(rows, 3 * rows)).tolist() == [-1] * 3 * rows


def test_key_that_is_put_twice_keeps_the_row_it_has() -> None:
    index, prints = KeyIndex(new_rows(20)), prints_of(0, 10)
    noted(index, slice(0, 10), prints)
    assert noted(index, slice(10, 20), prints) == list(range(10))
    assert index.find(prints).tolist() == list(range(10))


def test_rows_of_one_key_in_one_block_have_one_owner() -> None:
    index = KeyIndex(new_rows(6))
    prints = Fingerprinter(PUBLIC).of(["a", "b", "a", "a", "c", "b"])
    owners = noted(index, slice(0, 6), prints)
    assert owners[0] == owners[2] == owners[3] in (0, 2, 3)
    assert owners[1] == owners[5] in (1, 5)
    assert owners[4] == 4
    assert index.find(prints).tolist() == owners


def test_rows_that_were_noted_and_not_put_are_not_found() -> None:
    index, prints = KeyIndex(new_rows(4)), prints_of(0, 4)
    index.note(slice(0, 4), prints)
    index.put(prints.part(slice(1, 2)), np.array([1]))
    assert index.find(prints).tolist() == [-1, 1, -1, -1]


def test_keys_whose_fingerprints_agree_in_one_half_are_told_apart() -> None:
    """All begin at one spot of the table, and some have equal lower halves, or lower halves that begin alike."""
    high: Words = np.array([2**63, 2**63, 2**63, 2**63 + 1, 2**64 - 1, 2**64 - 1], np.uint64)
    low: Words = np.array([0, 1, 2**40, 0, 0, 1], np.uint64)
    prints, index = Fingerprints(high, low), KeyIndex(new_rows(6))
    assert noted(index, slice(0, 6), prints) == list(range(6))
    assert index.find(prints).tolist() == list(range(6))
    assert index.find(Fingerprints(high, low + np.uint64(7))).tolist() == [-1] * 6


def filled(rounds: int, rows: int, in_window: int) -> list[int]:
    """Add `rows` rows a round, each a millisecond after the other, of which the newest are in the window.

    Returns:
        How many rows there was memory for after each round.
    """
    cells = Cells(SeriesTable({}, WindowRule(in_window, 0, ())), ())
    generations, sizes, at = GenerationList(cells), list[int](), 0
    for _ in range(rounds):
        left = rows
        while left:
            newest = generations[-1] if generations[-1].room else generations.begin(cells)
            count = min(left, newest.room)
            column, numbers = np.arange(at, at + count), scalars([1] * count)
            words = column.astype(np.uint64)
            newest.add(Fingerprints(words, words), column, column, np.zeros(count, np.int64), numbers, numbers)
            at, left = at + count, left - count
        generations.drop(at - in_window)
        sizes.append(sum(each.rows.size for each in generations))
    return sizes


@pytest.mark.parametrize("in_window", [100, 5_000, 40_000, 130_000, 400_000])
def test_rows_take_memory_for_the_window_however_many_have_left_it(in_window: int) -> None:
    sizes = filled(100, 16_384, in_window)
    assert max(sizes[-30:]) <= 2 * in_window + 2 * ROWS_LEAST
    assert max(sizes) <= 4 * (in_window + 2 * ROWS_LEAST)


def test_rows_that_all_wait_are_in_few_generations() -> None:
    sizes = filled(100, 16_384, 10**9)
    assert sizes[-1] <= 2 * 100 * 16_384
    assert len(set(sizes)) <= 6


class Elsewhere:
    """Keeps rows outside the memory that is counted."""

    def __init__(self) -> None:
        self.stored = 0

    def keep(self, rows: Rows, used: int) -> Kept:
        self.stored += used
        return Kept(str(self.stored), rows)

    def kept(self, name: str) -> Kept:
        raise AssertionError(name)

    def touched(self, rows: int) -> None:
        pass


@pytest.mark.parametrize(("text", "leaves"), [(None, False), ("t" * 10_000, True)])
def test_texts_that_were_answered_count_as_memory_of_the_window(text: str | None, leaves: bool) -> None:
    store = Elsewhere()
    cells = Cells(SeriesTable({}, WindowRule(1_000, 0, ())), ())
    generations = GenerationList(cells, store, memory_max=12_000_000)
    column = np.arange(900)
    words, numbers = column.astype(np.uint64), scalars([1] * 900)
    for _ in range(2):
        generations[-1].add(Fingerprints(words, words), column, column, np.zeros(900, np.int64), numbers, numbers)
        for row in range(900):
            generations[-1].answers.keep(row, text, None)
        generations.begin(cells)
    assert (store.stored > 0) == leaves
