"""What a fleet on Kafka does where no broker answers, and which partition it would choose if one did."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import unship
from tests.waiting import HANG_S, until
from unship import ConfigurationError, Feedback, Fleet
from unship.log.kafka.writer import partition_of
from unship.replica.epoch_file import EpochFile, epoch_path
from unship.replica.fence import restore
from unship.testing import UnshipEmbedded


@pytest.fixture(params=["refuses", "is silent"])
def absent(request, tmp_path, monkeypatch) -> Iterator[str]:
    """Give the address of a port that refuses connections, and of one that takes them and never answers."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "is silent":
            listener.listen()
        yield f"kafka://127.0.0.1:{listener.getsockname()[1]}"


def test_fleet_without_a_broker_serves_and_counts_and_closes(absent, unship_embedded: UnshipEmbedded):
    others = set(threading.enumerate())
    fleet = Fleet("fraud", "v42", log=absent, trust=unship_embedded.trust, replica="r-1", queue=100)
    fleet.start(wait_s=1.0)
    for number in range(1_000):
        assert fleet.predicted(1, id=f"p-{number}") == f"p-{number}"
    assert (fleet.current.version, fleet.control_health) == ("v42", "LOST")
    assert not fleet.flush(timeout_s=0.0)
    fleet.close(timeout_s=0.2)
    stats = fleet.stats
    assert (stats.sent, stats.waiting, sum(stats.dropped.values())) == (0, 0, 1_000)
    assert stats.dropped.keys() == {"QUEUE_FULL", "NOT_SENT"}
    assert absent in stats.detail
    assert not [thread.name for thread in set(threading.enumerate()) - others if "unship-" in thread.name]


def test_source_of_labels_waits_no_longer_than_it_was_told(absent):
    feedback = Feedback(absent, queue=10, wait_s=0.0)
    for number in range(600):
        feedback.truth(f"p-{number}", 1)
    feedback.close(timeout_s=0.0)
    # What is on its way just then is counted when the connection has been given up.
    until(lambda: sum(feedback.stats.dropped.values()) == 600, lambda: feedback.stats)


def test_confirmation_is_answered_while_the_broker_is_silent(absent, unship_embedded: UnshipEmbedded):
    fleet = Fleet("fraud", "v42", log=absent, trust=unship_embedded.trust, replica="r-1").start(wait_s=0.0)
    assert fleet.confirm("v41", (1, 0, 0), timeout_s=5.0) == "NOT_WANTED"
    fleet.close(timeout_s=2.0)


def test_replica_that_was_stopped_serves_what_it_obeyed_before_any_broker_answers(absent, unship_embedded, tmp_path):
    with Fleet("fraud", "v42", log=unship_embedded.log, trust=unship_embedded.trust, replica="r-1") as fleet:
        epoch = unship_embedded.command("fraud", "v41", quarantine=["v42"])
        assert fleet.wait_for("v41", HANG_S)
    kept = EpochFile(epoch_path(unship_embedded.folder / "replicas", "fraud", "r-1")).read()
    assert kept is not None
    path = epoch_path(tmp_path / "unship-state", "fraud", "r-1")
    path.parent.mkdir(parents=True)
    path.write_bytes(kept)
    with Fleet("fraud", "v42", log=absent, trust=unship_embedded.trust, replica="r-1").start(wait_s=1.0) as fleet:
        assert fleet.wait_for("v41", HANG_S)
        assert (fleet.current.epoch, fleet.control_health) == (epoch, "LOST")
        fleet.close()
    restored, _ = restore(EpochFile(path).read(), "fraud", "test")
    assert restored is not None


def test_event_from_a_shell_says_that_no_broker_can_be_reached(absent):
    done = subprocess.run(
        [sys.executable, "-m", "unship.sidecar.cli", "emit", "feedback", '{"id":"p-1","truth":1}', "--log", absent],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith(f"unship-replica: {absent}: ")
    assert done.stderr.count("\n") == 1


def test_wrong_security_settings_are_named_when_the_fleet_is_made(monkeypatch):
    monkeypatch.setenv("UNSHIP_SECURITY_USERNAME", "fleet")
    with pytest.raises(ConfigurationError, match=r"UNSHIP_SECURITY_(USERNAME|username)"):
        Fleet("fraud", "v42", log="kafka://127.0.0.1:9092", trust=None)
    monkeypatch.delenv("UNSHIP_SECURITY_USERNAME")
    monkeypatch.setenv("UNSHIP_TOPIC_PREFIX", "white space")
    with pytest.raises(ConfigurationError, match="prefix"):
        Feedback("kafka://127.0.0.1:9092")


def test_embedded_log_needs_neither_the_client_of_a_broker_nor_an_event_loop(tmp_path: Path):
    program = """
import sys
from unship import Feedback, Fleet
with Fleet("m", "v1", log=sys.argv[1], trust=None) as fleet, Feedback(sys.argv[1]) as feedback:
    fleet.predicted(1)
    feedback.truth("p-1", 1)
    assert fleet.flush(900.0) and feedback.flush(900.0)
print(sorted({"aiokafka", "asyncio", "ssl"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program, f"embedded:{tmp_path / 'log'}"]
    environment = {"PYTHONPATH": str(Path(unship.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("key", "hashed"),
    # What Java's org.apache.kafka.common.utils.Utils.murmur2 returns.
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("0192f3a4b5c6-00000001-deadbeef", 1174072481),
        ("äö€", -828972307),
        ("", 275646681),
        ("p-1", 1865926180),
        ("fraud/r-1", 1932712168),
    ],
)
def test_partition_is_that_of_java(key, hashed):
    for count in (1, 2, 3, 12, 1_000, 1 << 31):
        assert partition_of(key.encode(), count) == (hashed & 0x7FFF_FFFF) % count
