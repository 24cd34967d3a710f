"""`unship trim` removes what nobody needs, shows it before, and never takes what a restart reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from console.settings import Settings
from console.trim_log import trim_command
from streams.config.parse import parse
from streams.embedded.monitor import EmbeddedMonitor
from unship.errors import RecordingError
from unship.log.embedded.log import EmbeddedLog, Message

TEXT = "log: embedded:./log\ndefaults: {labels: {horizon: 60s, early: 5s}}\n"


def settings(folder: Path) -> Settings:
    return Settings(folder / "unship.yaml", None, as_json=True, quiet=True, color=False)


def test_what_no_label_can_join_is_removed_and_a_restart_finds_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "unship.yaml").write_text(TEXT)
    now = [1_767_600_000_000]
    with EmbeddedLog(tmp_path / "log", now_ms=lambda: now[0], fsync=False) as log:
        live = EmbeddedMonitor(log, parse(TEXT), lambda: now[0])
        for second in range(300):
            event = {"id": f"p{second}", "model": "m", "version": "v", "output": 1}
            log.append("predictions", [Message(json.dumps(event).encode(), b"p")])
            log.append("feedback", [Message(b'{"id":"p%d","truth":1}' % second, b"p")])
            live.step()
            now[0] += 1_000
        trim_command(settings(tmp_path), False)
        assert json.loads(capsys.readouterr().out)["removed"] == {}
        live.save_snapshot()
        trim_command(settings(tmp_path), True)
        shown = json.loads(capsys.readouterr().out)
        assert (log.first("predictions"), shown["dry_run"]) == (0, True)
        assert 100 < shown["removed"]["predictions"] < 240
        trim_command(settings(tmp_path), False)
        done = json.loads(capsys.readouterr().out)
        assert done["removed"] == shown["removed"]
        assert log.first("predictions") == done["removed"]["predictions"]
        again = EmbeddedMonitor(log, parse(TEXT), lambda: now[0])
        assert again.positions == live.positions
        assert again.status().models["m"].outcomes == {"v": 300}


def test_folder_without_a_log_is_refused_and_stays_empty(tmp_path: Path) -> None:
    (tmp_path / "unship.yaml").write_text(TEXT)
    with pytest.raises(RecordingError, match="there is no log in it"):
        trim_command(settings(tmp_path), False)
    assert not (tmp_path / "log").exists()
