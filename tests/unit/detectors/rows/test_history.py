"""The recent past in blocks: merging loses resolution, never an outcome."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from detectors.rows.history import PER_LEVEL, Block, BlockHistory, WaitingEntries
from detectors.rows.types import SOURCE_CELLS, Entries
from streams.ledger.encoding import pack

STREAMS, LOSSES = 3, 2


def block(rng: np.random.Generator, start: int) -> Block:
    cells = np.sort(rng.choice(STREAMS * SOURCE_CELLS, rng.integers(1, 6), replace=False)).astype(np.int64)
    return Block(start, cells, rng.integers(0, 50, (2 * LOSSES, cells.size)).astype(float))


def filled(count: int, seed: int = 0) -> tuple[BlockHistory, list[Block]]:
    rng = np.random.default_rng(seed)
    history, every = BlockHistory([]), []
    for i in range(count):
        entry = block(rng, 1_000 + 10 * i)
        every.append(Block(entry.start, entry.cells.copy(), entry.sums.copy()))
        history.extend([entry])
    return history, every


def summed(blocks: list[Block]) -> np.ndarray:
    table = np.zeros((2 * LOSSES, STREAMS * SOURCE_CELLS))
    for entry in blocks:
        table[:, entry.cells] += entry.sums
    return table.reshape(2 * LOSSES, STREAMS, SOURCE_CELLS)


@pytest.mark.parametrize("count", [1, 2, PER_LEVEL, PER_LEVEL + 1, 3 * PER_LEVEL, 1_000])
def test_merging_keeps_all_sums_and_the_dates_of_what_is_kept(count: int) -> None:
    history, every = filled(count)
    blocks = history.blocks()
    starts = [entry.start for entry in blocks]
    assert starts == sorted(starts)
    assert starts[0] == 1_000
    at = {entry.start: i for i, entry in enumerate(every)}
    for number, start in enumerate(starts):
        np.testing.assert_array_equal(history.since(number, STREAMS, LOSSES), summed(every[at[start] :]))
    np.testing.assert_array_equal(history.since(len(blocks), STREAMS, LOSSES), 0.0)


def test_newest_blocks_stay_as_they_came() -> None:
    history, every = filled(1_000)
    assert [entry.start for entry in history.blocks()[-PER_LEVEL + 1 :]] == [
        entry.start for entry in every[-PER_LEVEL + 1 :]
    ]


def test_memory_grows_with_the_logarithm_of_the_length() -> None:
    history, _ = filled(8_000)
    assert len(history.blocks()) <= PER_LEVEL * 10
    assert all(len(level) <= PER_LEVEL for level in history.levels)


def test_date_is_known_to_a_thirty_second_of_its_age_or_better() -> None:
    history, every = filled(8_000)
    starts = [entry.start for entry in history.blocks()] + [every[-1].start + 10]
    for low, high in pairwise(starts):
        age = starts[-1] - low
        assert high - low <= max(10, age / 32)


def test_sums_of_one_stream_add_all_its_sources() -> None:
    history, every = filled(500)
    for stream in range(STREAMS):
        for loss in range(LOSSES):
            n, k = history.stream(stream, loss, LOSSES)
            assert n.size == k.size == len(history.blocks())
            expected = summed(every)
            assert n.sum() == expected[loss, stream].sum()
            assert k.sum() == expected[LOSSES + loss, stream].sum()


def test_first_block_from_a_time_on() -> None:
    history, _ = filled(10)
    assert [history.first_from(at) for at in (0, 1_000, 1_001, 1_010, 1_090, 1_091)] == [0, 0, 1, 1, 9, 10]
    assert BlockHistory([]).first_from(5) == 0
    assert BlockHistory([]).blocks() == []


@pytest.mark.parametrize("sizes", [[1, 63, 1, 1, 200, 3], [500], [7] * 70, [65, 65, 66]])
def test_many_blocks_at_once_leave_what_one_after_the_other_does(sizes: list[int]) -> None:
    alone, every = filled(sum(sizes))
    together, first = BlockHistory([]), 0
    for size in sizes:
        together.extend(every[first : first + size])
        first += size
    assert pack(together) == pack(alone)


def drawn(rng: np.random.Generator, begin: int, size: int) -> Entries:
    slices = rng.integers(0, STREAMS, size)
    streams = np.stack([np.zeros(size, np.int64), np.where(slices, slices, -1)])
    losses = rng.random((LOSSES, size))
    losses[rng.random((LOSSES, size)) < 0.1] = np.nan
    return Entries(begin + np.arange(size), streams, rng.integers(-1, 3, size), losses)


def plainly(entries: Entries, starts: list[int]) -> list[np.ndarray]:
    """Return the sums of each block, shape (2 x losses, streams, sources), added one after the other."""
    found = []
    for first, last in zip(starts, [*starts[1:], entries.source.size], strict=True):
        table = np.zeros((2 * LOSSES, STREAMS, SOURCE_CELLS))
        for place in range(first, last):
            for stream in entries.streams[:, place]:
                for loss, value in enumerate(entries.losses[:, place]):
                    if stream >= 0 and not np.isnan(value):
                        table[loss, stream, entries.source[place] % SOURCE_CELLS] += 1.0
                        table[LOSSES + loss, stream, entries.source[place] % SOURCE_CELLS] += value
        found.append(table)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_recorded_blocks_have_the_sums_of_their_outcomes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    entries = drawn(rng, 5_000, 130)
    starts = sorted({0, *rng.integers(1, 130, 5).tolist()})
    history = BlockHistory([])
    window = history.record(entries, np.array(starts), entries.predicted_at[starts], STREAMS, True)
    expected = plainly(entries, starts)
    assert [entry.start for entry in history.blocks()] == entries.predicted_at[starts].tolist()
    for number, table in enumerate(expected):
        mine = history.since(number, STREAMS, LOSSES) - history.since(number + 1, STREAMS, LOSSES)
        np.testing.assert_allclose(mine, table, atol=1e-12)
    np.testing.assert_array_equal(window, np.add.accumulate(expected)[-1])


def test_waiting_outcomes_are_recorded_in_the_groups_that_filled_a_block() -> None:
    rng = np.random.default_rng(1)
    waiting, sizes = WaitingEntries([]), [20, 11, 5, 32, 1, 30, 4, 9]
    filling = []
    for size in sizes:
        waiting.add(drawn(rng, 0, size))
        filling.append(waiting.filling)
    assert filling == [20, 31, 0, 0, 1, 31, 0, 9]
    waiting.add(drawn(rng, 0, 40))
    assert waiting.filling == 0
    sizes.append(40)
    assert waiting.outcomes == sum(sizes)
    taken = waiting.take()
    assert taken is not None
    assert (taken[0].source.size, taken[1]) == (sum(sizes), [0, 36, 68, 103, 112])
    assert (waiting.take(), waiting.outcomes, waiting.filling) == (None, 0, 0)


def test_waiting_outcomes_of_an_earlier_snapshot_are_a_group_that_goes_on() -> None:
    rng = np.random.default_rng(1)
    waiting = WaitingEntries([drawn(rng, 0, 20)], 20)
    waiting.add(drawn(rng, 0, 12))
    waiting.add(drawn(rng, 0, 5))
    taken = waiting.take()
    assert taken is not None
    assert taken[1] == [0, 32]
