"""Adapt river's ADWIN to the protocol: river's parameters, river's numbers, one direction.

river's ADWIN alarms on falls as well. Here a fall restarts it, as in river, but is not an alarm: a loss that falls is
an improvement.
"""

from __future__ import annotations

from itertools import takewhile
from operator import not_
from typing import Any, ClassVar

from river._river_rust.drift import AdaptiveWindowing

from detectors.base import LossKind
from detectors.river.adapter import RiverAdapter, at_least, between, parameter
from detectors.river.fields import compiled_window, plain


class RiverAdwin:
    """Hold river's compiled window, and whether its last loss was a change, after which a new window starts.

    It is what river's ``drift.ADWIN`` does with that window. That class is in a package that imports SciPy and
    scikit-learn, a second of processor time, and ADWIN watches every model that does not configure its detectors.
    """

    def __init__(self, **parameters: Any) -> None:
        self._parameters = parameters
        self.restart()

    def restart(self) -> None:
        """Start a new window."""
        self.drift_detected = False
        self.window = AdaptiveWindowing(**self._parameters)


class Adwin(RiverAdapter):
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
    river = RiverAdwin
    state: ClassVar = {"drift_detected": plain("drift_detected", bool), "window": compiled_window("window")}

    delta: float = parameter(between(0.0, 1.0), default=0.002)
    clock: int = parameter(at_least(1, 2**31), default=32)
    max_buckets: int = parameter(at_least(1, 2**31), default=5)
    min_window_length: int = parameter(at_least(1, 2**31), default=5)
    grace_period: int = parameter(at_least(0, 2**31), default=10)

    def _alarms(self, losses: list[float]) -> list[int]:
        alarms: list[int] = []
        start = 0
        while start < len(losses):
            if self._river.drift_detected:
                self._river.restart()
            window = self._river.window
            # A window without a change holds all losses so far; a change then cuts off its old part, so the mean
            # before the change has to be kept now.
            sum_before, count_before = window.get_total(), window.get_width()
            rest = losses[start:]
            quiet = len(list(takewhile(not_, map(window.update, rest))))
            if quiet < len(rest):
                self._river.drift_detected = True
                sum_all, count_all = sum(rest[: quiet + 1], sum_before), count_before + quiet + 1
                sum_now, count_now = window.get_total(), window.get_width()
                if sum_now * (count_all - count_now) > (sum_all - sum_now) * count_now:
                    alarms.append(start + quiet)
            start += quiet + 1
        return alarms
