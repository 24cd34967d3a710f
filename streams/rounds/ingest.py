"""What a pair of source partitions has to do next: join, commit, append to the ledger.

`due` is a function of what the pair is like and of the time, in seconds of any clock that only goes forward.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

FILL_RECORDS = 4_096
"""Records that are read of a pair before the next one has its turn, while its window is filled."""

JOIN_RECORDS = 8_192
"""Records that are joined of a pair before everything else has its turn."""

AHEAD_MAX = 16_384
"""Records of one log that wait to be joined; then no more of it is read. The rest is in the broker's pages."""

FLUSH_S = 0.05
"""Between two flushes of fewer rows: every ledger record costs its fold something, whatever it holds."""

FLUSH_BEHIND_S = 0.5
"""The same while a whole batch more is there to be read: what is in it is late already, and larger ones cost less."""

REST_S = 0.2
"""How long a pair with nothing to do is not looked at, unless it is given something."""

COMMIT_S = 5.0
"""A backlog has one full batch after the other, so positions are committed between them."""

SAVE_S = 600.0
SAVE_RECORDS = 50_000
"""A window that is filled from fewer records is not worth a file: reading them takes less than half a second."""

HELD_S = 10.0
"""An open transaction that lasts longer is reported: a healthy writer's takes less."""


class Pair(msgspec.Struct, frozen=True):
    """A pair of source partitions at one instant.

    `waiting` counts rows for the ledger, and `lag` the records that are in the logs and not joined yet. `uncommitted`
    is true where the ledger has acknowledged more than the group has committed; `appended_at` is when the pair last
    appended a batch, or that time passes.
    """

    filling: bool
    waiting: int
    lag: int
    caught_up: bool
    appending: bool
    uncommitted: bool
    committed_at: float
    appended_at: float


class Limits(msgspec.Struct, frozen=True):
    """Rows of one batch at most, and how often an idle pair states that time passes."""

    rows: int
    tick_s: float


class Output(NamedTuple):
    """What to do now, in this order."""

    commit: bool = False
    append: bool = False


def due(pair: Pair, limits: Limits, now_s: float, *, flush: bool) -> Output:
    """Return what a pair has to do now.

    Args:
        pair: what it is like.
        limits: of one batch.
        now_s: the time.
        flush: whether rows that wait are appended however few they are, unless a whole batch of them is to come.
    """
    if pair.appending or pair.filling:
        return Output()
    commit = pair.uncommitted and now_s - pair.committed_at >= COMMIT_S
    full = pair.waiting >= limits.rows
    idle = pair.caught_up and now_s - pair.appended_at >= limits.tick_s
    ripe = pair.waiting > 0 and (pair.lag < limits.rows or now_s - pair.appended_at >= FLUSH_BEHIND_S)
    return Output(commit, full or idle or (flush and ripe))


def save_due(low: tuple[int, int], end: tuple[int, int], since_s: float, *, last: bool) -> bool:
    """Return whether to save a window that is filled from the records between two corners.

    Args:
        low: The corner from which it would be filled.
        end: The corner up to which it was read.
        since_s: The time since it was saved or opened.
        last: Whether nothing is read after this.

    >>> save_due((0, 0), (30_000, 30_000), 0.0, last=True), save_due((0, 0), (90_000, 90_000), 60.0, last=False)
    (True, False)
    """
    return (last or since_s >= SAVE_S) and sum(end) - sum(low) >= SAVE_RECORDS


def records_to_join(filling: bool, waiting: int, limits: Limits) -> int:
    """Return how many records a pair may join now, none while the ledger has a whole batch to take first.

    What one batch holds is bounded also where the ledger is slow: the rest waits in the log.

    >>> records_to_join(False, 99, Limits(100, 1.0)), records_to_join(False, 100, Limits(100, 1.0))
    (100, 0)
    """
    if filling:
        return FILL_RECORDS
    return min(limits.rows, JOIN_RECORDS) if waiting < limits.rows else 0


class OpenTransaction:
    """Follows one log that an open transaction may hold back; `report` is what to log, once for each.

    >>> held = OpenTransaction()
    >>> held.see(True, 0.0), held.see(True, HELD_S), held.see(True, 2 * HELD_S), held.see(False, 99.0)
    (None, 'held', None, 'ended')
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._reported = False

    @property
    def holds(self) -> bool:
        """Return whether a transaction held the log back when it was looked at last."""
        return self._since is not None

    def see(self, held: bool, now_s: float) -> str | None:
        """Note whether the log is held back now; return `held` or `ended` where that has to be reported."""
        if not held:
            reported, self._since, self._reported = self._reported, None, False
            return "ended" if reported else None
        if self._since is None:
            self._since = now_s
        if self._reported or now_s - self._since < HELD_S:
            return None
        self._reported = True
        return "held"
