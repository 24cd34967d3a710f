"""Long answers, answers that are absent, and what no label means for use: clicks, ratings, rankings."""

from __future__ import annotations

from typing import Any

import pytest

from streams.config.parse import parse
from streams.ledger.records import Batch
from tests.pipelines import Run, parts_of
from unship.codec import decode_line, encode_line
from unship.errors import ConfigurationError
from unship.events import Feedback, Prediction
from unship.rejections import Rejection

START = 1_772_409_600_000
LONG = "The answer is " + "alpha beta gamma " * 200


def predicted(ms: int, id: str, **fields: Any) -> bytes:
    return encode_line(Prediction(id=id, model="m", version="v1", ts=START + ms, **fields)) + b"\n"


def told(ms: int, id: str, **fields: Any) -> bytes:
    return encode_line(Feedback(id=id, ts=START + ms, **fields)) + b"\n"


def run(model: str, lines: list[bytes], until: int = 60_000) -> Run:
    made = Run(parse(f"models: {{m: {model}}}"))
    made.take(lines)
    made.rest()
    made.advance(START + until)
    return made


def losses_of(made: Run) -> list[list[float]]:
    return [rows for part in parts_of(made.records) for rows in part.outcomes.losses.T.tolist()]


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_long_texts_are_one_class_if_all_of_them_is_equal_and_composed_characters_make_no_difference(kind: str) -> None:
    lines = [
        predicted(0, "a", output=LONG),
        told(1, "a", truth=LONG),
        predicted(2, "b", output=LONG),
        told(3, "b", truth=LONG + "."),
        predicted(4, "c", output=LONG + "e\u0301"),
        told(5, "c", truth=LONG + "\u00e9"),
    ]
    made = run(f"{{target: {{kind: {kind}}}}}", lines)
    assert losses_of(made) == [[0.0], [1.0], [0.0]]
    assert not made.counts


def test_long_text_is_kept_cut_with_its_digest_and_is_kept_the_same_when_it_is_read_again() -> None:
    once = decode_line(encode_line(Prediction(id="a", model="m", version="v", output=[LONG, 1])))
    assert isinstance(once, Prediction)
    assert isinstance(once.output, list)
    text = once.output[0]
    assert isinstance(text, str)
    assert len(text) == 1_024
    assert LONG.startswith(text[:900])
    assert decode_line(encode_line(once)) == once


def test_text_beyond_the_size_of_an_event_is_refused_as_before() -> None:
    refused = decode_line(encode_line(Prediction(id="a", model="m", version="v", output="x" * 66_000)))
    assert isinstance(refused, Rejection)
    assert refused.code == "TOO_LARGE"


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("{target: {kind: custom}, losses: [engagement]}", {}),
        ("{target: {kind: custom}, losses: [{latency: {objective_ms: 100}}]}", {"latency_ms": 50}),
    ],
)
def test_answer_may_be_absent_where_no_loss_needs_it(model: str, fields: dict[str, Any]) -> None:
    lines = []
    for i in range(20):
        lines += [predicted(i, f"p{i}", **fields), told(i, f"p{i}", engagement=1.0)]
    made = run(model, lines)
    assert "BAD_EVENT" not in made.counts
    assert made.fold.models["m"].state.outcomes == {"v1": 20}


@pytest.mark.parametrize("model", ["{}", "{target: {kind: ranking}, losses: [ranking, engagement]}"])
def test_absent_answer_is_rejected_where_a_loss_needs_it(model: str) -> None:
    made = run(model, [predicted(0, "a"), predicted(1, "b", output=["x"]), told(2, "a", truth="x")])
    assert made.counts["BAD_EVENT"] == 1
    assert sum(part.seen.arm.size for part in parts_of(made.records)) == 1


def test_engagement_is_judged_beside_the_truth_of_the_same_feedback() -> None:
    lines = [predicted(0, "a", output=1), told(1, "a", truth=0, engagement=0.25)]
    assert losses_of(run("{losses: [zero_one, engagement]}", lines)) == [[1.0, 0.75]]


NEGATIVE = "labels: {missing: negative, mature_after: 20s}"


@pytest.mark.parametrize(
    ("model", "label", "usual"),
    [
        (f"{{target: {{kind: custom}}, losses: [engagement], {NEGATIVE}}}", {"engagement": 1.0}, 0.9),
        (f"{{target: {{kind: ranking}}, losses: [ranking], {NEGATIVE}}}", {"truth": "b"}, 0.95),
        (f"{{losses: [engagement], {NEGATIVE}}}", {"engagement": 0.5}, 0.95),
    ],
)
def test_answer_that_nobody_used_has_the_loss_1_once_it_is_mature(
    model: str, label: dict[str, Any], usual: float
) -> None:
    lines = []
    for i in range(2_000):
        lines.append(predicted(10 * i, f"p{i}", output=["a", "b"]))
        if i % 10 == 0:
            lines.append(told(10 * i, f"p{i}", **label))
    made = run(model, lines)
    live = made.fold.models["m"].state.live
    assert live is not None
    assert live.health.outcomes == 2_000
    assert live.health.rows.banks[0].own_k[0] / live.health.rows.banks[0].own_n[0] == pytest.approx(usual)
    assert not made.counts


def test_shadow_that_nobody_sees_has_no_engagement_without_a_label_either() -> None:
    lines = [predicted(0, "a", output=1), predicted(1, "a", output=1, role="shadow")]
    lines[1] = lines[1].replace(b'"v1"', b'"v2"')
    made = run(f"{{target: {{kind: custom}}, losses: [engagement], {NEGATIVE}}}", lines)
    rows = [part.unlabelled for part in parts_of(made.records) if part.unlabelled is not None]
    assert [str(loss) for each in rows for loss in each.losses[0].tolist()] == ["1.0", "nan"]


def test_fewer_clicks_are_the_decay_and_no_matter_of_labels() -> None:
    model = f"{{target: {{kind: custom}}, losses: [engagement], {NEGATIVE}, one_false_alarm_per: 1000}}"
    lines = []
    for i in range(12_000):
        lines.append(predicted(10 * i, f"p{i}"))
        if i % 5 == 0 and (i < 6_000 or i % 10 == 0):
            lines.append(told(10 * i, f"p{i}", engagement=1.0))
    made = run(model, lines, 200_000)
    reasons = [str(each.reason) for each in made.decisions]
    assert "COVERAGE_SHIFT" not in reasons
    assert str(made.decisions[-1].verdict) == "DEGRADED"


def test_negative_is_refused_where_a_loss_needs_a_label() -> None:
    with pytest.raises(ConfigurationError, match="zero_one cannot be computed without a label"):
        parse(f"models: {{m: {{target: {{kind: multiclass}}, losses: [engagement, zero_one], {NEGATIVE}}}}}")


def test_forecasts_whose_truth_comes_weeks_later_are_judged_night_by_night() -> None:
    """One batch of rows a night, with the truth of all of them three weeks later, is one cohort."""
    day = 86_400_000
    made = Run(
        parse(
            "models: {m: {target: {kind: regression}, losses: [{absolute: {scale: 10}}], "
            "labels: {mature_after: 22d, horizon: 30d}}}"
        )
    )
    lines: list[tuple[int, bytes]] = []
    for night in range(60):
        for row in range(40):
            # Stores in their natural order: the last ones are the hard ones, every night.
            error = row / 8 if night < 45 else 5 + row / 8
            lines.append((night * day, predicted(night * day, f"n{night}", row=row, output=100.0)))
            lines.append(
                (night * day + 21 * day, told(night * day + 21 * day, f"n{night}", row=row, truth=100 + error))
            )
    made.take([line for _, line in sorted(lines, key=lambda each: each[0])])
    made.rest()
    made.advance(START + 90 * day)
    assert not made.counts
    alarms = [each for each in made.decisions if str(each.verdict) == "DEGRADED"]
    assert alarms
    assert alarms[0].ts > START + (45 + 22) * day
    assert alarms[0].evidence.alarm
    assert START + 44 * day <= alarms[0].evidence.alarm.change_ts <= START + 46 * day
    assert any(isinstance(record, Batch) for record in made.records)
