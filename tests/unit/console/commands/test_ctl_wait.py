"""`unship ctl --wait` ends when every living replica obeys, and names those that do not when time is up."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actions.reconcile import Signer
from console.commands.ctl import Asked, How, ctl_command
from console.commands.operating.waiting import Clocks
from console.keyring import Keyring
from console.settings import Exit, Settings
from streams.config.parse import parse
from streams.embedded.monitor import EmbeddedMonitor
from unship.codec import encode_line
from unship.events import Ack, Deployment, Epoch, Prediction
from unship.keys import DEPLOYER_FILE, load_private_key, new_keys
from unship.log.embedded.log import EmbeddedLog, Message
from unship.log.link import wall_ms
from unship.signing import sign_event

CONFIG = "log: embedded:./log\nkeys: ./keys\nmodels: {fraud: {policy: {mode: act}}}\n"


class Bench:
    """A monitor and replicas that work whenever the command pauses; its clock goes on with each pause."""

    def __init__(self, folder: Path) -> None:
        self.now = wall_ms()
        self.log = EmbeddedLog(folder / "log", fsync=False, now_ms=lambda: self.now)
        signer = Keyring(folder / "keys", lambda text: None).signer
        assert isinstance(signer, Signer)
        self.live = EmbeddedMonitor(self.log, parse(CONFIG), lambda: self.now, signer)
        self.replicas: dict[str, Callable[[Epoch, str], None]] = {}
        self.runs = True
        deployer = load_private_key(folder / "keys" / DEPLOYER_FILE)
        for number, version in enumerate(("v1", "v2")):
            event = Deployment(model="fraud", version=version, status="live")
            value, headers = sign_event(event, deployer, "prod", self.now, f"n-{number}")
            self.log.append("deployments", [Message(value, b"fraud", headers)])
            self.work()

    def work(self, seconds: float = 0.2) -> None:
        """Let time pass, the monitor make a round, and each replica answer to the newest command."""
        self.now += int(1_000 * max(seconds, 0.2))
        if not self.runs:
            return
        self.live.step()
        self.live.publish()
        model = self.live.status().models.get("fraud")
        if model is not None and model.desired is not None:
            for replica in self.replicas.values():
                replica(model.epoch, model.desired)
        self.live.step()
        self.live.status()

    def ack(self, replica: str, stage: Any, epoch: Epoch, serving: str, code: Any = None) -> None:
        ack = Ack(model="fraud", replica=replica, boot="b", epoch=epoch, stage=stage, serving=serving, code=code)
        self.log.append("acks", [Message(encode_line(ack), f"fraud/{replica}".encode())])

    def answer(self, replica: str, epoch: Epoch, version: str) -> None:
        offset = self.log.end("predictions")
        event = Prediction(id=f"p-{offset}", model="fraud", version=version, output=1, replica=replica, epoch=epoch)
        self.log.append("predictions", [Message(encode_line(event), event.id.encode())])

    def obeying(self, name: str) -> None:
        def obey(epoch: Epoch, version: str) -> None:
            self.ack(name, "serving", epoch, version)
            self.answer(name, epoch, version)

        self.replicas[name] = obey

    def ctl(self, act: Any, wait_s: float = 30.0, *, as_json: bool = False, **asked: Any) -> Exit:
        settings = Settings(Path("unship.yaml"), None, as_json, False, False)
        clocks = Clocks(lambda: self.now, lambda: self.now / 1_000, self.work)
        return ctl_command(settings, act, "fraud", "drill", Asked(**asked), How(wait_s=wait_s), clocks)


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    Path("unship.yaml").write_text(CONFIG)
    new_keys(tmp_path / "keys", "prod")
    bench = Bench(tmp_path)
    monkeypatch.setattr("console.commands.emit.EmbeddedLog", partial(EmbeddedLog, now_ms=lambda: bench.now))
    bench.live.save_snapshot()
    return bench


@pytest.fixture
def bench(empty: Bench) -> Bench:
    bench = empty
    bench.obeying("r-1")
    bench.obeying("r-2")
    bench.work(1)
    bench.live.save_snapshot()
    return bench


def test_wait_ends_with_0_and_the_times_of_the_shares_when_all_replicas_obey(bench: Bench, capsys: Any) -> None:
    assert bench.ctl("rollback", to="v1") is Exit.GOOD
    shown = capsys.readouterr()
    assert shown.out.startswith("rollback fraud (to v1) by ")
    assert "waiting for the monitor to take the act" in shown.err
    assert "live 2: serving 2; 50 % after " in shown.err
    assert shown.err.splitlines()[-1] == "ctl: every living replica of fraud obeys"


def test_wait_without_a_running_monitor_times_out_and_asks_for_it(bench: Bench, capsys: Any) -> None:
    bench.runs = False
    assert bench.ctl("rollback", 2.0, to="v1") is Exit.TIMED_OUT
    assert "the monitor has not taken the act, which is in the log" in capsys.readouterr().err


def test_refused_act_ends_the_wait_with_1_and_its_sentence(bench: Bench, capsys: Any) -> None:
    assert bench.ctl("resume") is Exit.FINDING
    assert "ctl: refused: nothing is on hold" in capsys.readouterr().err
    assert bench.ctl("approve", as_json=True) is Exit.FINDING
    found = json.loads(capsys.readouterr().out)
    assert found["act"]["act"] == "approve"
    assert found["wait"]["state"] == "refused"
    assert found["wait"]["why"].startswith("no proposal is open")


def test_act_that_changes_nothing_for_replicas_waits_for_the_fold_only(bench: Bench, capsys: Any) -> None:
    assert bench.ctl("hold") is Exit.GOOD
    assert bench.live.pipeline.fold.models["fraud"].state.desired.locks.held
    assert "live 2: serving 2" in capsys.readouterr().err


def refusing(bench: Bench) -> Callable[[Epoch, str], None]:
    return lambda epoch, version: bench.ack("bad", "refused", epoch, "v2", "LOAD_FAILED")


def loading(bench: Bench) -> Callable[[Epoch, str], None]:
    return lambda epoch, version: bench.ack("bad", "verified", epoch, "v2")


def lying(bench: Bench) -> Callable[[Epoch, str], None]:
    def act(epoch: Epoch, version: str) -> None:
        bench.ack("bad", "serving", epoch, version)
        bench.answer("bad", (0, 1, 0), "v2")

    return act


def forked(bench: Bench) -> Callable[[Epoch, str], None]:
    def act(epoch: Epoch, version: str) -> None:
        bench.ack("bad", "serving", epoch, version)
        bench.answer("bad", epoch, version)
        bench.answer("bad", (0, 1, 0), "v2")
        bench.live.step()
        bench.answer("bad", epoch, version)

    return act


def silent(bench: Bench) -> Callable[[Epoch, str], None]:
    return lambda epoch, version: None


@pytest.mark.parametrize(
    ("behaviour", "kind", "sentence"),
    [
        (refusing, "refused", "LOAD_FAILED"),
        (loading, "loading", "is loading v1"),
        (lying, "lying", "acknowledged v1, but answers with v2 under epoch 0.1.0"),
        (forked, "forked", "answers with v1 under epoch"),
        (silent, "silent", "nothing was received of it for"),
    ],
)
def test_replica_that_does_not_obey_is_named_with_what_it_does_when_time_is_up(
    bench: Bench, capsys: Any, behaviour: Callable[[Bench], Any], kind: str, sentence: str
) -> None:
    bench.obeying("bad")
    bench.work(1)
    bench.replicas["bad"] = behaviour(bench)
    assert bench.ctl("rollback", 20.0, to="v1") is Exit.TIMED_OUT
    shown = capsys.readouterr().err
    assert f"ctl: bad does not obey ({kind}): " in shown
    assert sentence in shown.splitlines()[-1]
    assert "r-1 does not" not in shown


def test_wait_without_a_living_replica_shows_that_nothing_proves_obedience(empty: Bench, capsys: Any) -> None:
    assert empty.ctl("rollback", 3.0, to="v1") is Exit.TIMED_OUT
    assert "no replica of fraud is known to live" in capsys.readouterr().err
