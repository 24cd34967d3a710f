"""The monitor as a process on an embedded log, killed again and again: nothing lost, nothing counted twice."""

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from actions.checkpoints import CHECKPOINT_KEY
from tests.processes import CONFIG, deploy, monitor, records, status_when, unship, verified_commands
from unship.log.embedded.log import EmbeddedLog, Message


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


def counted(shown: dict[str, Any]) -> dict[str, int] | None:
    return shown["models"]["fraud"]["outcomes"] if shown["models"] else None


def test_monitor_killed_at_random_points_counts_everything_once_and_takes_the_version_back(tmp_path: Path) -> None:
    (tmp_path / "unship.yaml").write_text(CONFIG)
    assert unship(tmp_path, "keys", "new").returncode == 0
    rng, sent = np.random.default_rng(11), Counter[str]()
    with EmbeddedLog(tmp_path / "unship-data", fsync=False) as log:
        deploy(log, tmp_path / "unship-keys")
        for round_ in range(12):
            with monitor(tmp_path) as process:
                for _ in range(4):
                    sent += send(log, sum(sent.values()), 60, rng, decayed=round_ >= 6)
                    # Where it is hit is up to the scheduler; the start of the process takes part of it.
                    if log.wait({"ledger": log.end("ledger")}, float(rng.random()) * 0.5):
                        continue
                os.kill(process.pid, signal.SIGKILL)
        with monitor(tmp_path):
            fraud = status_when(tmp_path, lambda now: counted(now) == dict(sent))["models"]["fraud"]
        decided = [record for record in records(log, "decisions") if record.key != CHECKPOINT_KEY]
        journal = [json.loads(record.value or b"") for record in decided]
        commands = verified_commands(tmp_path, records(log, "control"))
    rollbacks = [decision for decision in journal if decision["action"] == "rollback"]
    assert [(decision["version"], decision["to"]) for decision in rollbacks] == [("v42", "v41")]
    assert (fraud["desired"], fraud["quarantine"]) == ("v41", ["v42"])
    assert [command.epoch for command in commands] == sorted(command.epoch for command in commands)
    assert (commands[-1].serve, commands[-1].decision) == ("v41", rollbacks[0]["id"])
