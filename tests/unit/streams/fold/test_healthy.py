"""HEALTHY is found, and not assumed: what is written until then, and what every decision states."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from msgspec import UNSET

from actions.journal import Decision
from detectors.base import rounded
from streams.config.parse import parse
from streams.fold.status import fold_status
from streams.fold.summary import summarise
from streams.recordings.replay import Replay
from unship.codec import encode_line
from unship.events import Deployment, Event, Feedback, Prediction

START = 1_772_409_600_000


class Story:
    """Events of a model in the order of their time: ten answers a second, each with its truth."""

    def __init__(self, mature: str = "0s") -> None:
        more = "one_false_alarm_per: 10000, policy: {mode: act, confirm_within: 1d}"
        self.config = parse(f"models: {{m: {{labels: {{mature_after: {mature}}}, {more}}}}}")
        self.now, self.rng, self.events = START, np.random.default_rng(7), list[Event]()

    def live(self, version: str) -> Story:
        self.events.append(Deployment(model="m", version=version, status="live", ts=self.now))
        return self

    def answers(self, version: str, count: int, wrong: float = 0.05) -> Story:
        for error in (self.rng.random(count) < wrong).tolist():
            self.now += 100
            name = str(self.now)
            self.events.append(Prediction(id=name, model="m", version=version, output=int(error), ts=self.now))
            self.events.append(Feedback(id=name, truth=0, ts=self.now))
        return self

    def split(self, count: int, wrong: float) -> Story:
        """Let v2 answer, and v1 every tenth request as holdback, 1 in 20 of them wrong."""
        for number in range(count):
            version, share = ("v1", 0.05) if number % 10 == 0 else ("v2", wrong)
            self.now += 100
            name = str(self.now)
            role: Any = "holdback" if version == "v1" else "live"
            output = int(self.rng.random() < share)
            self.events.append(Prediction(id=name, model="m", version=version, output=output, role=role, ts=self.now))
            self.events.append(Feedback(id=name, truth=0, ts=self.now))
        return self

    def replayed(self) -> tuple[Replay, list[Decision]]:
        replay = Replay(self.config)
        recording = b"\n".join(map(encode_line, self.events)) + b"\n"
        return replay, [*replay.decisions(io.BytesIO(recording)), *replay.advance(self.now + 600_000)]

    def told(self) -> list[tuple[str, str]]:
        return [(decision.version, decision.reason) for decision in self.replayed()[1]]


LEARNING, HEALTHY = "LEARNING", "HEALTHY"


@pytest.mark.parametrize("mature", ["0s", "10s"])
def test_first_version_learns_until_it_has_a_baseline_and_is_found_healthy_once(mature: str) -> None:
    story = Story(mature).live("v1").answers("v1", 900)
    assert story.told() == [("v1", LEARNING)]
    assert story.answers("v1", 1_500).told() == [("v1", LEARNING), ("v1", HEALTHY)]


def test_version_that_inherits_a_baseline_learns_until_five_hundred_outcomes_were_judged() -> None:
    before = [("v1", LEARNING), ("v1", HEALTHY), ("v2", LEARNING)]
    story = Story().live("v1").answers("v1", 2_000).live("v2").answers("v2", 450)
    assert story.told() == before
    assert story.answers("v2", 200).told() == [*before, ("v2", HEALTHY)]


def test_alarm_needs_no_number_of_outcomes() -> None:
    _, told = Story().live("v1").answers("v1", 3_000).live("v2").answers("v2", 300, wrong=0.9).replayed()
    worse = [decision for decision in told if decision.verdict == "DEGRADED"]
    assert worse
    assert worse[0].outcomes < 500
    assert HEALTHY not in [decision.reason for decision in told if decision.version == "v2"]


def test_learning_states_how_many_outcomes_are_missing_and_when_they_will_be_there() -> None:
    replay, told = Story().live("v1").answers("v1", 2_000).live("v2").answers("v2", 300).replayed()
    (first,) = (decision for decision in told if decision.version == "v2")
    assert first.evidence.learning
    assert first.evidence.learning.missing == 500 - first.outcomes
    (fold,) = replay.folds.values()
    model = fold_status(fold).models["m"]
    assert model.state == LEARNING
    assert model.learning is not None
    assert model.learning.missing == 500 - model.outcomes["v2"]
    assert model.learning.expected_ts is not None
    assert model.learning.expected_ts > fold.clock


def test_every_decision_status_and_summary_states_which_rise_would_have_shown() -> None:
    story = Story().live("v1").answers("v1", 3_000).live("v2").answers("v2", 1_000).answers("v2", 400, wrong=0.6)
    replay, told = story.replayed()
    assert [decision.reason for decision in told if decision.evidence.detectable is UNSET] == []
    healthy = next(
        decision.evidence.detectable for decision in told if (decision.version, decision.reason) == ("v2", HEALTHY)
    )
    assert healthy
    assert healthy.rise is not None
    assert healthy.rise > 0.02
    assert healthy.outcomes_in_a_day == pytest.approx(864_000, rel=0.3)
    assert healthy.rise_in_a_day is not None
    assert 0.02 < healthy.rise_in_a_day < healthy.rise
    (fold,) = replay.folds.values()
    model, row = fold_status(fold).models["m"], next(row for row in summarise(fold) if row.version == "v2")
    assert model.detectable is not None
    assert model.detectable == row.detectable
    assert model.judged_ts is not None
    assert START < model.judged_ts <= story.now


def test_after_the_alarm_the_evidence_is_that_of_the_comparison_with_its_expected_time() -> None:
    story = Story().live("v1").answers("v1", 3_000).live("v2").split(2_000, wrong=0.05).split(300, wrong=0.35)
    replay, told = story.replayed()
    assert told[-1].reason == "CONFIRMING"
    (fold,) = replay.folds.values()
    model = fold_status(fold).models["m"]
    assert model.comparison is not None
    assert model.evidence == rounded(model.comparison.evidence / model.comparison.threshold)
    assert (model.comparison.target, model.comparison.role) == ("v1", "holdback")
    assert model.comparison.expected_ts
    assert story.now < model.comparison.expected_ts < story.now + 600_000
    assert ("v2", "TARGET_BETTER") in story.split(900, wrong=0.35).told()


def test_model_without_any_outcome_is_not_healthy() -> None:
    replay, told = Story().live("v1").replayed()
    (fold,) = replay.folds.values()
    assert (told, fold_status(fold).models["m"].state) == ([], LEARNING)
