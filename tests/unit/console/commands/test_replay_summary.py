"""The end of a replay: a row for each version, the first refused lines, and likely mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from console.cli import main

TS = 1_700_000_000_000


def pair(number: int, version: str, wrong: bool = False) -> list[dict[str, Any]]:
    event = {"type": "prediction", "id": f"p{number}", "model": "m", "version": version, "output": 1, "ts": TS + number}
    return [event, {"type": "feedback", "id": f"p{number}", "truth": int(not wrong), "ts": TS + number}]


def replayed(folder: Path, lines: list[Any], config: str = "", *options: str) -> Result:
    path, configured = folder / "x.ndjson", folder / "c.yaml"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    configured.write_text(config or "{}")
    return CliRunner().invoke(main, ["-c", str(configured), *options, "replay", str(path)])


DEPLOYED = {"type": "deployment", "model": "m", "version": "v1", "status": "live", "ts": TS}
GOOD = [DEPLOYED, *(event for number in range(20) for event in pair(number, "v1"))]


def test_each_version_has_a_row_and_one_without_a_deployment_is_judged_next_to_the_live_one(tmp_path: Path) -> None:
    lines = GOOD + [event for number in range(20, 25) for event in pair(number, "v2")]
    rows = replayed(tmp_path, lines).stderr.splitlines()
    (first,), (second,) = ([row.split() for row in rows if row.startswith(f"m      {v}")] for v in ("v1", "v2"))
    assert first == ["m", "v1", "live", "20", "LEARNING"]
    assert second == ["m", "v2", "also", "live", "5", "LEARNING"]


def test_first_refused_lines_of_each_code_are_shown_with_number_and_field(tmp_path: Path) -> None:
    bad = [{"type": "prediction", "id": 3}] * 7
    shown = replayed(tmp_path, [*GOOD, *bad, "{"]).stderr
    assert [f"line {number}: BAD_EVENT" in shown for number in range(42, 49)] == [True] * 5 + [False] * 2
    assert "$.id" in shown
    assert "line 49: BAD_JSON" in shown


def test_model_that_only_the_configuration_names_is_remarked(tmp_path: Path) -> None:
    shown = replayed(tmp_path, GOOD, "models: {fraud: {}}").stderr
    assert "model fraud of the configuration is in no line; models in the lines: m" in shown


@pytest.mark.parametrize(("bad", "code"), [(41, 0), (42, 1)])
def test_replay_of_mostly_useless_lines_is_a_finding(tmp_path: Path, bad: int, code: int) -> None:
    result = replayed(tmp_path, [*GOOD, *["{"] * bad])
    assert (result.exit_code, "more than half" in result.stderr) == (code, bool(code))


def test_labels_before_their_predictions_are_remarked_as_an_order_that_is_not_of_time(tmp_path: Path) -> None:
    lines = [event for number in range(20) for event in pair(number, "v1")]
    later = [line | {"ts": line["ts"] + 3_600_000} if line["type"] == "prediction" else line for line in lines]
    result = replayed(tmp_path, [DEPLOYED, *sorted(later, key=lambda line: line["ts"])])
    assert "are the lines in order of time" in result.stderr


def test_summary_as_json_has_the_same_rows(tmp_path: Path) -> None:
    found = json.loads(replayed(tmp_path, [*GOOD, "{"], "", "--json").stderr)
    assert [row[:4] for row in found["versions"]] == [["m", "v1", "live", 20]]
    assert [row[:2] for row in found["refused"]] == [[42, "BAD_JSON"]]
