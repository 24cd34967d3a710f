"""The command line as people use it: real processes, real recordings, exit codes and sentences."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import pytest

from tests.commands import unship
from tests.worlds.busy import CONFIG, busy_lines


@pytest.fixture(scope="module")
def decay(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the events of a decaying model, its configuration, and the complete recording of its replay."""
    folder = tmp_path_factory.mktemp("decay")
    lines = busy_lines(1, model="fraud")
    (folder / "events.ndjson").write_bytes(b"".join(line.rstrip(b"\n") + b"\n" for line in lines))
    (folder / "unship.yaml").write_text(CONFIG.replace("losses:", "worse_by: 0.02, losses:"))
    done = unship("replay", "events.ndjson", "--record", "complete.ndjson", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "decisions.ndjson").write_bytes(done.stdout)
    return folder


def acts(lines: bytes) -> list[tuple[str, str, str | None]]:
    return [(entry["action"], entry["reason"], entry["to"]) for entry in map(json.loads, lines.splitlines())]


def test_replay_prints_one_decision_per_line_and_takes_the_decayed_version_back(decay: Path) -> None:
    decisions = (decay / "decisions.ndjson").read_bytes()
    assert acts(decisions)[-2:] == [("none", "CONFIRMING", None), ("rollback", "TARGET_BETTER", "v1")]


def test_replay_reads_gzip_and_standard_input_alike(decay: Path) -> None:
    events = (decay / "events.ndjson").read_bytes()
    (decay / "events.ndjson.gz").write_bytes(gzip.compress(events, 1))
    expected = (decay / "decisions.ndjson").read_bytes()
    assert unship("replay", "events.ndjson.gz", cwd=decay).stdout == expected
    assert unship("replay", "-", cwd=decay, stdin=events).stdout == expected


def test_replay_of_a_complete_recording_needs_no_configuration_and_says_so_if_given_another(decay: Path) -> None:
    (decay / "other.yaml").write_text("models: {fraud: {worse_by: 0.5}}")
    done = unship("-c", "other.yaml", "replay", "complete.ndjson", cwd=decay)
    assert done.stdout == (decay / "decisions.ndjson").read_bytes(), done.stderr
    assert b"the recording's own configuration was used" in done.stderr


def test_stopped_replay_goes_on_from_its_snapshot(decay: Path, tmp_path: Path) -> None:
    saved = tmp_path / "half.snapshot"
    first = unship("replay", "events.ndjson", "--stop-after", 2_000, "--save", saved, cwd=decay)
    rest = unship("replay", "events.ndjson", "--from", saved, cwd=decay)
    assert first.stdout + rest.stdout == (decay / "decisions.ndjson").read_bytes()


def test_snapshot_of_another_configuration_is_refused_with_both_digests(decay: Path, tmp_path: Path) -> None:
    saved = tmp_path / "half.snapshot"
    unship("replay", "events.ndjson", "--stop-after", 100, "--save", saved, cwd=decay)
    (tmp_path / "other.yaml").write_text("models: {fraud: {worse_by: 0.5}}")
    done = unship("-c", tmp_path / "other.yaml", "replay", "events.ndjson", "--from", saved, cwd=decay)
    assert done.returncode == 2
    assert b"was saved under configuration" in done.stderr


def test_until_lets_time_pass_after_the_last_line(tmp_path: Path) -> None:
    lines = [
        {"type": "prediction", "id": f"p{i}", "model": "m", "version": "v1", "output": 1, "ts": 1_772_409_600_000 + i}
        for i in range(10)
    ]
    lines += [{"type": "feedback", "id": f"p{i}", "truth": 1, "ts": 1_772_409_600_100 + i} for i in range(10)]
    (tmp_path / "r.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "unship.yaml").write_text("models: {m: {labels: {mature_after: 1h}}}")
    assert unship("replay", "r.ndjson", cwd=tmp_path).stdout == b""
    late = unship("replay", "r.ndjson", "--until", "2026-03-03T00:00:00Z", cwd=tmp_path)
    assert acts(late.stdout) == [("none", "LEARNING", None)]


def test_audit_reproduces_a_complete_recording(decay: Path) -> None:
    done = unship("audit", "complete.ndjson", cwd=decay)
    assert done.returncode == 0
    assert done.stdout.startswith(b"4 of 4 decisions, and ")
    as_json = json.loads(unship("--json", "audit", "complete.ndjson", cwd=decay).stdout)
    assert as_json == {"decisions": 4, "reproduced": 4, "first_difference": None}


def test_audit_takes_events_and_decisions_from_two_files_or_from_one(decay: Path) -> None:
    two = unship("-c", "unship.yaml", "audit", "events.ndjson", "--journal", "decisions.ndjson", cwd=decay)
    both = (decay / "events.ndjson").read_bytes() + (decay / "decisions.ndjson").read_bytes()
    one = unship("-c", "unship.yaml", "audit", "-", cwd=decay, stdin=both)
    assert (two.returncode, one.returncode) == (0, 0)
    assert two.stdout == one.stdout == b"4 of 4 decisions reproduced bit for bit\n"


def test_audit_without_the_journal_finds_the_decisions_that_are_missing(decay: Path) -> None:
    done = unship("audit", "events.ndjson", cwd=decay)
    assert done.returncode == 1
    assert b"the decision is absent in the recording" in done.stdout


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (b'"type":"prediction"', b"predictions"),
        (b'"type":"feedback"', b"feedback"),
        (b'"type":"deployment"', b"deployments[0]@"),
        (b'"type":"decision"', b"decision d-"),
        (b'"kind":"batch"', b"ledger record"),
        (b'"worse_by":0.02', b"ledger record 0 (configured)"),
    ],
)
def test_audit_names_the_first_difference_where_a_byte_was_flipped(decay: Path, kind: bytes, named: bytes) -> None:
    lines = (decay / "complete.ndjson").read_bytes().splitlines(keepends=True)
    where = next(i for i, line in enumerate(lines) if kind in line and i != 1)
    flipped = bytearray(lines[where])
    # A digit keeps the line readable: the flip must be found, not only a line that cannot be parsed.
    at = next(i for i in range(flipped.index(kind) + len(kind) - 1, len(flipped)) if flipped[i] in b"02468")
    flipped[at] += 1
    lines[where] = bytes(flipped)
    done = unship("audit", "-", cwd=decay, stdin=b"".join(lines))
    assert done.returncode == 1, done.stdout
    assert b"first difference: " in done.stdout
    assert named in done.stdout


def test_audit_under_another_configuration_names_the_configuration(decay: Path) -> None:
    (decay / "strict.yaml").write_text((decay / "unship.yaml").read_text().replace("0.02", "0.03"))
    done = unship("-c", "strict.yaml", "audit", "events.ndjson", "--journal", "decisions.ndjson", cwd=decay)
    assert done.returncode == 1
    assert b"digests.config" in done.stdout


def test_audit_of_one_decision_counts_only_that_one(decay: Path) -> None:
    *_, first, second = (json.loads(line)["id"] for line in (decay / "decisions.ndjson").read_bytes().splitlines())
    lines = (decay / "complete.ndjson").read_bytes().replace(f'"id":"{second}"'.encode(), b'"id":"d-x"')
    assert unship("audit", "-", "--decision", first, cwd=decay, stdin=lines).returncode == 0
    assert unship("audit", "-", "--decision", second, cwd=decay, stdin=lines).returncode == 1
    assert unship("audit", "-", "--decision", "d-none", cwd=decay, stdin=lines).returncode == 2


def test_explain_says_on_one_page_why(decay: Path) -> None:
    done = unship("explain", "last", "--in", "decisions.ndjson", cwd=decay)
    text = done.stdout.decode()
    assert text.startswith("fraud was taken back from v2 to v1: ")
    for word in ("verdict", "reason", "why", "would going back help?", "source", "slice", "labels", "proof"):
        assert word in text
    assert len(text.splitlines()) <= 40


def test_explain_of_a_decision_that_does_not_exist_is_refused(decay: Path) -> None:
    done = unship("explain", "d-0", "--in", "decisions.ndjson", cwd=decay)
    assert (done.returncode, b"there is no decision d-0" in done.stderr) == (2, True)


@pytest.mark.parametrize("what", ["events", "config", "decision"])
def test_schema_is_a_valid_json_schema(what: str) -> None:
    schema = json.loads(unship("schema", what).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)


def test_version_names_everything_decisions_can_depend_on() -> None:
    facts = json.loads(unship("--json", "version").stdout)
    assert {"unship-monitor", "unship", "fold", "python", "numpy", "river"} <= facts.keys()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["replay", "missing.ndjson"], b"missing.ndjson: cannot be read"),
        (["audit", "missing.ndjson"], b"missing.ndjson: cannot be read"),
        (["-c", "missing.yaml", "replay", "-"], b"missing.yaml: cannot be read"),
        (["replay", "-", "--until", "soon"], b"--until: expected milliseconds or RFC 3339"),
        (["replay", "-", "--until", "2026-01-01T00:00:00"], b"has no time zone"),
        (["replay", "-", "--until", "5", "--stop-after", "3"], b"exclude each other"),
        (["replay", "-", "--from", "missing.snapshot"], b"missing.snapshot: cannot be read"),
        (["explain", "last"], b"there is no log in unship-data"),
        (["replay", "-", "--record", "no/such/folder/r"], b"cannot be written"),
    ],
)
def test_wrong_use_ends_with_a_sentence_and_exit_code_2(
    tmp_path: Path, arguments: Sequence[str], sentence: bytes
) -> None:
    done = unship(*arguments, cwd=tmp_path, stdin=b"")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert b"Traceback" not in done.stderr


def test_unknown_key_in_the_configuration_is_named_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "unship.yaml").write_text("models: {fraud: {labels: {horizn: 7d}}}")
    done = unship("replay", "-", cwd=tmp_path, stdin=b"")
    assert done.returncode == 2
    assert b"unship.yaml: models.fraud.labels: " in done.stderr
    assert b"horizn" in done.stderr


def test_broken_gzip_is_an_error_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "r.ndjson.gz").write_bytes(gzip.compress(b"x" * 100_000)[:50])
    done = unship("replay", "r.ndjson.gz", cwd=tmp_path)
    assert (done.returncode, b"cannot be read" in done.stderr) == (2, True)
