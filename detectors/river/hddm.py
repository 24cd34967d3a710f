"""Adapt river's HDDM_A and HDDM_W to the protocol: 0/1 losses, bounds by Hoeffding and by McDiarmid.

Only a rise alarms: their two-sided tests restart on a fall, as in river, without an alarm.
"""

from __future__ import annotations

from typing import Any, ClassVar

from detectors.river.adapter import RiverAdapter, between, parameter
from detectors.river.fields import plain, weighted_mean
from detectors.river.modules import drift_module


class HddmA(RiverAdapter):
    """Compare the mean now with the mean up to its best cut, by Hoeffding's bound (HDDM_A, Frías-Blanco 2015) [^1].

    No promised run length. Slow on a rise by half, because the mean now is the mean since the start.

    Args:
        drift_confidence: Chance of a false alarm in Hoeffding's bound for one comparison, in (0, 1).
        warning_confidence: As in river; there are no warnings here, so it changes nothing.
        two_sided_test: Whether a fall restarts the test, as in river; it is never an alarm.

    Raises:
        ValueError: A parameter is out of range, or a loss is neither 0 nor 1.

    [^1]: "Online and non-parametric drift detection methods based on Hoeffding's bounds", IEEE Transactions on
        Knowledge and Data Engineering 27(3), the A-test.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> HddmA().update_many(rng.random(4_000) < np.repeat([0.1, 0.3], 2_000)).tolist()
        [2171]
    """

    name: ClassVar[str] = "hddm_a"
    river = drift_module("binary.hddm_a").HDDMA
    state: ClassVar = {
        # The means up to the lowest cut, to the highest cut and to now.
        "lowest_count": plain("_x_min.n"),
        "lowest": plain("_x_min._mean"),
        "highest_count": plain("_x_max.n"),
        "highest": plain("_x_max._mean"),
        "count": plain("_z.n"),
        "mean": plain("_z._mean"),
    }

    drift_confidence: float = parameter(between(0.0, 1.0), default=0.001)
    warning_confidence: float = parameter(between(0.0, 1.0), default=0.005)
    two_sided_test: bool = parameter(default=False)

    def _rose(self) -> bool:
        return bool(self._river._mean_incr(self._river.drift_confidence))

    def _resume(self, content: Any) -> None:
        if not all(0.0 <= cut <= content.count for cut in (content.lowest_count, content.highest_count)):
            raise ValueError(f"counts in {content}")


class HddmW(RiverAdapter):
    """Compare weighted means before and after the best cut, by McDiarmid's bound (HDDM_W, Frías-Blanco 2015) [^1].

    No promised run length: with the same confidence it is hundreds of times shorter at an error rate of .2 than at
    .02.

    Args:
        drift_confidence: Chance of a false alarm in McDiarmid's bound for one comparison, in (0, 1).
        warning_confidence: As in river; there are no warnings here, so it changes nothing.
        lambda_val: The weight of the newest outcome, in (0, 1).
        two_sided_test: Whether a fall restarts the test, as in river; it is never an alarm.

    Raises:
        ValueError: A parameter is out of range, or a loss is neither 0 nor 1.

    [^1]: "Online and non-parametric drift detection methods based on Hoeffding's bounds", IEEE Transactions on
        Knowledge and Data Engineering 27(3), the W-test.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> HddmW().update_many(rng.random(4_000) < np.repeat([0.1, 0.5], 2_000)).tolist()
        [2022, 2768]
    """

    name: ClassVar[str] = "hddm_w"
    river = drift_module("binary.hddm_w").HDDMW
    state: ClassVar = {
        "overall": weighted_mean("_total"),
        "before_rise": weighted_mean("_s1_incr"),
        "after_rise": weighted_mean("_s2_incr"),
        "before_fall": weighted_mean("_s1_decr"),
        "after_fall": weighted_mean("_s2_decr"),
        "rise_cut": plain("_incr_cutpoint"),
        "fall_cut": plain("_decr_cutpoint"),
    }

    drift_confidence: float = parameter(between(0.0, 1.0), default=0.001)
    warning_confidence: float = parameter(between(0.0, 1.0), default=0.005)
    lambda_val: float = parameter(between(0.0, 1.0), default=0.05)
    two_sided_test: bool = parameter(default=False)

    def _rose(self) -> bool:
        return bool(self._river._detect_mean_incr(self._river.drift_confidence))
