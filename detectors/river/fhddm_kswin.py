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
from itertools import islice
from math import comb, fsum
from typing import ClassVar, Self

import msgspec
import numpy as np
from numpy.typing import ArrayLike
from river.drift import KSWIN as RiverKswin
from river.drift.binary import FHDDM as RiverFhddm

from detectors.base import LossKind, Positions, checked_loss, checked_losses, positions
from detectors.river.zero_one import ZeroOneAdapter, check_between, check_count
from detectors.snapshots import decoded, seal
from unship.errors import SnapshotError

MOST_BITS, MOST_LOSSES = 10_000, 1_000
"""Outcomes in a window of 0/1 losses, one byte each in a snapshot, and of any losses, nine bytes each."""

_GENERATOR_VERSION, _GENERATOR_WORDS = 3, 625
"""Python's Mersenne Twister: the format of its state, and its 624 words with the position among them."""


class FhddmSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold everything a Fhddm needs to continue; ``window`` has one byte for each outcome, 1 for a right answer."""

    sliding_window_size: int
    confidence_level: float
    short_window_size: int | None
    drift_detected: bool
    window: bytes
    best: float
    best_short: float


class Fhddm(ZeroOneAdapter):
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

    def __init__(
        self,
        *,
        sliding_window_size: int = 100,
        confidence_level: float = 0.000001,
        short_window_size: int | None = None,
    ) -> None:
        check_count("sliding_window_size", sliding_window_size, 1, MOST_BITS)
        check_between("confidence_level", confidence_level, 0.0, 1.0)
        if short_window_size is not None:
            check_count("short_window_size", short_window_size, 1, sliding_window_size)
        self._river = RiverFhddm(
            sliding_window_size=int(sliding_window_size),
            confidence_level=float(confidence_level),
            short_window_size=None if short_window_size is None else int(short_window_size),
        )

    def _alarms(self, bits: list[int]) -> list[int]:
        return super()._alarms([1 - bit for bit in bits])

    def snapshot(self) -> bytes:
        """Return everything needed to continue later, bit for bit."""
        river = self._river
        content = FhddmSnapshot(
            sliding_window_size=river.sliding_window_size,
            confidence_level=river.confidence_level,
            short_window_size=river.short_window_size,
            drift_detected=river._drift_detected,
            window=bytes(river._sliding_window),
            # river starts these as integers, which would be encoded differently after a restore.
            best=float(river._u_max),
            best_short=0.0 if river.short_window_size is None else float(river._u_short_max),
        )
        return seal(self.name, content)

    @classmethod
    def restored(cls, payload: bytes) -> Self:
        """Return the detector that wrote the payload; raise SnapshotError if it is not one of this kind."""
        content = decoded(payload, FhddmSnapshot)
        try:
            detector = cls(
                sliding_window_size=content.sliding_window_size,
                confidence_level=content.confidence_level,
                short_window_size=content.short_window_size,
            )
        except ValueError as error:
            raise SnapshotError(f"snapshot of an impossible fhddm: {error}") from error
        # river evicts the oldest outcome as soon as the window is full.
        if len(content.window) >= content.sliding_window_size or not set(content.window) <= {0, 1}:
            raise SnapshotError(
                f"expected a window of fewer than {content.sliding_window_size} outcomes, each 0 or 1, "
                f"was {len(content.window)} bytes"
            )
        river = detector._river
        river._drift_detected = content.drift_detected
        river._sliding_window.extend(content.window)
        river.n_one = sum(content.window)
        river._u_max = content.best
        if content.short_window_size is not None:
            river._u_short_max = content.best_short
        return detector


class KswinSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold everything a Kswin needs to continue; ``generator`` is 625 little-endian numbers of 32 bits."""

    alpha: float
    window_size: int
    stat_size: int
    seed: int
    window: list[float]
    generator: bytes


class Kswin:
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

    def __init__(
        self,
        *,
        alpha: float = 0.005,
        window_size: int = 100,
        stat_size: int = 30,
        seed: int = 0,
        window: ArrayLike | None = None,
    ) -> None:
        check_between("alpha", alpha, 0.0, 1.0)
        check_count("window_size", window_size, 2, MOST_LOSSES)
        check_count("stat_size", stat_size, 1, window_size // 2)
        check_count("seed", seed, 0, 2**63 - 1)
        self._river = RiverKswin(
            alpha=float(alpha), window_size=int(window_size), stat_size=int(stat_size), seed=int(seed)
        )
        if window is not None:
            self._river.window.extend(checked_losses(window).tolist())
        self._least = least_distance(float(alpha), int(stat_size))

    def update(self, x: float) -> bool:
        """Take one loss; return whether it raises the alarm."""
        return bool(self._alarms([checked_loss(x)]))

    def update_many(self, losses: ArrayLike) -> Positions:
        """Take losses in order; return the positions of the alarms inside this batch."""
        return positions(self._alarms(checked_losses(losses).tolist()))

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
            river._reset()  # type: ignore[no-untyped-call]
        return alarms

    def snapshot(self) -> bytes:
        """Return everything needed to continue later, bit for bit."""
        river = self._river
        content = KswinSnapshot(
            alpha=river.alpha,
            window_size=river.window_size,
            stat_size=river.stat_size,
            seed=river.seed or 0,
            window=list(river.window),
            generator=np.array(river._rng.getstate()[1], dtype="<u4").tobytes(),
        )
        return seal(self.name, content)

    @classmethod
    def restored(cls, payload: bytes) -> Self:
        """Return the detector that wrote the payload; raise SnapshotError if it is not one of this kind."""
        content = decoded(payload, KswinSnapshot)
        try:
            detector = cls(
                alpha=content.alpha,
                window_size=content.window_size,
                stat_size=content.stat_size,
                seed=content.seed,
                window=content.window,
            )
            if len(content.generator) != 4 * _GENERATOR_WORDS or len(content.window) > content.window_size:
                raise ValueError(f"{len(content.window)} losses, a generator of {len(content.generator)} bytes")
            words = np.frombuffer(content.generator, dtype="<u4").tolist()
            detector._river._rng.setstate((_GENERATOR_VERSION, tuple(words), None))
        except ValueError as error:
            raise SnapshotError(f"snapshot of an impossible kswin: {error}") from error
        return detector


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
