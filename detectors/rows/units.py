"""Count the units that two versions answered, and let each unit count once in a cohort.

A unit is whom answers are for, as a customer: a version that answers a unit answers all of its requests. So many
outcomes of few units are a sample of few. Units are numbers from 1 to 65,535; 0 is none, and an outcome of none counts
as a unit by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Floats, Ints
from detectors.rows.types import Entries

#: So many units of each arm are asked for before a comparison is a sample of more than these units.
UNITS_LEAST = 5_000
#: Units are counted up to here.
UNITS_SHOWN = 20_000
BITS = 4_096
WORD_BITS = 64
NUMBER_BITS = 16


class UnitCounts(msgspec.Struct):
    """Hold which units each of two arms answered, by streams: bits in words, shape (2, streams, 64).

    `single` is how many outcomes without a unit there were, shape (2, streams).
    """

    bits: NDArray[np.int64]
    single: NDArray[np.float64]

    def fit(self, streams: int) -> None:
        """Make room for streams that have appeared."""
        missing = streams - self.single.shape[1]
        if missing > 0:
            self.bits = np.pad(self.bits, ((0, 0), (0, missing), (0, 0)))
            self.single = np.pad(self.single, ((0, 0), (0, missing)))

    def add(self, arm: int, entries: Sequence[Entries]) -> None:
        """Add outcomes of the first or of the second arm."""
        for some in entries:
            stream, place = some.known()
            unit = np.zeros(0, np.int64) if some.unit is None else some.unit[place]
            if some.unit is None or not unit.all():
                without = stream if some.unit is None else stream[unit == 0]
                self.single[arm] += np.bincount(without, minlength=self.single.shape[1])
            if unit.size:
                named = unit > 0
                stream, spot = stream[named], (unit[named] - 1) % BITS
                bit = (np.uint64(1) << (spot % WORD_BITS).astype(np.uint64)).view(np.int64)
                np.bitwise_or.at(self.bits[arm], (stream, spot // WORD_BITS), bit)

    def count(self, stream: int) -> tuple[int, int]:
        """Return how many units each arm answered in a stream, up to `UNITS_SHOWN`.

        From k of m bits the number is -m ln(1 - k/m) [^1].

        [^1]: Whang, Vander-Zanden, Taylor. "A linear-time probabilistic counting algorithm for database applications",
              1990, equation 2.
        """
        first, second = (self._count(arm, stream) for arm in (0, 1))
        return first, second

    def _count(self, arm: int, stream: int) -> int:
        free = BITS - int(np.bitwise_count(self.bits[arm, stream].view(np.uint64)).sum())
        units = BITS * math.log(BITS / free) if free else UNITS_SHOWN
        return min(round(units + float(self.single[arm, stream])), UNITS_SHOWN)


def new_unit_counts(streams: int) -> UnitCounts:
    """Return counts of nothing.

    >>> new_unit_counts(2).count(1)
    (0, 0)
    """
    return UnitCounts(np.zeros((2, streams, BITS // WORD_BITS), np.int64), np.zeros((2, streams)))


def weights_of(losses: Floats, cohort: Ints, unit: Ints) -> Floats:
    """Return what each outcome of an arm counts, shape as `losses`: of m outcomes of a unit in a cohort, each 1/m.

    A loss that could not be computed, NaN, is none of the m and counts 0.

    Args:
        losses: shape (losses, e).
        cohort: shape (e,), the number of what a unit counts once in.
        unit: shape (e,).

    >>> losses, cohort = np.array([[0.0, 1.0, np.nan, 1.0, 1.0]]), np.array([0, 0, 0, 0, 1])
    >>> weights_of(losses, cohort, np.array([7, 7, 7, 0, 7])).tolist()
    [[0.5, 0.5, 0.0, 1.0, 1.0]]
    """
    _, group = np.unique(cohort << NUMBER_BITS | unit, return_inverse=True)
    known = (~np.isnan(losses)).astype(np.float64)
    weights, named = known.copy(), unit > 0
    for weight, some in zip(weights, known, strict=True):
        many = np.bincount(group, weights=some)[group]
        weight[named] /= np.maximum(many, 1.0)[named]
    return weights
