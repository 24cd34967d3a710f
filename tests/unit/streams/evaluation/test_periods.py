"""What is remembered of versions from one live period to the next, and what is forgotten."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.rows.types import Entries, Rules
from detectors.rows.watch import Health, new_health
from streams.config.parse import parse
from streams.config.resolved import OTHER, ModelConfig
from streams.evaluation.periods import BASELINES_MAX, Churn, ModelState, Past, Standing, new_model_state, rules_for
from streams.evaluation.slices import Stream
from streams.ledger.records import Arm

CALM = Rules(1e15, np.array([1.0]), 0.02, False, True)
STANDING = Standing("HEALTHY", "HEALTHY", "none", "v1", None, None)


def config_of(more: str = "") -> ModelConfig:
    return parse(f"models: {{m: {{detectors: [e_detector]{more}}}}}").of("m")


def lived(version: str, outcomes: int = 2_000) -> Health:
    health = new_health(version, "live", 0, [True], 1)
    size = np.zeros(outcomes, np.int64)
    health.judge(Entries(np.arange(outcomes), size[None], size, (np.arange(outcomes) % 10 == 0)[None] * 1.0), CALM, 0)
    return health


def state_of(config: ModelConfig | None = None) -> ModelState:
    return new_model_state(config or config_of())


def test_version_that_is_replaced_is_remembered_once_the_next_one_is_replaced() -> None:
    state, config = state_of(), config_of()
    state.start_period(config, "v1", 5)
    assert state.live is not None
    first = state.live.health
    assert (state.live.version, state.live.since, state.past.replaced) == ("v1", 5, None)
    state.start_period(config, "v2", 9)
    # Its last outcomes are still to be counted.
    assert state.past.replaced is first
    assert state.past.left == {}
    state.start_period(config, "v3", 12)
    assert list(state.past.left) == ["v1"]


@pytest.mark.parametrize(
    ("outcomes", "degraded", "healthy"), [(2_000, False, True), (10, False, False), (2_000, True, False)]
)
def test_only_a_version_that_was_well_to_the_end_is_a_baseline_for_itself(
    outcomes: int, degraded: bool, healthy: bool
) -> None:
    past, health = Past(), lived("v1", outcomes)
    if degraded:
        health.raise_alarm("e_detector", 0, 0, 0, 1.0, 1.0)
    past.leave(health)
    assert ("v1" in past.left, "v1" in past.left_healthy, past.records["v1"].degraded) == (True, healthy, degraded)


def test_replaced_version_is_left_once() -> None:
    past = Past(replaced=lived("v1"))
    left = past.leave_replaced()
    assert left is not None
    assert (left.version, past.left["v1"], past.replaced) == ("v1", left, None)
    assert past.leave_replaced() is None


def test_oldest_versions_are_forgotten_first_and_a_version_that_was_live_again_is_new() -> None:
    past = Past()
    for i in [*range(BASELINES_MAX), 0, BASELINES_MAX]:
        past.leave(lived(f"v{i}", 1))
    assert list(past.left) == [f"v{i}" for i in [*range(2, BASELINES_MAX), 0, BASELINES_MAX]]


def test_other_labels_make_everything_forgotten_but_what_is_desired() -> None:
    state, config = state_of(), config_of()
    for version in ("v1", "v2", "v3"):
        state.start_period(config, version, 0)
    state.labels.silence.close({0: 100}, {0: 1})
    state.desired.change("v3", (0, 1, 0))
    state.forget()
    # Which versions were live is no matter of labels.
    past = Past(replaced_coverage=None, churn=Churn(left={"v1": 0, "v2": 0}))
    assert (state.past, state.labels.silence.asked, state.desired.serve) == (past, 0.0, "v3")


def test_other_configuration_judges_the_live_version_afresh() -> None:
    state, config = state_of(), config_of()
    state.start_period(config, "v1", 0)
    state.close_until(7)
    state.begin_again(config_of(", slices: {by: [country]}"), 9)
    assert state.live is not None
    assert (state.live.version, state.live.since, state.closed_until) == ("v1", 9, -1)
    assert state.layout.slices.dimensions == ["country"]


def test_clock_and_closed_cohorts_only_go_on() -> None:
    state = state_of()
    for value in (5, 3):
        state.reach(value)
        state.close_until(value)
    assert (state.clock, state.closed_until) == (5, 5)


def test_refused_deployment_is_forgotten_when_a_version_goes_live() -> None:
    state = state_of()
    state.written.refuse(STANDING)
    state.written.settle(STANDING)
    state.start_period(config_of(), "v1", 0)
    assert (state.written.refused, state.written.standing) == (None, STANDING)
    state.written.reopen()
    assert state.written.standing is None


def test_outcomes_are_counted_by_version_whatever_the_role() -> None:
    state = state_of()
    arms = [Arm("v1", "live"), Arm("v2", "live"), Arm("v1", "holdback")]
    state.count_outcomes(arms, np.array([0, 1, 2, 2]))
    assert state.outcomes == {"v1": 3, "v2": 1}


def test_slices_beyond_the_cap_have_no_share_in_the_alarm() -> None:
    config = config_of(", slices: {by: [country], cap: 4}")
    state = state_of(config)
    state.layout.slices.streams.extend([Stream("country", "DE"), Stream("country", OTHER)])
    weights = rules_for(state, config, True).weights
    assert weights.size == 3
    assert weights[0] > weights[1] > weights[2] == 0.0
    assert weights[0] + 4 * weights[1] == pytest.approx(1 / len(config.losses))
