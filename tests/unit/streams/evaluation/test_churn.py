"""A version cannot hide its decay by being deployed in turn with another one."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import pytest

from actions.journal import Decision
from streams.config.parse import parse
from streams.evaluation.periods import CHURN_RETURNS, PARKED_MAX
from streams.recordings.replay import Replay
from unship.codec import encode_line
from unship.events import Deployment, Event, Feedback, Prediction

START, STEP = 1_772_409_600_000, 100


class Story:
    """Events of one model, one answer with its label each tenth of a second."""

    def __init__(self, mature: str = "0s", within: str = "1d", detectors: str = "[e_detector]") -> None:
        self.config = parse(
            f"models: {{m: {{labels: {{mature_after: {mature}}}, worse_by: 0.02, one_false_alarm_per: 10000, "
            f"detectors: {detectors}, policy: {{mode: act, without_control: act, confirm_within: {within}}}}}}}"
        )
        self.now, self.rng, self.events = START, np.random.default_rng(7), list[Event]()

    def live(self, version: str) -> Story:
        self.events.append(Deployment(model="m", version=version, status="live", ts=self.now))
        return self

    def answers(self, version: str, count: int, wrong: float) -> Story:
        for _ in range(count):
            self.now += STEP
            error = self.rng.random() < wrong
            self.events.append(Prediction(id=str(self.now), model="m", version=version, output=int(error), ts=self.now))
            self.events.append(Feedback(id=str(self.now), truth=0, ts=self.now))
        return self

    def in_turn(self, turns: int, each: int, wrong: float) -> Story:
        """Let v2 and v1 be deployed in turn; v2 is wrong so often."""
        for _ in range(turns):
            self.live("v1").answers("v1", each, 0.05).live("v2").answers("v2", each, wrong)
        return self

    def replayed(self, stop_after: int | None = None) -> tuple[Replay, list[Decision]]:
        text = b"\n".join(map(encode_line, self.events)) + b"\n"
        first = Replay(self.config)
        if stop_after is None:
            return first, [*first.decisions(io.BytesIO(text)), *first.advance(self.now + 600_000)]
        decided = list(first.decisions(io.BytesIO(text), stop_after=stop_after))
        second = Replay(self.config, first.save())
        return second, [*decided, *second.decisions(io.BytesIO(text)), *second.advance(self.now + 600_000)]


def pages(decisions: Iterable[Decision]) -> list[Decision]:
    return [decision for decision in decisions if decision.reason == "CHURN"]


def before(mature: str = "0s", **more: str) -> Story:
    """v1 was live for long, and v2 as good after it."""
    return Story(mature, **more).live("v1").answers("v1", 2_500, 0.05).live("v2").answers("v2", 1_500, 0.05)


@pytest.mark.parametrize("mature", ["0s", "3s", "30s"])
@pytest.mark.parametrize("each", [5, 40])
def test_decaying_version_is_taken_back_though_it_is_never_live_for_long(mature: str, each: int) -> None:
    replay, decisions = before(mature).in_turn(2_400 // each, each, 0.15).replayed()
    (page,) = pages(decisions)
    assert (page.action, page.verdict, page.evidence.deployed) == ("page", "INCONCLUSIVE", page.version)
    (rollback,) = [decision for decision in decisions if decision.action == "rollback"]
    assert (rollback.version, rollback.to) == ("v2", "v1")
    assert rollback.outcomes > each
    assert [entry.version for entry in replay.folds[0].models["m"].state.desired.quarantine] == ["v2"]


def test_healthy_versions_in_turn_bring_one_page_and_no_act() -> None:
    _, decisions = before("3s").in_turn(100, 10, 0.05).replayed()
    assert len(pages(decisions)) == 1
    assert not [decision for decision in decisions if decision.action in ("rollback", "propose")]


def test_three_returns_within_the_window_and_any_number_of_repeats_change_nothing() -> None:
    story = before().live("v1").answers("v1", 40, 0.05).live("v2").answers("v2", 40, 0.05).live("v1")
    for _ in range(20):
        story.live("v1").answers("v1", 5, 0.05)
    replay, decisions = story.replayed()
    state = replay.folds[0].models["m"].state
    assert pages(decisions) == []
    assert len(state.past.churn.returns) == CHURN_RETURNS - 1
    assert state.live is not None
    assert (state.live.version, state.live.health.outcomes) == ("v1", 100)


def test_returns_that_are_further_apart_than_the_window_are_none() -> None:
    _, decisions = before(within="1m").in_turn(4, 700, 0.05).replayed()
    assert pages(decisions) == []


def test_fourth_return_pages_once_and_again_only_after_a_pause() -> None:
    story = before(within="1m").in_turn(6, 10, 0.05).answers("v2", 1_000, 0.05).in_turn(6, 10, 0.05)
    _, decisions = story.replayed()
    assert len(pages(decisions)) == 2


def test_parked_version_has_a_row_without_the_labels_of_sources_that_are_not_listed() -> None:
    story = Story("30s, sources: [crm]").live("v1").answers("v1", 100, 0.05).live("v2").answers("v2", 5, 0.05)
    replay, _ = story.live("v1").answers("v1", 600, 0.05).replayed()
    state = replay.folds[0].models["m"].state
    (parked,) = state.past.churn.periods(story.now - 600_000)
    assert (parked.version, parked.health.outcomes) == ("v2", 5)
    assert parked.health.rows.variants == 1 + state.layout.sources.places == 3


def test_many_versions_in_turn_keep_bounded_periods() -> None:
    story = before()
    for turn in range(60):
        story.live(f"v{turn % 12}").answers(f"v{turn % 12}", 20, 0.05)
    replay, decisions = story.replayed()
    churn = replay.folds[0].models["m"].state.past.churn
    assert len(pages(decisions)) == 1
    assert len(churn.parked) <= PARKED_MAX
    assert len(churn.left) <= 20


def test_stop_and_resume_in_the_middle_changes_nothing() -> None:
    story = before("3s").in_turn(40, 40, 0.2)
    whole = story.replayed()[1]
    assert any(decision.action == "rollback" for decision in whole)
    for stop in (8_100, 8_500, 9_001):
        assert story.replayed(stop)[1] == whole
