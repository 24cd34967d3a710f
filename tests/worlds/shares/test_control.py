"""Shares under any deployments, answers and operators' acts, and replicas that read of the commands what they may."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from actions.journal import decision_bytes
from actions.reconcile import Timing, command_of
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.fold.fold import Fold, SavedFold
from streams.ledger.encoding import pack, unpack
from tests.keys import CONTROLLER, TRUST
from tests.pipelines import step
from tests.worlds.shares.fleet import DealtFleet, check_shares
from unship.commands import Command, content_digest, decode_command, encode_command, is_quarantined
from unship.events import Epoch
from unship.replica.fence import FenceState, boot, encode_state, judge, pending, restore, switched
from unship.signing import COMMAND_TYPE, sign

VERSIONS = ("v1", "v2", "v3")
SHARE, RAISED, SWITCHES_MAX = 0.05, 0.3, 2


# The whole fold, with a fleet that obeys, a second monitor, and replicas that read badly

moves = st.one_of(
    st.tuples(st.just("answer"), st.sampled_from([100, 600, 1_500]), st.booleans()),
    st.tuples(st.just("deploy"), st.sampled_from(VERSIONS), st.sampled_from(["live", "live", "holdback", "retired"])),
    st.tuples(st.sampled_from(["rollback", "pin"]), st.sampled_from(VERSIONS)),
    st.tuples(st.sampled_from(["hold", "resume", "unpin", "approve", "reject"])),
    st.tuples(st.just("release"), st.sampled_from(VERSIONS)),
    st.tuples(st.just("wait"), st.sampled_from([1_000, 3_600_000])),
)


class Reading:
    """A replica whose log drops, repeats and reorders, and which loses its process now and then."""

    def __init__(self) -> None:
        self.disk: bytes | None = None
        self.state = boot(FenceState(model="m", audience="prod"), "v1")
        self.highest: Epoch = (0, 0, 0)

    def restart(self) -> None:
        self.state = boot(restore(self.disk, "m", "prod")[0], "v1")

    def read(self, command: Command) -> None:
        value = encode_command(command)
        self.state, _ = judge(self.state, value, sign(value, CONTROLLER, COMMAND_TYPE), TRUST, command.issued_ts)
        target = pending(self.state)
        if target is not None:
            self.state = switched(self.state, target)
        assert (self.state.epoch or (0, 0, 0)) >= self.highest
        self.highest = self.state.epoch or (0, 0, 0)
        self.disk = encode_state(self.state)


def play(fleet: DealtFleet, steps: list[tuple[Any, ...]]) -> list[Command]:
    """Let it happen; return the command after each step, where it changed."""
    published: list[Command] = []
    for kind, *more in steps:
        if kind == "answer":
            fleet.answer(more[0], dict.fromkeys(VERSIONS, 0.1) | {"v2": 0.4 if more[1] else 0.1})
        elif kind == "deploy":
            fleet.deploy(more[0], more[1])
        elif kind == "wait":
            fleet.wait(more[0])
        elif kind == "rollback":
            fleet.act(kind, to=more[0])
        else:
            fleet.act(kind, **({"version": more[0]} if more else {}))
        command = fleet.command()
        if command is not None and (not published or published[-1].epoch != command.epoch):
            published.append(command)
    return published


def check_other_monitor(fleet: DealtFleet, config: Config, published: list[Command], luck: int) -> None:
    """Another monitor, which is put to rest and taken up again, orders and decides the same from the same ledger."""
    chance, other, decided = random.Random(luck), Fold(config), list[bytes]()
    said: dict[Epoch, str] = {}
    for record in fleet.run.ledger:
        if chance.random() < 0.02:
            saved = unpack(pack(other.save()), SavedFold)
            other = Fold(config)
            other.load(saved)
        decided += [decision_bytes(decision) for decision in step(other, record)]
        desired = other.commanded().get("m")
        command_there = None if desired is None else command_of("m", desired, "prod", 0, Timing())
        if command_there is not None:
            assert said.setdefault(command_there.epoch, content_digest(command_there)) == content_digest(command_there)
    assert decided == [decision_bytes(decision) for decision in fleet.decisions]
    for command in published:
        assert said[command.epoch] == content_digest(command)


def check_replicas(published: list[Command], luck: int) -> None:
    """Whatever replicas read in whatever order, no epoch falls; who reads the newest command serves as all do."""
    chance = random.Random(luck)
    for _ in range(2):
        replica = Reading()
        read = chance.choices(published, k=2 * len(published))
        for command in read:
            if chance.random() < 0.3:
                replica.restart()
            replica.read(command)
        replica.read(published[-1])
        assert replica.state.wanted is not None
        assert (replica.state.wanted.version, replica.state.epoch) == (published[-1].serve, published[-1].epoch)
        assert not is_quarantined(list(published[-1].quarantine), published[-1].serve, published[-1].artifact)


# Without shrinking: each example folds thousands of outcomes.
@settings(max_examples=6, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(steps=st.lists(moves, max_size=7), mode=st.sampled_from(["act", "approve"]), luck=st.integers(0, 2**16))
def test_control_keeps_its_promises_with_shares(steps: list[tuple[Any, ...]], mode: str, luck: int) -> None:
    policy = f"mode: {mode}, deployments: any, cooldown: 1m, max_switches: {SWITCHES_MAX} per 1d"
    kept = f"{{share: {SHARE}, raise_to: {RAISED}, keep: 1h}}"
    config = parse(f"models: {{m: {{one_false_alarm_per: 10000, policy: {{{policy}, holdback: {kept}}}}}}}")
    fleet = DealtFleet(config, luck)
    released = [("deploy", "v1", "live"), ("answer", 1_200, False), ("deploy", "v2", "live"), ("answer", 600, False)]
    published = play(fleet, [*released, *steps])
    assert any(command.shares for command in published)
    for command in published:
        check_shares(command)
        assert set((command.shares or {}).values()) <= {SHARE, RAISED}
    # Epochs rise, and a raised share has its decision in the journal.
    assert [command.epoch for command in published] == sorted({command.epoch for command in published})
    journal = {decision.id: decision for decision in fleet.decisions}
    for command in published:
        if RAISED in (command.shares or {}).values() and command.action == "shares":
            assert command.decision is not None
            assert journal[command.decision].epoch == command.epoch
            assert journal[command.decision].verdict == "DEGRADED"
        if command.action == "rollback":
            assert command.decision in journal
    rolled = [decision for decision in fleet.decisions if decision.reason in ("TARGET_BETTER", "RECORD_BETTER")]
    rolled = [decision for decision in rolled if decision.action == "rollback"]
    assert len(rolled) <= SWITCHES_MAX
    check_other_monitor(fleet, config, published, luck)
    check_replicas(published, luck)
    # Live answers show what the newest command says, and no other version answers live.
    before = dict(fleet.answered)
    fleet.answer(50, dict.fromkeys(VERSIONS, 0.1))
    last = fleet.command()
    assert last is not None
    more = {arm for arm, count in fleet.answered.items() if count > before.get(arm, 0)}
    assert {version for version, role in more if role == "live"} == {published[-1].serve}


def test_old_command_decodes_as_before() -> None:
    value = (
        b'{"type":"command","schema":1,"model":"m","epoch":[0,7,0],"serve":"v1","artifact":null,"quarantine":[],"action":"deploy",'
        b'"decision":null,"issued_ts":1,"not_after_ts":2,"audience":"prod"}'
    )
    command = decode_command(value)
    assert isinstance(command, Command)
    assert (command.shares, command.period_epoch) == (UNSET, UNSET)
    assert encode_command(command) == value
    assert msgspec.json.decode(value)["type"] == "command"
