"""Coverage: which prefixes of a pair of source partitions a fold has applied, so that nothing counts twice or is lost.

Several readers may append batches of the same two logs: one that was replaced but still runs, one that started again
from an old position, two at once. Their batches overlap, and the fold must apply each outcome once. A batch names the
*corner* (P, F) that it starts from and the one that it reaches: all predictions below offset P joined with all feedback
below F. The join of a prefix is a function of that prefix alone (`streams.window.join_window`), so a batch of any
reader holds the outcomes of the corner that it reaches less those of the corner that it starts from.

A single corner does not suffice, and the maximum of two in each coordinate is wrong: readers advance in different
steps, and (10, 5) and (8, 9) together do not cover (10, 9). So the fold keeps the *antichain* of corners that no other
corner contains. An outcome at (p, f) was applied exactly if some corner contains it.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
import numpy as np

from detectors.base import Bools, Ints
from streams.ledger.places import offsets_of

Corner: TypeAlias = tuple[int, int]

ORIGIN: Final[Corner] = (0, 0)


class Coverage(msgspec.Struct):
    """The applied corners of one source partition, in one incarnation of it; `clock` is its time (ms).

    >>> coverage = Coverage()
    >>> coverage.add((10, 5)); coverage.add((8, 9)); coverage.corners
    [(8, 9), (10, 5)]
    >>> coverage.reaches((8, 6)), coverage.reaches((9, 7))
    (True, False)
    >>> coverage.fresh(np.array([9, 9]), np.array([4, 7])).tolist()
    [False, True]
    """

    incarnation: int = 0
    corners: list[Corner] = msgspec.field(default_factory=lambda: [ORIGIN])
    clock: int = -1

    def reaches(self, base: Corner) -> bool:
        """Return whether a batch that starts from `base` leaves no gap: some corner contains everything before it."""
        return any(base[0] <= p and base[1] <= f for p, f in self.corners)

    def is_beyond(self, base: Corner) -> bool:
        """Return whether anything was applied that `base` does not contain; if not, a batch from there is all new."""
        return any(p > base[0] or f > base[1] for p, f in self.corners)

    def fresh(self, predictions: Ints, feedback: Ints) -> Bools:
        """Return which rows at (p, f) were not applied yet; p or f is -1 in a row from the other log alone.

        Args:
            predictions: Places (`streams.ledger.places`) of predictions.
            feedback: Places of feedback.
        """
        applied = np.zeros(predictions.shape, np.bool_)
        if not predictions.size:
            return applied
        predictions, feedback = offsets_of(predictions), offsets_of(feedback)
        for p, f in self.corners:
            applied |= (predictions < p) & (feedback < f)
        return ~applied

    @property
    def predictions(self) -> int:
        """Return the offset below which all predictions were applied, joined or not: these are a single prefix."""
        return max(p for p, _ in self.corners)

    @property
    def feedback(self) -> int:
        """Return the offset below which feedback was applied."""
        return max(f for _, f in self.corners)

    def add(self, end: Corner) -> None:
        """Cover everything below `end`."""
        if self.reaches(end):
            return
        kept = [corner for corner in self.corners if not (corner[0] <= end[0] and corner[1] <= end[1])]
        self.corners = sorted([*kept, end])
