"""Alerts go to a command of the operator's, which can neither hold up the monitor nor learn its secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from actions.adapters.command_sink import SENT_MAX, WAITING_MAX, CommandSink
from actions.alerts import Alert, alert_of
from console.alerting import Alerts
from console.settings import Settings
from streams.config.parse import parse
from tests.waiting import HANG_S, until
from unship.errors import ConfigurationError

ECHO = [sys.executable, "-c", "import sys; open('got', 'ab').write(sys.stdin.buffer.read())"]


def alert(number: int = 0) -> Alert:
    return Alert(f"d-{number}", "firing", "page", "m", "v2", "rollback", "v1", "TARGET_BETTER", "It got worse.", 7)


def decision(reason: str, action: str, model: str = "m") -> bytes:
    return msgspec.json.encode(
        {
            "type": "decision", "id": "d-1", "model": model, "version": "v2", "action": action, "to": None,
            "verdict": "DEGRADED", "reason": reason, "mode": "act", "epoch": [0, 1, 0], "ts": 5, "slice": None,
            "outcomes": 1, "evidence": {}, "provenance": {"ledger": [0, 1], "predictions": {}, "feedback": {}},
            "digests": {"previous": "", "ledger": "", "config": ""},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "action", "severity"),
    [
        ("TARGET_BETTER", "rollback", "page"),
        ("RECORD_BETTER", "propose", "page"),
        ("BLIND", "page", "page"),
        ("CHURN", "page", "notice"),
        ("UNSIGNED_DEPLOYMENT", "page", "notice"),
        ("TARGET_BETTER", "observe", None),
        ("HEALTHY", "none", None),
        ("INVENTED", "page", None),
    ],
)
def test_pages_proposals_and_rollbacks_are_alerts(reason: str, action: str, severity: str | None) -> None:
    found = alert_of(decision(reason, action))
    assert (None if found is None else found.severity) == severity


def test_command_gets_each_alert_once_on_standard_input_and_nothing_of_an_event_as_argument(tmp_path: Path) -> None:
    sink = CommandSink(ECHO, tmp_path, print)
    for number in (0, 1, 1, 0, 2):
        sink.put(alert(number))
    sink.close(HANG_S)
    got = [json.loads(line) for line in (tmp_path / "got").read_bytes().splitlines()]
    assert [each["decision"] for each in got] == ["d-0", "d-1", "d-2"]
    assert got[0] == msgspec.to_builtins(alert(0))


def test_command_learns_nothing_of_the_environment_but_what_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSHIP_SECURITY_PASSWORD", "secret")
    show = [sys.executable, "-c", "import json, os; json.dump(dict(os.environ), open('got', 'w'))"]
    sink = CommandSink(show, tmp_path, print, environment={"PAGER_TOKEN": "t"})
    sink.put(alert())
    sink.close(HANG_S)
    got = json.loads((tmp_path / "got").read_text())
    assert (got["PAGER_TOKEN"], got["PATH"]) == ("t", os.environ["PATH"])
    assert "secret" not in got.values()
    assert set(got) <= {"PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PAGER_TOKEN"}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["./no-such-command"], "cannot be run"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "ended with code 3"),
        ([sys.executable, "-c", "import time; time.sleep(600)"], "took longer than 0.2 s"),
    ],
    ids=["missing", "failing", "hanging"],
)
def test_command_that_fails_is_tried_again_and_then_reported_and_the_next_alert_is_sent(
    tmp_path: Path, command: list[str], said: str
) -> None:
    reports: list[str] = []
    sink = CommandSink(command, tmp_path, reports.append, timeout_s=0.2, pauses_s=(0.0, 0.0))
    sink.put(alert(1))
    sink.put(alert(2))
    until(lambda: len(reports) == 2, lambda: f"{reports}")
    assert [(f"alert d-{n} was not sent" in text, said in text) for n, text in enumerate(reports, 1)] == [
        (True, True),
        (True, True),
    ]
    sink.close(HANG_S)


def test_command_that_hangs_holds_up_neither_the_next_alerts_nor_the_end(tmp_path: Path) -> None:
    reports: list[str] = []
    hang = "import os, subprocess, sys, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
    sink = CommandSink([sys.executable, "-c", hang], tmp_path, reports.append, timeout_s=600.0)
    for number in range(WAITING_MAX + 10):
        sink.put(alert(number))
    assert sum("was dropped" in text for text in reports) == 10
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    sink.close(0.1)
    pid = (tmp_path / "pid").read_text()
    until(lambda: subprocess.run(["kill", "-0", pid], stderr=subprocess.DEVNULL, check=False).returncode != 0)
    assert SENT_MAX >= WAITING_MAX


def test_commands_of_the_configuration_run_in_its_folder_and_are_in_no_ledger(tmp_path: Path) -> None:
    config = parse("alerts: [{command: [sh, -c, 'cat > got'], environment: {TOKEN: '${TOKEN}'}}]", {"TOKEN": "secret"})
    assert "secret" not in json.dumps(config.recorded())
    assert config.digest() == parse("").digest()
    alerts = Alerts(config.alerts, Settings(tmp_path / "unship.yaml", None, False, True, False))
    alerts.put(decision("BLIND", "page", model="x; touch hacked"))
    until(lambda: (tmp_path / "got").exists() and (tmp_path / "got").read_bytes().endswith(b"\n"))
    alerts.close()
    assert json.loads((tmp_path / "got").read_bytes())["model"] == "x; touch hacked"
    assert {path.name for path in tmp_path.iterdir()} == {"got"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("alerts: [{command: []}]", "alerts[0].command"),
        ("alerts: [{command: [./x], timeout: 0s}]", "alerts[0].timeout"),
        ("alerts: [{webhook: x}]", "alerts"),
    ],
)
def test_alert_that_cannot_be_sent_is_an_error_of_the_configuration(text: str, found: str) -> None:
    with pytest.raises(ConfigurationError, match="alerts") as error:
        parse(text)
    assert found in str(error.value)
