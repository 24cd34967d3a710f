"""A fleet that obeys the commands of a fold and deals units out by the shares in them, all in one process."""

from __future__ import annotations

import random

import msgspec
from msgspec import UNSET

from actions.desired import SHARE_MAX, DesiredState
from actions.journal import Decision
from actions.reconcile import Timing, command_of
from streams.config.resolved import Config
from streams.fold.model import ModelFold
from tests.pipelines import Run
from unship.codec import encode_line
from unship.commands import Command, decode_command, encode_command, is_quarantined
from unship.events import Deployment, Event, Feedback, OperatorAct, Prediction, Role
from unship.shares import chosen, hash_of

START = 1_772_409_600_000
STEP_MS = 100
#: Answers between two looks at the commands.
CHUNK = 50


class DealtFleet:
    """Answer as commanded: version `serve`, or by its unit's hash the version with a share, in the role of a holdback.

    Before the first command, or where it `ignores` shares, it serves what was deployed or ordered.
    """

    def __init__(self, config: Config, seed: int = 7, ignores: bool = False) -> None:
        self.run = Run(config)
        self.now, self.ignores = START, ignores
        self.serves = ""
        self.answered: dict[tuple[str, str], int] = {}
        self._rng, self._count = random.Random(seed), 0

    @property
    def model(self) -> ModelFold:
        return self.run.fold.models["m"]

    @property
    def desired(self) -> DesiredState:
        return self.model.state.desired

    @property
    def decisions(self) -> list[Decision]:
        return self.run.decisions

    def told(self) -> list[tuple[str, str, str, str | None]]:
        """What was decided of versions that got worse."""
        return [(d.version, d.reason, d.action, d.to) for d in self.decisions if d.verdict == "DEGRADED"]

    def command(self) -> Command | None:
        """The command of now, as a replica reads it."""
        model = self.run.fold.models.get("m")
        if model is None or not model.commanded:
            return None
        command = command_of("m", model.state.desired, "prod", self.now, Timing())
        if command is None:
            return None
        found = decode_command(encode_command(command))
        assert isinstance(found, Command), found
        return found

    def deploy(self, version: str, status: str = "live", **more: str) -> DealtFleet:
        if status == "live" and self.command() is None:
            self.serves = version
        deployed = {"model": "m", "version": version, "status": status, "ts": self.now, **more}
        return self._take([msgspec.convert(deployed, Deployment)])

    def act(self, act: str, **more: str) -> DealtFleet:
        event = {"act": act, "model": "m", "reason": "test", "by": "me", "ts": self.now, **more}
        return self._take([msgspec.convert(event, OperatorAct)])

    def wait(self, ms: int) -> DealtFleet:
        self.now += ms
        self.run.advance(self.now)
        return self

    def answer(self, count: int, wrong: dict[str, float], until: str | None = None) -> DealtFleet:
        """Answer so many requests, each version wrong in its share; end with a decision to do `until`."""
        for begin in range(0, count, CHUNK):
            self._take(self._answers(min(CHUNK, count - begin), wrong))
            if until is not None and any(decision.action == until for decision in self.decisions):
                break
        return self

    def _answers(self, count: int, wrong: dict[str, float]) -> list[Event]:
        command, events = self.command(), list[Event]()
        if command is not None:
            self.serves = command.serve
        for _ in range(count):
            self._count += 1
            self.now += STEP_MS
            name, version = f"p-{self._count}", self.serves
            if command is not None and command.shares and command.period_epoch is not UNSET and not self.ignores:
                version = chosen(hash_of("m", command.period_epoch, name), command.serve, command.shares)
            role: Role = "live" if version == self.serves else "holdback"
            self.answered[version, role] = self.answered.get((version, role), 0) + 1
            error = self._rng.random() < wrong[version]
            events.append(Prediction(id=name, model="m", version=version, output=int(error), ts=self.now, role=role))
            events.append(Feedback(id=name, truth=0, ts=self.now))
        return events

    def _take(self, events: list[Event]) -> DealtFleet:
        self.run.take(map(encode_line, events))
        self.run.advance(self.now)
        return self


def check_shares(command: Command) -> None:
    """One version at most, another than the one that serves, at most half, never in quarantine."""
    shares = command.shares or {}
    assert len(shares) <= 1
    for version, share in shares.items():
        assert version != command.serve
        assert 0 < share <= SHARE_MAX
        assert command.period_epoch is not UNSET
        assert command.period_epoch[1:] <= command.epoch[1:]
        assert not is_quarantined(list(command.quarantine), version, None)
    assert decode_command(encode_command(command)) == command
    value = encode_command(command)
    assert [name in value for name in (b'"shares":', b'"period_epoch":')] == [bool(shares)] * 2
