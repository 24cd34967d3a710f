"""`unship ctl --dry-run` shows what the monitor would make of an act, by the monitor's own code, and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import MonitorAndShell
from unship.keys import OPERATOR_FILE, new_keys
from unship.log.embedded.log import Message

CONFIG = "log: embedded:./log\nkeys: ./keys\nmodels: {fraud: {policy: {mode: act}}}\n"


class Bench(MonitorAndShell):
    """A monitor that has commanded its two versions, and acts that are tried out."""

    def deployed(self) -> None:
        super().deployed()
        self.live.publish()

    def tried(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Try an act out; make sure that nothing was written."""
        before = self.log.ends()
        done = self.unship("--json", "ctl", *arguments, "--reason", "drill", "--dry-run")
        assert done.exit_code == code, done.output
        assert self.log.ends() == before
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    Path("unship.yaml").write_text(CONFIG)
    new_keys(tmp_path / "keys", "prod")
    return Bench(tmp_path, CONFIG)


def test_rollback_is_shown_with_decision_and_command_and_needs_no_key(bench: Bench) -> None:
    (Path("keys") / OPERATOR_FILE).unlink()
    found = bench.tried("rollback", "fraud", "--to", "v1")
    assert (found["refused"], [each["reason"] for each in found["decisions"]]) == (None, ["OPERATOR_ROLLBACK"])
    assert found["changes"] == ["v1 serves instead of v2", "v2 goes into quarantine"]
    assert (found["command"]["serve"], found["command"]["audience"]) == ("v1", "prod")
    assert [entry["version"] for entry in found["command"]["quarantine"]] == ["v2"]
    assert bench.live.pipeline.fold.models["fraud"].state.desired.serve == "v2"


def test_what_is_tried_is_what_the_monitor_then_decides(bench: Bench) -> None:
    found = bench.tried("rollback", "fraud", "--to", "v1")
    assert bench.unship("ctl", "rollback", "fraud", "--to", "v1", "--reason", "drill").exit_code == 0
    (decision,) = bench.live.step()
    (command,) = bench.live.publish()
    (shown,) = found["decisions"]
    assert (shown["id"], shown["epoch"]) == (decision.id, list(decision.epoch))
    assert (found["command"]["serve"], found["command"]["epoch"]) == (command.serve, list(command.epoch))


@pytest.mark.parametrize("snapshot", ["whole", "damaged"])
def test_what_came_after_the_snapshot_counts_and_so_does_a_ledger_without_one(bench: Bench, snapshot: str) -> None:
    assert bench.unship("ctl", "hold", "fraud", "--reason", "drill").exit_code == 0
    bench.live.step()
    if snapshot == "damaged":
        bench.log.append("snapshots", [Message(b"{", slot) for slot in (b"monitor/a", b"monitor/b")])
    found = bench.tried("rollback", "fraud", "--to", "v1", code=1)
    assert "on hold: resume them first" in found["refused"]
    assert (found["command"], found["changes"]) == (None, [])
    assert bench.tried("rollback", "fraud", "--to", "v1", "--override")["refused"] is None
    assert bench.tried("resume", "fraud")["changes"] == ["no longer held"]


def test_page_for_people_has_decision_changes_and_command(bench: Bench) -> None:
    done = bench.unship("ctl", "pin", "fraud", "--version", "v1", "--reason", "drill", "--dry-run")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "dry run: pin fraud after ledger record 4; nothing was signed or written",
        "changes   v1 serves instead of v2; pinned",
        "command   serve v1, quarantine none, action pin, epoch 0.5.0",
    ]
    refused = bench.unship("ctl", "resume", "fraud", "--reason", "drill", "--dry-run")
    assert refused.exit_code == 1
    assert refused.stdout.splitlines()[1].startswith("decision  OPERATOR_REFUSED, none: The act resume by ")
    both = bench.unship("ctl", "resume", "fraud", "--reason", "drill", "--dry-run", "--wait", "1")
    assert (both.exit_code, "--wait does not go with --dry-run" in both.stderr) == (2, True)
