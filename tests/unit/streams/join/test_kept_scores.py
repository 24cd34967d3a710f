"""The join keeps scores by class only where a loss is of them: they may be a thousand of each prediction."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.config.parse import parse
from streams.ledger.records import Batch
from tests.pipelines import Run

START = 1_772_409_600_000
CONFIG = parse(
    """
models:
  plain: {}
  judged: {target: {kind: multiclass}, losses: [brier]}
  timed: {losses: [zero_one, {latency: {objective_ms: 9}}]}
"""
)


def prediction(model: str) -> dict[str, Any]:
    scores = {f"class-{number}": 0.001 for number in range(1_000)}
    answer = {"model": model, "version": "v1", "output": 1, "scores": scores}
    return {"type": "prediction", "ts": START, "id": model, **answer}


@pytest.mark.parametrize(("model", "kept"), [("plain", 0), ("timed", 0), ("judged", 1)])
def test_scores_are_kept_only_for_models_with_a_loss_of_them(model: str, kept: int) -> None:
    run = Run(CONFIG)
    run.take([msgspec.json.encode(prediction(model))])
    run.rest()
    window = run.pipeline.cutter.join.window
    rows = [scores for generation in window.generations for _, scores in generation.answers.objects.values()]
    objects = [pending.scores for pending in window.slow.waiting]
    assert [bool(each) for each in (*rows, *objects)].count(True) == kept


def test_loss_of_scores_is_computed_from_what_is_kept() -> None:
    run = Run(CONFIG)
    lines = [prediction("judged"), {"type": "feedback", "ts": START + 1, "id": "judged", "truth": "class-1"}]
    records = [*run.take(map(msgspec.json.encode, lines)), *run.rest()]
    losses = [part.outcomes.losses.tolist() for record in records if isinstance(record, Batch) for part in record.parts]
    assert losses[-1] == [[pytest.approx((0.999**2 + 999 * 0.001**2) / 2)]]
