"""A window that is filled again, from the low water of any moment, joins and counts on as the one that was there."""

from __future__ import annotations

import random

import msgspec
import pytest

from streams.config.parse import parse
from streams.config.resolved import Config
from streams.join import source_reader
from streams.join.partition import FEEDBACK, PREDICTIONS, Raw
from streams.join.source_reader import Position, SourceReader
from streams.ledger.entries import entry_of
from streams.window import early_labels, pending_predictions
from tests.pipelines import source_records_of

HORIZON_MS, EARLY_MS = 80, 2
CONFIG = parse(f"defaults: {{labels: {{horizon: {HORIZON_MS}ms, early: {EARLY_MS}ms}}}}\nmodels: {{b: {{}}}}")


def log_of(rng: random.Random, side: int, count: int) -> list[Raw]:
    records, at = [], 1_000
    for offset in range(count):
        at += rng.randrange(0, 4)
        event: dict[str, object] = {"id": rng.choice(["i", "j"])}
        if side == PREDICTIONS:
            model, version = rng.choice(["a", "b", "c"]), rng.choice(["v1", "v2", "v3"])
            event |= {"model": model, "version": version, "output": 1, "role": rng.choice(["live", "shadow"])}
        else:
            event |= {"truth": rng.randrange(2), "model": rng.choice([None, "a", "b"])}
        records.append(Raw(offset, at - rng.choice([0, 0, 0, 5]), msgspec.json.encode(event)))
    return records


def read(reader: SourceReader, logs: list[list[Raw]], ends: tuple[int, int]) -> None:
    """Give both logs up to a corner, and read all of it."""
    while any(reader.next_offset(side) < end or reader.queued(side) for side, end in enumerate(ends)):
        for side in (PREDICTIONS, FEEDBACK):
            reader.give(side, source_records_of(logs[side][reader.next_offset(side) : ends[side]]))
        reader.advance((True, True), 1_000)


def new_reader(config: Config, position: Position) -> SourceReader:
    reader = SourceReader(config, 0, position)
    reader._join.window.limit_generations(16)
    return reader


@pytest.mark.parametrize("most", [1, 2])
def test_window_filled_from_the_low_water_goes_on_as_the_one_that_was_there(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(source_reader, "SAMPLE_RECORDS", 1)
    monkeypatch.setattr(pending_predictions, "VERSIONS_MAX", most)
    monkeypatch.setattr(pending_predictions, "UNLISTED_MAX", most)
    monkeypatch.setattr(early_labels, "LABELS_MAX", most)
    left_out = 0
    for seed in range(60):
        rng = random.Random(seed)
        logs = [log_of(rng, side, 250) for side in (PREDICTIONS, FEEDBACK)]
        first = new_reader(CONFIG, Position(1))
        # About the same time of both logs, as where each of them is read as it grows.
        corner = rng.randrange(120, 200)
        read(first, logs, (corner, corner + rng.randrange(-8, 8)))
        first.flush()
        position = first.position()
        left_out += position.low[0] > 0 and position.low[1] > 0
        second = new_reader(CONFIG, position)
        for reader in (first, second):
            read(reader, logs, (250, 250))
        batches = [[entry_of(batch).value for batch in reader.flush()] for reader in (first, second)]
        assert batches[0] == batches[1], seed
    assert left_out > 50
