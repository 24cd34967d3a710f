"""The demo as its user sees it: processes that answer, judge and obey, and are gone when it is."""

import json
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.commands import UNSHIP, unship
from tests.demos import ENDS, wrong
from tests.waiting import HANG_S, until

FAST = ("--no-web", "--speed", "1000")


def answer_of(*arguments: object, cwd: Path) -> dict[str, Any]:
    done = unship("demo", "--json", *FAST, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.count(b"\n") == 1
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def decay(folder: Path) -> dict[str, Any]:
    return answer_of("--record", "decay.ndjson", cwd=folder)


def test_decayed_version_is_taken_back_by_every_replica(decay: dict[str, Any]) -> None:
    assert wrong(ENDS["decay"], decay["decisions"]) == []
    rollback = decay["decisions"][-1]
    # The replicas' own answers say so: the version, and the epoch of the command that they obey.
    assert decay["replicas"] == {name: {"version": "v41", "epoch": rollback["epoch"]} for name in ("r-1", "r-2", "r-3")}
    assert decay["converged"] is True
    assert decay["audit"] == {"decisions": len(decay["decisions"]), "reproduced": len(decay["decisions"])}
    assert decay["events"] > 50_000
    # What a replica answers between a decision and its command is the only thing out of the ordinary.
    assert set(decay["rejected"]) <= {"AFTER_MATURITY", "NOT_JUDGED", "ROLE_MISMATCH", "STILL_SERVED"}


def test_recording_replays_to_the_journal_and_can_be_audited(decay: dict[str, Any], folder: Path) -> None:
    assert decay["recording"] == "decay.ndjson"
    lines = (folder / "decay.ndjson").read_bytes().splitlines(keepends=True)
    journal = [json.loads(line) for line in lines if line.startswith(b'{"type":"decision"')]
    assert [{name: value for name, value in each.items() if name not in ("at", "raw")} for each in journal] == decay[
        "decisions"
    ]
    replayed = unship("-q", "replay", "decay.ndjson", cwd=folder).stdout
    assert [json.loads(line) for line in replayed.splitlines()] == decay["decisions"]
    assert unship("audit", "decay.ndjson", cwd=folder).returncode == 0


def test_version_that_decays_alone_ends_as_named(folder: Path) -> None:
    summary = answer_of("--no-holdback", cwd=folder)
    assert wrong(ENDS["decay --no-holdback"], summary["decisions"]) == []
    assert {replica["version"] for replica in summary["replicas"].values()} == {"v42"}
    assert summary["converged"] is True


def test_demo_in_words_ends_with_one_plain_sentence(folder: Path) -> None:
    done = unship("demo", *FAST, "--scenario", "late-labels", "--seed", 2, "--record", "late.ndjson", cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    shown = done.stdout.decode().splitlines()
    assert shown[-1] == "No action was taken: in 41125 predictions there is no sign that a version got worse."
    assert b"mature_after: 1h" in done.stderr
    assert b"v42 was released; all 3 replicas serve it" in done.stderr


def children(parent: int) -> list[int]:
    """Return the processes that a process started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
        except OSError:
            continue
        if fields and int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def gone(processes: list[int]) -> bool:
    return not any(Path(f"/proc/{process}").exists() for process in processes)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks the kernel for processes through /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ended_demo_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [str(UNSHIP), "demo", "--no-web", "--record", str(tmp_path / "kept.ndjson")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if b"v41 was released" in line:
                break
        processes = children(demo.pid)
        (place,) = tmp_path.glob("unship-demo-*")
        check_keys(place)
        demo.send_signal(number)
        demo.communicate(timeout=HANG_S)
    assert len(processes) == 5
    until(lambda: gone(processes))
    if number != signal.SIGKILL:
        # Killed, nobody is left to clear up: the folder stays closed to others.
        assert list(tmp_path.glob("unship-demo-*")) == []


def check_keys(place: Path) -> None:
    """Nobody else may look in, and what replicas are given holds no private key."""
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    keys = place / "monitor" / "unship-keys"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert stat.S_IMODE((keys / "controller.key").stat().st_mode) == 0o600
    for name in ("r-1", "r-2", "r-3"):
        assert {path.name for path in (place / name).iterdir()} == {"trust.json", f"{name}.log"}
    given = [path for name in ("log", "r-1", "r-2", "r-3", "labels") for path in (place / name).rglob("*")]
    assert not [path for path in given if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]


def test_demo_of_an_unknown_scenario_lists_those_there_are(tmp_path: Path) -> None:
    done = unship("demo", "--scenario", "nope", cwd=tmp_path)
    assert done.returncode == 2
    assert b"mix-shift" in done.stderr


def test_demo_lists_its_scenarios(tmp_path: Path) -> None:
    done = unship("demo", "--scenario", "list", cwd=tmp_path)
    assert (done.returncode, b"  poison: " in done.stdout) == (0, True)
