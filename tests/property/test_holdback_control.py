"""Shares under any deployments, answers and operators' acts, and replicas that read of the commands what they may."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from actions.desired import SHARE_MAX, DesiredState, deploy
from actions.journal import decision_bytes
from actions.reconcile import Timing, command_of
from streams.config.parse import parse
from streams.fold.fold import Fold, SavedFold
from streams.ledger.encoding import pack, unpack
from tests.dealt import DealtFleet
from tests.keys import CONTROLLER, TRUST
from tests.pipelines import step
from unship.commands import Command, content_digest, decode_command, encode_command, is_quarantined
from unship.events import Deployment, Epoch
from unship.replica.fence import FenceState, boot, encode_state, judge, pending, restore, switched
from unship.signing import COMMAND_TYPE, sign

VERSIONS = ("v1", "v2", "v3")
SHARE, RAISED, SWITCHES_MAX = 0.05, 0.3, 2


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
    assert (b'"shares"' in encode_command(command)) is (b'"period_epoch"' in encode_command(command)) is bool(shares)


# The desired state alone

acts = st.one_of(
    st.tuples(
        st.just("deploy"),
        st.sampled_from(VERSIONS),
        st.sampled_from(["live", "live", "shadow", "holdback", "retired"]),
        st.sampled_from([None, "sha256:a", "sha256:b"]),
    ),
    st.tuples(st.sampled_from(["roll back", "pin", "release"]), st.sampled_from(VERSIONS)),
    st.tuples(st.sampled_from(["hold", "resume", "renew", "expire"])),
    st.tuples(st.just("raise"), st.floats(0.01, SHARE_MAX)),
)


@given(steps=st.lists(acts, max_size=30))
def test_share_is_of_one_version_rises_once_and_lasts_no_longer_than_what_serves(steps: list[tuple[Any, ...]]) -> None:
    desired, rises, period = DesiredState(), 0, (0, 0, 0)
    for at, (kind, *more) in enumerate(steps, start=1):
        epoch, before, had = (desired.incarnation, at, 0), desired.serve, desired.holdback.shares
        if kind == "deploy":
            event = Deployment(model="m", version=more[0], status=more[1], artifact=more[2])
            if deploy(desired, event, at, epoch) == "live" and before is not None:
                if desired.facts(before).status == "live" and not desired.is_quarantined(before):
                    desired.hold_back(before, SHARE, at + 100)
            name = desired.holdback.version
            if name is not None and desired.holdback.is_moot(desired.facts(name), desired.is_quarantined(name)):
                desired.end_holdback(epoch)
        elif kind == "roll back" and more[0] != desired.serve and desired.serve is not None:
            desired.roll_back(more[0], epoch, at, automatic=False)
        elif kind == "pin":
            desired.locks.pin()
            desired.end_holdback(epoch)
            if more[0] != desired.serve:
                desired.change(more[0], epoch, "pin")
        elif kind == "release" and any(entry.version == more[0] for entry in desired.quarantine):
            desired.release(more[0], epoch)
        elif kind == "hold":
            desired.locks.hold()
            desired.end_holdback(epoch)
        elif kind == "resume":
            desired.locks.resume()
            desired.locks.unpin()
        elif kind == "renew":
            desired.renew(desired.incarnation + 1, epoch)
        elif kind == "expire":
            desired.end_holdback(epoch)
        elif kind == "raise" and desired.holdback.may_rise_to(more[0]):
            desired.raise_share(more[0], epoch, "d-1")
            rises += 1
        if desired.holdback.period_epoch != period:
            # It rises with what serves, and is the epoch that ordered that.
            assert desired.holdback.period_epoch == epoch > period
            period, rises = epoch, 0
        assert rises <= 1
        if (before, set(had)) == (desired.serve, set(desired.holdback.shares)):
            assert all(desired.holdback.shares[version] >= share for version, share in had.items()) or not had
        if had != desired.holdback.shares or before != desired.serve:
            assert desired.epoch == epoch
        command = command_of("m", desired, "prod", at, Timing())
        if command is not None:
            check_shares(command)


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


@settings(max_examples=8)
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
    rolled = [decision for decision in fleet.decisions if decision.action == "rollback" and decision.reason.guarded]
    assert len(rolled) <= SWITCHES_MAX
    # Another monitor, which is put to rest and taken up again, orders and decides the same from the same ledger.
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
    # Whatever a replica reads in whatever order, its epoch never falls; who reads the newest one serves as all do.
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
    # Live answers show what the newest command says, and no other version answers live.
    before = dict(fleet.answered)
    fleet.answer(50, dict.fromkeys(VERSIONS, 0.1))
    last = fleet.command()
    assert last is not None
    live = {
        version
        for (version, role), n in fleet.answered.items()
        if role == "live" and n > before.get((version, role), 0)
    }
    assert live == {published[-1].serve}


def test_old_command_decodes_as_before() -> None:
    value = (
        b'{"type":"command","model":"m","epoch":[0,7,0],"serve":"v1","artifact":null,"quarantine":[],"action":"deploy",'
        b'"decision":null,"issued_ts":1,"not_after_ts":2,"audience":"prod"}'
    )
    command = decode_command(value)
    assert isinstance(command, Command)
    assert (command.shares, command.period_epoch) == (UNSET, UNSET)
    assert encode_command(command) == value
    assert msgspec.json.decode(value)["type"] == "command"
