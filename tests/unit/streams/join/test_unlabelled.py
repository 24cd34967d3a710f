"""What is said of predictions that no label tells of: counts, blindness, errors, and the columns of the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import UNSET

from actions.journal import Decision
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.fold.model import ModelFold
from streams.ledger.entries import entry_of, read_entry
from streams.ledger.records import Batch, Part, Record
from tests.pipelines import Run, parts_of
from unship.codec import encode_line
from unship.errors import RecordingError
from unship.events import Feedback, Prediction

START = 1_772_409_600_000
BAD_NEWS = parse("models: {m: {labels: {missing: negative, mature_after: 20s}}}")
SPEED = "{latency: {objective_ms: 100}}"
ALONE = parse(f"models: {{m: {{losses: [{SPEED}], labels: {{mature_after: 20s}}}}}}")


def predicted(ms: int, id: str, output: Any = 0, **fields: Any) -> bytes:
    event = Prediction(id=id, model="m", version="v1", output=output, ts=START + ms, **fields)
    return encode_line(event) + b"\n"


def told(ms: int, id: str, truth: Any = 1) -> bytes:
    return encode_line(Feedback(id=id, truth=truth, ts=START + ms)) + b"\n"


def run(config: Config, lines: Iterable[bytes], until: int) -> tuple[ModelFold, list[Decision], list[Record], Run]:
    made = Run(config)
    made.take(lines)
    made.advance(START + until)
    return made.fold.models["m"], made.decisions, made.records, made


def traffic(seconds: int, every: int, until: int, output: Any = 0, **fields: Any) -> list[bytes]:
    """Ten predictions a second, of which each so many-th was a positive, told until a time (s)."""
    lines = []
    for i in range(seconds * 10):
        lines.append(predicted(i * 100, f"p{i}", output, **fields))
        if i % every == 0 and i < until * 10:
            lines.append(told(i * 100, f"p{i}"))
    return lines


def reasons(decisions: list[Decision]) -> list[str]:
    return [str(decision.reason) for decision in decisions]


def test_missing_label_is_an_outcome_when_its_cohort_closes_and_not_before() -> None:
    lines = [predicted(0, "a"), predicted(0, "b", 1), told(5, "a")]
    assert run(BAD_NEWS, lines, 20_999)[0].state.outcomes == {"v1": 1}
    model, *_ = run(BAD_NEWS, lines, 21_000)
    assert model.state.outcomes == {"v1": 2}
    assert model.state.live is not None
    # A missed positive and a false alarm.
    assert model.state.live.health.rows.banks[0].own_k[0] == 2


def test_end_of_bad_news_is_blindness_and_silence_steps_nothing() -> None:
    model, decisions, *_ = run(BAD_NEWS, traffic(400, 10, 300), 500_000)
    assert reasons(decisions)[0] == "LEARNING"
    assert reasons(decisions)[-1] == "BLIND"
    assert decisions[-1].ts < START + 375_000
    assert {str(decision.verdict) for decision in decisions} <= {"INCONCLUSIVE", "HEALTHY"}
    assert model.state.live is not None
    # Of what follows, 500 predictions at least have no label before that is a silence: the rest is not judged.
    assert 3_000 < model.state.live.health.outcomes <= 3_500
    assert model.state.outcomes == {"v1": model.state.live.health.outcomes}


def test_model_without_any_feedback_is_blind_and_not_perfect() -> None:
    _, decisions, *_ = run(BAD_NEWS, traffic(300, 10, 0), 400_000)
    assert reasons(decisions) == ["LEARNING", "BLIND"]


def test_rare_bad_news_is_not_blindness_however_long_the_gaps() -> None:
    model, decisions, *_ = run(BAD_NEWS, traffic(900, 301, 900), 1_000_000)
    assert set(reasons(decisions)) <= {"LEARNING", "HEALTHY"}
    assert model.state.live is not None
    assert model.state.live.labels.share is not None


def test_news_after_a_silence_is_judged_again() -> None:
    lines = traffic(400, 10, 300)
    lines += [
        line
        for i in range(4_000, 6_000)
        for line in (predicted(i * 100, f"p{i}"), *([told(i * 100, f"p{i}")] if i % 10 == 0 else []))
    ]
    model, decisions, *_ = run(BAD_NEWS, lines, 700_000)
    assert reasons(decisions)[-2:] == ["BLIND", "HEALTHY"]
    assert model.state.live is not None
    assert 5_000 <= model.state.live.health.outcomes <= 5_500


def test_quorum_leaves_no_absence_out() -> None:
    """Rows without a source are in every row of detectors, those that leave a source out included."""
    lines = []
    for i in range(2_000):
        lines.append(predicted(i * 100, f"p{i}", int(i % 3 == 0)))
        if i % 4 == 0:
            source = "desk" if i % 8 else "bank"
            lines.append(encode_line(Feedback(id=f"p{i}", truth=1, source=source, ts=START + i * 100)) + b"\n")
    model, *_ = run(BAD_NEWS, lines, 300_000)
    assert model.state.layout.sources.names == ["bank", "desk"]
    assert model.state.live is not None
    health = model.state.live.health
    np.testing.assert_array_equal(health.rows.banks[0].own_n[:3], [2_000, 1_750, 1_750])


def test_latency_alone_needs_no_label_and_is_never_blind() -> None:
    config = parse(f"models: {{m: {{losses: [{SPEED}], labels: {{mature_after: 20s}}}}}}")
    model, decisions, _, pipeline = run(config, traffic(200, 1, 0, latency_ms=50), 300_000)
    assert reasons(decisions) == ["LEARNING", "HEALTHY"]
    assert model.state.outcomes == {"v1": 2_000}
    assert decisions[-1].outcomes >= 1_000
    assert decisions[-1].evidence.sources == 0
    assert decisions[-1].evidence.label_coverage is UNSET
    assert not pipeline.counts


@pytest.mark.parametrize("maturity", ["0s", "20s"])
def test_model_of_speed_that_is_told_no_latency_is_an_error_and_not_silence(maturity: str) -> None:
    config = parse(f"models: {{m: {{losses: [{SPEED}, zero_one], labels: {{mature_after: {maturity}}}}}}}")
    model, decisions, _, pipeline = run(config, traffic(150, 1, 150), 300_000)
    assert reasons(decisions)[-1] == "ERROR"
    assert pipeline.counts["MISSING_LATENCY"] == 1_500
    assert model.state.outcomes == {"v1": 1_500}


@pytest.mark.parametrize("maturity", ["0s", "20s"])
@pytest.mark.parametrize(("losses", "outcomes"), [(f"zero_one, {SPEED}", 100), (f"{SPEED}, zero_one", 200)])
def test_outcomes_count_what_the_first_loss_judges(maturity: str, losses: str, outcomes: int) -> None:
    config = parse(f"models: {{m: {{losses: [{losses}], labels: {{mature_after: {maturity}}}}}}}")
    model, *_ = run(config, traffic(20, 2, 20, latency_ms=150), 100_000)
    assert model.state.outcomes == {"v1": outcomes}
    assert model.state.live is not None
    assert model.state.live.health.outcomes == outcomes
    by_name = dict(zip(losses.split(", "), model.state.live.health.rows.banks, strict=True))
    assert (by_name[SPEED].own_n[0], by_name[SPEED].own_k[0]) == (200, 200)
    assert (by_name["zero_one"].own_n[0], by_name["zero_one"].own_k[0]) == (100, 100)


def test_model_without_these_settings_writes_nothing_of_the_kind() -> None:
    *_, records, _ = run(parse(""), traffic(5, 2, 5, latency_ms=50), 100_000)
    parts = parts_of(records)
    assert parts
    assert all(part.unlabelled is None for part in parts)


@pytest.mark.parametrize(
    "change",
    [
        {"arm": np.array([0, 7])},
        {"predicted_at": np.array([-1, 0])},
        {"position": np.array([1])},
        {"losses": np.array([[0.5, 1.5]])},
        {"losses": np.zeros((2, 2))},
        {"slices": []},
    ],
)
def test_ledger_line_with_contradicting_unlabelled_columns_is_refused(change: dict[str, Any]) -> None:
    config = parse(f"models: {{m: {{losses: [{SPEED}], slices: {{by: [country]}}}}}}")
    lines = [predicted(i, f"p{i}", slices={"country": "DE"}, latency_ms=1) for i in range(2)]
    *_, records, _ = run(config, lines, 100)
    batch = next(record for record in records if isinstance(record, Batch))
    (part,) = batch.parts
    assert part.unlabelled is not None
    assert read_entry(with_part(batch, part))
    bad = msgspec.structs.replace(part, unlabelled=msgspec.structs.replace(part.unlabelled, **change))
    with pytest.raises(RecordingError, match="contradict"):
        read_entry(with_part(batch, bad))


def with_part(batch: Batch, part: Part) -> bytes:
    return entry_of(msgspec.structs.replace(batch, parts=[part])).value


def test_outcome_without_a_source_is_refused() -> None:
    *_, records, _ = run(parse(""), [predicted(0, "a"), told(1, "a")], 100)
    batch = next(record for record in records if isinstance(record, Batch))
    (part,) = batch.parts
    nobody = msgspec.structs.replace(part.outcomes.source, codes=np.array([-1]))
    bad = msgspec.structs.replace(part, outcomes=msgspec.structs.replace(part.outcomes, source=nobody))
    with pytest.raises(RecordingError, match="contradict"):
        read_entry(with_part(batch, bad))
