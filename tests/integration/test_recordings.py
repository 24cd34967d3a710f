"""Record, replay, audit and explain on a log that a monitor lived through: real processes, exit codes, sentences."""

import gzip
import json
import subprocess
from pathlib import Path

import pytest

from tests.commands import unship
from tests.sites import Played, play


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Played]:
    """A folder with a log, its keys, a configuration that names them, and the recording."""
    folder = tmp_path_factory.mktemp("site")
    lived = play(folder, 1)
    (folder / "unship.yaml").write_text("log: embedded:./log\nkeys: ./keys\n")
    done = unship("record", "taken.ndjson", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert b"record: taken.ndjson, " in done.stderr
    return folder, lived


def journal(lived: Played) -> bytes:
    return b"".join(value + b"\n" for value in lived.journal())


def test_recording_is_the_same_in_a_file_packed_and_on_standard_output(site: tuple[Path, Played]) -> None:
    folder, _ = site
    lines = (folder / "taken.ndjson").read_bytes()
    assert unship("record", "-", cwd=folder).stdout == lines
    assert unship("record", "taken.ndjson.gz", cwd=folder).returncode == 0
    assert gzip.decompress((folder / "taken.ndjson.gz").read_bytes()) == lines
    facts = json.loads(unship("--json", "record", "again.ndjson", cwd=folder).stdout)
    assert facts["bytes"] == len(lines)
    assert facts["lines"]["predictions"] == lines.count(b',"at":["predictions",')


@pytest.mark.parametrize("source", ["taken.ndjson", "taken.ndjson.gz", "embedded:log", "-"])
def test_replay_and_audit_read_a_recording_and_the_log_alike(site: tuple[Path, Played], source: str) -> None:
    folder, lived = site
    unship("record", "taken.ndjson.gz", cwd=folder)
    stdin = (folder / "taken.ndjson").read_bytes() if source == "-" else None
    assert unship("replay", source, cwd=folder, stdin=stdin).stdout == journal(lived)
    done = unship("audit", source, cwd=folder, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"decisions, and " in done.stdout


def test_stopped_replay_of_a_recording_goes_on_from_its_snapshot(site: tuple[Path, Played], tmp_path: Path) -> None:
    folder, lived = site
    first = unship("replay", "taken.ndjson", "--stop-after", 3_000, "--save", tmp_path / "half", cwd=folder)
    rest = unship("replay", "taken.ndjson", "--from", tmp_path / "half", cwd=folder)
    assert first.stdout + rest.stdout == journal(lived)


def test_explain_reads_the_log_and_names_what_the_decision_rests_on(site: tuple[Path, Played]) -> None:
    folder, lived = site
    wanted = next(d["id"] for d in map(json.loads, journal(lived).splitlines()) if d["action"] == "rollback")
    pages = [
        unship("explain", wanted, cwd=folder).stdout,
        unship("--log", "embedded:log", "explain", wanted, cwd=folder).stdout,
        unship("explain", wanted, "--in", "embedded:log", cwd=folder).stdout,
        unship("explain", wanted, "--in", "taken.ndjson", cwd=folder).stdout,
    ]
    assert pages[0].startswith(b"m was taken back from v2 to v1: ")
    assert b"proof     predictions[0]@0.." in pages[0]
    assert pages.count(pages[0]) == len(pages)
    assert unship("explain", "last", cwd=folder).returncode == 0


@pytest.mark.parametrize("place", [0.02, 0.98])
def test_flipped_byte_in_the_configuration_or_its_place_is_found(site: tuple[Path, Played], place: float) -> None:
    folder, _ = site
    first, *rest = (folder / "taken.ndjson").read_bytes().splitlines(keepends=True)
    flipped = bytearray(first)
    flipped[int(place * len(flipped))] ^= 1
    done = unship("audit", "-", cwd=folder, stdin=bytes(flipped) + b"".join(rest))
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert b"first difference: " in done.stdout


def test_audit_of_one_decision_knows_those_after_the_first_difference(site: tuple[Path, Played]) -> None:
    folder, lived = site
    first, *_, last = (json.loads(line)["id"] for line in journal(lived).splitlines())
    lines = (folder / "taken.ndjson").read_bytes().replace(b'"action":"rollback"', b'"action":"rollbacK"')

    def audit(wanted: str) -> "subprocess.CompletedProcess[bytes]":
        return unship("audit", "-", "--decision", wanted, cwd=folder, stdin=lines)

    assert audit(first).returncode == 0
    assert audit(last).returncode == 1
    missing = audit("d-none")
    assert (missing.returncode, b"there is no decision d-none" in missing.stderr) == (2, True)


def test_wrong_use_ends_with_a_sentence_and_exit_code_2(site: tuple[Path, Played], tmp_path: Path) -> None:
    folder, _ = site
    for arguments, sentence in (
        (["record", "x.zst"], b".zst is not written yet"),
        (["record", "no/such/folder/x"], b"cannot be written"),
        (["record", "x", "--from", "2026-01-02T00:00:00Z", "--to", "5"], b"--from"),
        (["--log", "embedded:none", "record", "x"], b"there is no log in none"),
        (["audit", "embedded:none"], b"there is no log in none"),
        (["audit", "embedded:log", "--journal", "x"], b"--journal: "),
        (["explain", "d-0"], b"there is no decision d-0"),
    ):
        done = unship(*arguments, cwd=folder)
        assert done.returncode == 2, arguments
        assert sentence in done.stderr
        assert b"Traceback" not in done.stderr
    assert not list(folder.glob("x*"))
