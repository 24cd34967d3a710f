"""A monitor whose log takes nothing for a while waits, reports it once, and goes on where it was."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from tests.processes import monitor, status_when
from tests.waiting import until
from unship.log.embedded.file import FILE_NAME
from unship.log.embedded.log import EmbeddedLog, Message


def test_monitor_waits_for_a_log_that_is_locked_and_counts_everything(tmp_path: Path) -> None:
    (tmp_path / "unship.yaml").write_text("log: embedded:./unship-data\n")
    with EmbeddedLog(tmp_path / "unship-data") as log, monitor(tmp_path) as process:
        until(lambda: "watching" in (tmp_path / "run.log").read_text())
        other = sqlite3.connect(tmp_path / "unship-data" / FILE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        until(lambda: "locked by another process" in (tmp_path / "run.log").read_text())
        other.execute("ROLLBACK")
        other.close()
        until(lambda: "takes records again" in (tmp_path / "run.log").read_text())
        event = {"id": "p", "model": "fraud", "version": "v1", "output": 1}
        log.append("predictions", [Message(json.dumps(event).encode(), b"p")])
        log.append("feedback", [Message(b'{"id":"p","truth":1}', b"p")])
        shown = status_when(tmp_path, lambda found: bool(found["models"].get("fraud", {}).get("outcomes")))
        assert shown["models"]["fraud"]["outcomes"] == {"v1": 1}
        assert process.poll() is None
    assert (tmp_path / "run.log").read_text().count("locked by another process") == 1
