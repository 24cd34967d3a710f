"""A broker that is away, dies, freezes, forgets or refuses holds up no fleet, and what is lost by it is counted."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.kafka.jars import jars, java
from tests.kafka.monitor import Monitor, bench_in
from tests.waiting import HANG_S, until
from unship import Feedback, Fleet
from unship.topics import TopicNames


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = bench_in(tmp_path / "bench")
    monkeypatch.setenv("UNSHIP_TRUST", str(made.trust))
    yield made
    made.close()


def monitor_of(cluster: Any, bench: Any) -> Monitor:
    return Monitor(cluster.client(), TopicNames(), bench)


@contextmanager
def answering(fleet: Fleet) -> Iterator[list[str]]:
    """Answer requests on a thread, one a millisecond, and give the ids of those that were answered."""
    ended, answered = threading.Event(), list[str]()

    def serve() -> None:
        while not ended.wait(0.001):
            answered.append(fleet.predicted(1, id=f"p-{len(answered)}"))

    thread = threading.Thread(target=serve)
    thread.start()
    yield answered
    ended.set()
    thread.join()


def test_fleet_begun_without_a_broker_and_killed_brokers_lose_no_event_and_no_command(own_kafka, bench):
    cluster = own_kafka()
    fleet = Fleet("fraud", "v42", log=cluster.log, replica="r-1", queue=1_000_000)
    try:
        # Nothing listens there yet: a start that waited for an answer would not end.
        fleet.start()
        assert health(fleet) == "LOST"
        with answering(fleet) as answered:
            cluster.start()
            monitor = monitor_of(cluster, bench)
            monitor.make_topics()
            until(lambda: health(fleet) == "OK", lambda: fleet.stats)
            assert fleet.flush(HANG_S)
            for version in ("v41", "v40"):
                cluster.brokers[0].kill()
                until(lambda: health(fleet) == "LOST", lambda: fleet.stats)
                # A call that waited for the broker would not return while it is away.
                before = len(answered)
                until(lambda least=before + 100: len(answered) >= least)  # type: ignore[misc]
                cluster.brokers[0].start()
                cluster.wait_ready()
                monitor.command("fraud", version)
                assert fleet.wait_for(version, HANG_S), fleet.stats
                assert health(fleet) == "OK"
        assert fleet.flush(HANG_S)
        stats = fleet.stats
        fleet.close()
        assert (stats.sent, stats.dropped) == (len(answered), {})
        assert {event.id for event in monitor.events("predictions")} == set(answered)
    finally:
        fleet.close(0.0)
        cluster.close()


def test_frozen_broker_holds_up_no_close_and_gets_what_waited_when_it_goes_on(own_kafka, bench):
    others = set(threading.enumerate())
    with own_kafka() as cluster:
        monitor = monitor_of(cluster, bench)
        monitor.make_topics()
        with (
            Fleet("fraud", "v42", log=cluster.log, replica="r-1") as fleet,
            Fleet("fraud", "v42", log=cluster.log, replica="r-2") as other,
        ):
            fleet.predicted(1, id="before")
            other.predicted(1, id="other")
            assert fleet.flush(HANG_S)
            assert other.flush(HANG_S)
            cluster.brokers[0].pause()
            fleet.predicted(1, id="frozen")
            other.predicted(1, id="unsent")
            until(lambda: health(fleet) == "LOST", lambda: fleet.stats)
            # It is frozen until this has returned.
            other.close(0.5)
            assert other.stats.dropped == {"NOT_SENT": 1}
            cluster.brokers[0].resume()
            assert fleet.flush(HANG_S)
            until(lambda: health(fleet) == "OK", lambda: fleet.stats)
        assert {"before", "other", "frozen"} <= {event.id for event in monitor.events("predictions")}
    assert not [thread.name for thread in set(threading.enumerate()) - others if "unship-" in thread.name]


def test_broker_that_lost_what_it_had_acknowledged_gets_what_comes_after(own_kafka, bench):
    with own_kafka() as cluster, Fleet("fraud", "v42", log=cluster.log, trust=None) as fleet:
        monitor = monitor_of(cluster, bench)
        monitor.make_topics()
        broker = cluster.brokers[0]
        send(fleet, "kept")
        broker.kill()
        saved = cluster.folder / "saved"
        shutil.copytree(broker.folder / "data", saved)
        broker.start()
        cluster.wait_ready()
        send(fleet, "lost")
        broker.kill()
        for folder in saved.glob("unship.predictions-*"):
            shutil.rmtree(broker.folder / "data" / folder.name)
            shutil.copytree(folder, broker.folder / "data" / folder.name)
        broker.start()
        cluster.wait_ready()
        # A producer that goes on now is out of order for the broker, for ever.
        send(fleet, "after")
        kinds = Counter(event.id.partition("-")[0] for event in monitor.events("predictions"))
        assert kinds == {"kept": 100, "after": 100}


def send(fleet: Fleet, kind: str) -> None:
    for number in range(100):
        fleet.predicted(1, id=f"{kind}-{number}")
    assert fleet.flush(HANG_S), fleet.stats
    assert fleet.stats.dropped == {}


def health(fleet: Fleet) -> str | None:
    return fleet.control_health


def allow(cluster: Any, operation: str, *topics: str) -> None:
    settings = cluster.folder / "admin.properties"
    login = "org.apache.kafka.common.security.scram.ScramLoginModule"
    options = cluster.client()
    settings.write_text(
        f"security.protocol={options['security_protocol']}\nsasl.mechanism={options['sasl_mechanism']}\n"
        f'sasl.jaas.config={login} required username="{options["sasl_plain_username"]}" '
        f'password="{options["sasl_plain_password"]}";\n'
    )
    command = [java(), "-cp", f"{jars()}/*", "org.apache.kafka.tools.AclCommand", "--bootstrap-server"]
    command += [cluster.bootstrap, "--command-config", str(settings), "--add", "--allow-principal", "User:fleet"]
    command += ["--operation", operation, *(part for topic in topics for part in ("--topic", topic))]
    subprocess.run(command, check=True, capture_output=True)


def test_user_without_a_right_is_told_which_and_does_without_it(own_kafka, bench, monkeypatch):
    with own_kafka(users={"fleet": "fleet-secret"}) as cluster:
        monitor = monitor_of(cluster, bench)
        monitor.make_topics()
        monkeypatch.setenv("UNSHIP_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
        monkeypatch.setenv("UNSHIP_SECURITY_MECHANISM", "SCRAM-SHA-256")
        monkeypatch.setenv("UNSHIP_SECURITY_USERNAME", "fleet")
        monkeypatch.setenv("UNSHIP_SECURITY_PASSWORD", "fleet-secret")
        allow(cluster, "Write", "unship.predictions", "unship.acks")
        allow(cluster, "Describe", "unship.control")
        with (
            Fleet("fraud", "v42", log=cluster.log, replica="r-1") as fleet,
            Feedback(cluster.log) as feedback,
        ):
            fleet.deployed()
            fleet.predicted(1, id="p-1")
            feedback.truth("p-1", 1)
            assert fleet.flush(HANG_S)
            assert feedback.flush(HANG_S)
            assert (fleet.stats.sent, fleet.stats.dropped) == (1, {"NOT_AUTHORIZED": 1})
            assert "deployments: TopicAuthorizationFailed" in fleet.stats.detail
            assert (feedback.stats.sent, feedback.stats.dropped) == (0, {"NOT_AUTHORIZED": 1})
            # A topic that may not be read looks empty, not forbidden: it must not pass for a silent monitor.
            assert health(fleet) == "LOST"
            allow(cluster, "Read", "unship.control")
            monitor.command("fraud", "v41")
            assert fleet.wait_for("v41", HANG_S), fleet.stats
            monitor.until("acks", lambda acks: [ack.serving for ack in acks][-1:] == ["v41"])
