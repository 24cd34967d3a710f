"""A version that is worse from its first outcome on is found, although its own outcomes join the growing baseline."""

from __future__ import annotations

import numpy as np

from tests.row_steps import released

PROMISE, SEEDS, HEALTHY, EDGE = 1_000_000, 40, 20_000, 50_000
"""As many runs as are quick; `benchmarks/release.py` has the figures of 300."""


def test_release_step_is_found_within_a_thousand_outcomes_and_hardly_ever_missed() -> None:
    alarms = released(np.random.default_rng(7), 741, (0.19, 0.33), 0.03, PROMISE, SEEDS, 4_000)
    assert np.median(alarms) <= 1_000
    assert (alarms > 2_000).sum() <= 4, "5 % of 40 runs are 2, and chance adds as many"
    assert (alarms > 4_000).sum() <= 1


def test_release_without_a_step_raises_no_alarm() -> None:
    for inherited in (500, 741, 2_000, 20_000):
        alarms = released(np.random.default_rng(inherited), inherited, (0.19, 0.19), 0.03, PROMISE, SEEDS, HEALTHY)
        assert (alarms > HEALTHY).all(), inherited


def test_promise_holds_at_the_edge_of_what_an_inherited_baseline_may_be() -> None:
    for inherited in (500, 741, 2_000, 20_000):
        alarms = released(np.random.default_rng(inherited), inherited, (0.19, 0.19), 0.0, PROMISE, SEEDS, EDGE)
        assert (alarms <= EDGE).mean() <= 0.10, inherited
