"""What users of other tools reported as surprises, tried here: files, clocks and labels as they come.

Reports about outputs (full disks, pipes, links, terminals) are in `test_outputs`, and other formats of files in
`tests/unit/streams/recordings/test_file_formats.py`.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from console.cli import main
from tests.commands import UNSHIP
from tests.waiting import HANG_S

T0 = 1_767_571_200_000
"""2026-01-05T00:00:00Z."""

DAY_MS = 86_400_000
YEAR_2096 = 4_000_000_000_000
Event = dict[str, Any]


def deployed(version: str, status: str = "live", ts: int = T0) -> Event:
    return {"type": "deployment", "model": "m", "version": version, "status": status, "ts": ts}


def pair(name: Any, ts: int, output: Any, truth: Any, lag: int = 500, **fields: Any) -> list[Event]:
    predicted = {"type": "prediction", "id": f"m-{name}", "model": "m", "version": "v1", "output": output, "ts": ts}
    return [predicted | fields, {"type": "feedback", "id": f"m-{name}", "truth": truth, "ts": ts + lag}]


def merged(*groups: Iterable[Event]) -> list[Event]:
    return sorted((event for group in groups for event in group), key=lambda event: event["ts"])


def steady(count: int, seed: int = 1, wrong: float = 0.1) -> Iterator[Event]:
    rng = random.Random(seed)
    for number in range(count):
        yield from pair(number, T0 + number * 1_000, 1, int(rng.random() >= wrong), lag=1_000)


def decay(before: int = 2_000, after: int = 3_000) -> list[Event]:
    """Return what v2 answers, which is wrong more often from some answer on, with v1 beside it."""
    rng, events = random.Random(1), [deployed("v1", "holdback"), deployed("v2")]
    for number in range(before + after):
        beside = rng.random() < 0.2
        wrong = rng.random() < (0.3 if number >= before and not beside else 0.1)
        served = {"version": "v1", "role": "holdback"} if beside else {"version": "v2", "role": "live"}
        events += pair(number, T0 + (number + 1) * 1_000, 1, int(not wrong), lag=1_000, **served)
    return merged(events)


class Replayed:
    """The decisions of a replay, its summary, and its exit code."""

    def __init__(self, folder: Path, events: Iterable[Event] | bytes, config: str = "{}", end: str = "\n") -> None:
        self.path, configured = folder / "x.ndjson", folder / "c.yaml"
        data = events if isinstance(events, bytes) else "".join(json.dumps(e) + end for e in events).encode()
        self.path.write_bytes(data)
        configured.write_text(config)
        result = CliRunner().invoke(main, ["-c", str(configured), "--json", "replay", str(self.path)])
        self.code, self.errors = result.exit_code, result.stderr
        self.decisions = [json.loads(line) for line in result.stdout.splitlines()]
        self.facts = json.loads(result.stderr.splitlines()[0]) if result.stderr.startswith("{") else {}
        self.rejected: dict[str, int] = self.facts.get("rejected", {})

    @property
    def reasons(self) -> list[str]:
        return [decision["reason"] for decision in self.decisions]

    @property
    def verdicts(self) -> set[str]:
        return {decision["verdict"] for decision in self.decisions}

    def outcomes(self) -> int:
        return sum(row[3] for row in self.facts["versions"])


MATURING = "defaults: {labels: {mature_after: 10m}}"


# Clocks


def test_recording_with_times_in_seconds_is_refused_with_the_unit_named(tmp_path: Path) -> None:
    events = decay()
    assert "TARGET_BETTER" in Replayed(tmp_path, events, MATURING).reasons
    in_seconds = Replayed(tmp_path, [event | {"ts": event["ts"] // 1_000} for event in events], MATURING)
    assert (in_seconds.code, in_seconds.decisions) == (2, [])
    assert "are they seconds?" in in_seconds.errors


def test_model_that_answers_once_a_week_is_read_whole(tmp_path: Path) -> None:
    weeks = (pair(week, T0 + week * 7 * DAY_MS, 1, 1, lag=2 * DAY_MS) for week in range(52))
    found = Replayed(tmp_path, merged([deployed("v1")], *weeks))
    assert (found.rejected, found.outcomes()) == ({}, 52)


def test_batch_of_thirty_every_monday_is_read_whole(tmp_path: Path) -> None:
    weeks = (
        pair(f"{week}-{row}", T0 + week * 7 * DAY_MS + row * 1_000, 1, 1, lag=60_000)
        for week in range(20)
        for row in range(30)
    )
    found = Replayed(tmp_path, merged([deployed("v1")], *weeks))
    assert (found.rejected, found.outcomes()) == ({}, 600)


@pytest.mark.parametrize("place", [0, 1, 3_000])
def test_one_line_of_2096_is_refused_and_the_model_is_judged_as_without_it(tmp_path: Path, place: int) -> None:
    events = merged([deployed("v1")], steady(3_000))
    without = Replayed(tmp_path, events, MATURING)
    far = Replayed(tmp_path, [*events[:place], deployed("v9", ts=YEAR_2096), *events[place:]], MATURING)
    assert far.rejected == {"FUTURE_TS": 1}
    assert far.reasons == without.reasons != []
    assert far.facts["versions"] == without.facts["versions"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ('"2026-01-05T05:30:06.123456789+05:30"', True),
        ('"2026-01-05 00:00:07-00:00"', True),
        ('"2026-01-05T00:00:08"', False),
        ("1767571209000000", False),
        ("1767571210000000000", False),
        ("1767571211.5", False),
        ('"1767571212000"', False),
        ('"05/01/2026 00:00:13"', False),
        ('"2026-01-05T24:00:00Z"', False),
    ],
)
def test_time_that_is_neither_rfc_3339_nor_milliseconds_is_counted(tmp_path: Path, text: str, read: bool) -> None:
    event = b'{"type":"prediction","id":"a","model":"m","version":"v1","output":1,"ts":%b}\n' % text.encode()
    found = Replayed(tmp_path, json.dumps(deployed("v1")).encode() + b"\n" + event)
    assert found.rejected == ({} if read else {"BAD_TIME": 1})


# Files (other formats are in tests/unit/streams/recordings/test_file_formats.py)


def test_recording_of_a_windows_editor_is_read_from_its_first_line_on(tmp_path: Path) -> None:
    lines = "".join(json.dumps(event) + "\r\n" for event in [deployed("v1"), *pair("a", T0 + 1, 1, 1)])
    found = Replayed(tmp_path, b"\xef\xbb\xbf" + lines.encode())
    assert (found.rejected, [row[:4] for row in found.facts["versions"]]) == ({}, [["m", "v1", "live", 1]])


def test_recording_whose_line_ends_were_converted_is_a_difference_that_is_named(tmp_path: Path) -> None:
    events = merged([deployed("v1")], steady(1_200))
    assert Replayed(tmp_path, events, end="\r\n").rejected == {}
    path, complete = tmp_path / "x.ndjson", tmp_path / "r.ndjson"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert CliRunner().invoke(main, ["-q", "replay", str(path), "--record", str(complete)]).exit_code == 0
    assert CliRunner().invoke(main, ["audit", str(complete)]).exit_code == 0
    complete.write_bytes(complete.read_bytes().replace(b"\n", b"\r\n"))
    converted = CliRunner().invoke(main, ["audit", str(complete)])
    assert (converted.exit_code, "first difference" in converted.stdout) == (1, True)


def test_numbers_that_json_or_a_double_cannot_hold_are_counted_and_the_good_line_joins(tmp_path: Path) -> None:
    outputs = [b'1,"score":NaN', b"Infinity", b"1e400", b"-9223372036854775808"]
    line = b'{"type":"prediction","id":"%d","model":"m","version":"v1","ts":1767571200000,"output":%b}\n'
    odd = b"".join(line % (number, output) for number, output in enumerate(outputs))
    good = "".join(json.dumps(event) + "\n" for event in pair("e", T0, 1, 1.0)).encode()
    found = Replayed(tmp_path, json.dumps(deployed("v1")).encode() + b"\n" + odd + good)
    assert (found.rejected, found.outcomes()) == ({"BAD_JSON": 2, "NUMBER_OUT_OF_RANGE": 2}, 1)


# Labels


@pytest.mark.parametrize(("loss", "no"), [("recall", 0), ("precision", -1)])
def test_decay_is_found_whatever_no_is_written_as(tmp_path: Path, loss: str, no: int) -> None:
    rng, events = random.Random(5), [deployed("v1")]
    for number in range(4_000):
        first = 1 if rng.random() < 0.5 else no
        second = no if first == 1 and rng.random() < (0.05 if number < 2_000 else 0.9) else first
        output, truth = (second, first) if loss == "recall" else (first, second)
        events += pair(number, T0 + number * 1_000, output, truth)
    assert "DEGRADED" in Replayed(tmp_path, events, f"defaults: {{losses: [{loss}]}}").verdicts


@pytest.mark.parametrize(
    "draw",
    [lambda rng: (2.7, 1), lambda rng: (93, 1), lambda rng: (10 + rng.gauss(0, 1), 10 + rng.gauss(0, 1))],
    ids=["margins", "percents", "a regression"],
)
def test_answers_that_are_no_class_are_an_error_and_not_healthy(
    tmp_path: Path, draw: Callable[[random.Random], tuple[float, float]]
) -> None:
    rng = random.Random(1)
    events = [event for number in range(2_500) for event in pair(number, T0 + number * 1_000, *draw(rng))]
    found = Replayed(tmp_path, [deployed("v1"), *events])
    assert "ERROR" in found.reasons or any(code.startswith("UNUSABLE") for code in found.rejected)
    assert found.decisions[-1]["verdict"] != "HEALTHY"


@pytest.mark.parametrize(
    ("draw", "count", "error"),
    [
        (lambda rng, i: (10 + rng.gauss(0, 1), 10 if i % 500 else 1e308), 3_000, False),
        (lambda rng, i: (1e308 if i % 2 else -1e308, -1e308), 3_000, False),
        (lambda rng, i: ("10.5", 10), 1_500, True),
        (lambda rng, i: (True, 1), 1_500, True),
    ],
    ids=["outliers", "both signs", "text", "booleans"],
)
def test_regression_with_absurd_numbers_stays_bounded_and_without_numbers_is_an_error(
    tmp_path: Path, draw: Callable[[random.Random, int], tuple[Any, Any]], count: int, error: bool
) -> None:
    rng = random.Random(1)
    events = [event for i in range(count) for event in pair(i, T0 + i * 1_000, *draw(rng, i))]
    config = "defaults: {target: {kind: regression}, losses: [{squared: {scale: 10}}]}"
    found = Replayed(tmp_path, [deployed("v1"), *events], config)
    assert ("ERROR" in found.reasons) == error
    assert "DEGRADED" not in found.verdicts
    assert "NaN" not in msgspec.json.encode(found.decisions).decode()


# The configuration (its twins are in tests/unit/streams/config/test_parse.py)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("models: {no: {worse_by: 0.1}}", "quotes"),
        ("models: {1.10: {worse_by: 0.1}}", "quotes"),
        ("defaults: {worse_by: 010}", "worse_by"),
        ("defaults: {labels: {mature_after: 1:30}}", "mature_after"),
        ("defaults: {losses: [zero_one], losses: [brier]}", "twice"),
        ("\ufeffdefaults: {worse_by: 0.1}\r", ""),
        ("defaults: {worse_by: 0,02}", "worse_by"),
        ("defaults: {policy: {mode: off}}", "mode"),
        ('models: {"": {worse_by: 0.1}}', "empty"),
        ("defaults: {one_false_alarm_per: 1e6}", ""),
        ("defaults: {one_false_alarm_per: 1e-5}", "number of outcomes"),
        ('log: "embedded:${NOPE:-data}"', ""),
        ('log: "embedded:${HOME"', "`${` begins no variable"),
        ('log: "embedded:${}"', "`${` begins no variable"),
        ('log: "embedded:${NOPE}"', "NOPE is not set"),
    ],
)
def test_surprise_of_yaml_is_taken_as_it_is_meant_or_explained(tmp_path: Path, text: str, sentence: str) -> None:
    found = Replayed(tmp_path, [deployed("v1")], text)
    assert (found.code, sentence in found.errors) == (2 if sentence else 0, True)


# Processes


def test_interrupted_replay_ends_as_interrupted_and_not_as_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("console.commands.replay.replay_command", interrupted)
    result = CliRunner().invoke(main, ["replay", "-"])
    assert (result.exit_code, "Traceback" in result.stderr) == (130, False)


def test_reader_of_a_pipe_that_leaves_ends_the_replay_quietly(tmp_path: Path) -> None:
    (tmp_path / "x.ndjson").write_text("".join(json.dumps(event) + "\n" for event in decay(1_500, 2_500)))
    with subprocess.Popen(
        [UNSHIP, "-q", "replay", "x.ndjson"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(timeout=HANG_S)
    assert process.returncode in (0, 141)
    assert b"cannot be read" not in errors
