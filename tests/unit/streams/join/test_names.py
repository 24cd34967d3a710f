"""Names of models and versions have no place for ever: what left the window gives its place back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.config.parse import parse
from streams.join.partition import PREDICTIONS, Raw
from streams.join.source_reader import Position, SourceReader
from streams.ledger.records import Batch
from streams.window import cells, series
from tests.pipelines import Run, source_records_of

START = 1_772_409_600_000
CONFIG = parse(
    """
defaults: {labels: {horizon: 10s, early: 1s}}
models: {fraud: {}, timed: {losses: [{latency: {objective_ms: 9}}]}}
"""
)
LEAST, ROWS, CELLS = 64, 32, 64


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "CROWDED_LEAST", LEAST)
    monkeypatch.setattr(cells, "CELLS_MAX", CELLS)


def prediction(number: int, model: str) -> dict[str, Any]:
    return {"id": f"p{number}", "model": model, "version": f"v{number}", "output": 1, "latency_ms": 5}


@pytest.mark.parametrize("model", ["junk", "timed", None], ids=["rows", "objects", "models"])
def test_names_in_a_reader_are_no_more_than_those_of_its_window(model: str | None) -> None:
    reader = SourceReader(CONFIG, 0, Position(1), in_pieces=True)
    window = reader._join.window
    window.limit_generations(ROWS)
    joined: set[tuple[str, str]] = set()
    for begin in range(0, 4_000, 50):
        # About 110 predictions are in the window at a time.
        events = [prediction(number, model or f"junk-{number}") for number in range(begin, begin + 50)]
        records = [
            Raw(begin + place, START + 100 * (begin + place), msgspec.json.encode(event))
            for place, event in enumerate(events)
        ]
        reader.give(PREDICTIONS, source_records_of(records))
        reader.advance((True, True), 1_000)
        reader.skip(1, begin + 50)
        reader._sides[1].clock = START + 100 * (begin + 50)
        joined |= {(part.model, arm.version) for part in reader.flush_in_pieces()[-1][0].parts for arm in part.arms}
    assert joined == {(model or f"junk-{number}", f"v{number}") for number in range(4_000)}
    assert len(window.slow.series) <= 2 * (LEAST + 110 + 3 * ROWS + 2 * CELLS)
    assert len(window.slow.series.models()) <= 2 * (LEAST + 110 + 3 * ROWS + 2 * CELLS)


def test_configured_model_is_joined_after_any_number_of_invented_ones() -> None:
    invented = (prediction(number, f"junk-{number}") for number in range(3_000))
    lines = [{"type": "prediction", "ts": START + number, **event} for number, event in enumerate(invented)]
    lines += [
        {"type": "prediction", "ts": START + 3_000, "id": "q", "model": "fraud", "version": "v1", "output": 1},
        {"type": "feedback", "ts": START + 3_001, "id": "q", "truth": 1},
    ]
    run = Run(CONFIG)
    records = [*run.take(map(msgspec.json.encode, lines)), *run.rest()]
    parts = [part for record in records if isinstance(record, Batch) for part in record.parts]
    assert sum(part.outcomes.arm.size for part in parts if part.model == "fraud") == 1
