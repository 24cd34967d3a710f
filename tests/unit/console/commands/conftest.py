"""A monitor and its replicas that work whenever a command pauses: nothing here runs at the same time."""

from __future__ import annotations

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


class Site:
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
def unserved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.chdir(tmp_path)
    Path("unship.yaml").write_text(CONFIG)
    new_keys(tmp_path / "keys", "prod")
    bench = Site(tmp_path)
    monkeypatch.setattr("console.commands.emit.EmbeddedLog", partial(EmbeddedLog, now_ms=lambda: bench.now))
    bench.live.save_snapshot()
    return bench


@pytest.fixture
def served(unserved: Site) -> Site:
    bench = unserved
    bench.obeying("r-1")
    bench.obeying("r-2")
    bench.work(1)
    bench.live.save_snapshot()
    return bench
