"""What is found of a version whose primary loss cannot be computed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from streams.config.parse import parse
from streams.evaluation.findings import UNUSABLE_LEAST
from tests.pipelines import run
from unship.codec import encode_line
from unship.events import Deployment, Feedback, Prediction

START = 1_772_409_600_000


def lines(output: Any, truth: Any) -> Iterator[bytes]:
    """Yield more outcomes than it takes to say that none can be used, all alike."""
    yield encode_line(Deployment(model="m", version="v1", status="live", ts=START)) + b"\n"
    for i in range(UNUSABLE_LEAST + 200):
        at = START + 10 * i
        yield encode_line(Prediction(id=str(i), model="m", version="v1", output=output, ts=at)) + b"\n"
        yield encode_line(Feedback(id=str(i), truth=truth, ts=at)) + b"\n"


def reasons(loss: str, source: Iterable[bytes]) -> set[str]:
    config = parse(f"models: {{m: {{losses: [{loss}]}}}}")
    return {decision.reason for decision in run(config, source).decisions}


def test_truths_of_which_none_can_be_used_are_an_error() -> None:
    assert "ERROR" in reasons("zero_one", lines(1, ["x"]))


@pytest.mark.parametrize(("loss", "output", "truth"), [("precision", 0, 1), ("recall", 1, 0)])
def test_model_of_which_precision_or_recall_says_nothing_is_no_error(loss: str, output: int, truth: int) -> None:
    assert "ERROR" not in reasons(loss, lines(output, truth))
