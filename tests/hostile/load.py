"""A fleet whose version decays while strangers flood the topics; run as a program it prints what it took, as JSON.

    python -m tests.hostile.load --rounds 100 --hostile 10000

Each round is a second of the log's clock: honest requests with their labels, then hostile records. What an honest round
costs is taken of the monitor's step over the honest records alone: its processor time, and in other rounds how many
functions it calls, which a busy machine does not change.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import random
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from streams.config.parse import parse
from streams.embedded.monitor import EmbeddedMonitor
from tests.hostile.records import FLOODS
from tests.keys import SIGNER, signed
from unship.events import Deployment, Status
from unship.log.embedded.log import EmbeddedLog, Message

CONFIG = """
defaults: {labels: {horizon: 30s, early: 5s, mature_after: 2s}}
models:
  fraud:
    one_false_alarm_per: 10000
    slices: {by: [country]}
    policy: {mode: act}
"""
HONEST = 500
"""Honest requests a round, every fifth of which goes to the holdback."""

WARM = 40
"""Rounds until what the monitor keeps has its size: the horizon, `early`, and some more."""

COUNTED = 5
"""Rounds at either end of which the calls are counted."""


class Course:
    """One log with its monitor, an honest fleet and strangers."""

    def __init__(self, folder: Path, rounds: int, hostile: int) -> None:
        self.now = 1_700_000_000_000
        self.rounds = rounds
        self.hostile = hostile
        self.log = EmbeddedLog(folder, now_ms=lambda: self.now, fsync=False)
        self.monitor = EmbeddedMonitor(self.log, parse(CONFIG), lambda: self.now, SIGNER)
        self.chance = random.Random(1)
        self.sent = 0
        self.decisions: list[list[Any]] = []

    def run(self) -> dict[str, Any]:
        """Let everything happen; return what was decided, and what it took."""
        costs, calls, memory = list[float](), list[int](), list[float]()
        counted = {*range(WARM, WARM + COUNTED), *range(self.rounds - COUNTED, self.rounds)}
        self.deploy("v1", "live")
        for number in range(self.rounds):
            if number == 5:
                self.deploy("v2", "live")
                self.deploy("v1", "holdback")
            self.flood(number)
            self.step()
            self.answer(decayed=number >= self.rounds // 2)
            self.now += 1_000
            if number in counted:
                calls.append(self.calls_of_step())
            else:
                begun = time.process_time()
                self.step()
                costs.append(time.process_time() - begun)
            self.monitor.publish()
            memory.append(resident_mb())
            if number % 20 == 0:
                self.monitor.save_snapshot()
        # Tables that are left only when they are full are so after some 500,000 hostile records, half of a long course.
        full = max(WARM, self.rounds // 2)
        return {
            "decisions": self.decisions,
            "desired": self.monitor.status().models["fraud"].desired,
            "rejected": self.monitor.status().rejected,
            "hostile": self.hostile * self.rounds,
            "first_cost": min(costs[WARM : WARM + 15]),
            "last_cost": min(costs[-15:]),
            "first_calls": sum(calls[:COUNTED]),
            "last_calls": sum(calls[-COUNTED:]),
            "memory": [max(memory[full : full + 15]), max(memory[-15:])],
            "record_max": max((len(value) for value in self.ledger()), default=0),
        }

    def calls_of_step(self) -> int:
        """Read everything; return how many functions were called."""
        profile = cProfile.Profile()
        profile.runcall(self.step)
        return sum(entry.callcount for entry in profile.getstats())

    def step(self) -> None:
        """Read everything."""
        for decision in self.monitor.step():
            if decision.model == "fraud":
                self.decisions.append([decision.action, decision.reason, decision.version, decision.to])

    def deploy(self, version: str, status: Status) -> None:
        """Announce a version, as those who may."""
        event = Deployment(model="fraud", version=version, status=status, ts=self.now)
        self.log.append("deployments", [signed(event, self.now)])
        self.step()
        self.monitor.publish()

    def answer(self, *, decayed: bool) -> None:
        """Answer requests; v2 is wrong twice as often once it has decayed."""
        predictions, labels = [], []
        for i in range(HONEST):
            key, held = f"honest-{self.sent + i}", i % 5 == 0
            wrong = self.chance.random() < (0.3 if decayed and not held else 0.15)
            event: dict[str, Any] = {
                "id": key, "model": "fraud", "version": "v1" if held else "v2", "output": 1, "replica": f"r{i % 3}",
                "role": "holdback" if held else "live", "slices": {"country": "DE" if i % 2 else "FR"},
            }  # fmt: skip
            predictions.append(Message(msgspec.json.encode(event), key.encode()))
            labels.append(Message(msgspec.json.encode({"id": key, "truth": int(not wrong)}), key.encode()))
        self.sent += HONEST
        self.log.append("predictions", predictions)
        self.log.append("feedback", labels)

    def flood(self, number: int) -> None:
        """Append what strangers send: a flood of every kind, of the honest model and of others."""
        if not self.hostile:
            return
        size = self.hostile // len(FLOODS)
        for kind, flood in enumerate(FLOODS):
            model = "fraud" if (number + kind) % 2 else f"other-{number % 7}"
            batches: dict[str, list[Message]] = {}
            for topic, record in flood(model, size, number * size):
                batches.setdefault(topic, []).append(record)
            for topic, records in batches.items():
                pages = iter(records)
                while page := list(islice(pages, 500)):
                    self.log.append(topic, page)
        while any(self.monitor.positions[topic] < self.log.end(topic) for topic in self.monitor.positions):
            self.step()

    def ledger(self) -> list[bytes]:
        """Return the ledger's records."""
        values, offset = [], self.log.first("ledger")
        while page := self.log.read("ledger", offset):
            values += [record.value or b"" for record in page]
            offset = page[-1].offset + 1
        return values


def resident_mb() -> float:
    """Return how much of this process is in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4_096 / 1e6


def main() -> None:
    """Run a course in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--hostile", type=int, default=10_000, help="hostile records a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        json.dump(Course(Path(folder) / "log", options.rounds, options.hostile).run(), sys.stdout)


if __name__ == "__main__":
    main()
