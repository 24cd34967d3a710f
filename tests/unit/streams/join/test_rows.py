"""Which losses the outcomes of a record carry, and what is counted as unusable."""

from __future__ import annotations

from typing import Any

import numpy as np

from streams.config.parse import parse
from tests.pipelines import parts_of, run
from unship.codec import encode_line
from unship.events import Feedback, Prediction

START = 1_772_409_600_000


def predicted(id: str, output: Any = 1, version: str = "v1", model: str = "m", **fields: Any) -> bytes:
    return encode_line(Prediction(id=id, model=model, version=version, output=output, ts=START, **fields)) + b"\n"


def labelled(id: str, truth: Any) -> bytes:
    return encode_line(Feedback(id=id, truth=truth, ts=START + 1)) + b"\n"


def used(id: str, engagement: float, **fields: Any) -> bytes:
    return encode_line(Feedback(id=id, engagement=engagement, ts=START + 1, **fields)) + b"\n"


def losses_by_version(text: str, lines: list[bytes]) -> tuple[dict[str, list[list[float]]], dict[str, int]]:
    """Return the losses of each version, one list for each outcome, and what was counted."""
    made = run(parse(text), lines)
    found: dict[str, list[list[float]]] = {}
    for part in parts_of(made.records):
        for arm, column in zip(part.outcomes.arm, part.outcomes.losses.T, strict=True):
            found.setdefault(part.arms[arm].version, []).append(column.tolist())
    return found, dict(made.counts)


def test_truth_that_is_no_number_is_unusable_for_each_loss_of_a_number_and_misses_no_score() -> None:
    target = "target: {kind: regression}, losses: [{absolute: {scale: 10}}, {squared: {scale: 10}}]"
    lines = [predicted("a", 12.5), predicted("b", 3), labelled("a", 10), labelled("b", "3")]
    found, counts = losses_by_version(f"models: {{m: {{{target}}}}}", lines)
    np.testing.assert_array_equal(found["v1"], [[0.25, 0.0625], [np.nan, np.nan]])
    assert counts == {"UNUSABLE_TRUTH": 2}


def test_outcome_that_precision_is_not_about_steps_nothing_and_is_not_counted() -> None:
    lines = [predicted("a", 1), predicted("b", 0), predicted("c", 1), labelled("a", 0), labelled("b", 1)]
    lines.append(labelled("c", "x"))
    found, counts = losses_by_version("models: {m: {losses: [precision, recall]}}", lines)
    np.testing.assert_array_equal(found["v1"], [[1.0, np.nan], [np.nan, 1.0], [np.nan, np.nan]])
    # The truth of "c" is of use to neither of the two.
    assert counts == {"UNUSABLE_TRUTH": 2}


def test_engagement_alone_is_an_outcome_where_it_is_judged() -> None:
    lines = [predicted("a"), used("a", 0.25), used("a", 0.25), used("a", 0.5)]
    found, counts = losses_by_version("models: {m: {losses: [engagement]}}", lines)
    assert found == {"v1": [[0.75]]}
    assert counts == {"DUPLICATE_FEEDBACK": 1, "CONFLICTING_FEEDBACK": 1}


def test_truth_and_engagement_of_one_feedback_are_both_judged_and_a_half_leaves_the_other_out() -> None:
    lines = [predicted("a"), predicted("b"), predicted("c"), used("a", 0.25, truth=0), used("b", 0.5)]
    lines.append(labelled("c", 1))
    found, counts = losses_by_version("models: {m: {losses: [zero_one, engagement]}}", lines)
    np.testing.assert_array_equal(found["v1"], [[1.0, 0.75], [np.nan, 0.5], [0.0, np.nan]])
    assert counts == {}


def test_feedback_without_what_a_model_needs_does_not_take_the_place_of_what_it_needs() -> None:
    text = "models: {m: {losses: [engagement]}, n: {losses: [zero_one]}}"
    lines = [predicted("a"), predicted("a", model="n", version="n1"), used("a", 0.25), labelled("a", 1)]
    found, counts = losses_by_version(text, lines)
    assert found == {"v1": [[0.75]], "n1": [[0.0]]}
    assert counts == {}
    found, counts = losses_by_version(text, [lines[0], labelled("a", 1), lines[2]])
    assert found == {"v1": [[0.75]]}
    assert counts == {"UNUSABLE_TRUTH": 1}


def test_use_of_the_live_answer_says_nothing_of_the_shadow() -> None:
    lines = [predicted("a"), predicted("a", version="v2", role="shadow"), used("a", 0.25)]
    found, counts = losses_by_version("models: {m: {losses: [engagement]}}", lines)
    np.testing.assert_array_equal(found["v1"], [[0.75]])
    np.testing.assert_array_equal(found["v2"], [[np.nan]])
    assert counts == {}


def test_answer_that_is_no_class_is_counted_as_the_answers_fault() -> None:
    lines = [predicted("a", 2.7), predicted("b", 1), predicted("c", 93)]
    lines += [labelled("a", 1), labelled("b", 7), labelled("c", 1)]
    found, counts = losses_by_version("models: {m: {}}", lines)
    np.testing.assert_array_equal(found["v1"], [[np.nan]] * 3)
    assert counts == {"UNUSABLE_OUTPUT": 2, "UNUSABLE_TRUTH": 1}
