"""Keep the recent past of a live period in blocks: enough to date a change and to count everything since.

Blocks are kept like ADWIN keeps its buckets: the newest ones as they came, older ones merged by twos, so that a change
is dated to about a thirtieth of its age and memory grows with the logarithm of the period's length.
"""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Floats, Ints
from detectors.rows.bank import BLOCK
from detectors.rows.types import SOURCE_CELLS, Entries, part_of, sums_by

PER_LEVEL = 64


class Block(msgspec.Struct):
    """Hold sums over outcomes predicted from `start` on (ms): for each of `cells`, shape (2 x losses, cells): counts,
    then losses."""

    start: int
    cells: NDArray[np.int64]
    sums: NDArray[np.float64]

    def move_source(self, source: int, to: int) -> None:
        """Count outcomes of one source as those of another one."""
        mine = self.cells % SOURCE_CELLS == source
        if not mine.any():
            return
        moved = np.where(mine, self.cells - source + to, self.cells)
        self.cells, number = np.unique(moved, return_inverse=True)
        sums = np.zeros((self.sums.shape[0], self.cells.size))
        np.add.at(sums.T, number, self.sums.T)
        self.sums = sums


class BlockHistory(msgspec.Struct):
    """Hold blocks by level, each level in the order of time; a block of level i + 1 holds two of level i.

    `older` are healthy outcomes from before the live period, shape (2 x losses, streams, sources), None if none are
    known.
    """

    levels: list[list[Block]]
    older: NDArray[np.float64] | None = None

    def begin(self, older: Floats) -> None:
        """Take the healthy outcomes from before the live period."""
        self.older = older

    def record(self, entries: Entries, starts: Ints, at: Ints, streams: int, windowed: bool) -> Floats | None:
        """Add outcomes, one block for each part that begins at one of `starts`; the first of these is 0.

        Args:
            entries: The outcomes.
            starts: Where each block begins among them.
            at: The time (ms) from which on the outcomes of each block were predicted.
            streams: How many streams there are.
            windowed: Whether the sums are asked for.

        Returns:
            With `windowed`, the sums over all of them, shape (2 x losses, streams, sources).
        """
        stream, place = entries.known()
        cell = stream * SOURCE_CELLS + (entries.source % SOURCE_CELLS)[place]
        # Cells that occur are numbered, so that the table of blocks by cells is small.
        cells = np.bincount(cell).nonzero()[0]
        key = cells.searchsorted(cell)
        if starts.size > 1:
            key += part_of(starts, entries.source.size)[place] * cells.size
        width = starts.size * cells.size
        counts = np.bincount(key, minlength=width)
        sums = np.array(sums_by(entries.losses[:, place], key, width, counts))
        used = counts.nonzero()[0]
        edges = used.searchsorted(np.arange(starts.size + 1) * cells.size).tolist()
        mine, some = cells[used % cells.size], sums[:, used]
        self.extend(
            [
                Block(start, mine[first:last].copy(), some[:, first:last].copy())
                for start, first, last in zip(at.tolist(), edges, edges[1:], strict=False)
            ]
        )
        if not windowed:
            return None
        window = np.zeros((sums.shape[0], streams * SOURCE_CELLS))
        # Added from left to right, block by block.
        window[:, cells] = np.add.accumulate(sums.reshape(sums.shape[0], starts.size, -1), axis=1)[:, -1]
        return window.reshape(-1, streams, SOURCE_CELLS)

    def extend(self, blocks: list[Block]) -> None:
        """Add the newest blocks, oldest first."""
        for i in count():
            if i == len(self.levels):
                self.levels.append([])
            level = self.levels[i]
            level += blocks
            merged = 2 * ((len(level) - PER_LEVEL + 1) // 2)
            if merged <= 0:
                return
            blocks = _merged(level[:merged])
            del level[:merged]

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
        blocks = self.blocks()[first:]
        if not blocks:
            return np.zeros((2 * losses, streams, SOURCE_CELLS))
        cells = np.concatenate([block.cells for block in blocks])
        sums = np.concatenate([block.sums for block in blocks], axis=1)
        # Added from left to right, block by block.
        window = np.array([np.bincount(cells, weights=row, minlength=streams * SOURCE_CELLS) for row in sums])
        return window.reshape(2 * losses, streams, SOURCE_CELLS)

    def newest(self, before: int | None, streams: int, losses: int, most: float) -> NDArray[np.float64]:
        """Return the sums of the newest outcomes before block number `before` (None: all), about `most` of them.

        What the period itself has too few of is taken from before it.

        Returns:
            Counts, then losses, shape (2 x losses, streams, sources).
        """
        window, held = np.zeros((2 * losses, streams * SOURCE_CELLS)), 0.0
        for block in reversed(self.blocks()[:before]):
            if held >= most:
                break
            window[:, block.cells] += block.sums
            held += float(block.sums[:losses, block.cells < SOURCE_CELLS].sum(axis=1).max(initial=0.0))
        sums = window.reshape(2 * losses, streams, SOURCE_CELLS)
        if self.older is not None and held < most:
            known = float(self.older[:losses, 0].sum(axis=1).max())
            width = min(self.older.shape[1], streams)
            sums[:, :width] += min(1.0, (most - held) / max(known, 1.0)) * self.older[:, :width]
        return sums

    def move_source(self, source: int, to: int) -> None:
        """Count outcomes of one source as those of another one."""
        for level in self.levels:
            for block in level:
                block.move_source(source, to)
        if self.older is not None:
            self.older = self.older.copy()
            self.older[..., to] += self.older[..., source]
            self.older[..., source] = 0.0

    def has_any_since(self, start: int, stream: int, loss: int) -> bool:
        """Return whether a stream has outcomes in the blocks from the first on that begins at `start` (ms) or later."""
        blocks = self.blocks()
        for block in reversed(blocks[self.first_from(start) :]):
            if block.sums[loss, block.cells // SOURCE_CELLS == stream].any():
                return True
        return False

    def first_of(self, number: int) -> int:
        """Return the number of the first block that begins when this one does: their order is of no meaning."""
        blocks = self.blocks()
        while number > 0 and blocks[number - 1].start == blocks[number].start:
            number -= 1
        return number

    def first_from(self, start: int) -> int:
        """Return the number of the first block that begins at or after `start` (ms)."""
        blocks = self.blocks()
        return next((i for i, block in enumerate(blocks) if block.start >= start), len(blocks))


class Taken(NamedTuple):
    """Outcomes that waited, in groups that begin at `begins`: each begins a block.

    They arrived in parts that begin at `places`, predicted from `starts` on (ms).
    """

    entries: Entries
    begins: list[int]
    places: Ints
    starts: Ints

    def block_starts(self, block: int) -> tuple[Ints, Ints]:
        """Return where blocks of a size begin among the outcomes, and from which time on (ms) each was predicted."""
        ends = [*self.begins[1:], self.entries.source.size]
        starts = [first for begin, end in zip(self.begins, ends, strict=True) for first in range(begin, end, block)]
        part = self.places.searchsorted(starts, side="right") - 1
        return np.array(starts), self.starts[part]


def taken_at_once(entries: Entries) -> Taken:
    """Return outcomes that did not wait; there must be some."""
    return Taken(entries, [0], np.zeros(1, np.int64), np.array([entries.start]))


class WaitingEntries(msgspec.Struct):
    """Hold outcomes that wait to be recorded; `outcomes` is their number, as it is asked for each.

    They arrive in parts. A part that fills a block is recorded by itself; of smaller ones as many are recorded together
    as fill one. What is recorded together begins at one of `begins`; `filling` is how many outcomes the newest of these
    groups has, 0 if it is full.
    """

    parts: list[Entries]
    outcomes: int = 0
    begins: list[int] = []
    filling: int = 0

    def __post_init__(self) -> None:
        """Take a snapshot of an earlier version, which held one group that was not full, without its begin."""
        if self.parts and not self.begins:
            self.begins, self.filling = [0], self.outcomes

    def add(self, entries: Entries) -> None:
        """Add outcomes at the end."""
        size = entries.source.size
        if size >= BLOCK or not self.filling:
            self.begins.append(self.outcomes)
            self.filling = 0
        self.parts.append(entries)
        self.outcomes += size
        self.filling += size
        if self.filling >= BLOCK:
            self.filling = 0

    def take(self) -> Taken | None:
        """Return all that waits as one; None if there is nothing."""
        if not self.parts:
            return None
        parts, begins = self.parts, self.begins
        self.parts, self.outcomes, self.begins, self.filling = [], 0, [], 0
        places = np.array([0, *(part.source.size for part in parts[:-1])]).cumsum()
        starts = np.array([part.start for part in parts])
        if len(parts) == 1:
            return Taken(parts[0], begins, places, starts)
        entries = Entries(
            np.concatenate([part.predicted_at for part in parts]),
            np.concatenate([part.streams for part in parts], axis=1),
            np.concatenate([part.source for part in parts]),
            np.concatenate([part.losses for part in parts], axis=1),
        )
        return Taken(entries, begins, places, starts)


def _merged(blocks: list[Block]) -> list[Block]:
    """Return blocks merged by twos; all pairs are merged in one table."""
    width = 1 + max(int(block.cells[-1]) for block in blocks)
    pairs = len(blocks) // 2
    table, used = np.zeros((blocks[0].sums.shape[0], pairs * width)), np.zeros(pairs * width, np.bool_)
    for half in (blocks[::2], blocks[1::2]):
        cells = np.concatenate([block.cells + i * width for i, block in enumerate(half)])
        table[:, cells] += np.concatenate([block.sums for block in half], axis=1)
        used[cells] = True
    cells = used.nonzero()[0]
    edges = cells.searchsorted(np.arange(pairs + 1) * width).tolist()
    sums = table[:, cells]
    return [
        Block(older.start, cells[first:last] - i * width, sums[:, first:last].copy())
        for i, (older, first, last) in enumerate(zip(blocks[::2], edges, edges[1:], strict=False))
    ]
