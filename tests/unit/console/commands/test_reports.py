"""Commands that tell a person or a pipeline how it is: `unship alerts test`, and `unship status --exit-code`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streams.fold.status import Seen
from tests.commands import unship
from tests.shown.boards import model, status_records
from unship.log.embedded.log import EmbeddedLog, Message
from unship.log.link import wall_ms


def test_test_alert_goes_to_every_sink_and_what_failed_is_named(tmp_path: Path) -> None:
    (tmp_path / "unship.yaml").write_text(
        "alerts: [{command: [sh, -c, 'cat >> got']}, {command: [./absent]}, {webhook: 'http://127.0.0.1:1/x?token=s'}]"
    )
    done = unship("alerts", "test", cwd=tmp_path)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 1
    assert lines[0] == "alerts[0] command 'sh': took the test alert"
    assert lines[1].startswith("alerts[1] command './absent': did not take the test alert: cannot be run")
    assert lines[2].startswith("alerts[2] webhook http://127.0.0.1:1: did not take the test alert: cannot be reached")
    assert "token" not in done.stdout.decode()
    got = [json.loads(line) for line in (tmp_path / "got").read_text().splitlines()]
    assert [(each["status"], each["severity"], each["model"]) for each in got] == [
        ("firing", "notice", "unship-test"), ("resolved", "notice", "unship-test"),
    ]  # fmt: skip


def test_test_alert_that_all_take_is_good_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "unship.yaml").write_text("alerts: [{command: [cat]}]")
    done = unship("--json", "alerts", "test", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"sinks": [{"sink": "command 'cat'", "sent": True}]})
    (tmp_path / "unship.yaml").write_text("alerts: []")
    assert unship("alerts", "test", cwd=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("state", "code"), [("HEALTHY", 0), ("LEARNING", 0), ("BLIND", 0), ("NOT_CONFIRMED", 1), ("MIX_SHIFT", 1)]
)
def test_exit_code_of_status_is_a_finding_where_a_version_got_worse_if_asked_for(
    tmp_path: Path, state: str, code: int
) -> None:
    with EmbeddedLog(tmp_path / "log") as log:
        records = status_records({"m": model(state, replicas={})}, seen=Seen(wall_ms(), 0))
        log.append("snapshots", [Message(each.value, each.key) for each in records])
    assert unship("--log", f"embedded:{tmp_path / 'log'}", "status", "m", "--exit-code").returncode == code
    assert unship("--log", f"embedded:{tmp_path / 'log'}", "status", "m").returncode == 0
