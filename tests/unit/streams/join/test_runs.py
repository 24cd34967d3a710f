"""Runs: what is cut, and what is known of replicas, does not depend on how many records are read at once."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from actions import replica_watch
from actions.replica_watch import ReplicaWatch
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.join import line_cutter, record_size
from streams.join.answers import Answers
from streams.join.runs import RunCuts
from streams.ledger.encoding import pack
from streams.ledger.places import INDEX_BITS
from streams.ledger.records import Batch, ReplicaFacts
from streams.window.decoding import Shape
from streams.window.records import Records
from tests.pipelines import Run
from unship.codec import encode_line
from unship.events import Ack, Deployment, Event, Feedback, Prediction

NO_ROWS = record_size.RecordSizes([(np.zeros(0, np.int64),) * 3], 0)
START = 1_772_409_600_000
AT_ONCE = "models: {m: {losses: [zero_one]}}"
#: Cohorts of a minute for the listed models, of a second for the others.
UNLISTED = """
defaults: {losses: [zero_one], labels: {mature_after: 20s}}
models: {m: {losses: [zero_one], labels: {mature_after: 20m}}, n: {losses: [zero_one], labels: {mature_after: 20m}}}
"""


def recording(seed: int, *, noise: float, acks: float, unlisted_from: float = 2.0) -> list[bytes]:
    """Return lines whose times jitter: predictions, labels, repeats, garbage, acks and deployments."""
    rng, now = random.Random(seed), START
    lines: list[bytes] = []
    for number in range(150):
        now += rng.choice([0, 0, 1, 30, 200, rng.choice([0, 0, 3_000])])
        ts = now - rng.choice([0, 0, 500])
        model = rng.choice(["m", "n", *(["other"] if number / 150 > unlisted_from else [])])
        id = f"p{rng.randrange(max(number - 20, 0), number + 1)}"
        event: Event = Feedback(id=id, truth=rng.randrange(2), ts=ts)
        if rng.random() < 0.5:
            version = rng.choice(["v1", "v2"])
            event = Prediction(id=id, model=model, version=version, output=1, ts=ts, replica=f"r{rng.randrange(3)}")
        if rng.random() < acks:
            epoch = (0, number // 20, 0)
            event = Ack(model=model, replica=f"r{rng.randrange(3)}", boot="b", epoch=epoch, stage="serving", ts=ts)
        elif rng.random() < 0.01:
            event = Deployment(model=model, version=rng.choice(["v1", "v2"]), status="live", ts=ts)
        lines.append(encode_line(event) + b"\n")
        if rng.random() < noise:
            lines.append(rng.choice([b"{oops\n", lines[rng.randrange(len(lines))]]))
        if rng.random() < noise / 10:
            # Many in a row that add no row.
            lines += [b"{oops\n"] * rng.randrange(10, 40)
    return lines


def ledger_of(config: Config, lines: list[bytes], batch: int) -> tuple[list[bytes], Run]:
    """Return the ledger of lines of which so many are read at once."""
    made = Run(config)
    for begin in range(0, len(lines), batch):
        made.take(lines[begin : begin + batch])
    made.rest()
    return [step.entry.value for step in made.steps], made


def check_batches(config: Config, lines: list[bytes]) -> Run:
    """Check that the ledger has the same bytes however many lines are read at once."""
    expected, made = ledger_of(config, lines, 1)
    for batch in (7, 60, 4_096):
        found, other = ledger_of(config, lines, batch)
        assert found == expected, batch
        assert other.counts == made.counts
    return made


@pytest.mark.parametrize("seed", range(3))
def test_cuts_where_an_unlisted_model_narrows_the_interval_do_not_depend_on_the_lines_read_at_once(seed: int) -> None:
    config, lines = parse(UNLISTED), recording(seed, noise=0.1, acks=0.02, unlisted_from=0.5)
    cutter = Run(config).pipeline.cutter
    assert cutter._unlisted_ms < cutter._interval_ms
    made = check_batches(config, lines)
    batches = [record for record in made.records if isinstance(record, Batch)]
    first = next(place for place, batch in enumerate(batches) if any(part.model == "other" for part in batch.parts))
    assert 2 * first < len(batches), "most of the cuts follow the first row of that model"


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("most", [1, 10])
def test_cuts_forced_by_counts_do_not_depend_on_the_lines_read_at_once(
    seed: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, lines = parse(UNLISTED), recording(seed, noise=0.6, acks=0.02)
    calm = len(ledger_of(config, lines, 4_096)[0])
    monkeypatch.setattr(line_cutter, "COUNTS_MAX", most)
    assert len(check_batches(config, lines).records) > calm


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("room", [900, 3_000])
def test_cuts_where_a_record_is_full_do_not_depend_on_the_lines_read_at_once(
    seed: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, lines = parse(UNLISTED), recording(seed, noise=0.3, acks=0.02)
    calm = len(ledger_of(config, lines, 4_096)[0])
    monkeypatch.setattr(record_size, "ROOM", room)
    monkeypatch.setattr(record_size, "FEW", 0)
    assert len(check_batches(config, lines).records) > calm


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("records", [1, 5])
def test_cuts_after_so_many_rows_do_not_depend_on_the_lines_read_at_once(
    seed: int, records: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_cutter, "CUT_RECORDS", records)
    made = check_batches(parse(AT_ONCE), recording(seed, noise=0.2, acks=0.02))
    assert sum(isinstance(record, Batch) for record in made.records) > 10


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("text", [AT_ONCE, UNLISTED], ids=["at once", "unlisted"])
def test_cuts_while_acks_wait_do_not_depend_on_the_lines_read_at_once(seed: int, text: str) -> None:
    lines = recording(seed, noise=0.3, acks=0.4, unlisted_from=0.7)
    # A stretch of acks, garbage and labels alone, in which nothing but the acks is cut.
    lines += [line for line in recording(seed + 100, noise=0.5, acks=0.5) if b'"prediction"' not in line]
    made = check_batches(parse(text), lines)
    assert sum(isinstance(record, ReplicaFacts) for record in made.records) > 3


def test_places_of_cuts_in_a_run() -> None:
    now = np.array([10, 10, 990, 1_000, 1_000, 2_500])
    cuts = RunCuts(now, 7, accepted=np.array([1, 2, 5]), counted=np.array([0, 0, 3]), unlisted=3, sizes=NO_ROWS)
    assert [cuts.from_time(ts, 1) for ts in (0, 990, 991, 3_000)] == [1, 2, 3, 6]
    assert [cuts.first_accepted(begin) for begin in (0, 2, 3, 6)] == [1, 2, 5, 6]
    assert [cuts.after_accepted(0, count) for count in (1, 2, 3, 4)] == [2, 3, 6, 7]
    assert [cuts.after_counted(0, count) for count in (0, 1, 2, 3, 4)] == [1, 1, 1, 4, 7]
    # In the wide interval up to the first row of the unlisted model, in the narrow one from there on.
    assert cuts.end_of_interval(0, 10, 2_000, 1_000) == 5
    assert cuts.end_of_interval(0, 10, 990, 100) == 2
    assert cuts.end_of_interval(4, 1_000, 10_000, 2_000) == 5


def answers_of(rng: random.Random, count: int) -> tuple[list[Prediction], list[int]]:
    at, events, clocks = START, list[Prediction](), list[int]()
    for number in range(count):
        at += rng.choice([0, 1, 20, rng.choice([0, 200])])
        role: Any = rng.choice(["live", "live", "shadow", "holdback"])
        version = rng.choice(["v1", "v1", "v1", "v1", f"v{rng.randrange(5)}"])
        replica = rng.choice([None, "r0", "r0", "r1", f"r{rng.randrange(6)}"])
        epoch = rng.choice([None, None, None, (0, number // 30, 0)])
        event = Prediction(
            id="p", model=rng.choice("mmn"), version=version, output=0, role=role, replica=replica, epoch=epoch
        )
        events.append(event)
        clocks.append(at)
    return events, clocks


@pytest.mark.parametrize("seed", range(25))
def test_blocks_of_answers_give_the_watch_the_news_of_single_ones(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With acks between blocks, cuts inside them, and so few replicas and versions that they are forgotten."""
    small = {"RESTATE_MS": 60, "SETTLE_MS": 25, "REPLICAS_MAX": 3, "VERSIONS_MAX": 2, "REPLICAS_OF_ALL_MAX": 5}
    for name, value in small.items():
        monkeypatch.setattr(replica_watch, name, value)
    rng = random.Random(seed)
    events, clocks = answers_of(rng, 300)
    watch, single, answers = ReplicaWatch(), ReplicaWatch(), Answers()
    begin = 0
    while begin < len(events):
        end = min(begin + rng.choice([1, 10, 80]), len(events))
        some = events[begin:end]
        seen = np.array([rng.random() < 0.9 for _ in some])
        lines = np.arange(begin, end) << INDEX_BITS
        records = Records(
            some, list(range(len(some))), Shape(frozenset(), ()), [], lines, np.array(clocks[begin:end]), lines
        )
        answers.note(records, seen)
        if rng.random() < 0.5:
            answers.apply(watch, 0, (rng.randrange(begin, end) << INDEX_BITS) - 1)
        answers.apply(watch, 0, None)
        for place in np.flatnonzero(seen).tolist():
            event, number = some[place], begin + place
            if event.replica is not None and single.is_news(event, clocks[number]):
                single.answered(event, ("predictions", 0, number), clocks[number])
        if rng.random() < 0.5:
            ack = Ack(model="m", replica="r0", boot="b", epoch=(0, begin, 0), stage="serving")
            for each in (watch, single):
                each.acknowledged(ack, ("acks", 0, begin), clocks[end - 1])
        if rng.random() < 0.5:
            assert watch.take() == single.take()
        begin = end
    assert pack(watch.save()) == pack(single.save())
