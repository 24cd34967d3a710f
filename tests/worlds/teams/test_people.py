"""Labels that people give by what they do: the change is found, and nothing is done before it."""

from __future__ import annotations

import pytest

from actions.journal import Decision
from streams.config.parse import parse
from tests.pipelines import Run
from tests.worlds.teams.people import Told, clicks, ratings

RATINGS = """
models:
  m:
    target: {kind: custom}
    losses: [engagement]
    labels: {mature_after: 1h, horizon: 1d}
    worse_by: 0.03
    one_false_alarm_per: 100000
"""
CLICKS = """
models:
  m:
    target: {kind: KIND}
    losses: [LOSS]
    labels: {mature_after: 1h, horizon: 1d, missing: negative}
    worse_by: 0.01
    one_false_alarm_per: 100000
    policy: {mode: act, deployments: any}
"""


def decided(told: Told, text: str) -> list[Decision]:
    run = Run(parse(text))
    run.take(told.lines)
    run.rest()
    assert not run.counts.keys() - {"AFTER_MATURITY", "STILL_SERVED", "NOT_JUDGED", "ROLE_MISMATCH"}
    return run.decisions


def degraded(decisions: list[Decision]) -> list[Decision]:
    return [each for each in decisions if str(each.verdict) == "DEGRADED"]


def test_long_answers_against_thumbs_are_labels_of_another_kind_and_a_person_sees_both() -> None:
    decisions = decided(ratings(1, kind="truth"), "models: {m: {labels: {mature_after: 1h, horizon: 1d}}}")
    assert {str(each.reason) for each in decisions} == {"LEARNING", "IMPLAUSIBLE_LABELS"}
    classes = decisions[-1].evidence.classes
    assert classes
    assert classes.truths == ["up", "down"]
    assert all(answer.startswith("The answer to ") for answer in classes.answers)


@pytest.mark.parametrize(
    ("kind", "loss", "label"), [("ranking", "ranking", "truth"), ("custom", "engagement", "engagement")]
)
@pytest.mark.parametrize("seed", [2])
def test_fewer_clicks_take_the_recommender_back_and_nothing_is_done_before(
    kind: str, loss: str, label: str, seed: int
) -> None:
    told = clicks(seed, kind=label)
    decisions = decided(told, CLICKS.replace("KIND", kind).replace("LOSS", loss))
    assert {str(each.reason) for each in decisions if each.ts <= told.changed_at} <= {"LEARNING", "HEALTHY"}
    rollbacks = [each for each in decisions if str(each.action) == "rollback"]
    assert [(each.version, each.to) for each in rollbacks] == [("rec-b", "rec-a")]
    assert rollbacks[0].ts > told.changed_at
    assert not {"BLIND", "COVERAGE_SHIFT"} & {str(each.reason) for each in decisions}
