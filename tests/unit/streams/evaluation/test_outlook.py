"""What is known so far, what is missing, and when it will be there."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import UNSET

from actions.evidence_tree import ComparisonReport, Mean, MeanIfAny
from streams.config.parse import parse
from streams.config.units import DAY_MS, HOUR_MS
from streams.evaluation.outlook import (
    OUTCOMES_LEAST,
    detectable_of,
    learning_of,
    missing_outcomes,
    with_expectation,
)
from streams.evaluation.pace import HOURS_MAX, Pace
from streams.evaluation.periods import LivePeriod, new_model_state

NOW = 100 * DAY_MS


def live_with(outcomes: int, baseline: int, detectors: str = "e_detector") -> LivePeriod:
    config = parse(f"models: {{m: {{detectors: [{detectors}]}}}}").of("m")
    state = new_model_state(config)
    state.start_period(config, "v1", NOW - DAY_MS)
    assert state.live is not None
    health = state.live.health
    health.outcomes = outcomes
    bank = health.rows.banks[0]
    if baseline >= 1_000:
        bank.replace(np.ones(bank.n.size, np.bool_), np.full(bank.n.size, float(baseline)), np.full(bank.n.size, 50.0))
    else:
        bank.n[0] = baseline
    return state.live


@pytest.mark.parametrize(
    ("outcomes", "baseline", "missing"),
    [(1, 2_000, 499), (499, 2_000, 1), (500, 2_000, 0), (0, 2_000, 500), (600, 600, 400), (10, 10, 990)],
)
def test_five_hundred_outcomes_and_a_baseline_are_needed(outcomes: int, baseline: int, missing: int) -> None:
    assert missing_outcomes(live_with(outcomes, baseline).health) == missing


def test_missing_outcomes_are_expected_at_the_rate_of_the_last_day() -> None:
    live = live_with(100, 2_000)
    live.pace.add(100, NOW - HOUR_MS, NOW - 2 * HOUR_MS)
    found = learning_of(live, NOW)
    assert found is not None
    assert (found.missing, found.expected_ts) == (400, NOW + 8 * HOUR_MS)
    assert learning_of(live_with(OUTCOMES_LEAST, 2_000), NOW) is None


def test_before_any_time_has_passed_no_time_is_promised() -> None:
    live = live_with(100, 2_000)
    live.pace.add(100, NOW, NOW)
    found = learning_of(live, NOW)
    assert found is not None
    assert (found.missing, found.expected_ts) == (400, None)


def test_rate_is_that_of_the_last_day_whatever_came_before() -> None:
    pace = Pace()
    for hour in range(100):
        pace.add(1_000 if hour < 50 else 10, NOW + hour * HOUR_MS, NOW)
    assert len(pace.hours) <= HOURS_MAX
    assert pace.per_day(NOW + 99 * HOUR_MS + HOUR_MS // 2) == pytest.approx(240, rel=0.05)
    assert pace.per_day(NOW + 200 * HOUR_MS) == 0.0


def test_rate_does_not_depend_on_how_outcomes_are_cut_into_records() -> None:
    one, many = Pace(), Pace()
    one.add(60, NOW, NOW - HOUR_MS)
    for _ in range(60):
        many.add(1, NOW, NOW - HOUR_MS)
    assert one == many


def test_without_a_baseline_or_under_another_detector_no_rise_is_stated() -> None:
    config = parse("models: {m: {}}").of("m")
    other = parse("models: {m: {detectors: [adwin]}}").of("m")
    assert detectable_of(live_with(600, 600).health, config, 1e5).rise is None
    assert detectable_of(live_with(600, 2_000).health, other, 1e5).rise is None
    found = detectable_of(live_with(600, 2_000).health, config, None)
    assert found.rise is not None
    assert found.rise > config.worse_by
    assert (found.outcomes, found.rise_in_a_day, found.outcomes_in_a_day) == (600, None, None)


def compared(evidence: float, wrong: float = 0.3) -> ComparisonReport:
    return ComparisonReport(
        basis="concurrent",
        target="v1",
        role="holdback",
        evidence=evidence,
        threshold=1e6,
        candidate=Mean(wrong, 900.0),
        target_since_change=MeanIfAny(0.1, 100.0),
        difference=0.2,
        target_degraded=False,
    )


def test_comparison_is_expected_sooner_the_more_of_its_evidence_is_there() -> None:
    waits = []
    for evidence in (0.0, 1e3, 9e5):
        report = with_expectation(compared(evidence), HOUR_MS, NOW)
        assert report.expected_ts
        waits.append(report.expected_ts - NOW)
    assert waits == sorted(waits, reverse=True)
    assert waits[2] < waits[0] / 50


def test_comparison_that_has_shown_it_waits_for_nothing_and_one_that_shows_nothing_has_no_time() -> None:
    assert with_expectation(compared(1e6), HOUR_MS, NOW).expected_ts is UNSET
    assert with_expectation(compared(0.0, wrong=0.1), HOUR_MS, NOW).expected_ts is None
