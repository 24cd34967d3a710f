"""`unship status` shows replicas as the monitor knows them, brought up to date by acks that it has not read yet."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from click.testing import CliRunner

from actions.desired import Proposal
from actions.evidence_tree import HoldbackReport
from actions.reconcile import Timing
from console.cli import main
from console.commands.status import Shown as Found
from console.commands.status import status_command
from console.settings import Settings
from console.status_lines import model_lines
from streams.config.parse import parse
from streams.embedded.monitor import EmbeddedMonitor
from streams.fold.status import ModelStatus
from streams.fold.status_records import TICK_MS
from tests.keys import SIGNER, signed
from unship.codec import encode_line
from unship.events import Ack, Deployment, Epoch, Prediction, Stage
from unship.log.embedded.log import EmbeddedLog, Message

START = 1_772_409_600_000


class Shown(NamedTuple):
    """What a command printed, and its exit code."""

    stdout: str
    exit_code: int


class Bench:
    """A monitor on a log whose clock stands where the test puts it."""

    def __init__(self, folder: Path, mode: str = "act") -> None:
        self.folder, self.now = folder, START
        self.log = EmbeddedLog(folder, now_ms=lambda: self.now, fsync=False)
        self.live = EmbeddedMonitor(
            self.log, parse(f"models: {{m: {{policy: {{mode: {mode}}}}}}}"), lambda: self.now, SIGNER
        )
        event = Deployment(model="m", version="v41", status="live", ts=START)
        self.log.append("deployments", [signed(event, START)])
        self.live.step()
        self.epoch = self.live.pipeline.fold.models["m"].state.desired.epoch

    def ack(self, replica: str, serving: str, epoch: Epoch, stage: Stage = "serving") -> None:
        ack = Ack(model="m", replica=replica, boot="b", epoch=epoch, stage=stage, serving=serving, ts=self.now)
        self.log.append("acks", [Message(encode_line(ack), f"m/{replica}".encode())])

    def answer(self, replica: str, version: str, epoch: Epoch | None) -> None:
        name = f"{replica}-{self.now}"
        event = Prediction(id=name, model="m", version=version, output=1, ts=self.now, replica=replica, epoch=epoch)
        self.log.append("predictions", [Message(encode_line(event), name.encode())])

    def deploy(self, version: str) -> None:
        event = Deployment(model="m", version=version, status="live", ts=self.now)
        self.log.append("deployments", [signed(event, self.now)])

    def order(self, act: str, **fields: Any) -> None:
        event = {"act": act, "model": "m", "reason": "drill", "by": "ann", **fields}
        self.log.append("operator", [signed(event, self.now)])

    def status(self, *options: str) -> Shown:
        """Return what `unship status` prints by the clock of the bench."""
        settings = Settings(None, f"embedded:{self.folder}", "--json" in options, False, False)
        out = io.StringIO()
        with redirect_stdout(out):
            code = status_command(settings, None, lambda: self.now)
        return Shown(out.getvalue(), int(code))

    def model(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.status("--json").stdout)["models"]["m"]
        return found

    def shown(self) -> tuple[dict[str, dict[str, object]], dict[str, str], int]:
        result = self.status("--json")
        model = json.loads(result.stdout)["models"]["m"]
        replicas = {
            name: {key: value for key, value in each.items() if key != "heard_ts"}
            for name, each in model["replicas"].items()
        }
        return replicas, model["lagging"], result.exit_code


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_replicas_are_the_same_before_and_after_the_monitor_has_read_their_acks(bench: Bench) -> None:
    bench.ack("r-1", "v41", bench.epoch)
    bench.ack("r-2", "v40", (0, 0, 0), "received")
    before = bench.shown()
    bench.live.step()
    assert bench.shown() == before
    assert before == (
        {
            "r-1": {"version": "v41", "stage": "serving", "epoch": list(bench.epoch)},
            "r-2": {"version": "v40", "stage": "received", "epoch": [0, 0, 0]},
        },
        {"r-2": "reports that v40 serves (received, epoch 0.0.0)"},
        1,
    )


def test_replica_that_acks_but_serves_the_old_version_is_named_with_exit_code_1(bench: Bench) -> None:
    bench.ack("r-1", "v41", bench.epoch)
    bench.live.step()
    assert bench.shown()[1:] == ({}, 0)
    bench.now += 10_000
    bench.answer("r-1", "v40", None)
    bench.live.step()
    replicas, lagging, code = bench.shown()
    assert replicas == {"r-1": {"version": "v40", "stage": "serving", "epoch": None}}
    assert (lagging, code) == ({"r-1": "acknowledged v41, but answers with v40 under no epoch"}, 1)
    assert "m: r-1 has not converged: acknowledged v41, but answers with v40" in bench.status().stdout
    # Its heartbeat says the same as before, and is believed no more than before.
    bench.now += 10_000
    bench.ack("r-1", "v41", bench.epoch)
    assert bench.shown()[1:] == (lagging, 1)
    bench.now += 1_000
    bench.answer("r-1", "v41", bench.epoch)
    bench.live.step()
    assert bench.shown()[1:] == ({}, 0)


def test_replica_that_is_gone_is_shown_and_asked_for_no_more(bench: Bench) -> None:
    bench.ack("gone", "v40", (0, 0, 0))
    bench.live.step()
    assert bench.shown()[2] == 1
    bench.now += 3_700_000
    bench.ack("r-1", "v41", bench.epoch)
    # Until the monitor has reported again, the status is too old.
    for code in (1, 0):
        assert bench.shown() == ({"r-1": {"version": "v41", "stage": "serving", "epoch": list(bench.epoch)}}, {}, code)
        bench.live.step()


def test_where_nothing_is_commanded_only_versions_count(tmp_path: Path) -> None:
    bench = Bench(tmp_path, mode="observe")
    bench.ack("r-1", "v41", (0, 0, 0))
    bench.answer("r-1", "v41", None)
    bench.live.step()
    assert bench.shown()[1:] == ({}, 0)
    bench.now += 10_000
    bench.answer("r-1", "v40", None)
    bench.live.step()
    assert bench.shown()[2] == 1


def test_status_without_a_monitor_that_ever_ran_is_empty(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path, fsync=False):
        pass
    result = CliRunner().invoke(main, ["--json", "--log", f"embedded:{tmp_path}", "status"])
    assert msgspec.json.decode(result.stdout) == {"models": {}, "rejected": {}, "monitor": None}


def test_monitor_that_was_silent_for_three_ticks_makes_the_status_stale(bench: Bench) -> None:
    seen = bench.now
    bench.now += 3 * TICK_MS - 1
    assert bench.status().exit_code == 0
    assert "STALE" not in bench.status().stdout
    bench.now += 1
    result = bench.status()
    assert result.exit_code == 1
    assert "LEARNING, STALE" in result.stdout
    assert "m: STALE: its monitor reported last 2026-03-02T00:00:00+00:00 (30s ago)" in result.stdout
    report = json.loads(bench.status("--json").stdout)
    assert report["monitor"] == {"seen_ts": seen, "lag": 0}
    assert report["models"]["m"]["state"] == "LEARNING, STALE"
    assert len(report["models"]["m"]["stale"]) == 1
    bench.live.step()
    assert bench.status().exit_code == 0


def test_monitor_without_anything_to_read_goes_on_reporting(bench: Bench) -> None:
    for _ in range(20):
        bench.now += TICK_MS // 4
        bench.live.step()
    assert bench.now - json.loads(bench.status("--json").stdout)["monitor"]["seen_ts"] < TICK_MS


def test_only_silent_replicas_of_which_none_is_left_make_the_status_stale(bench: Bench) -> None:
    heard = bench.now
    bench.ack("r-1", "v41", bench.epoch)
    bench.ack("r-2", "v41", bench.epoch)
    bench.live.step()
    bench.now += 3 * Timing().beat_ms
    bench.ack("r-2", "v41", bench.epoch)
    bench.live.step()
    result = bench.status()
    assert result.exit_code == 0
    assert "m: r-1 has acknowledged nothing since 2026-03-02T00:00:00+00:00" in result.stdout
    assert bench.model()["silent"] == ["r-1"]
    assert bench.model()["replicas"]["r-1"]["heard_ts"] == heard
    bench.now += 3 * Timing().beat_ms
    bench.live.step()
    assert bench.status().exit_code == 1
    assert "LEARNING, STALE" in bench.status().stdout
    assert bench.model()["silent"] == ["r-1", "r-2"]


def test_names_of_predictions_and_replicas_without_commands_make_nothing_stale(bench: Bench) -> None:
    bench.answer("only-a-name", "v41", None)
    bench.ack("not-commanded", "v41", (0, 0, 0))
    bench.live.step()
    bench.now += 10 * Timing().beat_ms
    bench.live.step()
    assert (bench.model()["stale"], bench.model()["silent"]) == ([], [])


def test_replica_that_left_is_shown_as_that_and_neither_lags_nor_is_silent(bench: Bench) -> None:
    bench.ack("r-1", "v41", bench.epoch)
    bench.ack("r-2", "v41", bench.epoch)
    bench.live.step()
    bench.now += 1_000
    bench.ack("r-2", "v41", bench.epoch, "left")
    for expected in (["r-1"], ["r-1", "r-2"]):
        # Before and after the monitor has read it.
        shown = bench.model()
        assert (list(shown["replicas"]), shown["lagging"], shown["silent"], shown["stale"]) == (expected, {}, [], [])
        bench.live.step()
        bench.now += 1_000
    assert [each["stage"] for each in shown["replicas"].values()] == ["serving", "left"]
    bench.ack("r-2", "v41", bench.epoch)
    assert list(bench.shown()[0]) == ["r-1", "r-2"]


def test_hold_pin_quarantine_and_the_newest_act_are_shown(bench: Bench) -> None:
    before = bench.model()
    names = ("held", "pinned", "proposal", "quarantine", "last_act")
    assert [before[name] for name in names] == [False, False, None, [], None]
    bench.now += 1_000
    bench.deploy("v42")
    bench.live.step()
    for act, fields in {"rollback": {"to": "v41"}, "pin": {}, "hold": {}}.items():
        bench.now += 1_000
        bench.order(act, **fields)
        bench.live.step()
    found = bench.model()
    assert [found[name] for name in names[:-1]] == [True, True, None, ["v42"]]
    act = found["last_act"]
    assert (act["action"], act["reason"], act["version"], act["to"]) == ("rollback", "OPERATOR_ROLLBACK", "v42", "v41")
    text = bench.status().stdout
    for line in (
        "m: on hold by an operator",
        "m: pinned to v41 by an operator",
        "m: in quarantine: v42",
        "m: last act: rollback v42 -> v41, OPERATOR_ROLLBACK",
    ):
        assert line in text


def test_share_of_the_version_held_back_and_its_proposal_are_lines() -> None:
    status = ModelStatus("CONFIRMING", "v2", (0, 1, 0), {}, None, 0.3, [], True, {})
    kept = HoldbackReport("v1", 0.3, START, raised_from=0.05)
    asked = Proposal("d-1", "v2", "v1", START, 0.3)
    lines = list(model_lines(msgspec.structs.replace(status, holdback=kept, proposal=asked), START))
    assert lines == [
        "holdback: v1 answers 30 %, raised from 5 %, until 2026-03-02T00:00:00+00:00",
        "proposal d-1: v1 answers 30 % waits for unship ctl approve or reject",
    ]


def test_with_exit_code_a_version_that_got_worse_is_a_finding() -> None:
    status = ModelStatus("CONFIRMING", "v2", (0, 1, 0), {}, None, 0.3, [], True, {})
    shown = Found(status, {}, {}, {}, [])
    assert (shown.state, shown.is_worse) == ("CONFIRMING", True)
    for state in ("LEARNING", "HEALTHY", "BLIND", "SOMETHING_NEW"):
        assert not Found(msgspec.structs.replace(status, state=state), {}, {}, {}, []).is_worse


def test_status_has_the_names_that_programs_rely_on(bench: Bench) -> None:
    names = (
        "state desired epoch outcomes label_coverage evidence detectable held pinned proposal quarantine last_act "
        "replicas"
    )
    assert set(names.split()) <= set(bench.model())
