"""A replica behind a log that drops, repeats and reorders, killed at any point, with forgers on the topic.

The world here is the driver's order of steps in a few lines, with a disk that is a variable: what the fence promises
must hold whatever comes in whatever order, and wherever the process dies.
"""

from __future__ import annotations

from functools import cache

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.keys import CONTROLLER, OPERATOR, STRANGER, TRUST
from unship.commands import Command, Quarantined, encode_command, is_quarantined
from unship.replica.fence import (
    NO_EPOCH,
    FenceState,
    Identity,
    Target,
    acks,
    boot,
    encode_state,
    judge,
    must_store,
    pending,
    restore,
    switched,
)
from unship.signing import COMMAND_TYPE, OPERATOR_TYPE, sign

WHO = Identity("r-1", "b-1")

# What a command may say: (serve, artifact, quarantine). The last one contradicts itself and must never be obeyed.
CONTENTS = [
    ("v1", "sha256:1", ()),
    ("v2", "sha256:2", (Quarantined("v1", "sha256:1"),)),
    ("v1", None, (Quarantined("v2", "sha256:2"),)),
    ("v3", "sha256:1", (Quarantined("v2"),)),
    ("v1", "sha256:1b", ()),
    ("v4", "sha256:2", (Quarantined("v2", "sha256:2"),)),
]
CONTRADICTION = 5
# Two incarnations: the ledger was made anew after the fourth epoch, and its offsets began again.
EPOCHS = [(1, 5, 0), (1, 5, 1), (1, 90, 0), (1, 91, 0), (2, 3, 0), (2, 3, 1), (2, 8, 0), (3, 0, 0)]
BEAT_MS = 1_000
LIFE_MS = 4_000

Record = tuple[bytes, list[tuple[str, bytes]]]


@cache
def command(number: int, content: int, beat: int) -> Command:
    """Return the command of the epoch with a number, as it is re-asserted at a beat."""
    serve, artifact, quarantine = CONTENTS[content]
    issued = number * BEAT_MS + beat * BEAT_MS
    return Command(
        model="fraud",
        epoch=EPOCHS[number],
        serve=serve,
        artifact=artifact,
        quarantine=quarantine,
        action="rollback",
        # One decision for all, so that two epochs can say the same.
        decision="d-1",
        issued_ts=issued,
        not_after_ts=issued + LIFE_MS,
        audience="prod",
    )


def signed(order: Command, key: Ed25519PrivateKey = CONTROLLER, kind: str = COMMAND_TYPE) -> Record:
    value = encode_command(order)
    return value, sign(value, key, kind)


@cache
def honest(number: int, content: int, beat: int) -> Record:
    return signed(command(number, content, beat))


@cache
def hostile(trick: str, number: int, content: int) -> Record:
    """Return what somebody without the controller's key can put on the topic."""
    order = command(number, content, 2)
    value, headers = honest(number, content, 2)
    if trick == "stranger":
        return signed(order, STRANGER)
    if trick == "operator":
        return signed(order, OPERATOR)
    if trick == "stranger with a trusted hint":
        forged = dict(signed(order, STRANGER)[1])
        return value, [*forged.items() - {("unship_key", forged["unship_key"])}, headers[1]]
    if trick == "other model":
        return signed(msgspec.structs.replace(order, model="churn"))
    if trick == "other audience":
        return signed(msgspec.structs.replace(order, audience="test"))
    if trick == "other type":
        return signed(order, CONTROLLER, OPERATOR_TYPE)
    if trick == "changed":
        return value.replace(b'"serve":"v', b'"serve":"w'), headers
    assert trick == "stripped"
    return value, []


TRICKS = ["stranger", "operator", "stranger with a trusted hint", "other model", "other audience", "other type"]
TRICKS += ["changed", "stripped"]


class World:
    """One replica with its disk and its clock, which checks after each step what must always hold."""

    def __init__(self, contents: list[int]) -> None:
        self.contents = contents
        self.disk: bytes | None = None
        self.now = 0
        self.switches = self.accepts = self.boots = 0
        self.late: Target | None = None
        self.applied = NO_EPOCH
        self.obeyed: dict[tuple[int, int, int], str] = {}
        self.state = FenceState(model="fraud", audience="prod")
        self.start()

    def start(self) -> None:
        """Start the process with the version its image holds, then do what is owed."""
        self.state = boot(restore(self.disk, "fraud", "prod")[0], "v1", "sha256:1")
        self.boots += 1
        self.late = None
        self.applied = NO_EPOCH
        assert restore(self.disk, "fraud", "prod")[1] in (None, "STATE_MISSING")

    def lose_disk(self) -> None:
        self.disk = None
        self.obeyed.clear()
        self.start()

    def load(self, outcome: str) -> None:
        """Load what is owed; the process may die before or after the swap, or the load may fail."""
        target = pending(self.state)
        if target is None or outcome == "fails":
            return None
        if outcome == "ends late":
            self.late = target
            return None
        if outcome == "dies before":
            return self.start()
        before, self.state = self.state, switched(self.state, target)
        assert before.serving != self.state.serving
        self.switches += 1
        if outcome == "dies after":
            return self.start()
        self.disk = encode_state(self.state)
        return None

    def end_late_load(self) -> None:
        """Let the load end that was still running as this record was judged, which may have asked otherwise."""
        if self.late is None:
            return
        before, self.state = self.state, switched(self.state, self.late)
        if before.wanted != self.late:
            assert self.state is before
        else:
            self.switches += before.serving != self.state.serving
        self.late = None
        if must_store(before, self.state):
            self.disk = encode_state(self.state)

    def deliver(self, record: Record | None, outcome: str) -> str:
        """Bring one record (None: a tombstone) and follow the driver's order; return the verdict."""
        before = self.state
        value, headers = record or (None, [])
        after, verdict = judge(before, value, headers, TRUST, self.now)
        # The same inputs give the same bytes, whoever computes them.
        assert (encode_state(after), verdict) == (
            encode_state(judge(before, value, headers, TRUST, self.now)[0]),
            judge(before, value, headers, TRUST, self.now)[1],
        )
        assert len(acks(after, verdict, WHO, self.now)) <= 3
        if verdict.kind == "REFUSED":
            assert after is before
            return str(verdict.code)
        if verdict.kind == "REFRESH":
            assert (after.wanted, after.serving, after.quarantine) == (before.wanted, before.serving, before.quarantine)
        else:
            self.accepts += 1
            assert verdict.command is not None
            assert after.serving is not None
            assert before.serving is not None
            # What is accepted is not served before it is loaded.
            assert (after.serving.version, after.serving.artifact) == (before.serving.version, before.serving.artifact)
            assert self.now <= verdict.command.not_after_ts
            assert (after.epoch or NO_EPOCH) > (before.epoch or NO_EPOCH)
            assert self.obeyed.setdefault(verdict.epoch, after.digest) == after.digest
        self.state = after
        if must_store(before, after):
            self.disk = encode_state(after)
        self.end_late_load()
        self.load(outcome)
        return verdict.kind

    def check(self) -> None:
        """Check what holds at every instant."""
        state = self.state
        assert state.serving is not None
        assert self.switches <= self.accepts + self.boots
        assert restore(self.disk, "fraud", "prod")[0].epoch == state.epoch
        if state.serving.epoch is not None:
            assert self.applied <= state.serving.epoch <= (state.epoch or NO_EPOCH)
            self.applied = state.serving.epoch
            # A served epoch proves the version: predictions that carry it are the proof of convergence.
            serve, artifact, quarantine = CONTENTS[self.contents[EPOCHS.index(state.serving.epoch)]]
            assert state.serving.version == serve
            assert not is_quarantined(quarantine, state.serving.version, state.serving.artifact or artifact)


numbers = st.integers(0, len(EPOCHS) - 1)
outcomes = st.sampled_from(["loads", "loads", "loads", "fails", "ends late", "dies before", "dies after"])
steps = st.one_of(
    st.tuples(st.just("honest"), numbers, st.integers(0, 3), outcomes),
    st.tuples(st.just("honest"), numbers, st.integers(0, 3), outcomes),
    st.tuples(st.just("hostile"), st.sampled_from(TRICKS), numbers, st.integers(0, len(CONTENTS) - 1)),
    st.tuples(st.just("tombstone")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("wait"), st.integers(1, 20)),
)
contents = st.lists(st.integers(0, len(CONTENTS) - 1), min_size=len(EPOCHS), max_size=len(EPOCHS))


def play(world: World, step: tuple) -> str:
    if step[0] == "honest":
        _, number, beat, outcome = step
        said = world.deliver(honest(number, world.contents[number], beat), outcome)
        assert said in ("ACCEPT", "REFRESH", "REGRESSION", "EXPIRED", "QUARANTINED")
        return said
    if step[0] == "hostile":
        said = world.deliver(hostile(*step[1:]), "loads")
        assert said in ("BAD_SIGNATURE", "UNKNOWN_KEY", "WRONG_AUDIENCE")
        return said
    if step[0] == "tombstone":
        assert world.deliver(None, "loads") == "UNSUPPORTED_SCHEMA"
    elif step[0] == "restart":
        world.start()
    elif step[0] == "wait":
        world.now += step[1] * BEAT_MS // 2
    elif step[0] == "lose":
        world.lose_disk()
    return step[0]


def settle(world: World) -> int | None:
    """Let the newest obeyable command arrive in time, and whatever is owed be loaded; return its number."""
    fit = [number for number, content in enumerate(world.contents) if content != CONTRADICTION]
    if not fit:
        return None
    number = fit[-1]
    world.now = command(number, world.contents[number], 0).issued_ts
    # A clock that went further before would have made it expire: the monitor re-asserts, so a later beat comes.
    world.now = max(world.now, world.state.floor_ts)
    beat = max(0, world.now // BEAT_MS - number)
    value = honest(number, world.contents[number], beat)
    assert world.deliver(value, "loads") in ("ACCEPT", "REFRESH")
    world.end_late_load()
    world.load("loads")
    assert pending(world.state) is None
    return number


@given(contents, st.lists(steps, max_size=40))
def test_highest_epoch_never_falls_and_nothing_hostile_is_obeyed(what: list[int], script: list[tuple]) -> None:
    """Across drops, repeats, reorderings and deaths at any point; what serves is always what its epoch said."""
    world = World(what)
    highest = NO_EPOCH
    for step in script:
        play(world, step)
        world.check()
        assert (world.state.epoch or NO_EPOCH) >= highest
        highest = world.state.epoch or NO_EPOCH


@given(contents, st.lists(steps, max_size=25), st.lists(steps, max_size=25))
def test_two_replicas_with_different_histories_end_in_the_same_desired_state(
    what: list[int], first: list[tuple], second: list[tuple]
) -> None:
    ends = []
    for script in (first, second):
        world = World(what)
        for step in script:
            play(world, step)
        number = settle(world)
        world.check()
        state = world.state
        ends.append(
            (state.epoch, state.digest, state.wanted, state.quarantine, state.serving and state.serving.version)
        )
        if number is not None:
            assert state.serving is not None
            assert state.serving.epoch == EPOCHS[number]
            assert not is_quarantined(state.quarantine, state.serving.version, state.serving.artifact)
    if any(content != CONTRADICTION for content in what):
        assert ends[0] == ends[1]


@given(contents, st.lists(st.one_of(steps, st.tuples(st.just("lose"))), max_size=40))
def test_lost_disk_obeys_nothing_expired_and_still_ends_in_the_desired_state(
    what: list[int], script: list[tuple]
) -> None:
    """`World.deliver` checks of every accepted command that its time has not passed."""
    world = World(what)
    for step in script:
        play(world, step)
        world.check()
    number = settle(world)
    if number is not None:
        assert world.state.wanted is not None
        assert world.state.wanted.version == CONTENTS[what[number]][0]


@given(
    st.lists(st.tuples(numbers, st.integers(0, len(CONTENTS) - 2), st.integers(0, 3), outcomes, st.booleans())),
)
def test_two_writers_with_one_epoch_never_get_two_meanings_obeyed(script: list[tuple]) -> None:
    """`World.deliver` checks that an epoch keeps its digest; here the writers disagree on every epoch."""
    world = World([0] * len(EPOCHS))
    for number, content, beat, outcome, restart in script:
        before = world.state
        said = world.deliver(honest(number, content, beat), outcome)
        if before.epoch == EPOCHS[number]:
            digest = judge(FenceState(model="fraud", audience="prod"), *honest(number, content, 0), TRUST, 0)[0].digest
            assert said == ("REFRESH" if digest == before.digest else "EQUIVOCATION")
        if restart:
            world.start()


@given(st.lists(st.one_of(st.binary(max_size=200), st.none()), max_size=30), st.binary(max_size=100))
def test_replica_with_nothing_but_noise_serves_on(noise: list[bytes | None], signature: bytes) -> None:
    world = World([0] * len(EPOCHS))
    world.deliver(honest(1, 1, 0), "loads")
    served = world.state.serving
    for value in noise:
        world.deliver(None if value is None else (value, [("unship_sig", signature)]), "loads")
    assert world.state.serving == served


@given(st.binary(max_size=400))
def test_any_bytes_on_disk_are_read_without_raising(data: bytes) -> None:
    state, loss = restore(data, "fraud", "prod")
    assert state == FenceState(model="fraud", audience="prod")
    assert loss in ("STATE_CORRUPT", "STATE_UNSUPPORTED")


@settings(max_examples=30)
@given(st.permutations(range(len(EPOCHS))), contents)
def test_records_in_any_order_end_in_the_highest_epoch(order: list[int], what: list[int]) -> None:
    """Without deaths and expiry, order alone decides nothing."""
    world = World(what)
    for number in order:
        world.deliver(honest(number, what[number], 0), "loads")
    fit = [number for number in range(len(EPOCHS)) if what[number] != CONTRADICTION]
    assert world.state.epoch == (EPOCHS[fit[-1]] if fit else None)


@pytest.mark.parametrize("trick", TRICKS)
def test_every_trick_is_built_from_a_record_that_would_be_obeyed(trick: str) -> None:
    """A trick that fails for another reason would prove nothing."""
    state = FenceState(model="fraud", audience="prod")
    assert judge(state, *honest(3, 1, 2), TRUST, 0)[1].kind == "ACCEPT"
    assert judge(state, *hostile(trick, 3, 1), TRUST, 0)[1].kind == "REFUSED"
