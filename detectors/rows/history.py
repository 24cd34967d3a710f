"""Keep the recent past of a live period in blocks: enough to date a change and to count everything since.

Blocks are kept like ADWIN keeps its buckets: the newest ones as they came, older ones merged by twos, so that a change
is dated to about a thirtieth of its age and memory grows with the logarithm of the period's length.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Floats
from detectors.rows.bank import BLOCK
from detectors.rows.types import SOURCE_CELLS, Entries

PER_LEVEL = 64


class Block(msgspec.Struct):
    """Hold sums over outcomes predicted from `start` on (ms): for each of `cells`, shape (2 x losses, cells): counts,
    then losses."""

    start: int
    cells: NDArray[np.int64]
    sums: NDArray[np.float64]


class BlockHistory(msgspec.Struct):
    """Hold blocks by level, each level in the order of time; a block of level i + 1 holds two of level i."""

    levels: list[list[Block]]

    def record(self, entries: Entries, start: int, end: int, streams: int, windowed: bool) -> Floats | None:
        """Add the entries from `start` to before `end`, one block for each chunk of 32 places.

        Returns:
            With `windowed`, the sums over all of them, shape (2 x losses, streams, sources).
        """
        cell, place = _cells(entries, start, end)
        width, count = streams * SOURCE_CELLS, entries.losses.shape[0]
        losses = entries.losses[:, place]
        usable = ~np.isnan(losses)
        filled = np.where(usable, losses, 0.0)
        if start // BLOCK == (end - 1) // BLOCK:
            # One block: its cells are counted in place.
            window = np.array([np.bincount(cell, weights=column, minlength=width) for column in (*usable, *filled)])
            cells = np.flatnonzero(np.bincount(cell))
            self.append(Block(int(entries.predicted_at[start]), cells, window[:, cells]))
            return window.reshape(2 * count, streams, SOURCE_CELLS) if windowed else None
        keys, inverse = np.unique(place // BLOCK * width + cell, return_inverse=True)
        sums = np.array([np.bincount(inverse, weights=column, minlength=keys.size) for column in (*usable, *filled)])
        edges = np.flatnonzero(np.diff(keys // width, prepend=-1))
        for first, last in zip(edges, np.append(edges[1:], keys.size), strict=True):
            at = int(entries.predicted_at[max(int(keys[first]) // width * BLOCK, start)])
            self.append(Block(at, keys[first:last] % width, sums[:, first:last].copy()))
        if not windowed:
            return None
        window = np.zeros((2 * count, width))
        np.add.at(window.T, keys % width, sums.T)
        return window.reshape(2 * count, streams, SOURCE_CELLS)

    def append(self, block: Block) -> None:
        """Add the newest block."""
        if not self.levels:
            self.levels.append([])
        self.levels[0].append(block)
        for i, level in enumerate(self.levels):
            if len(level) <= PER_LEVEL:
                return
            older, newer = level.pop(0), level.pop(0)
            if i + 1 == len(self.levels):
                self.levels.append([])
            self.levels[i + 1].append(_merged(older, newer))

    def blocks(self) -> list[Block]:
        """Return all blocks, oldest first."""
        return [block for level in reversed(self.levels) for block in level]

    def stream(self, stream: int, loss: int, losses: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the counts and the sums of losses of one stream, one entry for each block, oldest first."""
        blocks = self.blocks()
        n, k = np.zeros(len(blocks)), np.zeros(len(blocks))
        for i, block in enumerate(blocks):
            mine = block.cells // SOURCE_CELLS == stream
            n[i] = block.sums[loss, mine].sum()
            k[i] = block.sums[losses + loss, mine].sum()
        return n, k

    def since(self, first: int, streams: int, losses: int) -> NDArray[np.float64]:
        """Return the sums of all blocks from number `first` on, shape (2 x losses, streams, sources)."""
        window = np.zeros((2 * losses, streams * SOURCE_CELLS))
        for block in self.blocks()[first:]:
            window[:, block.cells] += block.sums
        return window.reshape(2 * losses, streams, SOURCE_CELLS)

    def has_any_since(self, start: int, stream: int, loss: int) -> bool:
        """Return whether a stream has outcomes in the blocks from the first on that begins at `start` (ms) or later."""
        blocks = self.blocks()
        for block in reversed(blocks[self.first_from(start) :]):
            if block.sums[loss, block.cells // SOURCE_CELLS == stream].any():
                return True
        return False

    def first_from(self, start: int) -> int:
        """Return the number of the first block that begins at or after `start` (ms)."""
        blocks = self.blocks()
        return next((i for i, block in enumerate(blocks) if block.start >= start), len(blocks))


class WaitingEntries(msgspec.Struct):
    """Hold outcomes that wait until they fill a block; `outcomes` is their number, as it is asked for each."""

    parts: list[Entries]
    outcomes: int = 0

    def add(self, entries: Entries) -> None:
        """Add outcomes at the end."""
        self.parts.append(entries)
        self.outcomes += entries.source.size

    def take(self) -> Entries | None:
        """Return all that waits as one, None if there is nothing."""
        if not self.parts:
            return None
        parts, self.parts, self.outcomes = self.parts, [], 0
        return Entries(
            np.concatenate([part.predicted_at for part in parts]),
            np.concatenate([part.streams for part in parts], axis=1),
            np.concatenate([part.source for part in parts]),
            np.concatenate([part.losses for part in parts], axis=1),
        )


def _cells(entries: Entries, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the cell and the place of each stream of each entry, a cell being one stream and one label source."""
    streams = entries.streams[:, start:end]
    known = streams >= 0
    cell: NDArray[np.int64] = (streams * SOURCE_CELLS + entries.source[start:end] % SOURCE_CELLS)[known]
    return cell, np.broadcast_to(np.arange(start, end), streams.shape)[known]


def _merged(older: Block, newer: Block) -> Block:
    cells = np.union1d(older.cells, newer.cells)
    sums = np.zeros((older.sums.shape[0], cells.size))
    sums[:, np.searchsorted(cells, older.cells)] += older.sums
    sums[:, np.searchsorted(cells, newer.cells)] += newer.sums
    return Block(older.start, cells, sums)
