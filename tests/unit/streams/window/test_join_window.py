"""The join's answers in single situations; `tests/property/test_join_mutual_first.py` has the rule as a whole."""

from __future__ import annotations

from typing import Any

import pytest

from streams.ledger.encoding import pack, unpack
from streams.window.join_window import WITNESSES, JoinWindow, Outcome, Pair, SavedWindow, Witnesses
from streams.window.series import WindowRule
from streams.window.tally import Tally
from unship.events import Feedback, Prediction

RULE = WindowRule(horizon_ms=100, early_ms=10, slices_by=("country", "channel"))


class Driver:
    """Gives events their positions, as the reader of a log does."""

    def __init__(self, rule: WindowRule = RULE, **rules: WindowRule) -> None:
        self.tally = Tally()
        self.window = JoinWindow(rules, rule, self.tally)
        self.position = 0
        self.outcomes: list[Outcome] = []
        self.pairs: list[Pair] = []

    def predict(self, at: int, id: str = "p", version: str = "v1", output: Any = 1, **fields: Any) -> Any:
        self.position += 1
        event = Prediction(id=id, model=fields.pop("model", "m"), version=version, output=output, **fields)
        self.window.witness(self.position, at)
        pending = self.window.add_prediction(event, self.position, at)
        self.take()
        return pending

    def label(self, at: int, truth: Any = 1, id: str = "p", **fields: Any) -> bool:
        self.position += 1
        matched = self.window.add_feedback(Feedback(id=id, truth=truth, **fields), self.position, at)
        self.take()
        return matched

    def take(self) -> None:
        joined = self.window.take()
        self.outcomes += joined.outcomes
        self.pairs += joined.pairs

    def evict(self, at: int) -> None:
        """Let time go on to where a prediction shows which labels stay alone."""
        self.position += 1
        self.window.witness(self.position, at)
        self.window.evict(at, at)

    def joined(self) -> list[tuple[str, Any]]:
        """Return (version, truth) of the outcomes so far."""
        return [(self.window.series[o.prediction.series].version, o.prediction.truth) for o in self.outcomes]

    def counted(self) -> dict[str, int]:
        total = self.tally.total() + self.window.unused()
        return {str(code): count for code, count in total.items() if count}


def test_truth_after_its_prediction_gives_an_outcome() -> None:
    driver = Driver()
    held = driver.predict(0, output="a", score=0.25, scores={"a": 0.25}, slices={"channel": "web", "unwatched": 1})
    assert driver.label(7, "b", source="desk")
    (outcome,) = driver.outcomes
    assert outcome.prediction is held
    assert (held.at, held.output, held.truth, held.score, held.scores) == (0, "a", "b", 0.25, {"a": 0.25})
    assert held.slices == (None, "web")
    assert (outcome.labelled_at, outcome.source) == (7, "desk")
    assert driver.counted() == {}


@pytest.mark.parametrize(("at", "joined"), [(0, True), (100, True), (101, False)])
def test_horizon_is_the_last_moment_at_which_a_truth_joins(at: int, joined: bool) -> None:
    driver = Driver()
    driver.predict(0)
    assert driver.label(at) is joined
    assert driver.counted() == ({} if joined else {"LATE_FEEDBACK": 1})


@pytest.mark.parametrize(("at", "joined"), [(10, True), (11, False)])
def test_early_is_the_longest_that_a_truth_waits_for_its_prediction(at: int, joined: bool) -> None:
    driver = Driver()
    assert not driver.label(0)
    driver.predict(at)
    assert bool(driver.joined()) is joined
    driver.evict(1_000)
    assert driver.counted() == ({} if joined else {"UNMATCHED_FEEDBACK": 1})


def test_early_truth_answers_every_version_that_follows() -> None:
    driver = Driver()
    driver.label(0, "yes")
    driver.predict(2, version="v1")
    driver.predict(3, version="v2")
    assert driver.joined() == [("v1", "yes"), ("v2", "yes")]


def test_first_truth_wins_whatever_its_source() -> None:
    driver = Driver()
    driver.predict(0)
    assert driver.label(1, 1, source="a")
    assert not driver.label(2, 0, source="b")
    assert not driver.label(3, 1, source="b")
    assert driver.joined() == [("v1", 1)]
    assert driver.counted() == {"CONFLICTING_FEEDBACK": 1, "DUPLICATE_FEEDBACK": 1}


def test_repeated_early_truth_is_counted_once() -> None:
    driver = Driver()
    driver.label(0)
    driver.label(1)
    driver.predict(2)
    driver.evict(10_000)
    assert driver.joined() == [("v1", 1)]
    assert driver.counted() == {"DUPLICATE_FEEDBACK": 1}


def test_repeated_unknown_truth_is_counted_once_each() -> None:
    driver = Driver()
    driver.label(0)
    driver.label(1)
    driver.evict(10_000)
    assert sum(driver.counted().values()) == 2


def test_truth_that_answers_another_version_later_is_no_duplicate() -> None:
    """The first truth is too early for the second version; the repeat is that version's first."""
    driver = Driver(WindowRule(100, 10, ()))
    driver.predict(0, version="v1")
    driver.label(0, 1)
    driver.label(8, 1)
    driver.predict(15, version="v2")
    driver.evict(10_000)
    assert driver.joined() == [("v1", 1), ("v2", 1)]
    assert driver.counted() == {}


@pytest.mark.parametrize(
    ("output", "code"), [(1, "DUPLICATE"), (0, "CONFLICTING_PREDICTION"), (True, "CONFLICTING_PREDICTION")]
)
def test_second_prediction_of_a_version_is_dropped(output: Any, code: str) -> None:
    driver = Driver()
    driver.predict(0, output=1)
    assert driver.predict(5, output=output) is None
    driver.label(6, 1)
    assert [o.prediction.at for o in driver.outcomes] == [0]
    assert driver.counted() == {code: 1}


def test_repeat_in_another_role_is_dropped_too() -> None:
    driver = Driver()
    driver.predict(0, role="live")
    assert driver.predict(1, role="shadow") is None
    assert driver.counted() == {"DUPLICATE": 1}


def test_id_used_again_after_the_window_is_a_new_request() -> None:
    driver = Driver()
    driver.predict(0)
    driver.label(1, "old")
    assert driver.predict(111) is not None
    assert driver.label(112, "new")
    assert driver.joined() == [("v1", "old"), ("v1", "new")]
    assert driver.counted() == {}


def test_rows_and_targets_of_one_id_are_joined_apart() -> None:
    driver = Driver()
    driver.predict(0, row=0)
    driver.predict(0, row=1)
    driver.predict(0, row=1, target="price")
    driver.label(1, "x", row=1)
    assert [(o.prediction.key, o.prediction.truth) for o in driver.outcomes] == [(("p", 1, ""), "x")]
    driver.label(2, "y", row=1, target="price")
    assert [o.prediction.truth for o in driver.outcomes] == ["x", "y"]


def test_truth_without_a_model_answers_every_model_and_a_named_one_only_its_own() -> None:
    driver = Driver()
    driver.predict(0, model="m", version="v1")
    driver.predict(0, model="n", version="w1")
    assert driver.label(1, "n's", model="n")
    assert driver.joined() == [("w1", "n's")]
    assert driver.label(2, "all")
    assert driver.joined() == [("w1", "n's"), ("v1", "all")]
    assert not driver.label(3, "unknown", model="other")
    driver.evict(10_000)
    assert driver.counted() == {"UNMATCHED_FEEDBACK": 1}


def test_named_early_truth_waits_for_its_own_model() -> None:
    driver = Driver()
    driver.label(0, "n's", model="n")
    driver.predict(1, model="m", version="v1")
    driver.predict(2, model="n", version="w1")
    assert driver.joined() == [("w1", "n's")]


def test_each_model_has_its_own_limits() -> None:
    driver = Driver(WindowRule(10, 0, ()), slow=WindowRule(1_000, 50, ("country",)))
    driver.predict(0, model="m", version="v1", slices={"country": "DE"})
    driver.predict(0, model="slow", version="w1", slices={"country": "DE"})
    driver.label(500)
    assert driver.joined() == [("w1", 1)]
    assert [o.prediction.slices for o in driver.outcomes] == [("DE",)]


@pytest.mark.parametrize(
    "order", ["live shadow label", "shadow live label", "label live shadow", "label shadow live", "live label shadow"]
)
def test_live_and_shadow_are_paired_once_whichever_comes_first(order: str) -> None:
    driver = Driver()
    for at, what in enumerate(order.split()):
        if what == "label":
            driver.label(at)
        else:
            driver.predict(at, version={"live": "v1", "shadow": "v2"}[what], role=what)
    (pair,) = driver.pairs
    series = driver.window.series
    assert (series[pair.live.series].version, series[pair.shadow.series].version) == ("v1", "v2")
    assert pair.labelled_at == order.split().index("label")
    assert len(driver.outcomes) == 2


def test_only_live_and_shadow_of_one_model_and_one_truth_are_paired() -> None:
    driver = Driver()
    driver.predict(0, version="v1", role="live")
    driver.predict(0, version="v0", role="holdback")
    driver.predict(0, version="w2", role="shadow", model="n")
    driver.label(1)
    assert len(driver.outcomes) == 3
    assert driver.pairs == []


def test_two_shadows_are_each_paired_with_the_live_version() -> None:
    driver = Driver()
    for version, role in (("v1", "live"), ("s1", "shadow"), ("s2", "shadow")):
        driver.predict(0, version=version, role=role)
    driver.label(1)
    versions = [driver.window.series[pair.shadow.series].version for pair in driver.pairs]
    assert sorted(versions) == ["s1", "s2"]


def test_saved_window_keeps_what_was_joined_and_not_taken_yet() -> None:
    driver = Driver()
    driver.predict(0)
    driver.window.add_feedback(Feedback(id="p", truth=1, source="desk"), 2, 1)
    other = JoinWindow({}, RULE, Tally())
    other.load(unpack(pack(driver.window.save()), SavedWindow))
    (outcome,) = other.take().outcomes
    assert (outcome.prediction.position, outcome.prediction.truth, outcome.source) == (1, 1, "desk")


def test_predictions_without_any_feedback_leave_a_bounded_number_of_witnesses() -> None:
    witnesses = Witnesses(1)
    for position in range(3 * WITNESSES):
        witnesses.note(position, position)
    assert len(witnesses.save()) <= 2 * WITNESSES


@pytest.mark.parametrize("evicted_at", [None, 0, 100, 101, 105, 110])
@pytest.mark.parametrize(("at", "code"), [(101, "LATE_FEEDBACK"), (110, "LATE_FEEDBACK"), (111, "UNMATCHED_FEEDBACK")])
def test_label_is_late_by_the_clocks_alone_whenever_its_prediction_is_evicted(
    evicted_at: int | None, at: int, code: str
) -> None:
    driver = Driver()
    driver.predict(0)
    if evicted_at is not None:
        driver.evict(evicted_at)
    assert not driver.label(at)
    driver.evict(10_000)
    assert driver.counted() == {code: 1}


@pytest.mark.parametrize(("at", "code"), [(101, "LATE_FEEDBACK"), (110, "LATE_FEEDBACK"), (111, "UNMATCHED_FEEDBACK")])
def test_label_is_late_for_a_prediction_that_is_read_after_it_too(at: int, code: str) -> None:
    """The clock of the predictions lags behind that of the feedback."""
    driver = Driver()
    assert not driver.label(at)
    driver.predict(0)
    driver.evict(10_000)
    assert driver.counted() == {code: 1}
