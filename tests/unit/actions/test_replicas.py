"""What replicas say and show: only changes are written, repeats change nothing, and who does not obey is named."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actions import replica_watch
from actions.facts import ReplicaChange
from actions.replica_watch import ReplicaWatch, SavedWatch
from actions.replicas import (
    ANSWERS_PROVE_MS,
    FORGET_MS,
    LEFT_MAX,
    RESTATE_MS,
    SETTLE_MS,
    Replica,
    Replicas,
    lagging,
    unfit,
)
from streams.config.parse import parse
from streams.fold.fold import Fold
from streams.join.partition import PREDICTIONS, Raw
from streams.join.source_reader import Position, SourceReader
from streams.kafka.copier import Copier, Place
from streams.ledger.encoding import pack, unpack
from streams.ledger.entries import read_entry
from streams.ledger.records import CHANGES_MAX, Batch, Begun, Record, ReplicaFacts
from streams.pipeline import Pipeline, configuration_record
from tests.pipelines import run, source_records_of, step
from unship.codec import encode_line
from unship.events import Ack, Deployment, Event, Prediction, RefusalCode, Stage

START = 1_772_409_600_000
HOUR_MS = 3_600_000
CONFIG = parse("models: {m: {policy: {mode: act}}}")
OLD, NEW = (0, 3, 0), (0, 9, 0)
ORDERED = {OLD: "v42", NEW: "v41"}


def ack(
    at: int, replica: str = "r-1", stage: Stage = "serving", serving: str = "v41", epoch: Any = NEW, **fields: Any
) -> Ack:
    return Ack(model="m", replica=replica, boot="b", epoch=epoch, stage=stage, serving=serving, ts=START + at, **fields)


def answer(
    at: int, number: int, version: str = "v41", epoch: Any = NEW, replica: str = "r-1", model: str = "m", **more: Any
) -> Event:
    return Prediction(
        id=f"p{number}",
        model=model,
        version=version,
        output=1,
        ts=START + at,
        replica=replica,
        epoch=epoch,
        **more,
    )


def change(at: int, stage: str = "serving", replica: str = "r-1", shown: bool = False) -> ReplicaChange:
    """Return what a replica acknowledged, or showed, at a time that is also its offset."""
    return ReplicaChange(replica, shown, stage, "v41", NEW, None, at, ("acks", 0, at))


def test_replica_that_left_is_forgotten_and_known_again_with_its_next_ack() -> None:
    replicas = Replicas()
    replicas.take([change(1), change(2, replica="r-2"), change(3, "left")], 3, ORDERED.get, Counter())
    assert (set(replicas.known), set(replicas.left)) == ({"r-2"}, {"r-1"})
    replicas.take([change(4)], 4, ORDERED.get, Counter())
    assert (set(replicas.known), replicas.left) == ({"r-1", "r-2"}, {})


def test_of_replicas_that_left_the_last_ones_are_shown() -> None:
    replicas = Replicas()
    gone = [change(number, "left", f"r-{number}") for number in range(1, LEFT_MAX + 3)]
    replicas.take(gone, len(gone), ORDERED.get, Counter())
    assert list(replicas.left) == [f"r-{number}" for number in range(3, LEFT_MAX + 3)]


def test_late_word_that_a_replica_left_ends_none_that_began_again() -> None:
    replicas = Replicas()
    late = msgspec.structs.replace(change(7, "left"), at=2)
    replicas.take([change(5), late], 7, ORDERED.get, Counter())
    assert set(replicas.known) == {"r-1"}


def ledger_of(events: Sequence[Event]) -> tuple[Pipeline, list[Record]]:
    """Return the pipeline and the ledger after a recording."""
    made = run(CONFIG, map(encode_line, events))
    return made.pipeline, made.records


def changes_of(records: Sequence[Record]) -> list[tuple[str, str, str | None]]:
    facts = [record for record in records if isinstance(record, ReplicaFacts)]
    return [(change.replica, change.stage, change.version) for record in facts for change in record.changes]


def known_of(events: Sequence[Event]) -> Replicas:
    return ledger_of(events)[0].fold.models["m"].state.replicas


# What is written


def test_a_thousand_equal_answers_and_acks_are_written_once() -> None:
    events: list[Event] = []
    for i in range(1_000):
        events += [answer(10 * i, i), ack(10 * i + 1)]
    _, records = ledger_of(events)
    # The answer before the ack, the ack, and one answer that proves the ack.
    assert changes_of(records) == [("r-1", "serving", "v41")] * 3
    facts = [record for record in records if isinstance(record, ReplicaFacts)]
    assert [[change.shown for change in record.changes] for record in facts] == [[True, False], [True]]


TOPICS = ("predictions", "acks", "acks", "predictions")


def test_each_change_is_written_with_the_place_it_came_from() -> None:
    events = [answer(0, 1, "v42", OLD), ack(10, stage="received", serving="v42"), ack(2_000), answer(9_000, 2)]
    placed = [
        msgspec.structs.replace(event, at=("acks", 3, 70 + i, START)) if isinstance(event, Ack) else event
        for i, event in enumerate(events)
    ]
    for lines, places in (
        (events, [(topic, 0, i) for i, topic in enumerate(TOPICS)]),
        (placed, [("predictions", 0, 0), ("acks", 3, 71), ("acks", 3, 72), ("predictions", 0, 3)]),
    ):
        _, records = ledger_of(lines)
        facts = [record for record in records if isinstance(record, ReplicaFacts)]
        assert [change.place for record in facts for change in record.changes] == places


def test_repeated_prediction_of_a_replica_is_no_change() -> None:
    _, records = ledger_of([answer(0, 1, "v42", OLD), answer(10, 1, "v42", OLD, replica="r-2")])
    assert changes_of(records) == [("r-1", "serving", "v42")]


def test_answers_beside_show_once_that_a_version_is_ready() -> None:
    events = [answer(i, i, "v41", None, role="shadow") for i in range(50)]
    pipeline, records = ledger_of(events)
    assert changes_of(records) == [("r-1", "staged", "v41")]
    known = pipeline.fold.models["m"].state.replicas.known["r-1"]
    assert (known.ready, known.shown) == (["v41"], None)


def test_replica_that_goes_on_as_before_is_written_again_so_that_the_ledger_knows_it_lives() -> None:
    events = [answer(i * 60_000, i) for i in range(121)]
    _, records = ledger_of(events)
    assert len(changes_of(records)) == 1 + 120 * 60_000 // RESTATE_MS


def test_replica_that_fell_silent_is_forgotten() -> None:
    events = [answer(0, 1, replica="gone"), answer(0, 2), answer(FORGET_MS, 3), answer(FORGET_MS + 1_000, 4, "v42")]
    assert set(known_of(events).known) == {"r-1"}


def test_new_replica_takes_the_place_of_the_one_that_is_silent_for_longest() -> None:
    few = parse("limits: {replicas: 3}\nmodels: {m: {policy: {mode: act}}}")
    events = [answer(i, i, replica=f"r-{i}") for i in range(5)]
    made = run(few, map(encode_line, events))
    assert made.counts["REPLICA_LIMIT"] == 2
    assert list(made.fold.models["m"].state.replicas.known) == ["r-2", "r-3", "r-4"]


def test_replica_that_lasts_stays_before_thousands_of_invented_names() -> None:
    few = parse("limits: {replicas: 10}\nmodels: {m: {policy: {mode: act}}}")
    lasting = [answer(at, at, replica="r-1") for at in range(0, 3 * RESTATE_MS, 60_000)]
    invented = [answer(3 * RESTATE_MS, i + 10**8, replica=f"x-{i}") for i in range(200)]
    made = run(few, map(encode_line, [*lasting, *invented]))
    known = made.fold.models["m"].state.replicas.known
    assert list(known) == ["r-1", *(f"x-{i}" for i in range(191, 200))]
    assert made.counts["REPLICA_LIMIT"] == 191


def test_replicas_of_invented_models_leave_before_those_of_named_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_watch, "REPLICAS_OF_ALL_MAX", 20)
    monkeypatch.setattr("streams.fold.fold.REPLICAS_OF_ALL_MAX", 20)
    honest = [answer(i, i, replica=f"r-{i}") for i in range(8)]
    junk = [answer(10 + i, 100 + i, model=f"junk-{i % 30}", replica=f"x-{i}") for i in range(300)]
    made = run(CONFIG, map(encode_line, [*honest, *junk]))
    assert list(made.fold.models["m"].state.replicas.known) == [f"r-{i}" for i in range(8)]
    assert sum(len(model.state.replicas.known) for model in made.fold.models.values()) == 20
    # None is lost without being counted.
    assert made.counts["REPLICA_LIMIT"] == 308 - 20
    watched = made.pipeline.cutter.join.replicas.save().seen
    assert (len(watched["m"]), sum(map(len, watched.values()))) == (8, 20)


def test_changes_of_many_replicas_are_several_records() -> None:
    records = ledger_of([answer(0, i, replica=f"r-{i}") for i in range(1_000)])[1]
    sizes = [len(record.changes) for record in records if isinstance(record, ReplicaFacts)]
    assert max(sizes) == CHANGES_MAX < sum(sizes) == 1_000


def test_epoch_that_a_stranger_claims_does_not_make_the_ledger_seem_lost() -> None:
    known, now = Replicas(), 60_000
    far = (2**53, 2**53, 2**53)
    claims = [
        ReplicaChange("x-1", True, "serving", "v1", far, None, 0, ("p", 0, 1)),
        ReplicaChange("x-2", False, "serving", "v1", far, None, 0, ("a", 0, 1)),
        ReplicaChange("x-3", False, "refused", "v1", far, "REGRESSION", 0, ("a", 0, 2)),
    ]
    known.take(claims, now, ORDERED.get, Counter())
    assert not known.refuse(now, NEW)
    honest = [ReplicaChange("r-1", False, "serving", "v41", NEW, None, 0, ("a", 0, 3))]
    known.take(honest, now, ORDERED.get, Counter())
    for place, replica, stage, code, most in [
        (4, "x-4", "refused", "REGRESSION", False),
        (5, "r-2", "refused", "REGRESSION", True),
        (6, "r-2", "serving", None, False),
    ]:
        version = "v41" if code is None else "v1"
        change = ReplicaChange(replica, False, stage, version, NEW, code, place, ("a", 0, place))
        known.take([change], now, ORDERED.get, Counter())
        assert known.refuse(now, NEW) is most


def test_answers_reach_the_ledger_without_moving_the_cuts_of_outcomes() -> None:
    silent = [answer(i * 300, i, replica=None) for i in range(20)]  # type: ignore[arg-type]
    spoken = [answer(i * 300, i, epoch=(0, i // 4, 0)) for i in range(20)]
    acked = [ack(i * 300, stage="received", epoch=(0, i, 0)) for i in range(20)]

    def cuts(events: Sequence[Event]) -> list[Any]:
        batches = [record for record in ledger_of(events)[1] if isinstance(record, Batch)]
        return [(batch.clock, [part.seen.arm.tolist() for part in batch.parts]) for batch in batches]

    assert cuts(spoken) == cuts(silent)
    mixed = [event for pair in zip(silent, acked, strict=True) for event in pair]
    assert cuts(mixed) == cuts(silent)


# Repeats, order, restarts

words = st.builds(
    lambda kind, replica, version, epoch, code: (kind, f"r-{replica}", version, epoch, code),
    st.sampled_from(["serving", "staged", "received", "refused", "answers", "beside"]),
    st.integers(0, 2),
    st.sampled_from(["v41", "v42"]),
    st.sampled_from([OLD, NEW, None]),
    st.sampled_from(["LOAD_FAILED", "REGRESSION"]),
)


def told(word: Any, at: int, number: int) -> Event:
    kind, replica, version, epoch, code = word
    if kind in ("answers", "beside"):
        return answer(at, number, version, epoch, replica, role="live" if kind == "answers" else "shadow")
    code = code if kind == "refused" else None
    return ack(at, replica, kind, version, epoch or (0, 0, 0), code=code)


@given(st.lists(st.tuples(words, st.sampled_from([0, 1, 400, 7_000, RESTATE_MS])), max_size=30), st.data())
def test_stopping_anywhere_writes_the_same_facts(story: list[Any], data: st.DataObject) -> None:
    events, at = [], 0
    for number, (word, wait) in enumerate(story):
        at += wait
        events.append(told(word, at, number))
    whole = ReplicaWatch()
    parts = ReplicaWatch()
    for number, event in enumerate(events):
        if data.draw(st.booleans()):
            saved = unpack(pack(parts.save()), SavedWatch)
            parts = ReplicaWatch()
            parts.load(saved)
        for watch in (whole, parts):
            take = watch.answered if isinstance(event, Prediction) else watch.acknowledged
            take(event, ("", 0, number), event.ts or 0)  # type: ignore[arg-type]
        if data.draw(st.booleans()):
            assert parts.take() == whole.take()
    assert parts.take() == whole.take()


@given(st.lists(words, max_size=25), st.lists(st.integers(0, 40), max_size=25))
def test_repeats_of_places_that_were_read_change_nothing(story: list[Any], cuts: list[int]) -> None:
    """Another reader that began further back writes the same facts once more, in whatever pieces."""
    watch = ReplicaWatch()
    for number, word in enumerate(story):
        event = told(word, number * 10_000, number)
        take = watch.answered if isinstance(event, Prediction) else watch.acknowledged
        take(event, ("log", 0, number), event.ts or 0)  # type: ignore[arg-type]
    changes = watch.take().get("m", [])
    once, twice = Replicas(), Replicas()
    once.take(changes, START, ORDERED.get, Counter())
    for end in sorted(cut for cut in cuts if cut < len(changes)):
        twice.take(changes[:end], START, ORDERED.get, Counter())
    twice.take(changes, START, ORDERED.get, Counter())
    twice.take(changes, START, ORDERED.get, Counter())
    assert twice == once


def test_word_older_than_what_is_known_changes_nothing_whichever_log_it_comes_from() -> None:
    known = Replicas()
    newer = ReplicaChange("r", True, "serving", "v41", NEW, None, 2_000, ("predictions", 0, 5))
    older = ReplicaChange("r", True, "serving", "v42", OLD, None, 1_000, ("predictions", 1, 9))
    known.take([newer, older], 2_000, ORDERED.get, Counter())
    assert known.known["r"].serves() == ("v41", NEW)
    assert known.known["r"].ready == ["v41", "v42"]


def test_fold_at_rest_goes_on_with_the_replicas_it_knew() -> None:
    events = [answer(0, 1, "v42", OLD), ack(10), ack(2_000, "r-2", "refused", "v42", code="LOAD_FAILED")]
    pipeline, _ = ledger_of(events)
    saved = pipeline.fold.save()
    again = Fold(CONFIG)
    again.load(unpack(pack(saved), type(saved)))
    assert pack(again.save()) == pack(pipeline.fold.save())
    assert set(again.models["m"].state.replicas.known) == {"r-1", "r-2"}


# Who could serve a target


def vetted(events: Sequence[Event], answered_at: int = -1, now: int = 0) -> str | None:
    """Ask about v41, with orders of which the newest asks for it."""
    watch, known = ReplicaWatch(), Replicas()
    for number, event in enumerate(events):
        take = watch.answered if isinstance(event, Prediction) else watch.acknowledged
        take(event, ("log", 0, number), event.ts or 0)  # type: ignore[arg-type]
        for changes in watch.take().values():
            known.take(changes, event.ts or 0, ORDERED.get, Counter())
    return unfit(known, "v41", answered_at, START + now, HOUR_MS)


def refusal(at: int, replica: str, code: RefusalCode = "LOAD_FAILED", epoch: Any = NEW) -> Ack:
    return ack(at, replica, "refused", "v42", epoch, code=code)


def test_target_that_every_replica_that_answered_refused_is_unfit() -> None:
    assert vetted([refusal(0, "r-1"), refusal(1, "r-2"), ack(2, "r-3", "serving", "v42", OLD)]) is not None


@pytest.mark.parametrize("good", [ack(9, "r-2", "staged", "v42"), ack(9, "r-2"), answer(9, 1, replica="r-2")])
def test_one_replica_that_has_it_is_enough(good: Event) -> None:
    assert vetted([refusal(0, "r-1"), good]) is None


def test_replica_that_could_load_it_later_refuses_it_no_more() -> None:
    assert vetted([refusal(0, "r-1"), ack(5_000, "r-1", "staged", "v42")]) is None
    assert vetted([ack(0, "r-1", "staged", "v42"), refusal(5_000, "r-1")]) is not None


@pytest.mark.parametrize("code", ["REGRESSION", "BAD_SIGNATURE", "EXPIRED", "EQUIVOCATION", "WRONG_AUDIENCE"])
def test_refusal_of_a_command_is_no_refusal_of_its_version(code: RefusalCode) -> None:
    assert vetted([refusal(0, "r-1", code)]) is None


@pytest.mark.parametrize("epoch", [OLD, (0, 77, 0), (0, 0, 0)])
def test_refusal_under_another_epoch_says_nothing_of_the_target(epoch: Any) -> None:
    assert vetted([refusal(0, "r-1", epoch=epoch)]) is None


@pytest.mark.parametrize(("ago", "fit"), [(0, True), (ANSWERS_PROVE_MS, True), (ANSWERS_PROVE_MS + 1, False)])
def test_answer_of_the_last_ten_minutes_outweighs_every_refusal(ago: int, fit: bool) -> None:
    refused = [refusal(i, f"r-{i}") for i in range(3)]
    assert (vetted(refused, answered_at=START + 1_000_000 - ago, now=1_000_000) is None) is fit


def test_without_any_ack_only_answers_within_the_horizon_prove_a_target() -> None:
    assert vetted([]) is not None
    assert vetted([], answered_at=START - HOUR_MS) is None
    assert vetted([], answered_at=START - HOUR_MS - 1) is not None
    assert vetted([ack(0, serving="v42", epoch=OLD)]) is None
    # Who has not spoken for long is no proof that anybody listens.
    assert vetted([ack(0, serving="v42", epoch=OLD)], now=FORGET_MS + 1) is not None


# Who obeys


def faults(events: Sequence[Event], epoch: Any = NEW) -> dict[str, str]:
    return lagging(known_of(events).known.items(), "v41", epoch)


def test_replica_that_acknowledges_and_serves_the_old_version_is_named() -> None:
    events = [ack(0), *(answer(100 * i, i, "v42", OLD) for i in range(1, 200))]
    assert faults(events) == {"r-1": "acknowledged v41, but answers with v42 under epoch 0.3.0"}


def test_answers_under_way_while_a_replica_switches_do_not_belie_it() -> None:
    assert faults([answer(0, 1, "v42", OLD), ack(10), answer(SETTLE_MS, 2, "v42", OLD)]) == {}
    assert faults([answer(0, 1, "v42", OLD), ack(10), answer(SETTLE_MS + 10, 2, "v42", OLD)]) != {}


def test_right_version_under_an_old_epoch_has_not_converged() -> None:
    assert faults([ack(0), answer(SETTLE_MS, 1, "v41", OLD)]) == {
        "r-1": "acknowledged v41, but answers with v41 under epoch 0.3.0"
    }
    # Where nothing is commanded there is no epoch to show.
    assert faults([ack(0), answer(SETTLE_MS, 1, "v41", OLD)], epoch=None) == {}


def test_proof_by_answers_outweighs_an_ack_that_was_lost() -> None:
    assert faults([ack(0, stage="received", serving="v42"), answer(100, 1)]) == {}
    assert "received" in faults([ack(0, stage="received", serving="v42")])["r-1"]


def test_replica_that_restarts_with_the_old_version_has_converged_no_more() -> None:
    assert faults([ack(0), answer(100, 1), ack(60_000, serving="v42", epoch=(0, 0, 0))]) == {
        "r-1": "reports that v42 serves (serving, epoch 0.0.0)"
    }


def test_replica_that_follows_no_commands_is_judged_by_its_version() -> None:
    assert faults([answer(0, 1, "v41", None)]) == {}
    assert faults([answer(0, 1, "v42", None)]) == {"r-1": "answers with v42 under no epoch"}


def test_refused_command_of_a_replica_that_never_served_one_is_named_with_its_code() -> None:
    assert faults([refusal(0, "r-1", "EXPIRED")]) == {"r-1": "refused epoch 0.9.0: EXPIRED"}


def test_nothing_desired_is_obeyed_by_all() -> None:
    assert lagging([("r", Replica())], None, NEW) == {}


@given(st.lists(st.tuples(words, st.integers(0, 20_000)), max_size=40))
def test_convergence_implies_that_newest_answers_show_the_epoch(story: list[Any]) -> None:
    """Of every replica whose answer came long enough after the newest thing it acknowledged."""
    events, at = [], 0
    for number, (word, wait) in enumerate(story):
        at += wait
        events.append(told(word, at, number))
    if not events:
        return
    pipeline, _ = ledger_of(events)
    known = pipeline.fold.models["m"].state.replicas if "m" in pipeline.fold.models else Replicas()
    if lagging(known.known.items(), "v41", NEW):
        return
    for replica in {event.replica for event in events}:  # type: ignore[union-attr]
        mine = [event for event in events if event.replica == replica]  # type: ignore[union-attr]
        answers = [e for e in mine if isinstance(e, Prediction) and e.role == "live"]
        acks = [e.ts or 0 for e in mine if isinstance(e, Ack)]
        if answers and (answers[-1].ts or 0) >= max((ts for ts in acks), default=0) + SETTLE_MS:
            follows = bool(acks) or answers[-1].epoch is not None
            assert answers[-1].version == "v41", story
            assert not follows or answers[-1].epoch == NEW, story


def test_deployment_and_its_command_are_what_a_replica_answers_for() -> None:
    """From the events alone: the version of an epoch is known to the fold, as the acks speak of epochs only."""
    deployed = [Deployment(model="m", version=v, status="live", ts=START + i) for i, v in enumerate(("v41", "v42"))]
    pipeline, _ = ledger_of(deployed)
    epoch = pipeline.fold.models["m"].state.desired.epoch
    pipeline, _ = ledger_of([*deployed, ack(10, stage="refused", serving="v41", epoch=epoch, code="LOAD_FAILED")])
    assert pipeline.fold.models["m"].state.replicas.known["r-1"].unable == ["v42"]


# On a broker


def raw(event: Prediction, offset: int) -> Raw:
    return Raw(offset, event.ts or 0, encode_line(event))


def predictions() -> list[Prediction]:
    made = [answer(i * 1_000, i, "v42" if i < 5 else "v41", OLD if i < 5 else NEW) for i in range(10)]
    return [event for event in made if isinstance(event, Prediction)]


def test_reader_hands_over_what_answers_show_and_a_later_reader_only_what_changed_since() -> None:
    first = SourceReader(CONFIG, 2, Position(1))
    first.give(PREDICTIONS, source_records_of([raw(event, i) for i, event in enumerate(predictions()[:5])]))
    first.advance((True, True))
    first.flush()
    (facts,) = first.replica_facts()
    assert (facts.clock, [change.place for change in facts.changes]) == (-1, [("predictions", 2, 0)])
    assert first.replica_facts() == []
    second = SourceReader(CONFIG, 2, first.position())
    second.give(PREDICTIONS, source_records_of([raw(event, i) for i, event in enumerate(predictions())]))
    second.advance((True, True))
    second.flush()
    (later,) = second.replica_facts()
    assert [(change.version, change.place[2]) for change in later.changes] == [("v41", 5)]


def test_facts_without_a_time_move_no_clock_and_repeats_after_a_rewind_change_nothing() -> None:
    reader = SourceReader(CONFIG, 0, Position(1))
    reader.give(PREDICTIONS, source_records_of([raw(event, i) for i, event in enumerate(predictions())]))
    reader.advance((True, True))
    (batch,) = reader.flush()
    (facts,) = reader.replica_facts()
    fold = Fold(CONFIG)
    step(fold, configuration_record(CONFIG))
    step(fold, facts)
    assert fold.clock == -1
    step(fold, batch)
    step(fold, facts)
    once = pack(fold.models["m"].save())
    step(fold, facts)
    assert pack(fold.models["m"].save()) == once
    assert fold.models["m"].state.replicas.known["r-1"].serves() == ("v41", NEW)


def test_partition_that_begins_anew_is_believed_again() -> None:
    fold = Fold(CONFIG)
    step(fold, configuration_record(CONFIG))
    change = ReplicaChange("r", True, "serving", "v42", OLD, None, 1_000, ("predictions", 0, 500))
    step(fold, ReplicaFacts(-1, "m", [change]))
    step(fold, Begun(-1, 0, 1))
    anew = msgspec.structs.replace(change, version="v41", epoch=NEW, at=2_000, place=("predictions", 0, 3))
    step(fold, ReplicaFacts(-1, "m", [anew]))
    assert fold.models["m"].state.replicas.known["r"].serves() == ("v41", NEW)


class Unsteady(Copier):
    """A copier whose broker refuses chosen records; what the ledger got is kept."""

    def __init__(self, refused: set[int]) -> None:
        super().__init__(None, CONFIG, lambda: None)  # type: ignore[arg-type]
        self._ledger_count, self.refused, self.tries, self.ledger = 4, refused, 0, list[ReplicaFacts]()

    async def _send(self, topic: str, value: bytes, key: bytes | None, partition: int | None) -> None:
        self.tries += 1
        if self.tries in self.refused:
            raise TimeoutError
        record = read_entry(value).record
        assert isinstance(record, ReplicaFacts)
        self.ledger.append(record)


@pytest.mark.parametrize("refused", [set(), {1}, {1, 2, 4}])
def test_copier_of_acks_writes_each_change_once_however_often_the_broker_refuses(refused: set[int]) -> None:
    copier = Unsteady(refused)
    acks = [ack(i * 10_000, serving="v42" if i < 10 else "v41") for i in range(20)]

    async def copy_all() -> None:
        for offset, event in enumerate(acks):
            while True:
                try:
                    await copier.copy(Place("acks", 3, offset, event.ts or 0), encode_line(event), ())
                    break
                except TimeoutError:
                    continue

    asyncio.run(copy_all())
    places = [change.place for facts in copier.ledger for change in facts.changes]
    assert places == [("acks", 3, 0), ("acks", 3, 10)]
