"""Honest requests with their labels, for as long as wanted; run as a program it prints what they took, as JSON.

    python -m tests.soak.honest --predictions 3000000

A monitor reads an embedded log whose clock is an argument: a round is a second of it, in which a model answers and the
labels of requests of a while ago arrive. What the monitor keeps may grow until the label horizon has passed, and the
log until it removes what is older; after that only the ledger and the journal grow, which are kept whole.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from streams.config.parse import parse
from streams.embedded.monitor import EmbeddedMonitor
from tests.hostile.load import resident_mb
from tests.keys import SIGNER, signed
from unship.events import Deployment
from unship.log.embedded.log import EmbeddedLog, Message
from unship.topics import SOURCES, TOPICS

CONFIG = """
defaults: {labels: {horizon: 30s, early: 5s}}
models:
  fraud:
    slices: {by: [country]}
    policy: {mode: act}
"""
BEGIN_MS = 1_700_000_000_000
RATE = 1_000
"""Predictions a second of the log's clock; three in a hundred never get their label, and one in a hundred two."""

DELAY_ROUNDS = 10
"""How many rounds after its prediction a label comes."""

HORIZON_ROUNDS = 36
"""Rounds until what the monitor keeps has its size: the label horizon, `early` and one more."""

SNAPSHOT_ROUNDS = 30
MEASURED_ROUNDS = 10

SIZE = "SELECT coalesce(sum(length(value)), 0) FROM topic_{}"


class Soak:
    """One log with its monitor, and one fleet that goes on."""

    def __init__(self, folder: Path) -> None:
        self.now = BEGIN_MS
        self.folder = folder
        self.log = self._opened()
        self.monitor = self._started()
        self.chance = random.Random(1)
        self.rounds = 0
        self.labels: list[list[Message]] = []
        self.actions: set[str] = set()
        event = Deployment(model="fraud", version="v1", status="live", ts=self.now)
        self.log.append("deployments", [signed(event, self.now)])

    def _opened(self) -> EmbeddedLog:
        return EmbeddedLog(self.folder, now_ms=lambda: self.now, fsync=False)

    def _started(self) -> EmbeddedMonitor:
        return EmbeddedMonitor(self.log, parse(CONFIG), lambda: self.now, SIGNER)

    def run(self, rounds: int) -> None:
        """Let so many seconds pass."""
        for _ in range(rounds):
            self._answer()
            self.now += 1_000
            self.actions |= {decision.action for decision in self.monitor.step()}
            self.monitor.publish()
            self.rounds += 1
            if self.rounds % SNAPSHOT_ROUNDS == 0:
                self.monitor.save_snapshot()

    def _answer(self) -> None:
        predictions, labels = [], list[Message]()
        for i in range(self.rounds * RATE, (self.rounds + 1) * RATE):
            key, draw = f"request-{i}", self.chance.random()
            event: dict[str, Any] = {
                "id": key, "model": "fraud", "version": "v1", "output": 1, "score": 0.9, "replica": f"r{i % 3}",
                "slices": {"country": "DE" if i % 2 else "FR"},
            }  # fmt: skip
            predictions.append(Message(msgspec.json.encode(event), key.encode()))
            truth = Message(
                msgspec.json.encode({"id": key, "truth": int(draw < 0.9), "source": f"s{i % 2}"}), key.encode()
            )
            labels += [truth] * (0 if draw < 0.03 else 2 if draw < 0.04 else 1)
        self.labels.append(labels)
        self.log.append("predictions", predictions)
        if len(self.labels) > DELAY_ROUNDS:
            self.log.append("feedback", self.labels.pop(0))

    def restart(self) -> float:
        """End the monitor where it is, without saving, and start another; return how many seconds the start took."""
        self.log.close()
        begun = time.perf_counter()
        self.log = self._opened()
        self.monitor = self._started()
        return time.perf_counter() - begun

    @property
    def outcomes(self) -> int:
        """How many outcomes were counted."""
        return self.monitor.pipeline.fold.models["fraud"].state.outcomes.get("v1", 0)

    def kept(self) -> dict[str, int]:
        """Return how many records of the source topics the log has."""
        return {topic: self.log.end(topic) - self.log.first(topic) for topic in SOURCES}

    def bytes(self) -> dict[str, int]:
        """Return how many bytes the values of each topic take in the log's file, and how many all files take."""
        with closing(sqlite3.connect(self.folder / "log.sqlite3")) as database:
            found = {topic: int(database.execute(SIZE.format(topic)).fetchone()[0]) for topic in TOPICS}
        return found | {"files": sum(each.stat().st_size for each in self.folder.iterdir() if each.is_file())}


def soak(folder: Path, predictions: int) -> dict[str, Any]:
    """Let so many requests be answered; return what they took."""
    course, rounds = Soak(folder), predictions // RATE
    memory, kept, spent = list[float](), list[dict[str, int]](), time.process_time()
    while course.rounds < rounds:
        course.run(min(MEASURED_ROUNDS, rounds - course.rounds))
        gc.collect()
        memory.append(resident_mb())
        kept.append(course.kept())
    warm = HORIZON_ROUNDS // MEASURED_ROUNDS + 1
    tenth = max(len(memory) // 10, 1)
    grown = max(memory[-tenth:]) - max(memory[warm : warm + tenth])
    result: dict[str, Any] = {
        "predictions": predictions,
        "labels_waiting": sum(map(len, course.labels)),
        "outcomes": course.outcomes,
        "rejected": course.monitor.status().rejected,
        "actions": sorted(course.actions),
        "processor_us_per_event": round((time.process_time() - spent) * 1e6 / (2 * predictions), 1),
        "memory_mb": [round(each, 1) for each in memory[:: max(len(memory) // 20, 1)]],
        "memory_after_horizon_mb": round(max(memory[warm : warm + tenth]), 1),
        "memory_grown_mb": round(grown, 1),
        "memory_grown_bytes_per_event": round(grown * 1e6 / (2 * predictions), 2),
        "source_records_max": {topic: max(each[topic] for each in kept) for topic in SOURCES},
        "log_bytes": course.bytes(),
        "restart_s": round(course.restart(), 2),
    }
    result["outcomes_after_restart"] = course.outcomes
    return result


def main() -> None:
    """Run a soak in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictions", type=int, default=3_000_000)
    with tempfile.TemporaryDirectory() as folder:
        json.dump(soak(Path(folder) / "log", parser.parse_args().predictions), sys.stdout, indent=2)


if __name__ == "__main__":
    main()
