"""Labels that are corrected or taken back: which rows they make, and what counts when their cohort closes."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from actions.journal import decision_bytes
from console.cli import main
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.evaluation.cohorts import Closed
from streams.fold import judging
from streams.recordings.replay import Replay
from tests.pipelines import Run, parts_of, run
from unship.codec import encode_line
from unship.events import Event, Feedback, Prediction

START = 1_772_409_600_000
W, H, E = 20_000, 60_000, 5_000
LABELS = f"mature_after: {W // 1000}s, horizon: {H // 1000}s, early: {E // 1000}s, on_conflict: last"
LAST = parse(f"defaults: {{labels: {{{LABELS}, sources: [desk]}}}}")
FIRST = parse(f"defaults: {{labels: {{{LABELS.replace('last', 'first')}}}}}")
NEGATIVE = parse(f"defaults: {{labels: {{{LABELS}, missing: negative}}}}")


def line(event: Event) -> bytes:
    return encode_line(event) + b"\n"


def predicted(ms: int, id: str = "a", version: str = "v1", **fields: Any) -> bytes:
    return line(Prediction(id=id, model="m", version=version, output=1, ts=START + ms, **fields))


def labelled(ms: int, truth: Any = None, id: str = "a", **fields: Any) -> bytes:
    return line(Feedback(id=id, truth=truth, ts=START + ms, **fields))


class Judged(NamedTuple):
    """What cohorts held when they closed: (position, losses, has a label), and how many labels were revised."""

    rows: list[tuple[int, list[float], bool]]
    revised: int


def closing(monkeypatch: pytest.MonkeyPatch) -> list[Closed]:
    """Return where cohorts are noted when they close."""
    found: list[Closed] = []
    close = judging._close

    def noted(*arguments: Any) -> Closed:
        found.append(close(*arguments))
        return found[-1]

    monkeypatch.setattr(judging, "_close", noted)
    return found


def judged(config: Config, lines: list[bytes], monkeypatch: pytest.MonkeyPatch) -> tuple[Judged, Run]:
    found = closing(monkeypatch)
    made = run(config, lines, START + 10 * H)
    rows = [
        (int(position) >> 16, values.tolist(), source >= 0)
        for closed in found
        for position, source, values in zip(closed.columns[2], closed.columns[3], closed.losses.T, strict=True)
    ]
    return Judged(rows, sum(sum(closed.revised.values()) for closed in found)), made


def rows_of(made: Run) -> list[tuple[int, int, float, bool]]:
    """Return (prediction, feedback, loss, taken back) of all rows in the ledger."""
    return [
        (int(p), int(f), float(loss), bool(code < 0))
        for part in parts_of(made.records)
        for p, f, loss, code in zip(
            part.outcomes.position,
            part.outcomes.labelled_by,
            part.outcomes.losses[0],
            part.outcomes.source.codes,
            strict=True,
        )
    ]


@pytest.mark.parametrize(
    ("feedback", "losses", "codes"),
    [
        ([(1, 0)], [[1.0]], {}),
        ([(1, 0), (2, 1)], [[0.0]], {}),
        ([(1, 0), (2, 0)], [[1.0]], {"DUPLICATE_FEEDBACK": 1}),
        ([(1, 0), (2, 1), (3, 0)], [[1.0]], {}),
        ([(1, 0), (2, None)], [], {}),
        ([(1, 0), (2, None), (3, None)], [], {"RETRACTED": 1}),
        ([(1, 0), (2, None), (3, 0)], [[1.0]], {}),
        ([(1, None), (2, 1)], [[0.0]], {"RETRACTED": 1}),
        ([(1, 0), (W - 1, 1)], [[0.0]], {}),
        ([(1, 0), (W + 1, 1)], [[1.0]], {"REVISED_LATE": 1}),
        ([(1, 0), (W + 1, None)], [[1.0]], {"REVISED_LATE": 1}),
        ([(1, 0), *((n + 2, n % 2) for n in range(1, 9))], [[0.0]], {"REQUEST_LIMIT": 1}),
    ],
)
def test_label_in_force_when_the_cohort_closes_is_the_one_that_counts(
    feedback: list[tuple[int, Any]], losses: list[list[float]], codes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # An answer of 1, so that a truth of 0 is a loss of 1.
    texts = [labelled(ms, truth, retract=truth is None) for ms, truth in feedback]
    found, made = judged(LAST, [predicted(0), *texts], monkeypatch)
    assert [values for _, values, _ in found.rows] == losses
    assert dict(made.counts) == codes
    assert sum(made.fold.models["m"].state.outcomes.values()) == len(losses)


def test_first_label_stays_where_nothing_else_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [predicted(0), labelled(1, 0), labelled(2, 1), labelled(3, retract=True), labelled(4, 1, retract=True)]
    found, made = judged(FIRST, lines, monkeypatch)
    assert [values for _, values, _ in found.rows] == [[1.0]]
    assert dict(made.counts) == {"CONFLICTING_FEEDBACK": 1, "RETRACTED": 2}


@pytest.mark.parametrize(
    ("first", "second", "replaced"),
    [("crm", "crm", True), ("crm", "other", False), ("crm", "desk", True), ("desk", "crm", False)],
)
def test_label_is_replaced_by_its_own_source_or_a_listed_one(
    first: str, second: str, replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [predicted(0), labelled(1, 0, source=first), labelled(2, 1, source=second)]
    found, made = judged(LAST, lines, monkeypatch)
    assert [values for _, values, _ in found.rows] == [[0.0 if replaced else 1.0]]
    assert dict(made.counts) == ({} if replaced else {"CONFLICTING_FEEDBACK": 1})
    assert found.revised == replaced


def test_label_that_is_taken_back_is_truth_0_where_only_bad_news_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [predicted(0), labelled(1, 1), labelled(2, retract=True), predicted(3, "b"), labelled(4, 1, "b")]
    found, _ = judged(NEGATIVE, lines, monkeypatch)
    # The order within a cohort is that of a hash.
    assert sorted((values, bool(label)) for _, values, label in found.rows) == [([0.0], True), ([1.0], False)]


def test_revised_truth_revises_the_pair_of_live_and_shadow(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = closing(monkeypatch)
    shadow = line(Prediction(id="a", model="m", version="v2", output=0, role="shadow", ts=START + 1))
    run(LAST, [predicted(0), shadow, labelled(2, 0), labelled(3, 1)], START + 10 * H)
    assert [each.excess.tolist() for each in closed] == [[[-1.0]]]
    run(LAST, [predicted(0), shadow, labelled(2, 0), labelled(3, retract=True)], START + 10 * H)
    assert closed[-1].excess.shape[1] == 0


def test_share_of_revised_labels_is_in_the_status() -> None:
    from streams.fold.status import model_status

    lines = [predicted(0, "x")]
    for number in range(10):
        ms = number * 10
        lines += [predicted(ms, f"p{number}"), labelled(ms + 1, 0, f"p{number}")]
        lines += [labelled(ms + 2, 1, f"p{number}")] if number < 3 else []
    made = run(LAST, lines, START + 10 * H)
    assert model_status(made.fold.models["m"], made.now).revised_labels == 0.3


# Any order of reading, any cut


def random_lines(seed: int) -> list[bytes]:
    rng, lines, ms = random.Random(seed), [], 0
    for _ in range(rng.randrange(30, 120)):
        ms += rng.choice([0, 100, 1_000, 3_000])
        id = rng.choice("abcdefgh")
        if rng.random() < 0.4:
            version, role = rng.choice([("v1", "live"), ("v1", "live"), ("v2", "shadow"), ("v3", "holdback")])
            lines.append(predicted(ms, id, version, role=role))
        else:
            retract, source = rng.random() < 0.2, rng.choice(["default", "default", "desk", "crm"])
            truth = None if retract and rng.random() < 0.5 else rng.choice([0, 1])
            model = rng.choice([None, None, None, "m"])
            lines.append(labelled(ms, truth, id, retract=retract, source=source, model=model))
    return lines


@pytest.mark.parametrize("seed", range(15))
def test_rows_of_a_prefix_are_those_of_the_whole_that_lie_in_it(seed: int) -> None:
    lines = random_lines(seed)
    whole = rows_of(run(LAST, lines))
    cut = len(lines) // 2
    inside = [row for row in whole if max(row[0], row[1]) < cut]
    found = rows_of(run(LAST, lines[:cut]))
    assert repr(sorted(found)) == repr(sorted(inside))


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("config", [LAST, NEGATIVE], ids=["ignore", "negative"])
def test_any_blocks_and_stops_give_the_same_rows_counts_and_outcomes(seed: int, config: Config) -> None:
    data = b"".join(random_lines(seed))

    def result(replay: Replay) -> Any:
        state = replay.folds[0].models["m"].state
        return replay.counts(), state.outcomes, state.live and (state.live.labels.revised, state.live.labels.labelled)

    def end(replay: Replay, batch: int) -> Any:
        found = [*replay.decisions(io.BytesIO(data), batch), *replay.advance(START + 10 * H)]
        return [*map(decision_bytes, found)], result(replay)

    expected = end(Replay(config), 4_096)
    for batch in (1, 7):
        assert end(Replay(config), batch) == expected
    half = Replay(config)
    first = list(map(decision_bytes, half.decisions(io.BytesIO(data), 16, data.count(b"\n") // 2)))
    found, rest = end(Replay(config, half.save()), 4_096)
    assert (first + found, rest) == expected


@pytest.mark.parametrize("seed", range(5))
def test_audit_reproduces_a_recording_with_revised_labels(seed: int, tmp_path: Path) -> None:
    source, complete, config = (tmp_path / name for name in ("x.ndjson", "r.ndjson", "c.yaml"))
    source.write_bytes(b"".join(random_lines(seed)))
    config.write_text(f"defaults: {{labels: {{{LABELS}}}}}")
    done = CliRunner().invoke(main, ["-c", str(config), "replay", str(source), "--record", str(complete)])
    assert done.exit_code == 0, done.stderr
    audited = CliRunner().invoke(main, ["audit", str(complete)])
    assert (audited.exit_code, "first difference" in audited.stdout) == (0, False)
    # Under its own ledger too, where coverage drops nothing.
    assert CliRunner().invoke(main, ["replay", str(complete)]).exit_code == 0
