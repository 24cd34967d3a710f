"""What is kept of one request (id, row, target), whoever writes its predictions and labels."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from streams.window.early_labels import LABELS_MAX, PendingFeedback
from streams.window.join_window import Joined, JoinWindow
from streams.window.pending_predictions import UNLISTED_MAX, VERSIONS_MAX, PendingPrediction
from streams.window.series import INTERVALS, WindowRule
from streams.window.tally import Tally
from unship.events import Feedback, Prediction

RULE = WindowRule(horizon_ms=800, early_ms=80, slices_by=())
INTERVAL_MS = 100
ROLES: tuple[Any, Any] = ("live", "shadow")


class CountingWindow(JoinWindow):
    """Counts how often a label is compared with a prediction."""

    compared = 0

    def _meet(self, pending: PendingPrediction, feedback: PendingFeedback, rule: WindowRule) -> None:
        self.compared += 1
        super()._meet(pending, feedback, rule)


class Driver:
    def __init__(self, **rules: WindowRule) -> None:
        self.tally = Tally()
        self.window = CountingWindow(rules, RULE, self.tally)
        self.position = 0

    def predict(self, at: int, version: str = "v1", model: str = "m", **fields: Any) -> Any:
        self.position += 1
        event = Prediction(id="x", model=model, version=version, output=fields.pop("output", 1), **fields)
        return self.window.add_prediction(event, self.position, at)

    def label(self, at: int, truth: Any = 1, model: str | None = None) -> bool:
        self.position += 1
        return self.window.add_feedback(Feedback(id="x", truth=truth, model=model), self.position, at)

    def joined(self) -> Joined:
        return self.window.take()

    def counted(self) -> Counter[str]:
        return self.tally.total()


@pytest.mark.parametrize("count", [500, 2_000])
def test_thousands_of_versions_of_one_request_give_no_more_rows_than_the_first_sixteen(count: int) -> None:
    driver = Driver()
    for number in range(count):
        driver.predict(1_000, f"v{number}", role=ROLES[number % 2])
    driver.label(1_001)
    joined = driver.joined()
    assert [each.prediction.position for each in joined.outcomes] == list(range(1, VERSIONS_MAX + 1))
    # The first live version alone is compared with the shadows.
    assert [(pair.live.position, pair.shadow.position) for pair in joined.pairs] == [(1, n) for n in range(2, 17, 2)]
    assert driver.counted() == {"REQUEST_LIMIT": count - VERSIONS_MAX}
    assert driver.window.compared == VERSIONS_MAX


@pytest.mark.parametrize("count", [500, 2_000])
def test_pairs_without_a_label_are_with_the_first_live_version_alone(count: int) -> None:
    driver = Driver(m=WindowRule(800, 80, (), unlabelled=True))
    for number in range(count):
        driver.predict(1_000, f"v{number}", role=ROLES[number % 2])
    pairs = driver.joined().seen_pairs
    assert [(live.position, shadow.position) for live, shadow in pairs] == [(1, n) for n in range(2, 17, 2)]


def test_thousands_of_repeats_are_counted_and_not_kept() -> None:
    driver = Driver()
    seen = [driver.predict(1_000 + number % INTERVAL_MS) for number in range(2_000)]
    assert [each is not None for each in seen].count(True) == 1
    assert len(list(driver.window.waiting)) == 1
    for _ in range(200):
        driver.label(1_100)
    assert driver.counted() == {"DUPLICATE": 1_999, "DUPLICATE_FEEDBACK": 7, "REQUEST_LIMIT": 192}
    assert driver.window.compared == LABELS_MAX


def test_thousands_of_early_labels_are_counted_and_not_kept() -> None:
    driver = Driver()
    for _ in range(2_000):
        driver.label(1_000)
    for _ in range(200):
        driver.predict(1_000)
    assert len(list(driver.window.early)) == LABELS_MAX
    assert driver.window.compared == LABELS_MAX
    assert len(driver.joined().outcomes) == 1
    assert driver.counted()["REQUEST_LIMIT"] == 2_000 - LABELS_MAX


def test_flood_over_a_whole_window_keeps_what_its_intervals_may_and_every_event_costs_no_more() -> None:
    driver = Driver()
    for at in range(1_000, 1_000 + RULE.reach_ms):
        driver.predict(at, f"v{at % 97}")
        driver.predict(at, "v1", model=f"junk-{at % 89}")
        driver.label(at)
    intervals = RULE.reach_ms // INTERVAL_MS + 1
    assert len(list(driver.window.waiting)) <= intervals * (VERSIONS_MAX + UNLISTED_MAX)
    before = driver.window.compared
    driver.label(1_000 + RULE.reach_ms)
    assert driver.window.compared - before <= intervals * (VERSIONS_MAX + UNLISTED_MAX)


def test_first_of_each_interval_is_kept_and_a_repeat_all_the_same() -> None:
    """A label beyond the horizon of the first one is answered by the next one that is kept."""
    driver = Driver()
    driver.predict(1_000)
    driver.predict(1_099)
    driver.predict(1_100)
    driver.predict(1_150)
    assert driver.label(1_950) is False
    assert driver.label(1_900)
    (outcome,) = driver.joined().outcomes
    assert outcome.prediction.at == 1_100
    assert driver.counted() == {"DUPLICATE": 3}


def test_models_that_are_not_configured_share_a_limit_and_configured_ones_always_have_room() -> None:
    driver = Driver(listed=RULE)
    for number in range(100):
        driver.predict(1_000, model=f"junk-{number}")
    assert driver.predict(1_000, model="listed") is not None
    assert driver.predict(1_000, "v2", model="junk-0") is not None
    assert driver.predict(1_100, model="junk-99") is not None
    driver.label(1_100)
    assert len(driver.joined().outcomes) == UNLISTED_MAX + 3
    assert driver.counted() == {"REQUEST_LIMIT": 100 - UNLISTED_MAX}


def test_labels_that_name_another_model_take_no_place_of_the_others() -> None:
    driver = Driver()
    for number in range(1_000):
        driver.label(1_000, model=f"junk-{number % 100}")
    driver.label(1_000)
    driver.predict(1_000)
    assert len(driver.joined().outcomes) == 1
    assert driver.window.compared == 1


def test_labels_of_the_next_interval_have_places_of_their_own() -> None:
    driver = Driver()
    for at in (1_000, 1_000 + RULE.early_ms // INTERVALS):
        for _ in range(LABELS_MAX + 1):
            driver.label(at)
    assert len(list(driver.window.early)) == 2 * LABELS_MAX
    assert driver.counted() == {"REQUEST_LIMIT": 2}
