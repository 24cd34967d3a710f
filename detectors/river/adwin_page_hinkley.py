"""Adapt river's ADWIN and Page-Hinkley to the protocol: river's parameters, river's numbers, one direction.

river's detectors alarm on falls as well (ADWIN always, Page-Hinkley by default). Here a fall restarts them, as in
river, but is not an alarm: a loss that falls is an improvement.
"""

from __future__ import annotations

from itertools import takewhile
from operator import not_
from typing import ClassVar, Literal

from detectors.base import LossKind
from detectors.river.adapter import Given, RiverAdapter, at_least, between, parameter
from detectors.river.fields import compiled_window, plain
from detectors.river.modules import drift_module

#: Fewer losses than this go through river's own `update`: to read its fields and write them back takes longer.
FEW = 8


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
    river = drift_module("adwin").ADWIN
    state: ClassVar = {"window": compiled_window("_helper")}

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
                self._river._reset()
            # A window without a change holds all losses so far; a change then cuts off its old part, so the mean
            # before the change has to be kept now.
            sum_before, count_before = self._river.total, self._river.width
            rest = losses[start:]
            quiet = len(list(takewhile(not_, map(self._river._helper.update, rest))))
            if quiet < len(rest):
                self._river._drift_detected = True
                sum_all, count_all = sum(rest[: quiet + 1], sum_before), count_before + quiet + 1
                sum_now, count_now = self._river.total, self._river.width
                if sum_now * (count_all - count_now) > (sum_all - sum_now) * count_now:
                    alarms.append(start + quiet)
            start += quiet + 1
        return alarms


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
    river = drift_module("page_hinkley").PageHinkley
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

    def _alarms(self, losses: list[float]) -> list[int]:
        if len(losses) < FEW or self.mode != "up":
            return super()._alarms(losses)
        # What river's `update` does, step by step, on local variables: river spends most of its time in calls.
        alarms: list[int] = []
        end = 0
        while end < len(losses):
            if self._river.drift_detected:
                self._river._reset()
            count, mean, increase, decrease, lowest, highest = (
                field.save(self._river) for field in self.state.values()
            )
            alpha, delta, threshold, least = self.alpha, self.delta, self.threshold, self.min_instances
            rose = False
            for loss in losses[end:] if end else losses:
                end += 1
                count += 1.0
                mean += (1.0 / count) * (loss - mean)
                rise = loss - mean
                increase = alpha * increase + rise - delta
                decrease = alpha * decrease + rise + delta
                if increase < lowest:  # noqa: PLR1730  A call would take longer than the rest of the step.
                    lowest = increase
                if decrease > highest:  # noqa: PLR1730
                    highest = decrease
                if increase - lowest > threshold and count >= least:
                    rose = True
                    alarms.append(end - 1)
                    break
            state = (count, mean, increase, decrease, lowest, highest)
            for field, value in zip(self.state.values(), state, strict=True):
                field.put_back(self._river, value)
            self._fields["drift_detected"].put_back(self._river, rose)
        return alarms

    def _rose(self) -> bool:
        increase, lowest = (self.state[name].save(self._river) for name in ("sum_increase", "min_increase"))
        return bool(increase - lowest > self.threshold)
