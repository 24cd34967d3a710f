"""A time that would set the clock or advance it by more than a day needs a second line that confirms it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from streams.config.parse import parse
from streams.config.units import DAY_MS, HOUR_MS
from streams.join.confirmed_times import BEHIND_BYTES_MAX, BEHIND_MAX, Waiting, walk
from streams.ledger.records import Deployed, Record
from tests.pipelines import Run, run
from unship.codec import encode_line
from unship.events import At, Deployment, Event, Feedback, Prediction

START = 1_772_409_600_000
FAR = 4_000_000_000_000
"""In 2096."""

CONFIG = parse("defaults: {labels: {mature_after: 10m}}")


def line(event: Event) -> bytes:
    return encode_line(event) + b"\n"


def predicted(ts: int | None, id: str, **fields: Any) -> bytes:
    return line(Prediction(id=id, model="m", version="v1", output=1, ts=ts, **fields))


def labelled(ts: int | None, id: str, **fields: Any) -> bytes:
    return line(Feedback(id=id, truth=1, ts=ts, **fields))


def pairs(times: list[int]) -> list[bytes]:
    return [text for ts in times for text in (predicted(ts, f"p-{ts}"), labelled(ts + 1_000, f"p-{ts}"))]


def outcomes(made: Run) -> int:
    return sum(part.outcomes.predicted_at.size for record in made.records for part in getattr(record, "parts", ()))


def later(*days: float) -> list[int]:
    return [START + int(each * DAY_MS) for each in days]


@pytest.mark.parametrize(
    ("times", "refused"),
    [
        (later(0), []),
        (later(0, 0.5, 1), []),
        (later(0, 7, 14, 21), []),
        (later(0, 7, 6), [1]),
        ([FAR, *later(0, 0.1)], [0]),
        ([*later(0, 0.1), FAR, *later(0.2)], [2]),
        ([*later(0, 7), FAR, *later(14, 21)], [2]),
        ([*later(0, 7), FAR, FAR + 1, *later(14)], []),
        ([START, START + 5 * DAY_MS, START + 5 * DAY_MS - HOUR_MS], []),
        ([START, START + 5 * DAY_MS, START + 5 * DAY_MS - HOUR_MS - 1], [1]),
    ],
)
def test_time_is_taken_iff_the_next_one_is_at_most_an_hour_earlier(times: list[int], refused: list[int]) -> None:
    lines = [predicted(ts, f"p-{number}") for number, ts in enumerate(times)]
    made = run(CONFIG, lines)
    assert made.counts.get("FUTURE_TS", 0) == len(refused)
    assert made.now == max(ts for number, ts in enumerate(times) if number not in refused)


@pytest.mark.parametrize("place", [0, 1, 2, 7, 38])
def test_one_line_of_2096_is_refused_wherever_it_is_and_changes_nothing(place: int) -> None:
    good = pairs([START + number * 60_000 for number in range(20)])
    expected, found = run(CONFIG, good), run(CONFIG, [*good[:place], predicted(FAR, "far"), *good[place:]])
    assert found.counts == {"FUTURE_TS": 1}
    assert (found.now, outcomes(found)) == (expected.now, outcomes(expected)) == (START + 19 * 60_000 + 1_000, 20)


def test_last_line_is_taken_at_the_end_of_the_input() -> None:
    made = run(CONFIG, pairs(later(0, 7)))
    assert (made.counts, made.now, outcomes(made)) == ({}, START + 7 * DAY_MS + 1_000, 2)


def test_line_that_waits_is_in_no_record_until_the_next_time_is_read() -> None:
    made = Run(CONFIG)
    made.take([predicted(START, "a"), predicted(None, "b")])
    assert made.now == -1
    made.take([labelled(START + 5, "a")])
    assert made.now == START + 5


def test_deployment_without_a_time_waits_and_is_made_at_the_confirmed_one() -> None:
    lines = [predicted(START, "a"), line(Deployment(model="m", version="v1", status="live")), labelled(START + 9, "a")]
    (copied,) = [record for record in run(CONFIG, lines).records if isinstance(record, Deployed)]
    assert copied.clock == START


def test_deployment_dated_2096_is_refused() -> None:
    lines = [*pairs([START]), line(Deployment(model="m", version="v2", status="live", ts=FAR)), *pairs([START + 9])]
    made = run(CONFIG, lines)
    assert made.counts == {"FUTURE_TS": 1}
    assert not [record for record in made.records if isinstance(record, Deployed)]


@pytest.mark.parametrize(("behind", "refused"), [(BEHIND_MAX, 0), (BEHIND_MAX + 1, 1)])
@pytest.mark.parametrize("behind_line", [b"{}\n", predicted(None, "b")], ids=["no event", "no time"])
def test_line_waits_for_so_many_lines_without_a_time(behind: int, refused: int, behind_line: bytes) -> None:
    lines = [*pairs([START]), predicted(START + 7 * DAY_MS, "a"), *[behind_line] * behind]
    made = Run(CONFIG)
    made.take([*lines, predicted(START + 7 * DAY_MS, "c")])
    made.rest()
    assert made.counts.get("FUTURE_TS", 0) == refused
    assert made.now == START + 7 * DAY_MS


def test_line_does_not_wait_for_megabytes() -> None:
    assert walk([1, -1], [1, BEHIND_BYTES_MAX], -1, Waiting()).since == 0
    assert walk([1, -1], [1, BEHIND_BYTES_MAX + 1], -1, Waiting()).refused == [0]


@pytest.mark.parametrize(("append_ts", "refused"), [(START, 0), (START - HOUR_MS - 1, 1)])
def test_line_with_an_append_time_confirms_or_contradicts_and_never_waits(append_ts: int, refused: int) -> None:
    place: At = ("predictions", 0, 0, append_ts)
    made = Run(CONFIG)
    made.take([predicted(START, "a"), predicted(None, "b", at=place)])
    assert made.counts.get("FUTURE_TS", 0) == refused
    assert made.now == max(append_ts, START if not refused else 0)


def contents(records: list[Record]) -> list[str]:
    return [repr(record) for record in records]


@pytest.mark.parametrize("seed", range(60))
def test_lines_read_one_by_one_or_in_any_blocks_give_the_same_records(seed: int) -> None:
    rng = random.Random(seed)
    lines, now = [], START
    for number in range(rng.randrange(1, 60)):
        now += rng.choice([0, 1_000, 1_000, HOUR_MS, 2 * DAY_MS])
        ts = rng.choice([now, now, now, now - HOUR_MS, FAR, None, now + 3 * DAY_MS])
        id = f"p-{rng.randrange(8)}"
        kind = rng.random()
        at: At | None = ("predictions", rng.randrange(2), number, now) if seed % 3 == 0 and kind < 0.2 else None
        if kind < 0.5:
            lines.append(predicted(ts, id, at=at))
        elif kind < 0.8:
            lines.append(labelled(ts, id))
        elif kind < 0.9:
            lines.append(line(Deployment(model="m", version=rng.choice(["v1", "v2"]), status="live", ts=ts)))
        else:
            lines.append(b"{oops\n")
    expected = run(CONFIG, lines)
    found, begin = Run(CONFIG), 0
    most = rng.choice([1, 3, 50])
    while begin < len(lines):
        end = begin + rng.randrange(1, most + 1)
        found.take(lines[begin:end])
        begin = end
    found.rest()
    assert contents(found.records) == contents(expected.records)
    assert (found.counts, found.now) == (expected.counts, expected.now)
