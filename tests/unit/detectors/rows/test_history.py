"""The recent past in blocks: merging loses resolution, never an outcome."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from detectors.rows.history import PER_LEVEL, Block, BlockHistory
from detectors.rows.types import SOURCE_CELLS

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
        history.append(entry)
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
