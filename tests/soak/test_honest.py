"""300,000 honest requests with their labels: the monitor and its log stay as large as after the first label horizon."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from streams.embedded.retention import RECORDS_AT_ONCE, SEGMENT_RECORDS
from tests.soak.honest import DELAY_ROUNDS, RATE, SNAPSHOT_ROUNDS

PREDICTIONS = 300_000
NEEDED_S = 104
"""The label horizon of 30 s and an eighth of it, `early` twice, and a minute."""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Return what a soak took in a process of its own, whose memory is its own."""
    command = [sys.executable, "-m", "tests.soak.honest", "--predictions", str(PREDICTIONS)]
    done = subprocess.run(command, capture_output=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_every_labelled_request_is_counted_once_also_after_a_restart(found: dict[str, Any]) -> None:
    labelled = PREDICTIONS - DELAY_ROUNDS * RATE
    assert 0.96 * labelled < found["outcomes"] < 0.98 * labelled
    assert found["outcomes_after_restart"] == found["outcomes"]
    assert set(found["rejected"]) == {"DUPLICATE_FEEDBACK"}


def test_healthy_version_is_never_acted_upon(found: dict[str, Any]) -> None:
    assert found["actions"] == ["none"]


def test_memory_is_flat_after_the_label_horizon(found: dict[str, Any]) -> None:
    assert found["memory_grown_mb"] <= 20


def test_log_keeps_what_a_label_may_come_for_and_a_segment(found: dict[str, Any]) -> None:
    kept = (NEEDED_S + SNAPSHOT_ROUNDS) * RATE + SEGMENT_RECORDS + RECORDS_AT_ONCE
    assert max(found["source_records_max"].values()) <= kept
    assert found["log_bytes"]["files"] <= 60_000_000
