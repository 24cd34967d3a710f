"""Labels that cannot be about the answers: a page, no verdict, and a fresh start once they can."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

from actions.evidence_tree import ClassesReport
from actions.journal import Decision
from streams.config.parse import parse
from streams.ledger.entries import entry_of, read_entry
from streams.ledger.records import Batch
from tests.pipelines import Run
from unship.codec import encode_line
from unship.events import Feedback, Prediction

START = 1_772_409_600_000
MATURE = "{m: {target: {kind: KIND}, labels: {mature_after: 20s}}}"
AT_ONCE = "{m: {target: {kind: KIND}}}"


def pair(i: int, output: Any, truth: Any) -> list[bytes]:
    ts = START + 100 * i
    events: list[Prediction | Feedback] = [
        Prediction(id=f"p{i}", model="m", version="v1", output=output, ts=ts),
        Feedback(id=f"p{i}", truth=truth, ts=ts),
    ]
    return [encode_line(event) + b"\n" for event in events]


def run(models: str, pairs: Iterable[tuple[Any, Any]], kind: str = "binary") -> Run:
    made = Run(parse(f"models: {models.replace('KIND', kind)}"))
    lines = [line for i, (output, truth) in enumerate(pairs) for line in pair(i, output, truth)]
    made.take(lines)
    made.rest()
    made.advance(START + 100 * len(lines) + 60_000)
    return made


def reasons(decisions: list[Decision]) -> list[str]:
    return [str(decision.reason) for decision in decisions]


@pytest.mark.parametrize("models", [MATURE, AT_ONCE])
@pytest.mark.parametrize(
    ("kind", "output", "truth", "answers", "truths"),
    [
        ("binary", lambda i: ("fraud", "legit")[i % 2], lambda i: i % 2, ["fraud", "legit"], ["0", "1"]),
        ("binary", lambda i: i % 2, lambda i: 1 - i % 2, ["0", "1"], ["0", "1"]),
        (
            "multiclass",
            lambda i: f"c{i % 7}",
            lambda i: i % 7,
            ["c0", "c1", "c2", "c3", "c4"],
            ["0", "1", "2", "3", "4"],
        ),
    ],
)
def test_labels_of_another_coding_are_a_page_with_values_of_both_sides_and_no_verdict(
    models: str,
    kind: str,
    output: Callable[[int], Any],
    truth: Callable[[int], Any],
    answers: list[str],
    truths: list[str],
) -> None:
    made = run(models, [(output(i), truth(i)) for i in range(900)], kind)
    page = next(each for each in made.decisions if each.reason == "IMPLAUSIBLE_LABELS")
    assert (str(page.verdict), str(page.action)) == ("INCONCLUSIVE", "page")
    assert isinstance(page.evidence.classes, ClassesReport)
    assert (page.evidence.classes.answers, page.evidence.classes.truths) == (answers, truths)
    assert page.evidence.classes.wrong == page.evidence.classes.outcomes >= 500
    assert set(reasons(made.decisions)) <= {"LEARNING", "IMPLAUSIBLE_LABELS"}


@pytest.mark.parametrize("models", [MATURE, AT_ONCE])
def test_labels_that_are_right_from_then_on_are_learned_afresh(models: str) -> None:
    made = run(models, [(i % 2, 1 - i % 2 if i < 700 else i % 2) for i in range(4_000)])
    assert reasons(made.decisions)[-3:] == ["IMPLAUSIBLE_LABELS", "LEARNING", "HEALTHY"]
    live = made.fold.models["m"].state.live
    assert live is not None
    assert live.health.rows.baseline(0, 0)[0] < 0.05


@pytest.mark.parametrize("share", [0.85, 0.0])
def test_bad_model_is_no_matter_of_coding(share: float) -> None:
    made = run(MATURE, [(1, int(i % 100 >= 100 * share)) for i in range(900)])
    assert reasons(made.decisions) == ["LEARNING"]


def test_later_version_that_is_always_wrong_is_a_decay_and_not_a_matter_of_labels() -> None:
    made = run(AT_ONCE, [(1, int(i < 3_000)) for i in range(4_000)])
    assert "IMPLAUSIBLE_LABELS" not in reasons(made.decisions)
    assert str(made.decisions[-1].verdict) == "DEGRADED"


def test_bad_news_alone_is_mostly_wrong_and_plausible() -> None:
    models = "{m: {labels: {mature_after: 20s, missing: negative}}}"
    made = run(models, [(0, 1)] * 900)
    assert "IMPLAUSIBLE_LABELS" not in reasons(made.decisions)


@pytest.mark.parametrize("loss", ["recall", "precision"])
@pytest.mark.parametrize("models", ["{m: {losses: [LOSS]}}", "{m: {losses: [LOSS], labels: {mature_after: 20s}}}"])
def test_words_have_no_recall_and_that_is_an_error_and_not_learning_for_ever(loss: str, models: str) -> None:
    words = [("fraud", "fraud") if i % 2 else ("ok", "ok") for i in range(1_500)]
    made = run(models.replace("LOSS", loss), words)
    assert reasons(made.decisions)[-1] == "ERROR"
    numbers = run(models.replace("LOSS", loss), [(0, 0)] * 1_500)
    assert "ERROR" not in reasons(numbers.decisions)


def test_ledger_record_without_classes_is_read_as_before() -> None:
    made = run(AT_ONCE, [(1, 1)] * 3)
    batch = next(record for record in made.records if isinstance(record, Batch) and record.parts)
    value = msgspec.msgpack.decode(entry_of(batch).value)
    assert value["parts"][0]["outcomes"].pop("classes") is not None
    again = read_entry(msgspec.msgpack.encode(value)).record
    assert isinstance(again, Batch)
    assert again.parts[0].outcomes.classes is None
    assert again.parts[0].outcomes.position.tolist() == batch.parts[0].outcomes.position.tolist()


def test_classes_beyond_those_that_a_record_names_are_left_out_and_the_record_stays_small() -> None:
    made = run(AT_ONCE, [("x" * 900 + str(i), "y" * 900) for i in range(3_000)], "multiclass")
    sizes = [len(entry_of(record).value) for record in made.records]
    assert max(sizes) < 512 * 1024
    assert "IMPLAUSIBLE_LABELS" not in reasons(made.decisions[:1])
