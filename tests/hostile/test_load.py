"""Hostile records change neither what is decided about an honest model nor what an honest event costs.

Each course runs in a process of its own, so that its memory is its own. Costs are compared by the number of functions
that are called, which a busy machine does not change.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

# A million records: UNSHIP_HOSTILE_ROUNDS=200 UNSHIP_HOSTILE_RECORDS=5000.
ROUNDS = int(os.environ.get("UNSHIP_HOSTILE_ROUNDS", "80"))
HOSTILE = int(os.environ.get("UNSHIP_HOSTILE_RECORDS", "1100"))


@cache
def course(hostile: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.hostile.load", "--rounds", str(ROUNDS), "--hostile", str(hostile)]
    done = subprocess.run(command, capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_decay_among_hostile_records_is_rolled_back_as_without_them() -> None:
    # That somebody announces versions without a key, or answers as versions that nobody announced, are notices.
    notices = ("UNSIGNED_DEPLOYMENT", "UNANNOUNCED_VERSION")
    decided = [each for each in course(HOSTILE)["decisions"] if each[1] not in notices]
    assert decided == course(0)["decisions"]
    assert course(0)["decisions"][-1] == ["rollback", "TARGET_BETTER", "v2", "v1"]
    assert course(HOSTILE)["desired"] == "v1"


def test_honest_event_costs_as_much_after_hostile_records_as_before() -> None:
    found = course(HOSTILE)
    assert found["last_calls"] <= 1.3 * found["first_calls"]


def test_memory_does_not_grow_with_hostile_records() -> None:
    before, after = course(HOSTILE)["memory"]
    assert after - before <= 50


def test_no_ledger_record_among_hostile_records_exceeds_its_limit() -> None:
    assert course(HOSTILE)["record_max"] <= 512 * 1_024


@pytest.mark.parametrize(
    "code",
    [
        "MODEL_LIMIT",
        "VERSION_LIMIT",
        "REPLICA_LIMIT",
        "REQUEST_LIMIT",
        "UNSIGNED_ACT",
        "UNSIGNED_DEPLOYMENT",
        "DUPLICATE",
    ],
)
def test_hostile_records_are_counted_by_their_code(code: str) -> None:
    assert course(HOSTILE)["rejected"].get(code, 0) > 0
