"""Fleets and label sources on a real broker: the promises of the embedded log hold there too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kafka.monitor import Monitor, bench_in
from tests.waiting import HANG_S, until
from unship import Feedback, Fleet
from unship.log.kafka.writer import partition_of
from unship.log.packed import decode_values


@pytest.fixture
def monitor(kafka, tmp_path, monkeypatch) -> Iterator[Monitor]:
    """Give the shared broker with topics of this test, keys, and an empty folder to run in."""
    monkeypatch.setenv("UNSHIP_LOG", kafka.log)
    monkeypatch.setenv("UNSHIP_TOPIC_PREFIX", kafka.prefix)
    monkeypatch.chdir(tmp_path)
    bench = bench_in(tmp_path / "bench")
    monkeypatch.setenv("UNSHIP_TRUST", str(bench.trust))
    made = Monitor({"bootstrap_servers": kafka.bootstrap}, kafka.names, bench)
    made.make_topics()
    yield made
    bench.close()


def following(version: str = "v42", **settings: Any) -> Fleet:
    return Fleet("fraud", version, replica="r-1", **settings)


def serves(version: str, epoch: Any):
    def met(acks: list[Any]) -> bool:
        return any((ack.stage, ack.serving, ack.epoch) == ("serving", version, epoch) for ack in acks)

    return met


def test_command_is_obeyed_and_acknowledged_and_the_answers_prove_it(monitor):
    others = set(threading.enumerate())
    loaded: list[str] = []
    with following(on_version=loaded.append) as fleet:
        assert (fleet.current.version, fleet.control_health) == ("v42", "OK")
        epoch = monitor.command("fraud", "v41", quarantine=["v42"])
        assert fleet.wait_for("v41", HANG_S)
        monitor.until("acks", serves("v41", epoch))
        fleet.predicted(1, id="p-1")
        fleet.deployed()
        assert fleet.flush(HANG_S)
    assert loaded == ["v41"]
    assert [(ack.stage, ack.epoch, ack.serving) for ack in monitor.events("acks")] == [
        ("serving", (0, 0, 0), "v42"),
        ("received", epoch, "v42"),
        ("verified", epoch, "v42"),
        ("staged", epoch, "v42"),
        ("serving", epoch, "v41"),
        ("left", epoch, "v41"),
    ]
    assert {entry.key for entry in monitor.records("acks")} == {b"fraud/r-1"}
    assert [entry.key for entry in monitor.records("deployments")] == [b"fraud"]
    (event,) = monitor.events("predictions")
    assert (event.id, event.version, event.epoch) == ("p-1", "v41", epoch)
    assert not [thread.name for thread in set(threading.enumerate()) - others if "unship-" in thread.name]


def test_prediction_and_its_truth_lie_in_the_partition_that_java_would_choose(monitor):
    ids = [f"p-{number}" for number in range(2_000)]
    with Fleet("fraud", "v42", trust=None) as fleet, Feedback(source="review") as feedback:
        for each in ids:
            fleet.predicted(1, id=each)
            feedback.truth(each, 1)
        assert fleet.flush(HANG_S)
        assert feedback.flush(HANG_S)
    predictions, truths = monitor.records("predictions"), monitor.records("feedback")
    assert len(predictions) == len(truths) == len(ids)
    placed = {entry.key: entry.partition for entry in predictions}
    assert placed == {entry.key: entry.partition for entry in truths}
    assert placed == {each.encode(): partition_of(each.encode(), 4) for each in ids}
    assert set(placed.values()) == {0, 1, 2, 3}


def test_packed_events_lie_in_their_partitions_in_the_order_in_which_they_were_sent(monitor):
    ids = [f"p-{number}" for number in range(2_000)]
    with Fleet("fraud", "v42", trust=None, pack=True) as fleet, Feedback(source="review", pack=True) as feedback:
        for each in ids:
            fleet.predicted(1, id=each)
            feedback.truth(each, 1)
        assert fleet.flush(HANG_S)
        assert feedback.flush(HANG_S)
        assert (fleet.stats.sent, feedback.stats.sent) == (len(ids), len(ids))
    for topic, kind in (("predictions", "prediction"), ("feedback", "feedback")):
        placed: dict[int, list[str]] = {partition: [] for partition in range(4)}
        entries = monitor.records(topic)
        for entry in entries:
            events: list[Any] = decode_values(kind, entry.value)
            assert entry.key == events[0].id.encode()
            placed[entry.partition] += [event.id for event in events]
        assert placed == {p: [each for each in ids if partition_of(each.encode(), 4) == p] for p in range(4)}
        assert len(entries) < len(ids) / 4


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
def test_partitions_are_those_that_other_clients_choose_by_murmur2(monitor, kafka):
    keys = [f"{number}-é-{'x' * (number % 7)}" for number in range(100)]
    command = ["kcat", "-P", "-b", kafka.bootstrap, "-t", monitor.names.of("predictions"), "-K", "\t"]
    subprocess.run(
        [*command, "-X", "partitioner=murmur2_random"],
        input="".join(f"{key}\t1\n" for key in keys).encode(),
        check=True,
    )
    placed = {entry.key: entry.partition for entry in monitor.records("predictions")}
    assert placed == {key.encode(): partition_of(key.encode(), 4) for key in keys}


def test_honest_command_behind_forged_ones_is_obeyed_at_the_start_and_none_of_them_later(monitor, tmp_path):
    stranger = bench_in(tmp_path / "stranger")
    stranger.command("fraud", "v1", epoch=(9, 0, 0))
    (forged,) = stranger.records("control")
    stranger.close()
    epoch = monitor.command("fraud", "v41", quarantine=["v42"])
    monitor.command("credit", "v7")
    monitor.publish("fraud", forged.value, forged.headers)
    monitor.publish("fraud", b"{}")
    with following() as fleet:
        assert (fleet.current.version, fleet.current.epoch) == ("v41", epoch)
        monitor.publish("fraud", forged.value, forged.headers)
        monitor.publish("fraud", None)
        monitor.command("fraud", "v1", not_after_ts=1)
        monitor.command("fraud", "v1", epoch=(1, 0, 9))
        codes = {"UNKNOWN_KEY", "UNSUPPORTED_SCHEMA", "EXPIRED", "REGRESSION"}
        until(lambda: codes <= fleet.stats.refused.keys(), shown=lambda: fleet.stats)
        assert fleet.current.version == "v41"
        monitor.command("fraud", "v40", epoch=(2, 0, 0))
        assert fleet.wait_for("v40", HANG_S)
    assert codes <= {ack.code for ack in monitor.events("acks")}


def test_command_of_an_aborted_transaction_is_never_seen(monitor):
    _, value, headers = monitor.signed("fraud", "v1")
    monitor.publish("fraud", value, headers, commit=False)
    with following() as fleet:
        assert fleet.current.version == "v42"
        monitor.publish("fraud", value, headers, commit=False)
        monitor.command("fraud", "v41")
        assert fleet.wait_for("v41", HANG_S)
        assert fleet.stats.refused == {}


def test_restarted_replica_remembers_its_epoch_even_where_the_topic_does_not(monitor, tmp_path, monkeypatch):
    epoch = monitor.command("fraud", "v41", epoch=(1, 7, 0), quarantine=["v42"])
    with following() as fleet:
        assert fleet.current.version == "v41"
    assert [path.name for path in (tmp_path / "unship-state" / "fraud").glob("*.state")] == ["r-1.state"]
    monkeypatch.setenv("UNSHIP_TOPIC_PREFIX", monitor.names.prefix + "again.")
    again = Monitor(monitor.options, type(monitor.names)(monitor.names.prefix + "again."), monitor.bench)
    again.make_topics()
    with following() as fleet:
        assert (fleet.current.version, fleet.current.epoch) == ("v41", epoch)
        again.command("fraud", "v42", epoch=(1, 6, 9))
        until(lambda: fleet.stats.refused == {"REGRESSION": 1}, shown=lambda: fleet.stats)
        assert fleet.current.version == "v41"


def test_child_of_a_fork_sends_and_obeys_under_its_own_name(monitor):
    fleet = Fleet("fraud", "v42", on_version=lambda version: None).start()
    fleet.predicted(0, id="parent")
    assert fleet.flush(HANG_S)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with fleet:
                obeyed = fleet.wait_for("v41", HANG_S)
                fleet.predicted(1, id="child")
                status = 0 if obeyed and fleet.flush(HANG_S) and fleet.stats.sent == 1 else 2
        finally:
            os._exit(status)
    monitor.until("acks", lambda acks: len({ack.replica for ack in acks}) == 2)
    monitor.command("fraud", "v41")
    assert fleet.wait_for("v41", HANG_S)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    fleet.predicted(1, id="parent-2")
    fleet.close(30.0)
    events = {event.id: event for event in monitor.events("predictions")}
    assert sorted(events) == ["child", "parent", "parent-2"]
    assert events["parent"].replica == events["parent-2"].replica != events["child"].replica


def test_source_with_more_truths_than_room_waits_and_loses_none(monitor):
    with Feedback(queue=10) as feedback:
        for number in range(600):
            feedback.truth(f"p-{number}", 1)
        assert feedback.flush(HANG_S)
        assert (feedback.stats.sent, feedback.stats.dropped) == (600, {})
    assert len(monitor.records("feedback")) == 600


def test_event_too_large_for_the_topic_is_dropped_with_its_reason_and_the_others_arrive_once(monitor, monkeypatch):
    monitor.names = type(monitor.names)(monitor.names.prefix + "small.")
    monitor.make_topics("predictions", **{"max.message.bytes": "20000"})
    monkeypatch.setenv("UNSHIP_TOPIC_PREFIX", monitor.names.prefix)
    fleet = Fleet("fraud", "v42", trust=None)
    for number in range(300):
        fleet.predicted("x" * 1_000, id=f"p-{number}")
    fleet.predicted(["x" * 1_000] * 30, id="large")
    with fleet:
        assert fleet.flush(60.0)
        stats = fleet.stats
    assert (stats.sent, stats.dropped) == (300, {"TOO_LARGE": 1})
    assert sorted(event.id for event in monitor.events("predictions")) == sorted(f"p-{number}" for number in range(300))


def test_events_wait_for_a_topic_that_is_not_there_and_the_message_says_how_to_make_it(monitor, monkeypatch):
    names = type(monitor.names)(monitor.names.prefix + "later.")
    monkeypatch.setenv("UNSHIP_TOPIC_PREFIX", names.prefix)
    with Fleet("fraud", "v42", trust=None) as fleet:
        fleet.predicted(1, id="p-1")
        until(lambda: "unship topics apply" in fleet.stats.detail, shown=lambda: fleet.stats)
        assert names.of("predictions") in fleet.stats.detail
        Monitor(monitor.options, names, monitor.bench).make_topics()
        assert fleet.flush(HANG_S)
        assert (fleet.stats.sent, fleet.stats.dropped) == (1, {})


SHELL = [sys.executable, "-m", "unship.sidecar.cli"]


def test_event_from_a_shell_lies_beside_those_of_a_fleet(monitor):
    event = '{"type":"prediction","id":"p-1","model":"fraud","version":"v42","output":1}'
    subprocess.run([*SHELL, "emit", "prediction", event], check=True, capture_output=True)
    (entry,) = monitor.records("predictions")
    assert (entry.key, entry.partition, entry.value) == (b"p-1", partition_of(b"p-1", 4), event.encode())


def test_sidecar_sends_and_obeys_and_keeps_its_epoch_where_it_is_told(monitor, tmp_path):
    command = [*SHELL, "sidecar", "--model", "fraud", "--version", "v42", "--replica", "s-1"]
    command += ["--state", str(tmp_path / "kept"), "--file", str(tmp_path / "serve"), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("http://")
            epoch = monitor.command("fraud", "v41")
            monitor.until("acks", serves("v41", epoch))
            assert (tmp_path / "serve").read_text() == "v41\n"
            assert (tmp_path / "kept" / "fraud" / "s-1.state").exists()
        finally:
            process.terminate()
        assert process.wait(HANG_S) == 0


def test_truth_of_a_process_that_ends_at_once_is_sent(monitor, kafka):
    program = "import sys; from unship import Feedback; Feedback(sys.argv[1]).truth('p-1', 1)"
    named = kafka.log.replace("127.0.0.1", "localhost")
    done = subprocess.run([sys.executable, "-c", program, named], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert [entry.key for entry in monitor.records("feedback")] == [b"p-1"]


def test_replica_that_was_away_while_the_commands_were_compacted_obeys_the_newest(monitor, monkeypatch):
    names = type(monitor.names)(monitor.names.prefix + "compacted.")
    monkeypatch.setenv("UNSHIP_TOPIC_PREFIX", names.prefix)
    small = Monitor(monitor.options, names, monitor.bench)
    settings = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    small.make_topics("control", **settings)
    small.make_topics("predictions", "deployments", "acks")
    with following() as fleet:
        obeyed = small.command("fraud", "v41")
        assert fleet.wait_for("v41", HANG_S)
    for number in range(5):
        small.command("fraud", f"v{number}")
    newest, value, headers = small.signed("fraud", "v9")

    def compacted() -> bool:
        # What is newest stays where it is, so it is said again until all else is behind it.
        small.publish("fraud", value, headers)
        return value in {entry.value for entry in small.records("control")[:1]}

    until(compacted)
    with following() as fleet:
        assert obeyed < newest
        assert (fleet.current.version, fleet.current.epoch, fleet.stats.refused) == ("v9", newest, {})
