"""Lines of a ledger that no monitor wrote are refused by a sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streams.config.parse import parse
from streams.ledger.lines import ledger_line, read_ledger_line
from streams.ledger.records import Batch
from tests.pipelines import run
from tests.worlds.busy import CONFIG, busy_lines
from unship.errors import RecordingError


@pytest.fixture(scope="module")
def batch() -> bytes:
    records = run(parse(CONFIG), busy_lines(1, 200)).records
    return ledger_line(next(record for record in records if isinstance(record, Batch)))


@pytest.mark.parametrize("column", ["arm", "predicted_at", "labelled_at", "position", "labelled_by"])
def test_column_of_two_dimensions_is_refused(batch: bytes, column: str) -> None:
    line: Any = json.loads(batch)
    rows = line["record"]["parts"][0]["outcomes"]
    rows[column] = [[value] for value in rows[column]]
    with pytest.raises(RecordingError):
        read_ledger_line(json.dumps(line).encode())


def test_number_beyond_64_bits_is_refused(batch: bytes) -> None:
    line: Any = json.loads(batch)
    line["record"]["clock"] = 10**20
    with pytest.raises(RecordingError):
        read_ledger_line(json.dumps(line).encode())
