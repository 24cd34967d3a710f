"""The loop closed: replicas answer through the library, the monitor decides, and every replica obeys and says so.

On an embedded log, and on a real Kafka where Java and Kafka's jars are at hand: `make tools` gets them.
"""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from streams.config.parse import parse
from tests.kafka.shared import SharedKafka
from tests.processes import CONFIG, monitor, status_when, unship
from tests.waiting import HANG_S, until
from unship import Feedback, Fleet
from unship.replica.fence import Serving

# A replica in a process of its own: it obeys, and says on its standard output what it serves.
REPLICA = """
import sys
from unship import Fleet
with Fleet("fraud", version="v42", on_version=lambda v: print("serves", v, flush=True), log=sys.argv[1],
           trust=sys.argv[2], replica="r-3") as fleet:
    print("up", flush=True)
    sys.stdin.read()
"""


def reports() -> str:
    """Return the sections of a configuration by which a monitor reports to a file and over HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return f"alerts: [{{command: [sh, -c, 'cat >> got']}}]\nweb: {{listen: '127.0.0.1:{port}'}}\n"


def served(folder: Path, path: str) -> Any:
    """Return what the monitor's web answers, None while it does not answer with 200."""
    url = parse((folder / "unship.yaml").read_text()).web.url(path)
    assert url is not None
    try:
        with urlopen(url, timeout=HANG_S) as answer:
            body = answer.read().decode()
            return json.loads(body) if answer.headers.get_content_type() == "application/json" else body
    except OSError:
        return None


def alerted(folder: Path) -> list[tuple[str, str]]:
    """Return which alerts the command was given, by version and status."""
    path = folder / "got"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [(each["version"], each["status"]) for each in found]


def assert_reported(folder: Path) -> None:
    """Wait until a rollback that all obey is resolved for people, and shown over HTTP."""
    # The page comes first, unless the replicas were faster than the command.
    until(lambda: ("v42", "resolved") in alerted(folder), lambda: f"{alerted(folder)}")
    assert set(alerted(folder)) <= {("v42", "firing"), ("v42", "resolved")}
    until(lambda: served(folder, "/readyz"))
    until(lambda: served(folder, "/v1/verdict/fraud?version=v42")["data"]["verdict"] == "DEGRADED")
    until(lambda: 'unship_converged{model="fraud"} 1.0' in served(folder, "/metrics"))
    metrics = served(folder, "/metrics")
    assert 'unship_decisions_total{action="rollback",model="fraud",reason="TARGET_BETTER"} 1.0' in metrics
    assert 'unship_stage_seconds_count{stage="publish"}' in metrics
    (rolled,) = served(folder, "/v1/decisions?action=rollback")["decisions"]
    links = [json.loads(line)["url"] for line in (folder / "got").read_text().splitlines()]
    assert all(link.endswith(f"/v1/decisions?id={rolled['id']}") for link in links), links


def converged(folder: Path, replicas: set[str]) -> dict[str, dict[str, Any]]:
    def found(shown: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return shown["models"]["fraud"]["replicas"] if shown["models"] else {}

    def met(shown: dict[str, Any]) -> bool:
        return set(found(shown)) == replicas and all(entry["version"] == "v41" for entry in found(shown).values())

    return found(status_when(folder, met))


def named(folder: Path) -> object:
    """Wait until the monitor names somebody who does not obey, and return what it says."""

    def lagging(shown: dict[str, Any]) -> bool:
        return bool(shown["models"] and shown["models"]["fraud"]["lagging"])

    return status_when(folder, lagging)["models"]["fraud"]["lagging"]


@pytest.fixture(params=["embedded", "kafka"])
def log(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Configure a monitor in the test's folder, with keys and a log; return the log's address."""
    # Replicas on Kafka keep what they obeyed where they run.
    monkeypatch.chdir(tmp_path)
    if request.param == "embedded":
        address, config = f"embedded:{tmp_path / 'unship-data'}", f"{CONFIG}{reports()}"
    else:
        kafka: SharedKafka = request.getfixturevalue("kafka")
        monkeypatch.setenv("UNSHIP_TOPIC_PREFIX", kafka.prefix)
        topics = f"{{prefix: {kafka.prefix}, partitions: 2, ledger_partitions: 2, replication: 1}}"
        address, config = kafka.log, f"log: {kafka.log}\nkafka: {{topics: {topics}}}\n{CONFIG}{reports()}"
    (tmp_path / "unship.yaml").write_text(config)
    assert unship(tmp_path, "keys", "new").returncode == 0
    if request.param == "kafka":
        assert unship(tmp_path, "topics", "apply").returncode == 0
    return address


def test_silent_decay_ends_with_every_replica_on_the_version_before(log: str, tmp_path: Path) -> None:
    trust, key = (str(tmp_path / "unship-keys" / name) for name in ("trust.json", "deployer.key"))
    loaded: dict[str, list[str]] = {"r-1": [], "r-2": []}
    rng = np.random.default_rng(5)
    with monitor(tmp_path):
        fleets = [
            Fleet("fraud", version="v42", on_version=loaded[name].append, log=log, trust=trust, replica=name)
            for name in loaded
        ]
        third = subprocess.Popen(
            [sys.executable, "-c", REPLICA, log, trust], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            with fleets[0] as first, fleets[1] as second, Feedback(log=log, source="chargebacks") as labels:
                assert third.stdout is not None
                assert third.stdout.readline() == "up\n"
                first.deployed("live", version="v41", key=key)
                first.deployed("live", version="v42", previous="v41", key=key)
                first.deployed("holdback", version="v41", key=key)
                assert first.flush(HANG_S)
                answered = 0
                while not (loaded["r-1"] and loaded["r-2"]):
                    for fleet in (first, second):
                        for _ in range(20):
                            holdback = rng.random() < 0.3
                            serving = Serving("v41", None, None) if holdback else fleet.current
                            decayed = answered > 2_000 and serving.version == "v42"
                            answer = fleet.predicted(1, role="holdback" if holdback else "live", as_=serving)
                            labels.truth(answer, 0 if rng.random() < (0.6 if decayed else 0.05) else 1)
                            answered += 1
                    first.flush(HANG_S)
                    second.flush(HANG_S)
                    labels.flush(HANG_S)
                assert loaded == {"r-1": ["v41"], "r-2": ["v41"]}
                found = converged(tmp_path, {"r-1", "r-2", "r-3"})
                assert third.stdout.readline() == "serves v41\n"
                assert {first.current.version, second.current.version} == {"v41"}
                assert {tuple(entry["epoch"]) for entry in found.values()} == {first.current.epoch}
                assert_reported(tmp_path)
                # The status is written twice a second, so it may be older than the acks that it is compared with.
                until(lambda: unship(tmp_path, "status").returncode == 0)
                old = {"id": "stray", "model": "fraud", "version": "v42", "output": 1, "replica": "r-9"}
                assert unship(tmp_path, "emit", "prediction", json.dumps(old)).returncode == 0
                assert named(tmp_path) == {"r-9": "answers with v42 under no epoch"}
                shown = unship(tmp_path, "status")
                assert shown.returncode == 1
                assert b"fraud: r-9 has not converged: answers with v42 under no epoch" in shown.stdout
        finally:
            third.communicate(timeout=HANG_S)
    decisions = [json.loads(line) for line in unship(tmp_path, "-q", "--json", "status").stdout.splitlines()]
    assert decisions[0]["models"]["fraud"]["quarantine"] == ["v42"]
