"""Adapt river's detectors with a window of losses to the protocol: FHDDM for 0/1 losses, KSWIN for any.

Only a rise alarms. FHDDM detects a *drop* of the mean of its input, so it is fed right answers, not errors as
river's documentation asks for: fed errors it does not detect decay.

KSWIN samples at random, so its seed is a parameter with a default and its generator is part of the snapshot. The window
and the generator are river's; the test is not: river computes a p-value with scipy at every outcome, half a millisecond
each, though for two samples of one size it depends on their largest distance alone. So the smallest distance that
alarms is computed once, exactly.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cached_property
from itertools import islice
from math import comb, fsum
from typing import Any, ClassVar

from numpy.typing import ArrayLike

from detectors.base import LossKind, checked_losses
from detectors.river.adapter import RiverAdapter, between, parameter, whole
from detectors.river.fields import bits, generator, losses, plain
from detectors.river.modules import drift_module

MOST_BITS, MOST_LOSSES = 10_000, 1_000
"""Outcomes in a window of 0/1 losses, one byte each in a snapshot, and of any losses, nine bytes each."""


class _Fhddm(drift_module("binary.fhddm").FHDDM):  # type: ignore[misc]
    _u_short_max = 0  # river sets it only if there is a short window


class Fhddm(RiverAdapter):
    """Compare the newest window's accuracy with the best any window had (FHDDM, Pesaranghader and Viktor 2016) [^1].

    No promised run length, and no power against small rises: at its defaults the accuracy has to fall by .26.

    Args:
        sliding_window_size: Outcomes in the window, at most 10,000; no check before it is full.
        confidence_level: Chance of a false alarm in Hoeffding's bound for one window, in (0, 1).
        short_window_size: With it, the newest outcomes of the window are watched on their own as well (stacking
            FHDDM).

    Raises:
        ValueError: A parameter is out of range, or a loss is neither 0 nor 1.

    [^1]: "Fast Hoeffding drift detection method for evolving data streams", ECML-PKDD 2016.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> Fhddm().update_many(rng.random(4_000) < np.repeat([0.1, 0.5], 2_000)).tolist()
        [2050]
    """

    name: ClassVar[str] = "fhddm"
    river = _Fhddm
    state: ClassVar = {
        # 1 for a right answer.
        "window": bits("_sliding_window"),
        "best": plain("_u_max"),
        "best_short": plain("_u_short_max"),
    }

    sliding_window_size: int = parameter(whole(1, MOST_BITS), default=100)
    confidence_level: float = parameter(between(0.0, 1.0), default=0.000001)
    short_window_size: int | None = parameter(
        whole(1, lambda given: given["sliding_window_size"]), default=None, convert=int
    )

    def _alarms(self, bits: list[int]) -> list[int]:
        return super()._alarms([1 - bit for bit in bits])

    def _resume(self, content: Any) -> None:
        # river evicts the oldest outcome as soon as the window is full.
        if len(content.window) >= content.sliding_window_size or not set(content.window) <= {0, 1}:
            raise ValueError(
                f"expected a window of fewer than {content.sliding_window_size} outcomes, each 0 or 1, "
                f"was {len(content.window)} bytes"
            )
        self._river.n_one = sum(content.window)


class Kswin(RiverAdapter):
    """Compare the newest losses with as many drawn from older ones (KSWIN, Raab, Heusinger and Schleif 2020) [^1].

    The test is the two-sample Kolmogorov-Smirnov test, so a change of spread counts too; it is an alarm only if the
    newest losses have a higher mean than the rest of the window. Any change restarts the detector. No promised run
    length, and no power against small rises: at its defaults a share of errors has to rise by .47 within the window.

    Args:
        alpha: Significance value of one test, in (0, 1).
        window_size: Losses in the window, at most 1,000; no check before it is full.
        stat_size: How many of them are the newest, and how many of the older are drawn; at most half of the window.
        seed: Where the generator starts, and starts again after each change.
        window: Losses already collected, the newest of which fill the window at the start.

    Raises:
        ValueError: A parameter or a loss is out of range.

    [^1]: "Reactive soft prototype computing for concept drift streams", Neurocomputing 416.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> Kswin().update_many(rng.random(4_000) < np.repeat([0.1, 0.7], 2_000)).tolist()
        [2023]
    """

    name: ClassVar[str] = "kswin"
    accepts: ClassVar[LossKind] = "unit"
    river = drift_module("kswin").KSWIN
    state: ClassVar = {"window": losses("window"), "generator": generator("_rng")}

    alpha: float = parameter(between(0.0, 1.0), default=0.005)
    window_size: int = parameter(whole(2, MOST_LOSSES), default=100)
    stat_size: int = parameter(whole(1, lambda given: given["window_size"] // 2), default=30)
    seed: int = parameter(whole(0, 2**63 - 1), default=0)
    window: ArrayLike | None = parameter(default=None, convert=lambda values: checked_losses(values).tolist())

    @cached_property
    def _least(self) -> int:
        return least_distance(self.alpha, self.stat_size)

    def _alarms(self, losses: list[float]) -> list[int]:
        river, alarms = self._river, []
        size, newest = river.window_size, river.stat_size
        older = size - newest
        for position, loss in enumerate(losses):
            window = river.window
            window.append(loss)
            if len(window) < size:
                continue
            drawn = [window[place] for place in river._rng.sample(range(older), newest)]
            recent = list(islice(window, older, size))
            if distance(drawn, recent) < self._least:
                continue
            # Exact sums, so that the direction does not hang on the order of addition.
            if fsum(recent) * older > fsum(islice(window, older)) * newest:
                alarms.append(position)
            river._reset()
        return alarms


def distance(first: list[float], second: list[float]) -> int:
    """Return the largest distance of two samples' empirical distributions, times their common size.

    Example:
        >>> distance([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0])
        1
    """
    first, second = sorted(first), sorted(second)
    size, largest, i, j = len(first), 0, 0, 0
    # Within equal values the counts move towards or away from each other, never past both ends: looking at every step
    # finds the same maximum as looking at the ends.
    while i < size and j < size:
        low, high = first[i], second[j]
        if low < high:
            i += 1
        elif high < low:
            j += 1
        else:
            while i < size and first[i] == low:
                i += 1
            while j < size and second[j] == low:
                j += 1
        largest = max(largest, abs(i - j))
    return largest


def least_distance(alpha: float, size: int) -> int:
    """Return the smallest distance (times ``size``) with p-value at most ``alpha`` that is above a tenth, as in river.

    The p-value is that of the two-sided test for two samples of ``size`` without ties: Gnedenko and Korolyuk 1951,
    "On the maximum discrepancy between two empirical distributions"; in whole numbers, so it is the same everywhere.
    If no distance is so rare, returns ``size`` + 1.

    Example:
        >>> least_distance(0.005, 30)
        14
    """
    ways = comb(2 * size, size)
    for found in range(size // 10 + 1, size + 1):
        steps = range(1, size // found + 1)
        beyond = 2 * sum((-1) ** (step + 1) * comb(2 * size, size - step * found) for step in steps)
        if Fraction(beyond, ways) <= Fraction(alpha):
            return found
    return size + 1
