"""Which rise would have shown: the smallest one whose evidence reaches the threshold in nine of ten cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.detectable import Z_90, smallest_rise
from detectors.e_detector import EDetector


@given(
    usual=st.floats(0.0, 0.9),
    worse_by=st.floats(0.001, 0.1),
    outcomes=st.integers(1, 1_000_000),
    threshold=st.floats(10.0, 1e9),
)
def test_rise_is_above_worse_by_and_reaches_the_threshold_only_just(
    usual: float, worse_by: float, outcomes: int, threshold: float
) -> None:
    rise = smallest_rise(usual, worse_by, outcomes, threshold)
    if rise is None:
        assert outcomes * math.log(1 / min(usual + worse_by, 1 - 1e-9)) < math.log(threshold) * (1 + 1e-9)
        return
    assert worse_by * (1 - 1e-6) <= rise <= 1 - usual + 1e-8
    m, q = usual + worse_by, usual + rise
    if q < 1 - 1e-6:
        ratio = math.log(q * (1 - m) / (m * (1 - q)))
        kl = q * math.log(q / m) + (1 - q) * math.log((1 - q) / (1 - m))
        reached = outcomes * kl - Z_90 * math.sqrt(outcomes * q * (1 - q)) * ratio
        assert reached == pytest.approx(math.log(threshold), rel=1e-3, abs=1e-3)


def test_more_outcomes_show_smaller_rises() -> None:
    found = [smallest_rise(0.1, 0.02, outcomes, 1e6) for outcomes in (500, 2_000, 10_000, 100_000)]
    rises = [rise for rise in found if rise is not None]
    assert len(rises) == 4
    assert rises == sorted(rises, reverse=True)


@pytest.mark.parametrize(("usual", "outcomes"), [(0.1, 0), (0.1, 3), (0.5, 20), (0.99, 10_000)])
def test_where_even_outcomes_that_are_all_wrong_raise_no_alarm_there_is_none(usual: float, outcomes: int) -> None:
    assert smallest_rise(usual, 0.02, outcomes, 1e6) is None


def test_rise_that_would_have_shown_shows_in_most_streams() -> None:
    outcomes, rng = 2_000, np.random.default_rng(3)
    rise = smallest_rise(0.1, 0.02, outcomes, 1e4)
    assert rise is not None
    found = 0
    for _ in range(60):
        detector = EDetector(arl=1e4, reference=(0.1, 20_000), worse_by=0.02)
        found += bool(detector.update_many(rng.random(outcomes) < 0.1 + rise).size)
    assert found >= 48
