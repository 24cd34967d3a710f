"""The list of decisions, and options that are taken before and after the name of a command."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actions.evidence_tree import Evidence
from actions.journal import decision_bytes
from actions.reasons import Action, Reason
from console.cli import main
from tests.decisions import decision

DECISIONS = [
    decision(Evidence(), id="d-1", ts=1_000, action=Action.NONE, reason=Reason.CONFIRMING),
    decision(Evidence(), id="d-2", ts=2_000, action=Action.ROLLBACK, to="v1", slice={"country": "DE"}),
    decision(Evidence(), id="d-3", ts=3_000, model="other\x1b[2J", action=Action.PAGE, reason=Reason.BLIND),
    decision(Evidence(), id="d-4", ts=4_000, action=Action.NONE, reason=Reason.HEALTHY),
]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "decisions.ndjson"
    path.write_bytes(b"\n".join([b"not a decision", b'{"type":"decision"', *map(decision_bytes, DECISIONS)]))
    return path


def listed(*arguments: str) -> list[str]:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_every_decision_has_a_line_that_cannot_steer_a_terminal(journal: Path) -> None:
    lines = listed("decisions", "--in", str(journal))
    assert [line.split()[1] for line in lines] == ["d-1", "d-2", "d-3", "d-4"]
    assert "v2 -> v1" in lines[1]
    assert "(country=DE)" in lines[1]
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["m"], ["d-1", "d-2", "d-4"]),
        (["--action", "rollback"], ["d-2"]),
        (["--since", "1970-01-01T00:00:03Z"], ["d-3", "d-4"]),
        (["m", "--action", "page"], []),
    ],
)
def test_decisions_are_chosen_by_model_action_and_time(journal: Path, arguments: list[str], found: list[str]) -> None:
    assert [line.split()[1] for line in listed("decisions", *arguments, "--in", str(journal))] == found


def test_decisions_as_json_are_the_bytes_of_the_journal(journal: Path) -> None:
    expected = [decision_bytes(each).decode() for each in DECISIONS]
    assert listed("decisions", "--json", "--in", str(journal)) == expected
    assert listed("--json", "decisions", "--in", str(journal)) == expected


def test_last_is_the_newest_act_and_not_the_return_of_health_after_it(journal: Path) -> None:
    assert "d-3" in run("explain", "last", "--in", str(journal)).stdout


def test_decision_that_is_not_there_is_answered_with_how_to_find_it(journal: Path) -> None:
    result = run("explain", "d-9", "--in", str(journal))
    assert result.exit_code == 2
    assert "there is no decision d-9; unship decisions lists all" in result.stderr


@pytest.mark.parametrize("before", [True, False])
def test_option_is_taken_before_and_after_the_name_of_a_command(tmp_path: Path, before: bool) -> None:
    options = ["--log", f"embedded:{tmp_path}/nowhere", "--json"]
    result = run(*options, "status") if before else run("status", *options)
    assert (result.exit_code, "nowhere: there is no log" in result.stderr) == (2, True)


def test_option_after_the_name_is_taken_instead_of_the_one_before_it(tmp_path: Path) -> None:
    result = run("--log", "embedded:first", "keys", "new", "--log", "embedded:second", "--help")
    assert result.exit_code == 0
    result = run("--log", f"embedded:{tmp_path}/first", "status", "--log", f"embedded:{tmp_path}/second")
    assert "second: there is no log" in result.stderr
