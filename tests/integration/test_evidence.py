"""Commands on what others wrote: nothing in the folder it lies in is loaded or imported, and no file of it changes."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from streams.config.parse import parse
from tests.commands import UNSHIP
from tests.sites import Site
from tests.waiting import HANG_S
from tests.worlds.busy import CONFIG, busy_lines
from unship.log.embedded.file import FILE_NAME

OWN_LOSS = 'models: {m: {losses: ["own_loss:fn"], target: {kind: custom}}}\n'
DECLARED = 'models: {m: {losses: ["this:x"], target: {kind: custom}}}\n'


def run(folder: Path, *arguments: str, path: bool = False) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"} if path else dict(os.environ)
    return subprocess.run(
        [str(UNSHIP), *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=HANG_S, check=False
    )


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder."""
    return shutil.copytree(made, tmp_path / "bundle")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a recording, a log, and a module that leaves a mark when it is imported."""
    tmp_path = tmp_path_factory.mktemp("made")
    (tmp_path / "own_loss.py").write_text(
        "import pathlib\npathlib.Path(__file__).with_name('imported').touch()\ndef fn(o, t, s): return [0.0] * len(o)\n"
    )
    (tmp_path / "named.yaml").write_text(OWN_LOSS)
    events = [
        {"type": kind, "id": f"p{i}", "ts": 1_767_600_000_000 + i, **rest}
        for i in range(50)
        for kind, rest in (("prediction", {"model": "m", "version": "v", "output": 1}), ("feedback", {"truth": 1}))
    ]
    (tmp_path / "events.ndjson").write_text("".join(json.dumps(event) + "\n" for event in events))
    done = run(tmp_path, "-c", "named.yaml", "replay", "events.ndjson", "--record", "rec.ndjson", path=True)
    assert done.returncode == 0, done.stderr
    (tmp_path / "imported").unlink()
    site = Site(tmp_path / "log", busy_lines(1), parse(CONFIG))
    site.send(200)
    site.monitor().step()
    site.log.close()
    return tmp_path


@pytest.mark.parametrize("lying", [OWN_LOSS, DECLARED, "log: [\n"])
@pytest.mark.parametrize(
    "command",
    [
        ["audit", "rec.ndjson"],
        ["replay", "rec.ndjson"],
        ["explain", "last", "--in", "rec.ndjson"],
        ["audit", "embedded:./log"],
        ["replay", "embedded:./log"],
        ["explain", "last", "--in", "embedded:./log"],
        ["--log", "embedded:./log", "record", "-"],
        ["--log", "embedded:./log", "status"],
    ],
)
def test_configuration_that_lies_in_the_folder_is_not_read(bundle: Path, command: list[str], lying: str) -> None:
    (bundle / "unship.yaml").write_text(lying)
    done = run(bundle, "-q", *command, path=True)
    assert not (bundle / "imported").exists()
    assert "Zen" not in done.stdout + done.stderr
    assert "unship.yaml" not in done.stderr
    assert "Traceback" not in done.stderr
    # Nobody writes the status of a log that was handed over, so it is stale.
    assert done.returncode in ((1, 2) if "status" in command else (0, 2))


@pytest.mark.parametrize("command", [["record", "-"], ["status"], ["explain", "last"]])
def test_own_log_is_found_by_the_configuration_of_the_folder_without_importing_losses(
    bundle: Path, command: list[str]
) -> None:
    (bundle / "unship.yaml").write_text(f"log: embedded:./log\n{OWN_LOSS}")
    done = run(bundle, "-q", *command, path=True)
    assert "there is no log" not in done.stderr
    assert not (bundle / "imported").exists()
    assert done.returncode == 0 or "no decision" in done.stderr or "STALE" in done.stdout


def test_losses_of_a_configuration_that_was_named_are_used(bundle: Path) -> None:
    done = run(bundle, "-c", "named.yaml", "audit", "rec.ndjson", path=True)
    assert (done.returncode, (bundle / "imported").exists()) == (0, True)


@pytest.mark.parametrize(
    "command",
    [
        ["audit", "embedded:./log"],
        ["explain", "last", "--in", "embedded:./log"],
        ["--log", "embedded:./log", "record", "../copy.ndjson"],
        ["--log", "embedded:./log", "status"],
    ],
)
def test_commands_that_read_leave_every_file_of_a_log(bundle: Path, command: list[str]) -> None:
    before = digests(bundle / "log")
    done = run(bundle, "-q", *command)
    assert done.returncode in ((1,) if "status" in command else (0, 2))
    assert digests(bundle / "log") == before


@pytest.mark.parametrize("command", [["audit", "embedded:./log"], ["explain", "last", "--in", "embedded:./log"]])
@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE topic_ledger; CREATE VIEW topic_ledger AS WITH RECURSIVE r(offset) AS (SELECT 0 UNION ALL SELECT "
        "offset + 1 FROM r) SELECT offset, 0 AS append_ts, NULL AS key, x'00' AS value, NULL AS headers FROM r;",
        "DROP TABLE topic_ledger; CREATE TABLE topic_ledger (offset, append_ts, key, value, headers); "
        "INSERT INTO topic_ledger VALUES ('a', 'b', 'c', 'd', 'e');",
        "UPDATE topic_ledger SET offset = -5 WHERE offset = 0;",
        "UPDATE topic_ledger SET headers = x'c1ff'; UPDATE topic_decisions SET headers = x'c1ff'; "
        "INSERT INTO topic_decisions VALUES (5, 0, NULL, NULL, x'c1ff');",
        "DROP TABLE topic_control;",
        "UPDATE topic_ledger SET append_ts = 9223372036854775807; "
        "INSERT INTO topic_decisions VALUES (5, 9223372036854775807, NULL, NULL, NULL);",
    ],
)
def test_log_that_a_stranger_made_ends_in_a_sentence(bundle: Path, command: list[str], change: str) -> None:
    db = sqlite3.connect(bundle / "log" / FILE_NAME)
    db.executescript(change)
    db.close()
    done = run(bundle, "-q", *command)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("unship: ")
