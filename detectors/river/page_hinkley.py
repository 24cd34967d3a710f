"""Adapt river's Page-Hinkley test to the protocol: river's parameters, river's numbers, one direction.

river's test alarms on falls as well by default. Here a fall restarts it, as in river, but is not an alarm: a loss that
falls is an improvement.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from river.drift import PageHinkley as RiverPageHinkley

from detectors.base import LossKind
from detectors.river.adapter import Given, RiverAdapter, at_least, parameter
from detectors.river.fields import plain


def _above_0_to_1(value: float, given: Given) -> str:
    return "" if 0.0 < value <= 1.0 else "in (0, 1]"


def _up_or_both(value: str, given: Given) -> str:
    return "" if value in ("up", "both") else "to be 'up' or 'both' (a fall is never an alarm)"


class PageHinkley(RiverAdapter):
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
    river = RiverPageHinkley
    state: ClassVar = {
        "count": plain("_x_mean.n"),
        "mean": plain("_x_mean._mean"),
        "sum_increase": plain("_sum_increase"),
        "sum_decrease": plain("_sum_decrease"),
        "min_increase": plain("_min_increase"),
        "max_decrease": plain("_max_decrease"),
    }

    min_instances: int = parameter(at_least(1), default=30)
    delta: float = parameter(at_least(0), default=0.005)
    threshold: float = parameter(at_least(0), default=50.0)
    alpha: float = parameter(_above_0_to_1, default=1 - 0.0001)
    mode: Literal["up", "both"] = parameter(_up_or_both, default="up")

    def _rose(self) -> bool:
        return bool(self._river._sum_increase - self._river._min_increase > self._river.threshold)
