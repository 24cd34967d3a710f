"""Adapt river's ADWIN and Page-Hinkley to the protocol: river's parameters, river's numbers, one direction.

river's detectors alarm on falls as well (ADWIN always, Page-Hinkley by default). Here a fall restarts them, as in
river, but is not an alarm: a loss that falls is an improvement.

A detector's fields are restored from typed records. ADWIN keeps its window in compiled code whose own serialisation
is bytes of numbers; they are restored through the class's ``__setstate__`` and compared afterwards. No pickle.
"""

from __future__ import annotations

from itertools import takewhile
from operator import not_
from typing import ClassVar, Literal, Self

import msgspec
from numpy.typing import ArrayLike
from river.drift import ADWIN as RiverAdwin
from river.drift import PageHinkley as RiverPageHinkley
from river.stats import Mean

from detectors.base import LossKind, Positions, checked_loss, checked_losses, positions
from detectors.snapshots import decoded, seal
from unship.errors import SnapshotError


class AdwinSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold everything an Adwin needs to continue; ``window`` is the compiled part's own serialisation."""

    delta: float
    clock: int
    max_buckets: int
    min_window_length: int
    grace_period: int
    drift_detected: bool
    window: bytes


class Adwin:
    """Compare the mean of old and new losses in an adaptive window (ADWIN, Bifet and Gavalda 2007) [^1].

    No promised run length: at its default ``delta`` it is far stricter than one false alarm per million outcomes.

    Args:
        delta: Significance value in (0, 1).
        clock: Check for a change every so many outcomes.
        max_buckets: Buckets of each size before two are merged.
        min_window_length: Smallest part of the window that is compared.
        grace_period: No check before so many outcomes.

    Raises:
        ValueError: A parameter or a loss is out of range.

    [^1]: "Learning from time-changing data with adaptive windowing", SIAM International Conference on Data Mining,
        algorithm ADWIN2 (section 4).

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> Adwin().update_many(rng.random(4_000) < np.repeat([0.1, 0.3], 2_000)).tolist()
        [2111]
        >>> Adwin().update_many(rng.random(4_000) < np.repeat([0.3, 0.1], 2_000)).tolist()
        []
    """

    name: ClassVar[str] = "adwin"
    accepts: ClassVar[LossKind] = "unit"

    def __init__(
        self,
        *,
        delta: float = 0.002,
        clock: int = 32,
        max_buckets: int = 5,
        min_window_length: int = 5,
        grace_period: int = 10,
    ) -> None:
        if not 0.0 < delta < 1.0:
            raise ValueError(f"expected delta between 0 and 1, was {delta}")
        for name, value in (("clock", clock), ("max_buckets", max_buckets), ("min_window_length", min_window_length)):
            if not 1 <= value < 2**31:
                raise ValueError(f"expected {name} of at least 1, was {value}")
        if not 0 <= grace_period < 2**31:
            raise ValueError(f"expected grace_period of at least 0, was {grace_period}")
        self._river = RiverAdwin(  # type: ignore[no-untyped-call]
            delta=float(delta),
            clock=int(clock),
            max_buckets=int(max_buckets),
            min_window_length=int(min_window_length),
            grace_period=int(grace_period),
        )

    def update(self, x: float) -> bool:
        """Take one loss; return whether it raises the alarm."""
        return bool(self._alarms([checked_loss(x)]))

    def update_many(self, losses: ArrayLike) -> Positions:
        """Take losses in order; return the positions of the alarms inside this batch."""
        return positions(self._alarms(checked_losses(losses).tolist()))

    def _alarms(self, losses: list[float]) -> list[int]:
        alarms: list[int] = []
        start = 0
        while start < len(losses):
            if self._river.drift_detected:
                self._river._reset()  # type: ignore[no-untyped-call]
            # A window without a change holds all losses so far; a change then cuts off its old part, so the mean
            # before the change has to be kept now.
            sum_before, count_before = self._river.total, self._river.width
            rest = losses[start:]
            quiet = len(list(takewhile(not_, map(self._river._helper.update, rest))))
            if quiet < len(rest):
                self._river._drift_detected = True
                sum_all, count_all = sum(rest[: quiet + 1], sum_before), count_before + quiet + 1
                if self._rose_from(sum_all - self._river.total, count_all - self._river.width):
                    alarms.append(start + quiet)
            start += quiet + 1
        return alarms

    def _rose_from(self, dropped_sum: float, dropped_count: float) -> bool:
        return bool(self._river.total * dropped_count > dropped_sum * self._river.width)

    def snapshot(self) -> bytes:
        """Return everything needed to continue later, bit for bit."""
        content = AdwinSnapshot(
            delta=self._river.delta,
            clock=self._river.clock,
            max_buckets=self._river.max_buckets,
            min_window_length=self._river.min_window_length,
            grace_period=self._river.grace_period,
            drift_detected=self._river.drift_detected,
            window=self._river._helper.__getstate__(),
        )
        return seal(self.name, content)

    @classmethod
    def restored(cls, payload: bytes) -> Self:
        """Return the detector that wrote the payload; raise SnapshotError if it is not one of this kind."""
        content = decoded(payload, AdwinSnapshot)
        try:
            detector = cls(
                delta=content.delta,
                clock=content.clock,
                max_buckets=content.max_buckets,
                min_window_length=content.min_window_length,
                grace_period=content.grace_period,
            )
        except ValueError as error:
            raise SnapshotError(f"snapshot of an impossible adwin: {error}") from error
        window = detector._river._helper
        # The compiled code panics on bytes that end early or start with other parameters than its own, so both are
        # checked first: a new window's serialisation begins and ends with the parameters.
        fresh = window.__getstate__()
        if len(content.window) < len(fresh) or content.window[:_PARAMETER_BYTES] != fresh[:_PARAMETER_BYTES]:
            raise SnapshotError(f"expected a window of at least {len(fresh)} bytes, was {len(content.window)}")
        try:
            window.__setstate__(content.window)
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            raise SnapshotError(f"expected a window of river's ADWIN: {error}") from None
        if window.__getstate__() != content.window:
            raise SnapshotError("expected a window of river's ADWIN, but it is not equal after it was restored")
        detector._river._drift_detected = content.drift_detected
        return detector


_PARAMETER_BYTES = 12
"""The head of the serialised window: delta as a double, clock as 32 bits."""


class PageHinkleySnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold everything a PageHinkley needs to continue."""

    min_instances: int
    delta: float
    threshold: float
    alpha: float
    mode: Literal["up", "both"]
    drift_detected: bool
    count: float
    mean: float
    sum_increase: float
    sum_decrease: float
    min_increase: float
    max_decrease: float


class PageHinkley:
    """Accumulate how far losses lie above their running mean (Page-Hinkley test, Page 1954) [^1].

    No promised run length: with the same threshold it falls tenfold as the base rate goes from .02 to .2.

    Args:
        min_instances: No check before so many outcomes.
        delta: The rise that does not count.
        threshold: Alarm when the accumulated rise exceeds it.
        alpha: Forgetting factor of the accumulated rise, in (0, 1].
        mode: "up"; or "both" as in river, where a fall restarts the test (without an alarm).

    Raises:
        ValueError: A parameter or a loss is out of range.

    [^1]: "Continuous inspection schemes", Biometrika 41, section 3.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> PageHinkley().update_many(rng.random(4_000) < np.repeat([0.1, 0.3], 2_000)).tolist()
        [2169]
    """

    name: ClassVar[str] = "page_hinkley"
    accepts: ClassVar[LossKind] = "unit"

    def __init__(
        self,
        *,
        min_instances: int = 30,
        delta: float = 0.005,
        threshold: float = 50.0,
        alpha: float = 1 - 0.0001,
        mode: Literal["up", "both"] = "up",
    ) -> None:
        if min_instances < 1:
            raise ValueError(f"expected min_instances of at least 1, was {min_instances}")
        for name, value in (("delta", delta), ("threshold", threshold)):
            if not 0.0 <= value < float("inf"):
                raise ValueError(f"expected {name} of at least 0, was {value}")
        if not 0.0 < alpha <= 1.0:
            raise ValueError(f"expected alpha in (0, 1], was {alpha}")
        if mode not in ("up", "both"):
            raise ValueError(f"expected mode to be 'up' or 'both' (a fall is never an alarm), was {mode!r}")
        self._mode: Literal["up", "both"] = mode
        self._river = RiverPageHinkley(
            min_instances=int(min_instances),
            delta=float(delta),
            threshold=float(threshold),
            alpha=float(alpha),
            mode=mode,
        )

    def update(self, x: float) -> bool:
        """Take one loss; return whether it raises the alarm."""
        return bool(self._alarms([checked_loss(x)]))

    def update_many(self, losses: ArrayLike) -> Positions:
        """Take losses in order; return the positions of the alarms inside this batch."""
        return positions(self._alarms(checked_losses(losses).tolist()))

    def _alarms(self, losses: list[float]) -> list[int]:
        river, update, alarms = self._river, self._river.update, []
        for position, loss in enumerate(losses):
            update(loss)  # type: ignore[no-untyped-call]
            # The private field saves a property call per loss.
            if river._drift_detected and river._sum_increase - river._min_increase > river.threshold:
                alarms.append(position)
        return alarms

    def snapshot(self) -> bytes:
        """Return everything needed to continue later, bit for bit."""
        river = self._river
        content = PageHinkleySnapshot(
            min_instances=river.min_instances,
            delta=river.delta,
            threshold=river.threshold,
            alpha=river.alpha,
            mode=self._mode,
            drift_detected=river.drift_detected,
            count=river._x_mean.n,
            mean=river._x_mean.get(),
            # river starts some of these as integers, which would be encoded differently after a restore.
            sum_increase=float(river._sum_increase),
            sum_decrease=float(river._sum_decrease),
            min_increase=float(river._min_increase),
            max_decrease=float(river._max_decrease),
        )
        return seal(self.name, content)

    @classmethod
    def restored(cls, payload: bytes) -> Self:
        """Return the detector that wrote the payload; raise SnapshotError if it is not one of this kind."""
        content = decoded(payload, PageHinkleySnapshot)
        try:
            detector = cls(
                min_instances=content.min_instances,
                delta=content.delta,
                threshold=content.threshold,
                alpha=content.alpha,
                mode=content.mode,
            )
        except ValueError as error:
            raise SnapshotError(f"snapshot of an impossible page_hinkley: {error}") from error
        river = detector._river
        river._drift_detected = content.drift_detected
        river._x_mean = Mean._from_state(content.count, content.mean)
        river._sum_increase, river._sum_decrease = content.sum_increase, content.sum_decrease
        river._min_increase = content.min_increase
        river._max_decrease = content.max_decrease  # type: ignore[assignment]
        return detector
