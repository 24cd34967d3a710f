"""Which requests lost their labels, and which answers never had any."""

from __future__ import annotations

from typing import Any

import pytest

from console.sentences import sentence
from streams.config.parse import parse
from streams.fold.status import model_status
from tests.pipelines import Run
from unship.codec import encode_line
from unship.events import Feedback, Prediction

START = 1_772_409_600_000
MATURE = "{m: {labels: {mature_after: 20s}, slices: {by: [country]}}}"


def run(models: str, rows: list[tuple[Any, str, bool]]) -> Run:
    """Run predictions, ten a second, each with an output, a country, and whether a label comes."""
    made = Run(parse(f"models: {models}"))
    lines = []
    for i, (output, country, labelled) in enumerate(rows):
        ts = START + 100 * i
        event = Prediction(id=f"p{i}", model="m", version="v1", output=output, ts=ts, slices={"country": country})
        lines.append(encode_line(event) + b"\n")
        if labelled:
            lines.append(encode_line(Feedback(id=f"p{i}", truth=output, ts=ts)) + b"\n")
    made.take(lines)
    made.rest()
    made.advance(START + 100 * len(rows) + 60_000)
    return made


def country(i: int) -> str:
    return ("DE", "FR", "ES", "DE")[i % 4]


def coverage_shift(made: Run) -> Any:
    return next(each for each in made.decisions if str(each.reason) == "COVERAGE_SHIFT")


def test_coverage_shift_names_the_slice_whose_labels_end() -> None:
    rows = [(1, country(i), i % 10 > 0 and (i < 3_000 or country(i) != "FR")) for i in range(6_000)]
    decision = coverage_shift(run(MATURE, rows))
    lost = decision.evidence.lost
    assert (lost.slice, lost.output) == ({"country": "FR"}, None)
    assert lost.before.mean > 0.8
    assert lost.now.mean < 0.3
    assert "requests with country FR" in sentence(decision)


def test_coverage_shift_names_the_output_whose_labels_end() -> None:
    rows = [(i // 4 % 2, country(i), i % 10 > 0 and (i < 3_000 or i // 4 % 2 == 1)) for i in range(6_000)]
    decision = coverage_shift(run(MATURE, rows))
    assert (decision.evidence.lost.slice, decision.evidence.lost.output) == (None, "0")
    assert "answered with 0" in sentence(decision)


def test_coverage_shift_of_all_requests_alike_names_none() -> None:
    rows = [(i // 4 % 2, country(i), i % 10 > 0 and (i < 3_000 or i % 3 == 0)) for i in range(6_000)]
    assert not coverage_shift(run(MATURE, rows)).evidence.lost


@pytest.mark.parametrize("models", [MATURE, "{m: {}}"])
def test_answer_of_which_no_truth_ever_came_is_named_in_the_status(models: str) -> None:
    made = run(models, [(i % 2, "DE", i % 2 == 1) for i in range(1_400)])
    assert model_status(made.fold.models["m"], START).unseen == ["0"]
    both = run(models, [(i % 2, "DE", i % 2 == 1 or i == 1_000) for i in range(1_400)])
    assert model_status(both.fold.models["m"], START).unseen == []


def test_rare_answer_without_a_truth_is_chance_where_few_labels_come() -> None:
    made = run("{m: {}}", [(int(i % 700 > 0), "DE", i % 5 == 1) for i in range(5_000)])
    assert model_status(made.fold.models["m"], START).unseen == []


def test_answer_that_is_new_has_no_truth_yet_and_is_not_named() -> None:
    made = Run(parse("models: {m: {target: {kind: multiclass}}}"))
    lines: list[tuple[int, Prediction | Feedback]] = []
    for i in range(2_000):
        ts = START + 1_000 * i
        output = "new" if i >= 1_000 and i % 2 else "old"
        lines.append((ts, Prediction(id=f"p{i}", model="m", version="v1", output=output, ts=ts)))
        # Labels take as long as half of the recording.
        later = ts + 1_000_000
        lines.append((later, Feedback(id=f"p{i}", truth=output, ts=later)))
    made.take([encode_line(event) + b"\n" for at, event in sorted(lines, key=lambda each: each[0]) if at < START + 2e6])
    made.rest()
    assert made.fold.models["m"].state.outcomes["v1"] >= 900
    assert model_status(made.fold.models["m"], START).unseen == []
