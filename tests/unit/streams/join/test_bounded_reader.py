"""Nothing that a partition of a worker on Kafka keeps grows with what passed through it, though names change."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from streams.config.parse import parse
from streams.fold.fold import Fold
from streams.join.partition import Raw
from streams.join.source_reader import Position, SourceReader
from streams.ledger.encoding import pack, unpack
from streams.ledger.entries import entry_of
from streams.pipeline import configuration_record
from streams.window.join_window import JoinWindow, SavedWindow
from streams.window.tally import Tally
from tests.measures import sizes_of
from tests.pipelines import source_records_of, step

START = 1_772_409_600_000
ROUND_MS = 60_000
ROUNDS_OF_A_NAME = 5
EVENTS_OF_A_ROUND = 30
WARM_ROUNDS, ROUNDS = 90, 100
CONFIG = parse(
    """
limits: {models: 10}
defaults:
  labels: {horizon: 10m, early: 2m, mature_after: 2m}
  slices: {by: [country], cap: 5}
models: {named: {}, other: {}}
"""
)
#: Tables that are bounded by a limit of names, so small here that these are reached in time.
LIMITS = {
    "streams.window.slice_values.SOURCES_MAX": 30,
    "streams.window.cells.CELLS_MAX": 100,
    "streams.fold.model_places.FORGOTTEN_MAX": 10,
    "actions.replica_watch.REPLICAS_OF_ALL_MAX": 60,
}
#: The join numbers models, versions and roles for as long as it lives, as many as its own limits allow.
SERIES = ".cells.series."
#: Which versions gave the newest 1,000 live answers: more rounds than these fill it.
NEWEST = ".versions.newest."


class Partition:
    """A reader of one pair of source partitions, and the fold of what it writes."""

    def __init__(self) -> None:
        self.reader = SourceReader(CONFIG, 0, Position(1))
        self.fold = Fold(CONFIG)
        step(self.fold, configuration_record(CONFIG))
        self.rounds = 0
        self.ends = [0, 0]

    def round(self) -> None:
        """Read the predictions of a minute and the labels of the one before, and fold what follows."""
        self.rounds += 1
        at = START + self.rounds * ROUND_MS
        for side, events in enumerate((self._predictions(), self._labels())):
            first = self.ends[side]
            raws = [Raw(first + i, at, json.dumps(event).encode()) for i, event in enumerate(events)]
            self.reader.give(side, source_records_of(raws))
            self.ends[side] = first + len(events)
        while self.reader.advance((True, True)):
            pass
        self.reader.dead.clear()
        for batches in self.reader.flush_in_pieces((at, at)):
            for batch in batches:
                step(self.fold, batch)
        for facts in self.reader.replica_facts():
            step(self.fold, facts)
        self.reader.position()
        self.fold.take_touched()

    def _predictions(self) -> list[dict[str, Any]]:
        generation, found = self.rounds // ROUNDS_OF_A_NAME, []
        for number in range(EVENTS_OF_A_ROUND):
            role = ("live", "holdback", "shadow")[number // 3 % 3]
            found.append(
                {
                    "id": f"{self.rounds}-{number}",
                    "model": ("named", "other", f"stranger-{generation}")[number % 3],
                    "version": f"{role}-{generation}",
                    "output": number % 2,
                    "role": role,
                    "replica": f"r-{generation}-{number % 4}",
                    "slices": {"country": f"c-{generation}-{number % 3}"},
                }
            )
        return found

    def _labels(self) -> list[dict[str, Any]]:
        """Return the labels of a minute ago, some of which no prediction fits."""
        ids = [f"{self.rounds - 1}-{number}" for number in range(EVENTS_OF_A_ROUND)]
        ids += [f"x-{self.rounds}-{number}" for number in range(5)]
        return [{"id": name, "truth": i % 2, "source": f"s-{self.rounds % (i + 1)}"} for i, name in enumerate(ids)]

    def sizes(self) -> Counter[str]:
        """Return the largest sizes of all that is held over some rounds."""
        found = Counter[str]()
        for number in range(ROUNDS):
            self.round()
            if number % 3 == 0:
                found |= sizes_of((self.reader, self.fold))
        return found


def test_no_collection_of_a_partition_grows_after_the_horizon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in LIMITS.items():
        monkeypatch.setattr(name, limit)
    partition = Partition()
    for _ in range(WARM_ROUNDS):
        partition.round()
    first, second = partition.sizes(), partition.sizes()
    assert len(first) > 150
    assert partition.fold.counts()["UNMATCHED_FEEDBACK"] > ROUNDS
    assert sum(partition.fold.models["named"].state.outcomes.values()) > ROUNDS
    grown = {path: (first[path], size) for path, size in second.items() if size > 1.1 * first[path] + 10}
    assert not {path: sizes for path, sizes in grown.items() if SERIES not in path and NEWEST not in path}


class Idle:
    """A reader of a partition that got one prediction, and then labels alone, 100 each minute."""

    def __init__(self, minutes: int) -> None:
        self.reader = SourceReader(CONFIG, 0, Position(1), in_pieces=True)
        self.fold = Fold(CONFIG)
        self.records: list[int] = []
        step(self.fold, configuration_record(CONFIG))
        self._predict(0, START)
        for minute in range(minutes):
            at = START + minute * ROUND_MS
            events = [{"id": f"{minute}-{number}", "truth": 1} for number in range(100)]
            values = [json.dumps(event).encode() for event in events]
            self._read(1, [Raw(100 * minute + number, at, value) for number, value in enumerate(values)], at)

    def _predict(self, offset: int, at: int) -> None:
        event = {"id": "p", "model": "named", "version": "v", "output": 1}
        self._read(0, [Raw(offset, at, json.dumps(event).encode())], at)

    def end(self, at: int) -> None:
        """Read one more prediction."""
        self._predict(1, at)

    def _read(self, side: int, raws: list[Raw], at: int) -> None:
        self.reader.give(side, source_records_of(raws))
        while self.reader.advance((True, True)):
            pass
        for batches in self.reader.flush_in_pieces((at, at)):
            for batch in batches:
                entry = entry_of(batch)
                self.records.append(len(entry.value))
                self.fold.step(entry)
        self.reader.position()

    def kept(self) -> int:
        return sum(1 for _ in self.reader._join.window.slow.early)


def test_labels_of_a_partition_without_predictions_are_kept_for_a_while_only() -> None:
    # `early` is two minutes, and clocks may be ten apart.
    assert Idle(60).kept() == Idle(30).kept() <= 14 * 100


def test_labels_of_a_partition_without_predictions_are_counted_each_when_one_comes() -> None:
    idle = Idle(60)
    assert idle.fold.counts()["UNMATCHED_FEEDBACK"] == 0
    idle.end(START + 100 * ROUND_MS)
    assert idle.fold.counts()["UNMATCHED_FEEDBACK"] == 6_000


def test_labels_set_aside_outlive_a_snapshot() -> None:
    window = Idle(60).reader._join.window.slow
    loaded = JoinWindow({}, window.rules[0], Tally())
    loaded.load(unpack(pack(window.save()), SavedWindow))
    assert loaded.save() == window.save()
    assert len(loaded.unused_labels) == len(window.unused_labels) > 4_000


def test_many_labels_that_one_prediction_shows_to_be_alone_fit_in_a_record() -> None:
    idle = Idle(60)
    idle.end(START + 100 * ROUND_MS)
    assert max(idle.records) <= 2_000
