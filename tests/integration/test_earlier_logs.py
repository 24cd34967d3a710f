"""Logs that an earlier version wrote, kept as they were: what this one says of them, and that it leaves them alone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.commands import UNSHIP
from tests.waiting import HANG_S

FIXTURE = Path(__file__).parents[1] / "fixtures" / "embedded-log-of-fold-3.tar.gz"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder with a log of the fold's version 3: decisions, a pin, a quarantine, and an open proposal."""
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def ran(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([UNSHIP, *arguments], cwd=site, capture_output=True, text=True, timeout=HANG_S, check=False)


@pytest.mark.parametrize("command", [("run",), ("audit", "embedded:log")])
def test_log_of_an_earlier_version_is_refused_by_one_sentence_with_what_to_do(
    site: Path, command: tuple[str, ...]
) -> None:
    done = ran(site, *command)
    assert done.returncode == 2, done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("unship: ")]
    assert "Traceback" not in done.stderr
    assert "version" in sentence
    assert "docs/how-to/upgrade.md" in sentence


def test_replay_of_an_earlier_log_decides_again_from_its_sources_and_reports_that(site: Path) -> None:
    done = ran(site, "replay", "embedded:log")
    assert done.returncode == 0, done.stderr
    assert "an earlier version wrote the ledger in it" in done.stderr
    rolled = [json.loads(line) for line in done.stdout.splitlines()]
    assert ("auto", "rollback", "v1") in [(entry["model"], entry["action"], entry["to"]) for entry in rolled]


def test_refused_log_keeps_every_record(site: Path) -> None:
    before = dump(site)
    assert ran(site, "run").returncode == 2
    assert dump(site) == before


def dump(site: Path) -> str:
    """Return the digest of all records, which a writer that is refused must not change."""
    recorded = ran(site, "record", "all.ndjson")
    assert recorded.returncode == 0, recorded.stderr
    return hashlib.sha256((site / "all.ndjson").read_bytes()).hexdigest()
