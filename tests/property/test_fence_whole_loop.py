"""From the ledger to what a replica obeys: no order without a durable decision, none on what is not known, and the same
decision from the same records whoever folds them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from actions.checkpoints import CHECKPOINT_KEY
from actions.journal import Decision, decision_bytes, digest_of
from actions.reasons import Reason, Verdict
from actions.reconcile import Signer, Timing
from streams.embedded.monitor import EmbeddedMonitor
from streams.fold.fold import Fold, SavedFold
from streams.ledger.encoding import pack, unpack
from streams.ledger.entries import entry_of, read_entry
from streams.ledger.records import Batch, Deployed, Operated, Record
from tests.effort import some_of
from tests.keys import CONTROLLER, TRUST, signed
from tests.pipelines import Run, run, step
from tests.plans import EVERYTHING, Plan, config_of, events_of, plans
from unship.codec import encode_line
from unship.commands import Command, decode_command
from unship.events import Deployment, Event, Feedback, OperatorAct, Prediction
from unship.log.embedded.log import EmbeddedLog, Fence, Message
from unship.replica.fence import FenceState, boot, encode_state, judge, pending, restore, switched
from unship.signing import COMMAND_TYPE, sign

SIGNER = Signer("prod", lambda value: sign(value, CONTROLLER, COMMAND_TYPE), TRUST)
TOPICS: dict[type, str] = {Prediction: "predictions", Feedback: "feedback", Deployment: "deployments"}
ACTING = msgspec.structs.replace(EVERYTHING, slices=False, sources=1, noise=False)


def ledger_of(plan: Plan) -> list[Record]:
    """Return the ledger of a recording, until time has gone on a while after its end."""
    events = [encode_line(event) for _, event in events_of(plan)]
    end = max(event.ts or 0 for _, event in events_of(plan))
    return run(config_of(plan), events, until=end + 60_000).ledger


# What is not known changes nothing


@settings(max_examples=some_of(40))
@given(plan=plans)
def test_only_deployments_operators_and_confirmed_decay_change_what_serves(plan: Plan) -> None:
    """A verdict that is inconclusive or an error never does, nor does any decision but a rollback."""
    fold = Fold(config_of(plan))
    for record in ledger_of(plan):
        before = {name: model.state.desired.serve for name, model in fold.models.items()}
        decisions = step(fold, record)
        for name, model in fold.models.items():
            serve = model.state.desired.serve
            if serve == before.get(name) or isinstance(record, Deployed | Operated):
                continue
            if before.get(name) is None:
                # The first version ever seen, of a model without a deployment.
                assert isinstance(record, Batch)
                continue
            (decided,) = [d for d in decisions if d.model == name and d.action == "rollback"]
            assert decided.verdict == Verdict.DEGRADED
            assert decided.reason in (Reason.TARGET_BETTER, Reason.RECORD_BETTER)
            assert (decided.to, decided.mode) == (serve, "act")
        for decision in decisions:
            if decision.verdict in (Verdict.INCONCLUSIVE, Verdict.ERROR) and not isinstance(record, Operated):
                assert decision.action in ("none", "page")
                assert decision.to is None


@settings(max_examples=some_of(25))
@given(plan=plans, swings=st.integers(2, 5))
def test_switches_inside_a_window_never_exceed_the_limit(plan: Plan, swings: int) -> None:
    """The version that was rolled back is let out of quarantine and deployed again, over and over."""
    plan = msgspec.structs.replace(ACTING, seed=plan.seed, mature_after_s=plan.mature_after_s, lines=250)
    length = plan.lines * 60 + 40_000
    rule = msgspec.structs.replace(config_of(plan).of("m"), switches_span_ms=600_000)
    config = msgspec.structs.replace(config_of(plan), models={"m": rule})
    made = Run(config)
    begin = events_of(plan)[0][1].ts or 0
    for swing in range(swings):
        events: list[Event] = []
        start = swing * length
        if swing:
            at = begin + start - 1
            events.append(OperatorAct(act="release", model="m", reason="x", by="me", version="v2", ts=at))
        for _, event in events_of(plan):
            changes: dict[str, Any] = {"ts": (event.ts or 0) + start}
            if isinstance(event, Prediction | Feedback):
                changes["id"] = f"{swing}-{event.id}"
            events.append(msgspec.structs.replace(event, **changes))
        # The newest cohorts of a swing close before the next one begins.
        made.take(map(encode_line, events))
        made.advance(begin + start + length - 2)
    reasons = [decision.reason for decision in made.decisions]
    rolled = [decision.ts for decision in made.decisions if decision.action == "rollback"]
    for at in rolled:
        inside = [other for other in rolled if at - rule.switches_span_ms < other <= at]
        assert len(inside) <= rule.switches_max
        assert all(at - other >= rule.cooldown_ms for other in inside if other != at)
    assert (len(rolled), "SWITCH_LIMIT" in reasons) == (2, swings > 2)


# The same decision from the same records


@settings(max_examples=some_of(25))
@given(plan=plans, data=st.data())
def test_decision_is_the_same_bytes_from_the_records_before_it_whoever_folds_them(
    plan: Plan, data: st.DataObject
) -> None:
    """Through the ledger's lines, with the fold put to rest and taken up again between any two of them."""
    records = ledger_of(plan)
    whole = Fold(config_of(plan))
    expected = [decision for record in records for decision in step(whole, record)]
    fold, found = Fold(config_of(plan)), list[Decision]()
    rests = data.draw(st.sets(st.integers(0, len(records)), max_size=4))
    for offset, record in enumerate(records):
        if offset in rests:
            saved = unpack(pack(fold.save()), SavedFold)
            fold = Fold(config_of(plan))
            fold.load(saved)
        found += fold.step(read_entry(entry_of(record).value))
    assert [decision_bytes(d) for d in found] == [decision_bytes(d) for d in expected]
    previous = ""
    for decision in found:
        # All that it rests on lies inside the range that it names.
        assert decision.provenance.ledger == (0, decision.epoch[1])
        assert decision.digests.previous == previous
        previous = digest_of(decision_bytes(decision))
    if expected:
        chosen = data.draw(st.sampled_from(expected))
        prefix = Fold(config_of(plan))
        last = [step(prefix, record) for record in records[: chosen.epoch[1] + 1]][-1]
        assert decision_bytes(chosen) in [decision_bytes(decision) for decision in last]


# No order without its decision


class Crash(Exception):
    """The process died."""


class Fragile(EmbeddedLog):
    """A log whose writer dies at chosen writes, before they reach the disk or right after."""

    def __init__(self, folder: Path, now_ms: Any, deaths: Mapping[int, bool]) -> None:
        super().__init__(folder, now_ms=now_ms, fsync=False)
        self.deaths, self.writes = deaths, 0

    def append_many(self, batches: Mapping[str, Sequence[Message]], *, fence: Fence | None = None) -> Any:
        """Write, or die; sources are written by others and are not counted."""
        if fence is None:
            return super().append_many(batches, fence=fence)
        self.writes += 1
        after = self.deaths.get(self.writes)
        if after is False:
            raise Crash
        done = super().append_many(batches, fence=fence)
        if after is True:
            raise Crash
        return done


class Obeying:
    """A replica that reads the control topic as badly as can be, and loses its process or its disk now and then."""

    def __init__(self) -> None:
        self.disk: bytes | None = None
        self.state = boot(FenceState(model="m", audience="prod"), "v2")
        self.obeyed: list[Command] = []
        self.highest = (0, 0, 0)

    def restart(self, lose: bool) -> None:
        """Start again, with or without what was on the disk."""
        self.disk = None if lose else self.disk
        self.highest = (0, 0, 0) if lose else self.highest
        self.state = boot(restore(self.disk, "m", "prod")[0], "v2")

    def read(self, record: Any, now_ms: int) -> None:
        """Judge one control record and load what is owed."""
        after, verdict = judge(self.state, record.value, record.headers, TRUST, now_ms)
        if verdict.kind == "ACCEPT" and verdict.command is not None:
            self.obeyed.append(verdict.command)
        self.state = after
        target = pending(after)
        if target is not None:
            self.state = switched(after, target)
        assert (self.state.epoch or (0, 0, 0)) >= self.highest
        self.highest = self.state.epoch or (0, 0, 0)
        self.disk = encode_state(self.state)


@settings(max_examples=some_of(12))
@given(
    seed=st.integers(0, 500),
    deaths=st.dictionaries(st.integers(1, 60), st.booleans(), max_size=8),
    luck=st.integers(0, 2**16),
)
def test_whatever_a_replica_obeys_follows_a_decision_that_is_in_the_journal(
    seed: int, deaths: dict[int, bool], luck: int
) -> None:
    plan = msgspec.structs.replace(ACTING, seed=seed)
    events, clock = [event for _, event in events_of(plan)], [0]
    chance = random.Random(luck)
    with TemporaryDirectory() as folder, Fragile(Path(folder), lambda: clock[0], deaths) as log:
        replica, at = Obeying(), 0
        live: EmbeddedMonitor | None = None
        while at < len(events) or live is None or live.publish():
            size = chance.randrange(1, 120)
            for event in events[at : at + size]:
                clock[0] = max(clock[0], event.ts or 0)
                signs = isinstance(event, Deployment)
                message = signed(encode_line(event), clock[0]) if signs else Message(encode_line(event), b"k")
                log.append(TOPICS[type(event)], [message])
            at += size
            try:
                if live is None:
                    live = EmbeddedMonitor(log, config_of(plan), lambda: clock[0], SIGNER, Timing(beat_ms=2_000))
                live.step()
                live.publish()
            except Crash:
                live = None
            if chance.random() < 0.2:
                replica.restart(lose=chance.random() < 0.3)
            records = list(log.read("control", 0))
            for record in chance.choices(records, k=min(len(records), 4)):
                replica.read(record, clock[0])
            check(log, replica)
        for record in log.read("control", 0):
            replica.read(record, clock[0])
        check(log, replica)
        desired = live.pipeline.fold.models["m"].state.desired
        assert (replica.state.epoch, replica.state.wanted and replica.state.wanted.version) == (
            desired.epoch,
            desired.serve,
        )


def check(log: EmbeddedLog, replica: Obeying) -> None:
    """Check that the journal explains everything that is ordered and everything that was obeyed."""
    decided = [entry for entry in log.read("decisions", 0) if entry.key != CHECKPOINT_KEY]
    journal = {d["id"]: d for d in (msgspec.json.decode(entry.value or b"") for entry in decided)}
    ordered = [decode_command(entry.value) for entry in log.read("control", 0)]
    for command in [*ordered, *replica.obeyed]:
        assert isinstance(command, Command)
        assert (command.decision is None) is (command.action != "rollback")
        if command.decision is not None:
            decision = journal[command.decision]
            assert (tuple(decision["epoch"]), decision["to"], decision["action"]) == (
                command.epoch,
                command.serve,
                "rollback",
            )
