"""What a replica and a source of labels send, and what becomes of it when the log is slow, full or gone."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from typing import Any

import numpy as np
import pytest

from tests.waiting import HANG_S
from unship import ConfigurationError, Feedback, Fleet
from unship.events import Deployment, Prediction, Reference
from unship.log.embedded.log import EmbeddedLog
from unship.replica.fence import Serving
from unship.testing import UnshipEmbedded


def emitting(bench: UnshipEmbedded, **settings: Any) -> Any:
    return Fleet("fraud", "v42", log=bench.log, trust=None, replica="r-1", **settings)


def test_prediction_arrives_with_all_that_was_said_and_the_replica(unship_embedded):
    with emitting(unship_embedded, artifact="sha256:aa") as fleet:
        given: dict[str, Any] = {
            "score": 0.93,
            "scores": {"a": 0.9, "b": 0.1},
            "row": 2,
            "target": "t",
            "role": "holdback",
        }
        given |= {"slices": {"country": "DE", "new": True, "age": 7}, "latency_ms": 1.5, "ts": 1_700_000_000_000}
        assert fleet.predicted(1, id="p-1", **given) == "p-1"
        assert fleet.flush(HANG_S)
    expected = Prediction(
        id="p-1", model="fraud", version="v42", output=1, replica="r-1", artifact="sha256:aa", **given
    )
    assert unship_embedded.events("predictions") == [expected]
    assert [record.key for record in unship_embedded.records("predictions")] == [b"p-1"]
    assert fleet.stats.sent == 1
    assert fleet.stats.dropped == {}


def test_a_clock_that_was_given_stamps_events_and_their_append(unship_embedded):
    then = 1_900_000_000_000
    with emitting(unship_embedded, now_ms=lambda: then) as fleet:
        answer = fleet.predicted(1)
        fleet.deployed()
        assert fleet.flush(HANG_S)
    with Feedback(unship_embedded.log, now_ms=lambda: then + 5) as feedback:
        feedback.truth(answer, 1)
        assert feedback.flush(HANG_S)
    for topic, ts in (("predictions", then), ("deployments", then), ("feedback", then + 5)):
        (event,), (record,) = unship_embedded.events(topic), unship_embedded.records(topic)
        assert (event.ts, record.append_ts) == (ts, ts)


def test_ids_made_here_are_unique_and_sort_in_order_of_the_calls(unship_embedded):
    with emitting(unship_embedded) as fleet:
        ids = [fleet.predicted(0) for _ in range(1_000)]
        assert fleet.flush(HANG_S)
    assert ids == sorted(set(ids))
    assert [event.id for event in unship_embedded.events("predictions")] == ids


def test_next_id_does_not_follow_from_the_ones_before_it_nor_from_those_of_the_parent_of_a_fork(unship_embedded):
    fleet = emitting(unship_embedded)
    ids = [fleet.predicted(0) for _ in range(3)]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, "\n".join(fleet.predicted(0) for _ in range(300)).encode())
        os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    ids += [fleet.predicted(0) for _ in range(300)]
    ids += os.read(reader, 65_536).decode().split("\n")
    tokens = {each.split("-")[2] for each in ids}
    assert len(tokens) == len(ids) == 603
    assert all(len(each) >= 22 for each in tokens)
    # What differs from one token to the next is spread over all of its places.
    assert all(len({each[place] for each in tokens}) > 32 for place in range(22))
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("output", "fields", "reason"),
    [
        (object(), {}, "BAD_ARGUMENT"),
        (float("nan"), {}, "BAD_ARGUMENT"),
        (1, {"score": float("nan")}, "BAD_ARGUMENT"),
        (1, {"score": 1.5}, "NUMBER_OUT_OF_RANGE"),
        (1, {"score": "high"}, "BAD_EVENT"),
        (2**60, {}, "NUMBER_OUT_OF_RANGE"),
        (2**80, {}, "NUMBER_OUT_OF_RANGE"),
        ("x" * 70_000, {}, "TOO_LARGE"),
        ("\ud800", {}, "BAD_ARGUMENT"),
        (1, {"id": "x" * 129}, "BAD_EVENT"),
        (1, {"id": ""}, "BAD_EVENT"),
        (1, {"id": 7}, "BAD_EVENT"),
        (1, {"slices": {"share": 0.5}}, "BAD_EVENT"),
        (1, {"slices": {(7,): "seven"}}, "BAD_ARGUMENT"),
        (1, {"slices": 7}, "BAD_ARGUMENT"),
        (1, {"scores": [0.5]}, "BAD_ARGUMENT"),
        (1, {"role": "star"}, "BAD_EVENT"),
        (1, {"ts": -1}, "BAD_TIME"),
        (1, {"as_": "v42"}, "BAD_ARGUMENT"),
    ],
)
def test_arguments_that_make_no_event_are_counted_with_their_reason_and_raise_nothing(
    unship_embedded, output, fields, reason
):
    with emitting(unship_embedded) as fleet:
        fleet.predicted(output, **fields)
        fleet.predicted(1, id="good")
        assert fleet.flush(HANG_S)
        assert fleet.stats.dropped == {reason: 1}
        assert fleet.stats.detail
    assert [event.id for event in unship_embedded.events("predictions")] == ["good"]


def test_values_of_numpy_arrive_as_plain_ones(unship_embedded):
    with emitting(unship_embedded) as fleet:
        fleet.predicted(np.int64(1), score=np.float32(0.5), slices={"age": np.int64(7)}, scores={"a": np.float64(0.25)})
        fleet.predicted(np.array(["a", "b"]), row=np.int32(3))
        fleet.predicted(("a", "b"))
        assert fleet.flush(HANG_S)
        assert fleet.stats.dropped == {}
    scalar, array, pair = unship_embedded.events("predictions")
    assert (scalar.output, scalar.score, scalar.slices, scalar.scores) == (1, 0.5, {"age": 7}, {"a": 0.25})
    assert (array.output, array.row, pair.output) == (["a", "b"], 3, ["a", "b"])


def test_values_of_data_frames_and_classifiers_arrive_as_plain_ones(unship_embedded):
    gaps = {"age": 37.0, "income": float("nan"), "country": None, "vip": np.bool_(True)}
    with emitting(unship_embedded) as fleet:
        fleet.predicted(list(np.array([3, 1, 2])), id=uuid.UUID(int=7), slices=gaps)
        fleet.predicted(1, scores=dict(zip(np.array([0, 1]), np.array([0.25, 0.75]), strict=True)))
        fleet.predicted(1, scores={np.str_("a"): 0.5, True: 0.5})
        assert fleet.flush(HANG_S)
        assert fleet.stats.dropped == {}
    ranked, numbered, named = unship_embedded.events("predictions")
    assert (ranked.output, ranked.id) == ([3, 1, 2], "00000000-0000-0000-0000-000000000007")
    assert ranked.slices == {"age": 37, "vip": True}
    assert (numbered.scores, named.scores) == ({"0": 0.25, "1": 0.75}, {"a": 0.5, "true": 0.5})


def test_dropped_event_names_the_field_that_could_not_be_sent(unship_embedded):
    with emitting(unship_embedded) as fleet:
        fleet.predicted(1, latency_ms=float("nan"))
        assert fleet.flush(HANG_S)
        assert "latency_ms" in fleet.stats.detail


def test_what_the_caller_changes_after_the_call_is_not_in_the_event(unship_embedded):
    fleet = emitting(unship_embedded)
    slices, scores, output = {"country": "DE"}, {"a": 0.5}, ["x"]
    fleet.predicted(output, slices=slices, scores=scores)
    slices["country"], scores["a"] = "FR", 0.1
    output.append("y")
    with fleet:
        assert fleet.flush(HANG_S)
    (event,) = unship_embedded.events("predictions")
    assert (event.output, event.slices, event.scores) == (["x"], {"country": "DE"}, {"a": 0.5})


def test_answer_of_an_older_snapshot_is_labelled_with_that_snapshot(unship_embedded):
    with emitting(unship_embedded) as fleet:
        fleet.predicted(1, as_=Serving("v41", (1, 2, 3), "sha256:bb"))
        assert fleet.flush(HANG_S)
    (event,) = unship_embedded.events("predictions")
    assert (event.version, event.epoch, event.artifact) == ("v41", (1, 2, 3), "sha256:bb")


def test_events_beyond_the_queue_are_dropped_and_counted_exactly(unship_embedded):
    fleet = emitting(unship_embedded, queue=10)
    for number in range(25):
        fleet.predicted(number, id=f"p-{number}")
    assert (fleet.stats.waiting, fleet.stats.dropped) == (10, {"QUEUE_FULL": 15})
    with fleet:
        assert fleet.flush(HANG_S)
    assert [event.id for event in unship_embedded.events("predictions")] == [f"p-{number}" for number in range(10)]


def test_threads_lose_no_count(unship_embedded):
    with emitting(unship_embedded, queue=50) as fleet:

        def serve():
            for _ in range(500):
                fleet.predicted(1)

        threads = [threading.Thread(target=serve) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert fleet.flush(HANG_S)
        stats = fleet.stats
    assert stats.sent + sum(stats.dropped.values()) == 4_000
    assert stats.sent == len(unship_embedded.events("predictions"))


def test_closing_sends_what_waits_and_later_events_are_counted(unship_embedded):
    fleet = emitting(unship_embedded)
    for _ in range(1_200):
        fleet.predicted(1)
    fleet.start()
    fleet.close(HANG_S)
    assert len(unship_embedded.events("predictions")) == 1_200
    assert fleet.predicted(1, id="late") == "late"
    assert fleet.stats.dropped == {"CLOSED": 1}
    fleet.close()


def test_log_removed_under_a_fleet_costs_events_and_nothing_else(unship_embedded):
    fleet = emitting(unship_embedded, queue=20).start()
    fleet.predicted(1)
    assert fleet.flush(HANG_S)
    shutil.rmtree(unship_embedded.folder)
    for number in range(1_000):
        assert fleet.predicted(1, id=f"p-{number}") == f"p-{number}"
    assert not fleet.flush(timeout_s=0.0)
    fleet.close(timeout_s=0.0)
    stats = fleet.stats
    assert (stats.sent, stats.waiting) == (1, 0)
    assert stats.dropped.keys() == {"QUEUE_FULL", "NOT_SENT"}
    assert sum(stats.dropped.values()) == 1_000
    assert not unship_embedded.folder.exists()


def test_log_that_comes_back_gets_what_waited_once_and_in_order(unship_embedded):
    away = unship_embedded.folder.with_name("away")
    with emitting(unship_embedded) as fleet:
        fleet.predicted(1, id="before")
        assert fleet.flush(HANG_S)
        unship_embedded.folder.rename(away)
        for number in range(700):
            fleet.predicted(1, id=f"p-{number}")
        assert not fleet.flush(timeout_s=0.05)
        away.rename(unship_embedded.folder)
        assert fleet.flush(HANG_S)
        assert fleet.stats.dropped == {}
    assert [event.id for event in unship_embedded.events("predictions")] == [
        "before",
        *(f"p-{number}" for number in range(700)),
    ]


def test_log_that_can_never_be_opened_raises_nothing(tmp_path, unship_embedded):
    (tmp_path / "file").write_text("not a folder")
    with Fleet("fraud", "v42", log=f"embedded:{tmp_path / 'file'}", trust=unship_embedded.trust) as fleet:
        assert fleet.predicted(1, id="p-1") == "p-1"
        assert fleet.control_health == "LOST"
        fleet.close(timeout_s=0.0)
    assert fleet.stats.dropped == {"NOT_SENT": 1}
    assert str(tmp_path / "file") in fleet.stats.detail


def test_announced_deployment_carries_its_offline_metrics(unship_embedded):
    with emitting(unship_embedded, artifact="sha256:aa") as fleet:
        fleet.deployed(previous="v41", reference={"zero_one": (0.05, 1_000), "brier": Reference(0.1, 10)})
        fleet.deployed("shadow", version="v43", card={"owner": "risk"})
        fleet.deployed("nonsense")
        fleet.deployed(reference={"zero_one": 0.05})
        assert fleet.flush(HANG_S)
        assert fleet.stats.dropped == {"BAD_EVENT": 1, "BAD_ARGUMENT": 1}
    live, shadow = unship_embedded.events("deployments")
    metrics = {"zero_one": Reference(0.05, 1_000), "brier": Reference(0.1, 10)}
    expected: dict[str, Any] = {"previous": "v41", "artifact": "sha256:aa", "reference": metrics, "ts": live.ts}
    assert live == Deployment(model="fraud", version="v42", status="live", **expected)
    assert (shadow.version, shadow.status, shadow.artifact, shadow.card) == ("v43", "shadow", None, {"owner": "risk"})


def test_child_of_a_fork_sends_its_own_events_under_its_own_name(unship_embedded):
    fleet = Fleet("fraud", "v42", log=unship_embedded.log, trust=None).start()
    fleet.predicted(0, id="parent")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with fleet:
                fleet.predicted(1, id="child")
                status = 0 if fleet.flush(HANG_S) and fleet.stats.sent == 1 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    fleet.close(HANG_S)
    events = {event.id: event for event in unship_embedded.events("predictions")}
    assert len(unship_embedded.events("predictions")) == len(events) == 2
    assert events["parent"].replica != events["child"].replica


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"log": None}, "UNSHIP_LOG"),
        ({"log": "embedded:"}, "embedded:DIR"),
        ({"log": "redis://localhost"}, "kafka://HOST:PORT"),
        ({"log": "kafka://"}, "kafka://HOST:PORT"),
        ({"trust": "no-such-trust.json"}, "no-such-trust.json"),
        ({"replica": ""}, "replica"),
        ({"replica": "x" * 129}, "replica"),
    ],
)
def test_wrong_setting_is_named_when_the_fleet_is_made(unship_embedded, monkeypatch, settings, named):
    monkeypatch.delenv("UNSHIP_LOG", raising=False)
    with pytest.raises(ConfigurationError, match=named):
        Fleet("fraud", "v42", **{"log": unship_embedded.log, "trust": None, **settings})


def test_environment_names_log_and_trust_where_the_program_does_not(unship_embedded, monkeypatch):
    monkeypatch.setenv("UNSHIP_LOG", unship_embedded.log)
    monkeypatch.setenv("UNSHIP_TRUST", str(unship_embedded.trust))
    with Fleet("fraud", "v42") as fleet, Feedback() as feedback:
        fleet.predicted(1)
        feedback.truth("p-1", 1)
        assert fleet.flush(HANG_S)
        assert feedback.flush(HANG_S)
        assert fleet.control_health == "OK"
    assert len(unship_embedded.events("predictions")) == len(unship_embedded.events("feedback")) == 1


def test_truths_and_engagement_arrive_with_their_source(unship_embedded):
    with Feedback(unship_embedded.log, source="chargebacks", model="fraud") as feedback:
        feedback.truth("p-1", np.int64(1), row=1, target="t", ts=1_772_409_600_005)
        feedback.truth("p-2", ["a", "b"], source="review")
        feedback.engagement("p-3", 0.25)
        feedback.truth("p-4", None)
        feedback.engagement("p-5", 7.0)
        assert feedback.flush(HANG_S)
        assert feedback.stats.dropped == {"BAD_EVENT": 1, "NUMBER_OUT_OF_RANGE": 1}
    first, second, third = unship_embedded.events("feedback")
    assert (first.id, first.truth, first.row, first.target, first.ts) == ("p-1", 1, 1, "t", 1_772_409_600_005)
    assert (first.source, first.model, second.source, second.truth) == ("chargebacks", "fraud", "review", ["a", "b"])
    assert (third.id, third.truth, third.engagement) == ("p-3", None, 0.25)


def test_label_that_is_taken_back_arrives_without_a_truth(unship_embedded):
    with Feedback(unship_embedded.log, source="chargebacks", model="fraud") as feedback:
        feedback.truth("p-1", 1)
        feedback.retract("p-1", source="bank")
        assert feedback.flush(HANG_S)
        assert feedback.stats.dropped == {}
    reported, back = unship_embedded.events("feedback")
    assert (reported.retract, back.retract, back.truth, back.source, back.model) == (False, True, None, "bank", "fraud")


def test_source_with_more_truths_than_room_waits_and_loses_none(unship_embedded):
    with Feedback(unship_embedded.log, queue=10) as feedback:
        for number in range(600):
            feedback.truth(f"p-{number}", 1)
        assert feedback.flush(HANG_S)
        assert feedback.stats.dropped == {}
    assert len(unship_embedded.events("feedback")) == 600


def test_source_waits_no_longer_than_it_was_told_when_the_log_is_gone(unship_embedded):
    feedback = Feedback(unship_embedded.log, queue=10, wait_s=0.0)
    feedback.truth("p-0", 1)
    assert feedback.flush(HANG_S)
    shutil.rmtree(unship_embedded.folder)
    for number in range(200):
        feedback.truth(f"p-{number}", 1)
    feedback.close(timeout_s=0.0)
    assert sum(feedback.stats.dropped.values()) == 200


def test_new_log_in_place_of_one_that_vanished_gets_what_waited(unship_embedded):
    with emitting(unship_embedded) as fleet:
        fleet.predicted(1, id="old")
        assert fleet.flush(HANG_S)
        shutil.rmtree(unship_embedded.folder)
        fleet.predicted(1, id="new")
        assert not fleet.flush(timeout_s=0.0)
        with EmbeddedLog(unship_embedded.folder) as log:
            assert fleet.flush(HANG_S)
            assert [record.key for record in log.read("predictions", 0)] == [b"new"]
