"""Adapt river's DDM and EDDM to the protocol.

They count errors, so a loss between 0 and 1 is refused. They alarm only on a rise, as in river; their warnings are
dropped, because nothing here reads them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from detectors.river.adapter import Given, RiverAdapter, between, parameter, whole
from detectors.river.fields import optional, plain
from detectors.river.modules import drift_module


class Ddm(RiverAdapter):
    """Compare the error rate since the start with the lowest it ever was (DDM, Gama et al. 2004) [^1].

    No promised run length: many streams alarm falsely soon after the warm start, and in a longer one the detector loses
    its power, because the rate since the start hardly moves. After a perfect warm start the first error alarms.

    Args:
        warm_start: No check before so many outcomes.
        warning_threshold: As in river; there are no warnings here, so it changes nothing.
        drift_threshold: Alarm when the rate exceeds the lowest by so many of its standard deviations.

    Raises:
        ValueError: A parameter is out of range, or a loss is neither 0 nor 1.

    [^1]: "Learning with drift detection", SBIA 2004, section 3.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> losses = rng.random(4_000) < np.repeat([0.1, 0.3], 2_000)
        >>> Ddm().update_many(losses).tolist()  # the first is false
        [545, 2088]
        >>> Ddm(drift_threshold=4.0).update_many(losses).tolist()
        [2104]
    """

    name: ClassVar[str] = "ddm"
    river = drift_module("binary.ddm").DDM
    state: ClassVar = {
        "count": plain("_p.n"),
        "mean": plain("_p._mean"),
        # The lowest rate, its standard deviation and their sum: None, None and infinity until the warm start is over.
        "p_min": optional("_p_min"),
        "s_min": optional("_s_min"),
        "ps_min": plain("_ps_min"),
    }

    warm_start: int = parameter(whole(1, 10**12), default=30)
    warning_threshold: float = parameter(between(0.0, float("inf")), default=2.0)
    drift_threshold: float = parameter(between(0.0, float("inf")), default=3.0)

    def _resume(self, content: Any) -> None:
        rated = content.p_min is not None and content.s_min is not None
        rates_fit = content.ps_min == (content.p_min + content.s_min if rated else float("inf"))
        counts_fit = content.count >= 0.0 and rated == (content.count > content.warm_start)
        if not (0.0 <= content.mean <= 1.0 and counts_fit and rates_fit):
            raise ValueError(f"count, mean or lowest rate in {content}")


def _not_below_beta(value: float, given: Given) -> str:
    return "" if value >= given["beta"] else f"to be at least beta ({given['beta']})"


class Eddm(RiverAdapter):
    """Compare the distances between errors with the widest they ever were (EDDM, Baena-García et al. 2006) [^1].

    No promised run length: at its defaults it alarms falsely every few thousand outcomes, whatever the error rate.

    Args:
        warm_start: No check before so many outcomes and so many errors.
        alpha: As in river; there are no warnings here, so it changes nothing, but must not be below ``beta``.
        beta: Alarm when the distances have shrunk to this share of the widest.

    Raises:
        ValueError: A parameter is out of range, or a loss is neither 0 nor 1.

    [^1]: "Early drift detection method", Fourth International Workshop on Knowledge Discovery from Data Streams.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> losses = rng.random(4_000) < np.repeat([0.1, 0.3], 2_000)
        >>> Eddm(beta=0.8).update_many(losses).tolist()  # the first two are false
        [378, 611, 2054]
        >>> Eddm(warm_start=100, beta=0.6).update_many(losses).tolist()
        [2316]
    """

    name: ClassVar[str] = "eddm"
    river = drift_module("binary.eddm").EDDM
    state: ClassVar = {
        "outcomes": plain("_n", int),
        "errors": plain("_n_errors", int),
        "last_error": plain("_last_error", int),
        # The distances between errors: how many, their mean and their sum of squared deviations.
        "distances": plain("_error_distances.mean.n"),
        "mean": plain("_error_distances.mean._mean"),
        "squares": plain("_error_distances._S"),
        "largest": plain("_p2s_prime_max"),
    }

    warm_start: int = parameter(whole(1, 10**12), default=30)
    beta: float = parameter(between(0.0, 1.0), default=0.9)
    alpha: float = parameter(between(0.0, 1.0), _not_below_beta, default=0.95)

    def _resume(self, content: Any) -> None:
        counts_fit = 0 <= content.errors == content.distances <= content.last_error <= content.outcomes
        if not (counts_fit and content.squares >= 0.0 and content.mean >= 0.0):
            raise ValueError(f"counts or distances in {content}")
