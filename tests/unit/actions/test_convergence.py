"""Of a thousand replicas, those that do not obey are named: in the status, by their answers, and while it is waited."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from actions.convergence.answers import CHANGES_MAX, SHARES_MAX, Answers
from actions.convergence.conduct import OBEYS, Conduct, conducts_of, is_settling
from actions.convergence.progress import Progress, advance, line_of
from actions.replica_watch import ReplicaWatch
from actions.replicas import RESTATE_MS, SETTLE_MS, Acked, Replica, Replicas, Shown, fault_of, lagging
from streams.fold.status import ModelStatus
from streams.fold.status_records import ModelRecord, encode_model
from unship.events import Ack, Prediction

OLD, NEW = (0, 3, 0), (0, 9, 0)
START = 1_767_600_000_000
GIVEN = START + 60_000
BEAT_MS = 10_000


class Fleet:
    """Replicas of one model that follow v2, then a command for v1, with what ledger and answers have of them."""

    def __init__(self, behaviour: dict[str, str], count: int) -> None:
        self.behaviour = behaviour
        self.names = [f"r-{number:04}" for number in range(count)]
        self.watch = ReplicaWatch()
        self.replicas = Replicas()
        self.answers = Answers()
        self.offset = 0

    def beat(self, at: int) -> None:
        """Let each replica answer once and acknowledge the newest command."""
        for name in self.names:
            getattr(self, self.behaviour.get(name, "obeying"))(name, at)
        for changes in self.watch.take().values():
            self.replicas.take(changes, at, {OLD: "v2", NEW: "v1"}.get, Counter())

    def obeying(self, name: str, at: int) -> None:
        epoch, version = (NEW, "v1") if at >= GIVEN else (OLD, "v2")
        self.ack(name, "serving", epoch, version, at)
        self.answer(name, epoch, version, at + 1)

    def wedged(self, name: str, at: int) -> None:
        if at < GIVEN:
            self.obeying(name, at)

    def lying(self, name: str, at: int) -> None:
        self.ack(name, "serving", NEW if at >= GIVEN else OLD, "v1" if at >= GIVEN else "v2", at)
        self.answer(name, OLD, "v2", at + 1)

    def forked(self, name: str, at: int) -> None:
        self.obeying(name, at)
        self.answer(name, OLD, "v2", at + 2)
        # The monitor makes a round in between.
        for changes in self.watch.take().values():
            self.replicas.take(changes, at, {OLD: "v2", NEW: "v1"}.get, Counter())
        self.obeying(name, at + 3)

    def refusing(self, name: str, at: int) -> None:
        if at < GIVEN:
            self.obeying(name, at)
        else:
            self.ack(name, "refused", NEW, "v2", at, "LOAD_FAILED")
            self.answer(name, OLD, "v2", at + 1)

    def ack(self, replica: str, stage: Any, epoch: Any, serving: str, at: int, code: Any = None) -> None:
        ack = Ack(model="m", replica=replica, boot="b", epoch=epoch, stage=stage, serving=serving, code=code)
        self.offset += 1
        self.watch.acknowledged(ack, ("acks", 0, self.offset), at)

    def answer(self, replica: str, epoch: Any, version: str, at: int) -> None:
        self.offset += 1
        event = Prediction(id=f"p-{self.offset}", model="m", version=version, output=1, replica=replica, epoch=epoch)
        if self.watch.is_news(event, at):
            self.watch.answered(event, ("predictions", 0, self.offset), at)
        if at >= GIVEN:
            self.answers.take(event, at)

    def conducts(self, now: int) -> dict[str, Conduct]:
        return conducts_of(dict(self.replicas.alive(now)), "v1", NEW, GIVEN, now)


BAD = {"r-0100": "wedged", "r-0200": "lying", "r-0300": "forked", "r-0400": "refusing"}
KINDS = {"r-0100": "silent", "r-0200": "lying", "r-0300": "forked", "r-0400": "refused"}


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    fleet = Fleet(BAD, 1_000)
    for number in range(12):
        fleet.beat(START + number * BEAT_MS)
    return fleet


def test_each_of_a_thousand_replicas_that_does_not_obey_is_named_by_the_ledger(fleet: Fleet) -> None:
    found = {name: each.kind for name, each in fleet.conducts(START + 12 * BEAT_MS).items() if each.kind != OBEYS}
    assert found == KINDS


def test_each_of_them_is_in_a_status_that_is_too_small_for_all_replicas(fleet: Fleet) -> None:
    status = ModelStatus("HEALTHY", "v1", NEW, {}, None, None, [], True, dict(fleet.replicas.known))
    shown = msgspec.json.decode(encode_model(status, 0), type=ModelRecord).status
    assert shown.cut["replicas"] > 0
    assert set(shown.lagging(shown.replicas)) == set(KINDS)


def test_each_of_them_is_named_by_the_answers_alone(fleet: Fleet) -> None:
    now = START + 12 * BEAT_MS
    acked = {name: Replica(acked=each.acked, refused=each.refused, heard=each.heard, since=each.since)
             for name, each in fleet.replicas.alive(now)}  # fmt: skip
    conducts = conducts_of(fleet.answers.proven(acked, now), "v1", NEW, GIVEN, now)
    assert {name: each.kind for name, each in conducts.items() if each.kind != OBEYS} == KINDS
    live = {(kind.version, kind.epoch): share.count for kind, share in fleet.answers.shares.items()}
    # Six beats: the lying one, the forked one and the refusing one answered with the old version in each of them.
    assert live == {("v1", NEW): 6 * (1_000 - 3) + 6, ("v2", OLD): 6 * 3}


@pytest.mark.parametrize("name", BAD)
def test_wait_does_not_end_for_one_that_does_not_obey_and_ends_once_it_does(name: str) -> None:
    fleet, progress = Fleet({name: BAD[name]}, 401), Progress()
    for number in range(12):
        fleet.beat(START + number * BEAT_MS)
        if number >= 6:
            progress = advance(progress, fleet.conducts(START + number * BEAT_MS + 5), number * BEAT_MS - 60_000)
    assert not progress.converged
    assert progress.kinds == {OBEYS: 400, KINDS[name]: 1}
    assert set(progress.reached) == {50, 95}
    fleet.behaviour = {}
    # What answered in turn is two processes until the second one has been gone for a while.
    for number in range(12, 12 + RESTATE_MS // BEAT_MS + 2):
        fleet.beat(START + number * BEAT_MS)
    now = START + number * BEAT_MS + 5
    progress = advance(progress, fleet.conducts(now), now - GIVEN)
    assert progress.converged, fleet.conducts(now)[name]
    assert line_of(progress).startswith("live 401: serving 401; 50 % after ")


def test_slow_request_that_ends_long_after_the_switch_makes_no_second_process() -> None:
    fleet = Fleet({}, 1)
    for number in range(8):
        fleet.beat(START + number * BEAT_MS)
    fleet.answer("r-0000", OLD, "v2", START + 7 * BEAT_MS + 500)
    fleet.beat(START + 8 * BEAT_MS)
    assert fleet.conducts(START + 8 * BEAT_MS + 5)["r-0000"].kind == OBEYS


def test_share_that_is_lost_again_is_not_reached() -> None:
    good, bad = Conduct(OBEYS), Conduct("other", "x")
    progress = advance(Progress(), {"a": good, "b": good}, 5)
    assert (progress.reached, progress.converged) == ({50: 5, 95: 5, 100: 5}, True)
    progress = advance(progress, {"a": good, "b": bad}, 9)
    assert (progress.reached, progress.converged) == ({50: 5}, False)
    assert not advance(progress, {}, 10).converged


def test_replica_that_answers_is_settling_for_a_moment_after_its_ack() -> None:
    replica = Replica(Acked("v1", "serving", NEW, 1_000, 1_000), Shown("v1", NEW, 1_001), heard=1_001)
    assert is_settling(replica, NEW, 1_000 + SETTLE_MS)
    assert not is_settling(replica, NEW, 60_000)
    assert not is_settling(replica, None, 1_000)
    assert not is_settling(Replica(replica.acked), NEW, 1_000)


def test_names_that_a_stranger_invents_take_a_bounded_number_of_places() -> None:
    answers = Answers()
    for number in range(3 * SHARES_MAX):
        event = Prediction(id="p", model="m", version=f"v{number}", output=1, replica=f"x-{number}", epoch=OLD)
        answers.take(event, START + number)
    for number in range(1_000):
        version = f"v{number % 2}"
        event = Prediction(id="p", model="m", version=version, output=1, replica="x-0", epoch=(0, number % 2, 0))
        answers.take(event, START + 10_000 + number)
    assert len(answers.shares) == SHARES_MAX
    assert len(answers.replicas) == 1_000
    assert answers.others > 0
    assert max(len(changes) for changes in answers._changes.values()) <= CHANGES_MAX


@pytest.mark.parametrize(
    ("replica", "kind"),
    [
        (Replica(Acked("v2", "serving", OLD, 0, 0)), "other"),
        (Replica(Acked("v2", "verified", NEW, 0, 0)), "loading"),
        (Replica(Acked("v1", "serving", NEW, 0, 0), Shown("v2", OLD, SETTLE_MS)), "lying"),
        (Replica(Acked("v1", "serving", NEW, 0, 0), Shown("v2", OLD, SETTLE_MS - 1)), None),
    ],
)
def test_fault_is_the_kind_of_the_sentence_that_the_status_has(replica: Replica, kind: str | None) -> None:
    fault = fault_of(replica, "v1", NEW)
    assert (None if fault is None else fault.kind) == kind
    assert list(lagging([("r", replica)], "v1", NEW).values()) == ([] if fault is None else [fault.why])


# Shares


def test_replica_that_answers_a_share_by_the_old_version_obeys_and_one_that_ignores_shares_does_too() -> None:
    dealing, ignoring, answers, watch, replicas = "r-1", "r-2", Answers(), ReplicaWatch(), Replicas()
    for offset, at in enumerate(range(GIVEN, GIVEN + 60_000, 1_000)):
        for name in (dealing, ignoring):
            beside = ("v2",) if name == dealing else None
            ack = Ack(model="m", replica=name, boot="b", epoch=NEW, stage="serving", serving="v1", beside=beside, ts=at)
            watch.acknowledged(ack, ("acks", 0, offset), at)
            held = name == dealing and offset % 3 == 0
            event = Prediction(
                id=f"{name}-{at}",
                model="m",
                version="v2" if held else "v1",
                role="holdback" if held else "live",
                output=1,
                ts=at,
                replica=name,
                epoch=NEW,
            )
            watch.answered(event, ("predictions", 0, 2 * offset + (name == ignoring)), at)
            answers.take(event, at)
        for changes in watch.take().values():
            replicas.take(changes, at, {OLD: "v2", NEW: "v1"}.get, Counter())
    now = GIVEN + 60_000
    assert lagging(replicas.alive(now), "v1", NEW) == {}
    proven = answers.proven(replicas.known, now)
    assert {each.kind for each in conducts_of(proven, "v1", NEW, GIVEN, now).values()} == {OBEYS}
    assert {(kind.role, kind.version): share.count for kind, share in answers.shares.items()} == {
        ("live", "v1"): 100,
        ("holdback", "v2"): 20,
    }
