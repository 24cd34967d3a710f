"""Losses against their formulas, and what happens where they cannot be computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.losses.catalogue import LOSSES, loss_columns, unusable
from streams.losses.columns import JoinedColumns, LossSpec, scalars

NAN = math.nan


def one(name: str, kind: str, output: Any = 1, truth: Any = 1, score: float | None = None, scores: Any = None) -> float:
    spec = LossSpec(name, {"log": 4.0, "absolute": 10.0, "squared": 10.0}.get(name, 1.0))
    return float(loss_columns(JoinedColumns([output], [score], [scores], [truth]), [spec], kind)[0, 0])


# zero_one


@pytest.mark.parametrize(
    ("output", "truth", "expected"),
    [
        (1, 1, 0),
        (0, 1, 1),
        (True, True, 0),
        (True, False, 1),
        (True, 1, 0),
        (0, True, 1),
        (1.0, 1, 0),
        (0.49, 0, 0),
        (0.5, 1, 0),
        (0.8, 0.2, 1),
        (0.7, 0.9, 0),
        (1, 0.0, 1),
        ("fraud", "fraud", 0),
        ("fraud", "ok", 1),
        (-1, -1, 0),
        (-1, 1, 1),
        (1, -1, 1),
        (-1, 0, 0),
        ("1", 1, 0),
        ("1.0", True, 0),
        ("-1", 1, 1),
        ("0", "0.0", 0),
        ("1", "0", 1),
        ("cafe\u0301", "caf\u00e9", 0),
    ],
)
def test_binary_answer_is_wrong_where_its_class_differs(output: Any, truth: Any, expected: float) -> None:
    assert one("zero_one", "binary", output, truth) == expected


@pytest.mark.parametrize(
    ("output", "truth"), [(2.7, 1), (93, 0), (2, 2), (1, 2), (-3.5, -3.5), (10.2, 9.8), (2.7, "a")]
)
def test_number_that_is_no_class_is_neither_right_nor_wrong(output: Any, truth: Any) -> None:
    """A margin or an amount never equals its truth: as a wrong answer it would be the usual loss of 1."""
    assert math.isnan(one("zero_one", "binary", output, truth))
    assert math.isnan(one("zero_one", "binary", truth, output))


@pytest.mark.parametrize("name", ["recall", "precision"])
@pytest.mark.parametrize(("no", "yes"), [(0, 1), (-1, 1), ("0", "1"), (False, True), ("-1", 1.0)])
def test_missed_positive_and_false_alarm_count_whatever_no_is_written_as(name: str, no: Any, yes: Any) -> None:
    chosen, other = ([no], [yes]) if name == "recall" else ([yes], [no])
    columns = JoinedColumns(chosen, [None], [None], other)
    assert loss_columns(columns, [LossSpec(name)], "binary").tolist() == [[1.0]]


@pytest.mark.parametrize(("truth", "expected"), [(-1, 0.81), ("1", 0.01), ("0.0", 0.81), (1, 0.01)])
@pytest.mark.parametrize("beside", [[], ["text"]])
def test_brier_reads_every_form_of_a_class(truth: Any, expected: float, beside: list[Any]) -> None:
    truths = [truth, *beside]
    empty = [None] * len(truths)
    for column in (truths, scalars(truths)):
        pairs = JoinedColumns(scalars([1] * len(truths)), scalars([0.9] * len(truths)), empty, column)
        assert loss_columns(pairs, [LossSpec("brier")], "binary")[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize(("output", "truth"), [(1, [1]), ([1], 1), ([1], [1]), (["a", "b"], ["b", "a"])])
def test_list_is_neither_right_nor_wrong_for_a_binary_target(output: Any, truth: Any) -> None:
    assert math.isnan(one("zero_one", "binary", output, truth))


@pytest.mark.parametrize(("output", "truth"), [(1, "1"), ("1", 1), (0, "0"), (True, "true"), (False, "false")])
def test_truth_as_text_of_the_same_class_is_not_counted_as_wrong(output: Any, truth: Any) -> None:
    """A label source that begins to write numbers as text must not look like a model that is always wrong."""
    assert one("zero_one", "binary", output, truth) != 1.0


@pytest.mark.parametrize(
    ("output", "truth", "expected"),
    [
        ("cat", "cat", 0),
        ("cat", "dog", 1),
        (3, 3, 0),
        (3, 3.0, 0),
        (3, "3", 0),
        ("3", 3.0, 0),
        (3, 4, 1),
        (2.5, "2.5", 0),
        (True, "true", 0),
        ("false", False, 0),
        (True, "false", 1),
        (True, "True", 0),
        ("1", "1.0", 0),
        (1, "1.0", 0),
        ("2.50", 2.5, 0),
        ("12345678901234567890.0", "12345678901234567890", 0),
        ("007", "7", 1),
        ("1.2.0", "1.2", 1),
        ("caf\u00e9", "cafe\u0301", 0),
    ],
)
def test_classes_are_compared_by_name(output: Any, truth: Any, expected: float) -> None:
    assert one("zero_one", "multiclass", output, truth) == expected


@pytest.mark.parametrize(("output", "truth"), [(["a"], "a"), ("a", ["a"]), ("a", None)])
def test_list_or_nothing_is_no_class(output: Any, truth: Any) -> None:
    assert math.isnan(one("zero_one", "multiclass", output, truth))


# brier


@pytest.mark.parametrize(
    ("score", "truth", "expected"),
    [(0.9, 0, 0.81), (0.9, 1, 0.01), (0.9, True, 0.01), (0.25, 1.0, 0.5625), (1.0, 1, 0), (1.0, 0, 1)],
)
def test_brier_is_the_squared_distance(score: float, truth: Any, expected: float) -> None:
    assert one("brier", "binary", truth=truth, score=score) == pytest.approx(expected)


def test_output_that_is_a_probability_stands_in_for_the_score() -> None:
    assert one("brier", "binary", output=0.9, truth=0) == pytest.approx(0.81)
    assert one("log", "binary", output=0.5, truth=1) == pytest.approx(math.log(2) / 4)
    assert one("brier", "binary", output=0.9, truth=0, score=0.5) == 0.25


@pytest.mark.parametrize("name", ["brier", "log"])
@pytest.mark.parametrize(
    ("output", "truth", "score"),
    [
        (1, 1, None),
        (True, 1, None),
        (1.5, 1, None),
        (1, "a", 0.5),
        (1, 2, 0.5),
        (1, 0.5, 0.5),
        (1, [1], 0.5),
        (1, None, 0.5),
    ],
)
def test_missing_score_or_unfit_truth_gives_no_number(name: str, output: Any, truth: Any, score: float | None) -> None:
    assert math.isnan(one(name, "binary", output, truth, score))


@pytest.mark.parametrize(
    ("scores", "truth", "expected"),
    [
        ({"a": 1.0, "b": 0.0}, "a", 0.0),
        ({"a": 1.0, "b": 0.0}, "b", 1.0),
        ({"a": 0.5, "b": 0.5}, "a", 0.25),
        ({"a": 1.0}, "unseen", 1.0),
        ({"a": 1.0, "b": 1.0}, "unseen", 1.0),
        ({"3": 0.6, "4": 0.4}, 3, 0.16),
        ({"3": 0.6, "4": 0.4}, 3.0, 0.16),
        ({"true": 0.6, "false": 0.4}, True, 0.16),
    ],
)
def test_brier_of_classes_is_half_the_sum_of_squares_and_at_most_one(
    scores: dict[str, float], truth: Any, expected: float
) -> None:
    assert one("brier", "multiclass", truth=truth, scores=scores) == pytest.approx(expected)


# log


@pytest.mark.parametrize(
    ("score", "truth", "expected"),
    [
        (0.5, 1, math.log(2) / 4),
        (0.5, 0, math.log(2) / 4),
        (1.0, 1, 0),
        (1.0, 0, 1),
        (0.0, 1, 1),
        (math.exp(-2), 1, 0.5),
    ],
)
def test_log_loss_is_capped_and_scaled_by_the_cap(score: float, truth: Any, expected: float) -> None:
    assert one("log", "binary", truth=truth, score=score) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("truth", "expected"), [("a", math.log(2) / 4), ("b", 0.25 * math.log(4)), ("unseen", 1.0), (7, 1.0)]
)
def test_log_loss_of_classes_is_that_of_the_true_class(truth: Any, expected: float) -> None:
    assert one("log", "multiclass", truth=truth, scores={"a": 0.5, "b": 0.25}) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["brier", "log"])
@pytest.mark.parametrize(("scores", "truth"), [(None, "a"), ({}, "a"), ({"a": 1.0}, ["a"]), ({"a": 1.0}, None)])
def test_classes_without_scores_or_truth_give_no_number(name: str, scores: Any, truth: Any) -> None:
    assert math.isnan(one(name, "multiclass", truth=truth, scores=scores))


# absolute, squared


@pytest.mark.parametrize(
    ("output", "truth", "far"),
    [(12, 10, 0.2), (7.5, 10, 0.25), (-5, 5, 1.0), (100, 0, 1.0), (1e308, -1e308, 1.0), (2**53, 2**53, 0.0)],
)
def test_loss_of_a_number_is_its_distance_in_units_of_the_scale_and_at_most_one(
    output: float, truth: float, far: float
) -> None:
    assert one("absolute", "regression", output, truth) == pytest.approx(far)
    assert one("squared", "regression", output, truth) == pytest.approx(far**2)


@pytest.mark.parametrize("name", ["absolute", "squared"])
@pytest.mark.parametrize(
    ("output", "truth"), [("3", 3), (3, "3"), (True, 1), (1, True), ([3], 3), (3, [3]), (3, None), (NAN, 3)]
)
def test_what_is_no_number_has_no_distance(name: str, output: Any, truth: Any) -> None:
    assert math.isnan(one(name, "regression", output, truth))


# ranking


@pytest.mark.parametrize(
    ("output", "truth", "expected"),
    [
        (["a", "b", "c"], "a", 0),
        (["a", "b", "c"], "b", 1 / 2),
        (["a", "b", "c"], "c", 2 / 3),
        (["a", "b"], "z", 1),
        ([], "a", 1),
        ([7, 8], 8.0, 1 / 2),
        ([7, 8], "8", 1 / 2),
        (["a", "a", "b"], "b", 2 / 3),
        (["a", "b", "c"], ["c", "b"], 1 / 2),
        (["a"], ["y", "z"], 1),
    ],
)
def test_ranking_loses_by_how_far_down_the_truth_stands(output: Any, truth: Any, expected: float) -> None:
    assert one("ranking", "ranking", output, truth) == pytest.approx(expected)


@pytest.mark.parametrize(("output", "truth"), [("a", "a"), (1, 1), (["a"], None), (["a"], [])])
def test_answer_that_is_no_list_or_a_truth_that_is_nothing_has_no_rank(output: Any, truth: Any) -> None:
    assert math.isnan(one("ranking", "ranking", output, truth))


# precision, recall


@pytest.mark.parametrize(
    ("output", "truth", "lost", "missed"),
    [
        (1, 1, 0, 0),
        (1, 0, 1, NAN),
        (0, 1, NAN, 1),
        (0, 0, NAN, NAN),
        (True, False, 1, NAN),
        (False, True, NAN, 1),
        (0.7, 1, 0, 0),
        (0.2, 1, NAN, 1),
        (1, [1], NAN, NAN),
        (1, 2, NAN, NAN),
        ("yes", 1, NAN, NAN),
        (1, "yes", NAN, NAN),
        (1, None, NAN, NAN),
    ],
)
def test_precision_is_about_what_was_called_positive_and_recall_about_what_is(
    output: Any, truth: Any, lost: float, missed: float
) -> None:
    assert one("precision", "binary", output, truth) == pytest.approx(lost, nan_ok=True)
    assert one("recall", "binary", output, truth) == pytest.approx(missed, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "output", "truth", "expected"),
    [
        ("precision", 0, 1, 0),
        ("precision", 0, "x", 0),
        ("precision", 1, 0, 0),
        ("precision", 1, "x", 1),
        ("precision", "x", 1, 1),
        ("recall", 1, 0, 0),
        ("recall", "x", 0, 0),
        ("recall", 0, 1, 0),
        ("recall", "x", 1, 1),
        ("recall", 1, "x", 1),
        ("zero_one", 0, [0], 1),
    ],
)
def test_outcome_that_a_loss_is_not_about_is_not_unusable(name: str, output: Any, truth: Any, expected: int) -> None:
    pairs, spec = JoinedColumns([output], [None], [None], [truth]), LossSpec(name)
    assert unusable(pairs, spec, loss_columns(pairs, [spec], "binary")[0]) == expected


# engagement


@pytest.mark.parametrize(("used", "expected"), [(0.0, 1.0), (1.0, 0.0), (0.25, 0.75), (None, NAN)])
def test_engagement_loses_by_what_was_not_used_whatever_the_truth(used: float | None, expected: float) -> None:
    for truth in (None, 0, "a"):
        pairs, spec = JoinedColumns([1], [None], [None], [truth], [used]), LossSpec("engagement")
        column = loss_columns(pairs, [spec], "binary")[0]
        assert column[0] == pytest.approx(expected, nan_ok=True)
        assert unusable(pairs, spec, column) == 0


def test_truth_that_nobody_told_is_not_unusable() -> None:
    pairs, spec = JoinedColumns([1, 1], [None] * 2, [None] * 2, [None, [1]], [0.5, 0.5]), LossSpec("zero_one")
    assert unusable(pairs, spec, loss_columns(pairs, [spec], "binary")[0]).tolist() == [False, True]


# All

values = st.one_of(
    st.sampled_from([0, 1, True, False, 0.0, 1.0, "", "1", "a", 2, -1, 10**15]),
    st.floats(-2, 2),
    st.lists(st.sampled_from([0, 1, "a"]), max_size=2),
)
probabilities = st.one_of(st.none(), st.floats(0, 1))
class_scores = st.one_of(
    st.none(), st.dictionaries(st.sampled_from(["0", "1", "a", "true"]), st.floats(0, 1), max_size=3)
)
rows = st.lists(st.tuples(values, values, probabilities, class_scores), max_size=8)
LOGS = [LossSpec("log", 4.0), LossSpec("log", 0.1)]
ALL = {
    "binary": [LossSpec(name) for name in ("zero_one", "brier", "precision", "recall")] + LOGS,
    "multiclass": [LossSpec("zero_one"), LossSpec("brier"), *LOGS],
    "regression": [LossSpec("absolute", 1.5), LossSpec("squared", 1.5), LossSpec("squared", 1e-9)],
    "ranking": [LossSpec("ranking")],
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", list(ALL))
@given(drawn=rows)
def test_every_loss_is_between_zero_and_one_or_not_a_number(kind: str, drawn: list[Any]) -> None:
    outputs, truths, scores, by_class = [list(column) for column in zip(*drawn, strict=True)] or [[], [], [], []]
    found = loss_columns(JoinedColumns(outputs, scores, by_class, truths), ALL[kind], kind)
    assert found.shape == (len(ALL[kind]), len(drawn))
    assert found.dtype == np.float64
    assert (np.isnan(found) | ((found >= 0) & (found <= 1))).all()
    for spec, column in zip(ALL[kind], found, strict=True):
        assert not spec.binary or (np.isnan(column) | (column == 0) | (column == 1)).all()
    for i, row in enumerate(drawn):
        alone = loss_columns(JoinedColumns([row[0]], [row[2]], [row[3]], [row[1]]), ALL[kind], kind)
        np.testing.assert_array_equal(alone[:, 0], found[:, i])


def test_no_pairs_give_a_table_without_columns() -> None:
    assert loss_columns(JoinedColumns([], [], [], []), LOGS, "binary").shape == (2, 0)


def test_losses_that_count_errors_are_zero_or_one_only() -> None:
    assert {name for name in LOSSES if LossSpec(name).binary} == {"zero_one", "precision", "recall", "latency"}
