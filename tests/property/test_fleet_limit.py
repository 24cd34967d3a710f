"""Many models that get worse together share a reason, most likely their labels: few are rolled back, the rest page."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actions.facts import FleetFact
from actions.fleet_limit import ECHO_MS, FleetState
from actions.journal import Decision, decision_bytes
from streams.audit.replayed import audit_replayed
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.embedded.monitor import EmbeddedMonitor
from streams.fold.fold import Fold
from streams.ledger.encoding import pack, unpack
from streams.ledger.records import Record, Tick
from streams.pipeline import Pipeline, Step, configuration_record
from streams.recordings.arrivals import arrivals
from streams.recordings.replay import Recorder, Replay
from tests.effort import some_of
from tests.pipelines import step
from unship.codec import encode_line
from unship.events import Deployment, Event, Feedback, OperatorAct, Prediction, Reference
from unship.log.embedded.log import EmbeddedLog, Message

START = 1_772_409_600_000
MODELS = ("a", "b", "c", "d", "e")
REFERENCE = {"zero_one": Reference(mean=0.1, n=1_000)}


def config_of(limit: int = 3, maturity: str = "5s", mode: str = "act", cooldown: str = "1h") -> Config:
    return parse(
        f"""
defaults:
  labels: {{mature_after: {maturity}, early: 2s}}
  worse_by: 0
  one_false_alarm_per: 200
  policy: {{mode: {mode}, deployments: any, cooldown: {cooldown}, confirm_within: 1d}}
fleet: {{max_simultaneous: {limit}}}
"""
    )


def shared_feed(seed: int = 1, count: int = 300, together: bool = True) -> list[Event]:
    """Return requests that all models answer, and one label each that goes bad for what the live versions answer."""
    rng = random.Random(seed)
    events: list[tuple[int, Event]] = []
    for model in MODELS:
        for version, status in (("v1", "live"), ("v2", "live"), ("v1", "holdback")):
            reference = REFERENCE if status == "live" else None
            events.append((0, Deployment(model=model, version=version, status=status, ts=START, reference=reference)))  # type: ignore[arg-type]
    for i in range(count):
        for number, model in enumerate(MODELS):
            at = i * 100 + (0 if together else number)
            beside = rng.random() < 0.4
            wrong = rng.random() < (0.8 if i > 0.3 * count and not beside else 0.1)
            name = f"{model}-{i}"
            events.append(
                (
                    at,
                    Prediction(
                        id=name,
                        model=model,
                        version="v1" if beside else "v2",
                        role="holdback" if beside else "live",
                        output=1,
                        ts=START + at,
                    ),
                )
            )
            events.append((at + 400, Feedback(id=name, truth=int(not wrong), ts=START + at + 400)))
    return [event for _, event in sorted(events, key=lambda entry: entry[0])]


def recording(events: Iterable[Event]) -> bytes:
    return b"".join(encode_line(event) + b"\n" for event in events)


def replayed(config: Config, data: bytes, **options: Any) -> tuple[list[Decision], bytes]:
    """Return the decisions and the complete recording."""
    written = io.BytesIO()
    replay = Replay(config, recorder=Recorder(written))
    return list(replay.decisions(io.BytesIO(data), **options)), written.getvalue()


def rolled_back(decisions: Iterable[Decision]) -> list[str]:
    return [decision.model for decision in decisions if decision.action == "rollback"]


def paged(decisions: Iterable[Decision]) -> list[str]:
    return [decision.model for decision in decisions if decision.reason == "FLEET_LIMIT"]


@pytest.mark.parametrize("maturity", ["0s", "5s"])
@pytest.mark.parametrize("limit", [1, 3, 5])
def test_one_bad_feed_rolls_back_as_many_models_as_allowed_and_pages_for_the_others(limit: int, maturity: str) -> None:
    decisions, _ = replayed(config_of(limit, maturity), recording(shared_feed()))
    assert len(rolled_back(decisions)) == limit
    assert sorted(rolled_back(decisions) + paged(decisions)) == list(MODELS)
    for decision in decisions:
        if decision.reason == "FLEET_LIMIT":
            assert (decision.verdict, decision.action, decision.to) == ("DEGRADED", "page", None)
            fleet = decision.evidence.fleet
            assert fleet
            assert (fleet.limit, set(fleet.under_way)) == (limit, set(rolled_back(decisions)))


def test_limit_holds_where_one_tick_alarms_on_every_model() -> None:
    """All cohorts of one maturity close at one tick, before any record could have told of another model."""
    decisions, _ = replayed(config_of(), recording(shared_feed()))
    at = {decision.ts for decision in decisions if decision.action == "rollback" or decision.reason == "FLEET_LIMIT"}
    assert len(at) < len(MODELS)
    assert (len(rolled_back(decisions)), len(paged(decisions))) == (3, 2)


class Unheard(Pipeline):
    """A pipeline whose facts about rollbacks never come back through its ledger."""

    def _follow(self) -> Iterator[Step]:
        yield from ()


@pytest.mark.parametrize(
    ("limit", "partitions", "together"), [(20, 1, True), (20, 4, True), (20, 5, False), (3, 3, False)]
)
def test_rollbacks_wait_for_each_other_only_where_the_share_of_the_limit_is_used_up(
    limit: int, partitions: int, together: bool
) -> None:
    config = config_of(limit)
    pipeline = Unheard(config)
    began = msgspec.structs.replace(configuration_record(config), ledger_partitions=partitions)
    decisions = step(pipeline.fold, began)
    for taken in pipeline.take(arrivals(map(encode_line, shared_feed()))):
        decisions += taken.decisions
        if rolled_back(decisions):
            break
    at = decisions[-1].ts
    decisions += step(pipeline.fold, Tick(at + 5_000))
    # No record of the ledger has told of a rollback yet.
    assert len(rolled_back(decisions)) == (5 if together else max(limit // partitions, 1))


@pytest.mark.parametrize("mode", ["observe", "approve"])
def test_what_is_not_done_counts_towards_no_limit(mode: str) -> None:
    decisions, _ = replayed(config_of(1, mode=mode), recording(shared_feed()))
    assert paged(decisions) == []
    assert {decision.model for decision in decisions if decision.reason == "TARGET_BETTER"} == set(MODELS)


def test_rollbacks_older_than_the_cooldown_are_not_simultaneous() -> None:
    decisions, _ = replayed(config_of(1, cooldown="0s"), recording(shared_feed()))
    assert sorted(rolled_back(decisions)) == list(MODELS)


def test_model_stays_frozen_until_an_operator_resumes_and_then_waits_for_the_limit_only() -> None:
    events = shared_feed()
    config = config_of(4, cooldown="2m")
    replay = Replay(config)
    decisions = list(replay.decisions(io.BytesIO(recording(events))))
    (frozen,) = paged(decisions)
    assert list(replay.advance(START + 300_000)) == []
    act = OperatorAct(act="resume", model=frozen, reason="the labels are right", by="me", ts=START + 300_001)
    late = Replay(config)
    decisions = list(late.decisions(io.BytesIO(recording([*events, act]))))
    assert rolled_back(decisions)[-1] == frozen
    # Resumed while the others are under way, it is rolled back as soon as one of them is not.
    soon = msgspec.structs.replace(act, ts=max(event.ts or 0 for event in events) + 1)
    early = Replay(config)
    decisions = list(early.decisions(io.BytesIO(recording([*events, soon]))))
    assert len(rolled_back(decisions)) == 4
    decisions += list(early.advance(START + 300_000))
    assert rolled_back(decisions)[4:] == [frozen]
    assert decisions[-1].ts == min(d.ts for d in decisions if d.action == "rollback") + 120_000


@settings(max_examples=some_of(12))
@given(
    seed=st.integers(0, 1_000),
    limit=st.integers(1, 4),
    batch=st.sampled_from([1, 13, 500]),
    together=st.booleans(),
    stops=st.lists(st.floats(0, 1), max_size=3),
)
def test_batches_and_stops_change_no_byte(
    seed: int, limit: int, batch: int, together: bool, stops: list[float]
) -> None:
    data, config = recording(shared_feed(seed, 150, together)), config_of(limit)
    decisions, _ = replayed(config, data)
    assert len(rolled_back(decisions)) <= limit
    expected = [decision_bytes(decision) for decision in decisions]
    snapshot, found = None, []
    for stop in sorted(int(share * data.count(b"\n")) for share in stops):
        replay = Replay(config, snapshot)
        found += [decision_bytes(d) for d in replay.decisions(io.BytesIO(data), batch, stop)]
        snapshot = replay.save()
    found += [decision_bytes(d) for d in Replay(config, snapshot).decisions(io.BytesIO(data), batch)]
    assert found == expected


def test_audit_and_ledger_alone_agree_with_the_decisions() -> None:
    decisions, written = replayed(config_of(), recording(shared_feed()))
    lines = written.splitlines(keepends=True)
    facts = [msgspec.json.decode(line) for line in lines if b'"kind":"fleet"' in line]
    assert [fact["record"]["decision"] for fact in facts] == [d.id for d in decisions if d.action == "rollback"]
    audit = audit_replayed(io.BytesIO(written))
    assert (audit.first_difference, audit.reproduced) == (None, len(decisions))
    ledger = b"".join(line for line in lines if b'"type":"ledger"' in line)
    assert [*Replay(parse("")).decisions(io.BytesIO(ledger))] == decisions


def test_audit_follows_rollbacks_that_the_passing_of_time_leads_to() -> None:
    decisions, _ = replayed(config_of(), recording(shared_feed()))
    first = min(decision.ts for decision in decisions if decision.action == "rollback")
    events = [event for event in shared_feed() if (event.ts or 0) < first - 1_000]
    written = io.BytesIO()
    replay = Replay(config_of(), recorder=Recorder(written))
    before = list(replay.decisions(io.BytesIO(recording(events))))
    after = list(replay.advance(first + 60_000))
    assert rolled_back(before) == []
    assert rolled_back(after)
    audit = audit_replayed(written)
    assert (audit.first_difference, audit.reproduced) == (None, len(before) + len(after))


def test_live_monitor_that_restarts_between_rounds_keeps_the_limit(tmp_path: Path) -> None:
    clock = [START]
    log = EmbeddedLog(tmp_path, now_ms=lambda: clock[0], fsync=False)
    config, events, rng = config_of(), shared_feed(), random.Random(5)
    topics: dict[type, str] = {Prediction: "predictions", Feedback: "feedback", Deployment: "deployments"}
    live = EmbeddedMonitor(log, config, lambda: clock[0])
    decisions = []
    while events:
        for event in events[: rng.randrange(1, 400)]:
            clock[0] = max(clock[0], event.ts or 0)
            log.append(topics[type(event)], [Message(encode_line(event), b"k")])
            events.pop(0)
        if rng.random() < 0.5:
            live = EmbeddedMonitor(log, config, lambda: clock[0])
        decisions += live.step()
    clock[0] += 60_000
    decisions += live.step()
    assert len(rolled_back(decisions)) == 3
    assert sorted(rolled_back(decisions) + paged(decisions)) == list(MODELS)
    again = EmbeddedMonitor(log, config, lambda: clock[0])
    assert pack(again.pipeline.fold.save()) == pack(live.pipeline.fold.save())
    assert again.pipeline.fold.fleet.owed == {}


# What a fold does with the records


def folded() -> tuple[Config, list[Record], Fold]:
    """Return a ledger up to the first rollback that another one waits behind, and the fold there."""
    config = config_of()
    pipeline = Pipeline(config)
    # With as many other partitions as rollbacks may be under way, each has a share of one.
    record: Record = msgspec.structs.replace(configuration_record(config), ledger_partitions=3)
    step(pipeline.fold, record)
    records = [record]
    for taken in pipeline.take(arrivals(map(encode_line, shared_feed()))):
        records.append(taken.entry.record)
        if pipeline.fold.fleet.owed and pipeline.fold.fleet.waiting:
            break
    return config, records, pipeline.fold


def test_rollback_waits_for_the_record_of_the_one_before_and_not_for_ever() -> None:
    _, _, fold = folded()
    (fact,) = fold.fleet.owed.values()
    assert fold.due() <= fact.clock + ECHO_MS
    decisions: list[Decision] = []
    for clock in range(fact.clock + 1_000, fact.clock + ECHO_MS, 1_000):
        decisions += step(fold, Tick(clock))
    assert rolled_back(decisions) == []
    assert rolled_back(step(fold, Tick(fact.clock + ECHO_MS)))


@pytest.mark.parametrize("limit", [1, 3])
def test_limit_of_one_partition_is_exact_though_no_record_ever_comes_back(limit: int) -> None:
    """As in a backlog: what was decided on it is told behind its end."""
    config, events = config_of(limit), shared_feed()
    pipeline = Unheard(config)
    decisions = step(pipeline.fold, configuration_record(config))
    for taken in chain(pipeline.take(arrivals(map(encode_line, events))), pipeline.advance(START + 600_000)):
        decisions += taken.decisions
    assert len(rolled_back(decisions)) == limit
    assert sorted(rolled_back(decisions) + paged(decisions)) == list(MODELS)


def test_recovered_fold_still_owes_the_record_that_a_crash_lost() -> None:
    config, records, fold = folded()
    again = Fold(config)
    for record in records:
        step(again, record)
    assert again.fleet.owed == fold.fleet.owed != {}
    pipeline = Pipeline(config)
    pipeline.fold = again
    first = next(iter(pipeline.apply([])))
    assert isinstance(first.entry.record, FleetFact)
    assert first.entry.record.decision in fold.fleet.owed


def test_repeated_record_changes_nothing_and_a_rollback_elsewhere_counts() -> None:
    _, _, fold = folded()
    (fact,) = fold.fleet.owed.values()
    step(fold, fact)
    state = pack(fold.fleet)
    chain_free = {name: pack(model.save()) for name, model in fold.models.items()}
    step(fold, fact)
    assert pack(fold.fleet) == state
    assert {name: pack(model.save()) for name, model in fold.models.items()} == chain_free


@pytest.mark.parametrize("maturity", ["0s", "5s"])
@settings(max_examples=some_of(10))
@given(limit=st.integers(1, 4), delay=st.integers(0, 8), split=st.integers(1, 4), seed=st.integers(0, 99))
def test_two_ledger_partitions_exceed_the_limit_by_one_at_most(
    maturity: str, limit: int, delay: int, split: int, seed: int
) -> None:
    """Each hears of the other, and of itself, some time after the decision; rollbacks wait for that meanwhile."""
    config, events = config_of(limit, maturity), shared_feed(seed, 200)
    partitions = [Unheard(config), Unheard(config)]
    for pipeline in partitions:
        step(pipeline.fold, msgspec.structs.replace(configuration_record(config), ledger_partitions=2))
    decisions: list[Decision] = []
    told: dict[str, tuple[int, FleetFact]] = {}

    def take(pipeline: Pipeline, new: list[Decision], now: int) -> None:
        decisions.extend(new)
        for fact in pipeline.fold.fleet.owed.values():
            told.setdefault(fact.decision, (now, fact))

    def mine(event: Event) -> bool:
        name = event.id if isinstance(event, Prediction | Feedback) else event.model
        return name[0] in MODELS[:split]

    for second in range(40):
        # What was told is read by both before what is new, and nothing is told twice.
        for said_at, fact in list(told.values()):
            if said_at + delay == second:
                for pipeline in partitions:
                    take(pipeline, step(pipeline.fold, fact), second)
        now = START + second * 1_000
        for number, pipeline in enumerate(partitions):
            part = [e for e in events if 0 <= (e.ts or 0) - now < 1_000 and mine(e) is (number == 0)]
            for taken in chain(pipeline.take(arrivals(map(encode_line, part))), pipeline.advance(now + 999)):
                take(pipeline, taken.decisions, second + 1)
    assert limit <= len(rolled_back(decisions)) <= limit + 1
    assert sorted(rolled_back(decisions) + paged(decisions)) == list(MODELS)


facts = st.builds(
    lambda model, decision, until: FleetFact(0, f"d-{decision}", f"m{model}", until),
    st.integers(0, 3),
    st.integers(0, 5),
    st.integers(1, 9),
)


@given(st.lists(facts, max_size=12), st.randoms(use_true_random=False))
def test_order_and_repeats_of_records_do_not_matter(given_facts: list[FleetFact], rng: random.Random) -> None:
    one, other = FleetState(1), FleetState(1)
    for fact in given_facts:
        one.take(fact, 0)
    shuffled = given_facts * 2
    rng.shuffle(shuffled)
    for fact in shuffled:
        other.take(fact, 0)
    assert {name: fact.until for name, fact in one.under_way.items()} == {
        name: fact.until for name, fact in other.under_way.items()
    }
    assert unpack(pack(one), FleetState) == one
    for now in range(10):
        counted = {fact.model for fact in given_facts if fact.until > now} - {"m0"}
        assert {fact.model for fact in one.others("m0", now)} == counted
