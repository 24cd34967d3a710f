"""The monitor as a process on an embedded log, killed again and again: nothing lost, nothing counted twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from unship.commands import Command, decode_command
from unship.embedded import EmbeddedLog, Message
from unship.keys import load_trust
from unship.signing import COMMAND_TYPE, Headers, TrustedKey, verify

UNSHIP = Path(sys.executable).with_name("unship")
CONFIG = "models: {fraud: {policy: {mode: act}, one_false_alarm_per: 1000, worse_by: 0.01}}\n"
DEADLINE_S = 60.0


@contextmanager
def monitor(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with (folder / "run.log").open("ab") as log:
        process = subprocess.Popen([str(UNSHIP), "run"], cwd=folder, stdout=log, stderr=log)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def unship(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([str(UNSHIP), *arguments], cwd=folder, capture_output=True, timeout=60, check=False)


def status(folder: Path) -> dict[str, object]:
    return json.loads(unship(folder, "--json", "status").stdout)


def send(log: EmbeddedLog, first: int, count: int, rng: np.random.Generator, decayed: bool) -> Counter[str]:
    """Send predictions of v42 (live) and v41 (holdback) with their truths; return how many of each."""
    sent: Counter[str] = Counter()
    predictions, feedback = [], []
    for i in range(first, first + count):
        version, role = ("v41", "holdback") if rng.random() < 0.3 else ("v42", "live")
        wrong = rng.random() < (0.6 if decayed and version == "v42" else 0.05)
        prediction = {"id": f"p{i}", "model": "fraud", "version": version, "role": role, "output": 1}
        predictions.append(Message(json.dumps(prediction).encode(), f"p{i}".encode()))
        feedback.append(Message(json.dumps({"id": f"p{i}", "truth": 0 if wrong else 1}).encode(), f"p{i}".encode()))
        sent[version] += 1
    log.append_many({"predictions": predictions, "feedback": feedback})
    return sent


def deploy(log: EmbeddedLog) -> None:
    for version, role in (("v41", "live"), ("v42", "live"), ("v41", "holdback")):
        event = {"model": "fraud", "version": version, "status": role}
        log.append("deployments", [Message(json.dumps(event).encode(), b"fraud")])


def counts_reach(folder: Path, expected: Counter[str]) -> dict[str, object]:
    """Wait until the monitor has counted everything that was sent."""
    until = time.monotonic() + DEADLINE_S
    while time.monotonic() < until:
        models = status(folder)["models"]
        assert isinstance(models, dict)
        if models and models["fraud"]["outcomes"] == dict(expected):
            return models["fraud"]
    raise AssertionError(f"expected {dict(expected)}, was {status(folder)}\n{(folder / 'run.log').read_text()}")


def test_monitor_killed_at_random_points_counts_everything_once_and_takes_the_version_back(tmp_path: Path) -> None:
    (tmp_path / "unship.yaml").write_text(CONFIG)
    assert unship(tmp_path, "keys", "new").returncode == 0
    rng, sent = np.random.default_rng(11), Counter[str]()
    with EmbeddedLog(tmp_path / "unship-data", fsync=False) as log:
        deploy(log)
        for round_ in range(12):
            with monitor(tmp_path) as process:
                for _ in range(4):
                    sent += send(log, sum(sent.values()), 60, rng, decayed=round_ >= 6)
                    # Where it is hit is up to the scheduler; the start of the process takes part of it.
                    if log.wait({"ledger": log.end("ledger")}, float(rng.random()) * 0.5):
                        continue
                os.kill(process.pid, signal.SIGKILL)
        with monitor(tmp_path):
            fraud = counts_reach(tmp_path, sent)
        journal = [json.loads(record.value or b"") for record in log.read("decisions", 0)]
        control = [(record.value, record.headers) for record in log.read("control", 0)]
    rollbacks = [decision for decision in journal if decision["action"] == "rollback"]
    assert [(decision["version"], decision["to"]) for decision in rollbacks] == [("v42", "v41")]
    assert (fraud["desired"], fraud["quarantine"]) == ("v41", ["v42"])
    _check_commands(tmp_path, control, rollbacks[0]["id"])


def _check_commands(folder: Path, control: Sequence[tuple[bytes | None, Headers]], decision: str) -> None:
    trust = load_trust(folder / "unship-keys" / "trust.json")
    epochs = []
    for value, headers in control:
        command = decode_command(value)
        assert isinstance(command, Command)
        assert isinstance(verify(value or b"", headers, trust, "controller", COMMAND_TYPE), TrustedKey)
        epochs.append((command.epoch, command.serve, command.decision))
    assert epochs == sorted(epochs, key=lambda entry: entry[0])
    assert epochs[-1][1:] == ("v41", decision)


def test_status_before_anything_ran_says_how_to_start(tmp_path: Path) -> None:
    done = unship(tmp_path, "status")
    assert done.returncode == 2
    assert b"there is no log" in done.stderr


def test_emit_refuses_what_the_monitor_would_reject(tmp_path: Path) -> None:
    done = unship(tmp_path, "emit", "prediction", '{"id": ""}')
    assert done.returncode == 2
    assert b"would be rejected: BAD_EVENT" in done.stderr


def test_run_on_a_log_of_another_kind_says_what_is_supported(tmp_path: Path) -> None:
    done = unship(tmp_path, "--log", "kafka://localhost:9092", "run")
    assert done.returncode == 2
    assert b"not supported yet; use embedded:DIR" in done.stderr


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    assert unship(tmp_path, "keys", "new").returncode == 0
    before = (tmp_path / "unship-keys" / "trust.json").read_bytes()
    assert unship(tmp_path, "keys", "new").returncode == 2
    assert (tmp_path / "unship-keys" / "trust.json").read_bytes() == before
