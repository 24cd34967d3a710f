"""The recent past of a live period in blocks: enough to date a change and to count everything since.

Blocks are kept like ADWIN keeps its buckets: the newest ones as they came, older ones merged by twos, so that a change
is dated to about a thirtieth of its age and memory grows with the logarithm of the period's length.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

PER_LEVEL = 64
#: A cell is one stream and one label source. The last source stands for what no label told, which is number -1.
SOURCES = 10


class Block(msgspec.Struct):
    """Sums over outcomes predicted from `start` on (ms): for each of `cells`, shape (2 x losses, cells): counts, then
    losses."""

    start: int
    cells: NDArray[np.int64]
    sums: NDArray[np.float64]


class BlockHistory(msgspec.Struct):
    """Blocks by level, each level in the order of time; a block of level i + 1 holds two of level i."""

    levels: list[list[Block]]

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
            mine = block.cells // SOURCES == stream
            n[i] = block.sums[loss, mine].sum()
            k[i] = block.sums[losses + loss, mine].sum()
        return n, k

    def since(self, first: int, streams: int, losses: int) -> NDArray[np.float64]:
        """Return the sums of all blocks from number `first` on, shape (2 x losses, streams, sources)."""
        window = np.zeros((2 * losses, streams * SOURCES))
        for block in self.blocks()[first:]:
            window[:, block.cells] += block.sums
        return window.reshape(2 * losses, streams, SOURCES)

    def has_any_since(self, start: int, stream: int, loss: int) -> bool:
        """Whether one stream has outcomes in the blocks from the first one on that begins at or after `start` (ms)."""
        blocks = self.blocks()
        for block in reversed(blocks[self.first_from(start) :]):
            if block.sums[loss, block.cells // SOURCES == stream].any():
                return True
        return False

    def first_from(self, start: int) -> int:
        """Return the number of the first block that begins at or after `start` (ms)."""
        blocks = self.blocks()
        return next((i for i, block in enumerate(blocks) if block.start >= start), len(blocks))


def _merged(older: Block, newer: Block) -> Block:
    cells = np.union1d(older.cells, newer.cells)
    sums = np.zeros((older.sums.shape[0], cells.size))
    sums[:, np.searchsorted(cells, older.cells)] += older.sums
    sums[:, np.searchsorted(cells, newer.cells)] += newer.sums
    return Block(older.start, cells, sums)
