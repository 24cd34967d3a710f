"""What a command writes is whole or not there, is no input, and is printed on whatever terminal there is."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import UNSHIP
from tests.waiting import HANG_S
from tests.worlds.busy import CONFIG, busy_lines
from unship.log.embedded.log import EmbeddedLog, Message

RUN = str(UNSHIP)


def run(
    folder: Path, *arguments: str, shell: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command, with redirections of a shell behind it."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {shell}', "sh", RUN, *arguments],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=HANG_S,
        check=False,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "unship.yaml").write_text(f"log: embedded:./log\n{CONFIG}")
    (tmp_path / "in.ndjson").write_bytes(b"".join(line + b"\n" for line in busy_lines(1, 300)))
    with EmbeddedLog(tmp_path / "log", fsync=False) as log:
        log.append("predictions", [Message(b'{"id":"p","model":"m","version":"v","output":1}', b"p")])
    return tmp_path


def _link(target: str) -> Callable[[Path], object]:
    return lambda place: (place / "out").symlink_to(target)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link to the input": (_link("in.ndjson"), "is a link"),
    "a link to nothing": (_link("nowhere"), "is a link"),
    "a link to a device": (_link("/dev/null"), "is a link"),
    "another name of the input": (lambda place: (place / "out").hardlink_to(place / "in.ndjson"), "is what is read"),
    "a pipe": (lambda place: os.mkfifo(place / "out"), "is a pipe"),
    "a folder": (lambda place: (place / "out").mkdir(), "is a folder"),
}


@pytest.mark.parametrize("option", ["--save", "--record"])
@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=list(REFUSED))
def test_output_that_is_no_file_of_its_own_is_refused(
    place: Path, option: str, make: Callable[[Path], object], message: str
) -> None:
    make(place)
    before = (place / "in.ndjson").read_bytes()
    done = run(place, "replay", "in.ndjson", option, "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"unship: {option}: out {message}")
    assert (place / "in.ndjson").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "shell"),
    [
        (("replay", "in.ndjson", "--record", "in.ndjson"), ""),
        (("replay", "in.ndjson", "--save", "./x/../in.ndjson"), ""),
        (("replay", "-", "--record", "in.ndjson"), "< in.ndjson"),
        (("replay", "in.ndjson", "--save", "unship.yaml"), ""),
        (("-c", "unship.yaml", "replay", "in.ndjson", "--record", "unship.yaml"), ""),
        (("replay", "in.ndjson", "--save", "same", "--record", "same"), ""),
        (("replay", "in.ndjson"), ">> in.ndjson"),
        (("replay", "in.ndjson", "--record", "/dev/stdout"), ""),
        (("replay", "in.ndjson", "--save", "/dev/null"), ""),
        (("record", "log/log.sqlite3"), ""),
        (("record", "log/log.sqlite3-wal"), ""),
        (("record", "unship.yaml"), ""),
        (("record", "/dev/full"), ""),
        (("record", "missing/out"), ""),
        (("demo", "--record", "/dev/full"), ""),
        (("demo", "--record", "log"), ""),
    ],
)
def test_output_never_replaces_what_is_read_or_a_device(place: Path, arguments: tuple[str, ...], shell: str) -> None:
    (place / "x").mkdir()
    kept = ("in.ndjson", "unship.yaml", "log/log.sqlite3")
    before = [(place / name).read_bytes() for name in kept]
    done = run(place, *arguments, shell=shell)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("unship: ")
    assert [(place / name).read_bytes() for name in kept] == before
    assert sorted(path.name for path in place.glob(".*")) == []


def test_output_takes_the_place_of_a_file_only_when_it_is_whole(place: Path) -> None:
    (place / "out").write_text("before")
    (place / "out.part").write_text("of somebody else")
    (place / "bad.ndjson").write_bytes(b"\xff\n" * 10 + b"{" * 40_000_000)
    failed = run(place, "replay", "bad.ndjson", "--record", "out")
    assert failed.returncode in (1, 2)
    if failed.returncode == 2:
        assert (place / "out").read_text() == "before"
    done = run(place, "replay", "in.ndjson", "--record", "out", "--save", "saved")
    assert done.returncode == 0, done.stderr
    assert (place / "out").read_bytes().count(b"\n") > 300
    assert [oct((place / name).stat().st_mode & 0o777) for name in ("out", "saved")] == ["0o600", "0o600"]
    assert (place / "out.part").read_text() == "of somebody else"
    again = run(place, "replay", "in.ndjson", "--from", "saved", "--save", "saved")
    assert again.returncode == 2


@pytest.mark.parametrize("command", [("schema", "events"), ("replay", "in.ndjson"), ("record", "-"), ("--help",)])
def test_full_standard_output_is_one_line_and_no_traceback(place: Path, command: tuple[str, ...]) -> None:
    (place / "unship.yaml").write_text("defaults: {one_false_alarm_per: 100, worse_by: 0.0}\nlog: embedded:./log\n")
    done = run(place, *command, shell="> /dev/full")
    if command[0] == "replay" and done.returncode == 0:
        # Nothing was decided, so nothing was written.
        return
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (
        2,
        "unship: standard output: No space left on device",
    )
    assert "Traceback" not in done.stderr


def test_closed_standard_output_is_refused_before_a_file_can_take_its_number(place: Path) -> None:
    done = run(place, "status", shell=">&-")
    assert (done.returncode, done.stderr) == (
        2,
        "unship: standard output is closed; redirect it, to /dev/null if it is not wanted\n",
    )
    assert run(place, "schema", "events", shell="2>&-").returncode == 0


def test_names_that_a_terminal_cannot_show_are_escaped(place: Path) -> None:
    with EmbeddedLog(place / "log", fsync=False) as log:
        event = {"id": "q", "model": "modèle-日本", "version": "v→2", "output": 1}
        log.append("predictions", [Message(json.dumps(event).encode(), b"q")])
    ascii_only = {"PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C"}
    for arguments in (("emit", "prediction", "{"), ("explain", "モ"), ("replay", "fehlt-ü.ndjson"), ("record", "ü/ü")):
        done = run(place, *arguments, environment=ascii_only)
        assert done.returncode in (1, 2)
        assert (done.stderr.count("\n"), "Traceback" in done.stderr) == (1, False)
