"""One replica as a process: it answers requests of several models through the real library, and reports their truths.

What it is to do stands in a file that is looked at all the time: how many requests a second, how often each version
errs, and which version answers beside the live one. What it obeyed is written down at once, so that it outlives a kill.
"""

import json
import random
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from unship import Feedback, Fleet
from unship.replica.fence import Serving

FIRST = "v1"
LOOK_S = 0.2
TRUTH_AFTER_S = 0.3
BESIDE = 0.2
LAST_FLUSH_S = 60.0
QUEUE = 1_000_000


class Replica:
    """Serves some models until it is told to end."""

    def __init__(self, name: str, log: str, folder: Path, models: list[str]) -> None:
        self.name = name
        self.orders_file = folder / "orders.json"
        self.obeyed_file = folder / f"{name}.obeyed"
        self.waiting_file = folder / f"{name}.waiting"
        trust, state = folder / "unship-keys" / "trust.json", folder / "state"
        self.fleets = {
            model: Fleet(model, FIRST, log=log, trust=trust, replica=name, state=state, queue=QUEUE, beat_s=30.0)
            for model in models
        }
        self.labels = Feedback(log, queue=QUEUE)
        self.ended = threading.Event()
        self.orders: dict[str, Any] = {}
        self._obeyed: dict[str, Serving] = {}
        self._untold: deque[tuple[float, str, int]] = deque()
        self._boot = f"{time.time_ns():x}"

    def run(self) -> None:
        """Answer until the end, then say the rest."""
        for fleet in self.fleets.values():
            fleet.start()
        number, looked = 0, 0.0
        while not self.ended.is_set():
            now = time.monotonic()
            if now - looked > LOOK_S:
                looked, self.orders = now, json.loads(self.orders_file.read_bytes())
                self.waiting_file.write_text(str(sum(fleet.stats.waiting for fleet in self.fleets.values())))
            for model, fleet in self.fleets.items():
                self._answer(model, fleet, f"{model}-{self.name}-{self._boot}-{number}", now)
            number += 1
            while self._untold and self._untold[0][0] <= now:
                _, id_, truth = self._untold.popleft()
                self.labels.truth(id_, truth)
            self.ended.wait(max(0.0, 1 / self.orders["rate"] - (time.monotonic() - now)))
        for _, id_, truth in self._untold:
            self.labels.truth(id_, truth)
        self._end(number)

    def _answer(self, model: str, fleet: Fleet, id_: str, now: float) -> None:
        serving = fleet.current
        if self._obeyed.get(model) != serving:
            self._obeyed[model] = serving
            self._write({"model": model, "version": serving.version, "epoch": serving.epoch})
        beside = self.orders["beside"].get(model)
        role: Any = "live"
        if beside not in (None, serving.version) and random.random() < BESIDE:
            serving, role = Serving(beside), "holdback"
        truth = int(random.random() < 0.5)
        wrong = random.random() < self.orders["errors"].get(f"{model}/{serving.version}", self.orders["usual"])
        fleet.predicted(truth ^ wrong, id=id_, role=role, as_=serving)
        self._untold.append((now + TRUTH_AFTER_S, id_, truth))

    def _end(self, number: int) -> None:
        for model, fleet in self.fleets.items():
            flushed = fleet.flush(LAST_FLUSH_S)
            stats = fleet.stats
            left = {"flushed": flushed, "sent": stats.sent, "dropped": stats.dropped, "refused": stats.refused}
            self._write({"model": model, "answered": number, "boot": self._boot} | left)
            fleet.close()
        self._write({"labels": self.labels.flush(LAST_FLUSH_S), "dropped": self.labels.stats.dropped})
        self.labels.close()

    def _write(self, line: dict[str, Any]) -> None:
        with self.obeyed_file.open("a") as file:
            file.write(json.dumps(line) + "\n")


def main() -> None:
    """Be a replica: name, address of the log, folder, models."""
    name, log, folder, *models = sys.argv[1:]
    replica = Replica(name, log, Path(folder), models)
    signal.signal(signal.SIGTERM, lambda *_: replica.ended.set())
    replica.run()


if __name__ == "__main__":
    main()
