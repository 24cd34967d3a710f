"""What a pair of source partitions does next, as a table."""

from __future__ import annotations

from typing import Any

import pytest

from streams.rounds.ingest import (
    COMMIT_S,
    FILL_RECORDS,
    FLUSH_BEHIND_S,
    HELD_S,
    Limits,
    OpenTransaction,
    Output,
    Pair,
    due,
)
from streams.rounds.ingest import records_to_join as to_join

LIMITS = Limits(rows=100, tick_s=5.0)
NOW = 1_000.0
NOTHING, COMMIT, APPEND, BOTH = Output(), Output(commit=True), Output(append=True), Output(True, True)


def pair(**different: Any) -> Pair:
    """Return a pair that has just committed and appended, and has nothing to do."""
    usual: dict[str, Any] = {
        "filling": False,
        "waiting": 0,
        "lag": 0,
        "caught_up": True,
        "appending": False,
        "uncommitted": False,
        "committed_at": NOW,
        "appended_at": NOW,
    }
    return Pair(**(usual | different))


@pytest.mark.parametrize(
    ("what", "flush", "expected"),
    [
        ({}, True, NOTHING),
        ({"waiting": 1}, False, NOTHING),
        ({"waiting": 1}, True, APPEND),
        ({"waiting": 1, "lag": 99}, True, APPEND),
        ({"waiting": 1, "lag": 100}, True, NOTHING),
        ({"waiting": 1, "lag": 100, "appended_at": NOW - FLUSH_BEHIND_S}, True, APPEND),
        ({"waiting": 100}, False, APPEND),
        ({"appended_at": NOW - 5.0}, False, APPEND),
        ({"appended_at": NOW - 4.9}, False, NOTHING),
        ({"appended_at": NOW - 5.0, "caught_up": False}, True, NOTHING),
        ({"uncommitted": True}, True, NOTHING),
        ({"uncommitted": True, "committed_at": NOW - COMMIT_S}, False, COMMIT),
        ({"committed_at": NOW - COMMIT_S}, False, NOTHING),
        ({"uncommitted": True, "committed_at": NOW - COMMIT_S, "waiting": 100}, False, BOTH),
        ({"appending": True, "waiting": 100, "uncommitted": True, "committed_at": 0.0}, True, NOTHING),
        ({"filling": True, "waiting": 100, "appended_at": 0.0}, True, NOTHING),
    ],
    ids=[
        "nothing-waits", "few-rows-before-the-flush", "few-rows-at-the-flush",
        "few-records-to-come", "a-batch-to-come", "a-batch-to-come-for-long", "a-full-batch", "idle-for-a-tick",
        "idle-for-less", "backlog-states-no-time", "committed-a-moment-ago", "commit-is-due", "nothing-to-commit",
        "backlog-commits-between-batches", "one-append-at-a-time", "window-is-being-filled",
    ],
)  # fmt: skip
def test_pair_commits_and_appends_what_is_due(what: dict[str, Any], flush: bool, expected: Output) -> None:
    assert due(pair(**what), LIMITS, NOW, flush=flush) == expected


@pytest.mark.parametrize(
    ("filling", "waiting", "expected"), [(True, 0, FILL_RECORDS), (False, 0, 100), (False, 99, 100), (False, 100, 0)]
)
def test_pair_joins_no_more_than_a_batch_that_the_ledger_has_not_taken(
    filling: bool, waiting: int, expected: int
) -> None:
    assert to_join(filling, waiting, LIMITS) == expected


def test_transaction_that_ends_in_time_is_not_reported() -> None:
    held = OpenTransaction()
    assert [held.see(True, NOW), held.see(True, NOW + HELD_S / 2), held.see(False, NOW + HELD_S)] == [None] * 3


def test_second_transaction_that_lasts_is_reported_again() -> None:
    held = OpenTransaction()
    for begin in (0.0, 100.0):
        assert held.see(True, begin) is None
        assert held.see(True, begin + HELD_S) == "held"
        assert held.see(False, begin + HELD_S) == "ended"
