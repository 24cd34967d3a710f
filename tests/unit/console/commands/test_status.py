"""`unship status` shows replicas as the monitor knows them, brought up to date by acks that it has not read yet."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from console.cli import main
from streams.config.parse import parse
from streams.embedded.monitor import EmbeddedMonitor
from tests.keys import SIGNER, signed
from unship.codec import encode_line
from unship.events import Ack, Deployment, Epoch, Prediction, Stage
from unship.log.embedded.log import EmbeddedLog, Message

START = 1_772_409_600_000


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

    def status(self, *options: str) -> Result:
        return CliRunner().invoke(main, [*options, "--log", f"embedded:{self.folder}", "status"])

    def shown(self) -> tuple[dict[str, dict[str, object]], dict[str, str], int]:
        result = self.status("--json")
        model = json.loads(result.stdout)["models"]["m"]
        return model["replicas"], model["lagging"], result.exit_code


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
    for _ in range(2):
        assert bench.shown() == ({"r-1": {"version": "v41", "stage": "serving", "epoch": list(bench.epoch)}}, {}, 0)
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
    assert msgspec.json.decode(result.stdout) == {"models": {}, "rejected": {}}
