"""Labels that people give by what they do: the change is found, and nothing is done before it."""

from __future__ import annotations

import pytest

from tests.worlds.teams.people import clicks, ratings
from tests.worlds.teams.watched import CLICKS, decided


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
