"""Nothing that a monitor keeps grows with what passed through it, though names change all the time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from streams.config.parse import parse
from streams.embedded.monitor import EmbeddedMonitor
from tests.measures import sizes_of
from tests.sites import Site
from unship.log.embedded.log import EmbeddedLog, Message

START = 1_772_409_600_000
ROUND_MS = 60_000
#: Names are new after so many rounds: a horizon is two of these.
ROUNDS_OF_A_NAME = 5
EVENTS_OF_A_ROUND = 30
#: Longer than the horizon, and than it takes until a silent replica is forgotten.
WARM_ROUNDS, ROUNDS = 90, 120
CONFIG = """
limits: {models: 10}
defaults: &all
  labels: {horizon: 10m, early: 2m, mature_after: MATURE}
  slices: {by: [country], cap: 5}
  losses: [zero_one, {latency: {objective_ms: 100}}]
models: {named: {}, other: {}}
"""


class Traffic:
    """Healthy traffic of a few models, in which every name is replaced by a new one after a while."""

    def __init__(self, folder: Path, mature: str) -> None:
        self.site = Site(folder, [], parse(CONFIG.replace("MATURE", mature)))
        self.site.clock.now = START
        self.monitor: EmbeddedMonitor = self.site.monitor()
        self.rounds = 0

    def round(self) -> None:
        """Append the predictions of a minute and the labels of the one before, and let the monitor read them."""
        self.rounds += 1
        generation = self.rounds // ROUNDS_OF_A_NAME
        for topic, event in (*self._predictions(generation), *self._labels(), *self._rest(generation)):
            self.site.log.append(topic, [Message(json.dumps(event).encode(), event["model"].encode())])
        self.site.clock.now += ROUND_MS
        self.monitor.step()

    def _predictions(self, generation: int) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for number in range(EVENTS_OF_A_ROUND):
            model = ("named", "other", f"stranger-{generation}")[number % 3]
            role = ("live", "holdback", "shadow")[number // 3 % 3]
            version = f"v-{generation}" if role == "live" else f"{role}-{generation}"
            event = {
                "id": f"{self.rounds}-{number}",
                "model": model,
                "version": version,
                "output": number % 2,
                "role": role,
                "replica": f"r-{generation}-{number % 4}",
                "slices": {"country": f"c-{generation}-{number % 3}"},
                "latency_ms": 5,
                "epoch": [0, self.rounds, 0],
            }
            found.append(("predictions", event))
        return found

    def _labels(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the labels of a minute ago, some of which no prediction fits, and some that came too early."""
        before = self.rounds - 1
        ids = [f"{before}-{number}" for number in range(EVENTS_OF_A_ROUND)] + [f"x-{self.rounds}-{i}" for i in range(5)]
        return [
            ("feedback", {"id": name, "model": "named", "truth": i % 2, "source": f"s-{self.rounds}"})
            if i % 7 == 0
            else ("feedback", {"id": name, "model": "named", "truth": i % 2})
            for i, name in enumerate(ids)
        ]

    def _rest(self, generation: int) -> list[tuple[str, dict[str, Any]]]:
        version = f"v-{generation}"
        return [
            ("deployments", {"model": "named", "version": version, "status": "live"}),
            (
                "acks",
                {
                    "model": "named",
                    "replica": f"r-{generation}-0",
                    "boot": "b",
                    "epoch": [0, self.rounds, 0],
                    "stage": "serving",
                    "serving": version,
                },
            ),
        ]

    def sizes(self) -> Counter[str]:
        """Return the largest sizes of all that the monitor holds over some rounds."""
        found = Counter[str]()
        for number in range(ROUNDS):
            self.round()
            if number % 3 == 0:
                found |= sizes_of(self.monitor, leave=[EmbeddedLog, Site])
        return found


#: Tables that are bounded by a limit of names, so small here that these are reached in time.
LIMITS = {
    "streams.fold.arrivals.DEPLOYED_VERSIONS_MAX": 20,
    "streams.join.line_cutter.CONTROLS_REMEMBERED": 40,
    "streams.window.slice_values.SOURCES_MAX": 30,
    "streams.window.cells.CELLS_MAX": 100,
    "streams.fold.model_places.FORGOTTEN_MAX": 10,
    "actions.replica_watch.REPLICAS_OF_ALL_MAX": 60,
}
#: The join numbers models, versions and roles for as long as it lives, as many as its own limits allow.
SERIES = ".cells.series."
#: Which versions gave the newest 1,000 live answers: more rounds than these fill it.
NEWEST = ".versions.newest."


@pytest.mark.parametrize("mature", ["0s", "2m"])
def test_no_collection_of_a_running_monitor_grows_after_the_horizon(
    mature: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, limit in LIMITS.items():
        monkeypatch.setattr(name, limit)
    traffic = Traffic(tmp_path / "log", mature)
    for _ in range(WARM_ROUNDS):
        traffic.round()
    first, second = traffic.sizes(), traffic.sizes()
    assert len(first) > 150
    assert traffic.monitor.status().rejected["UNMATCHED_FEEDBACK"] > ROUNDS
    grown = {path: (first[path], size) for path, size in second.items() if size > 1.1 * first[path] + 10}
    assert not {path: sizes for path, sizes in grown.items() if SERIES not in path and NEWEST not in path}
