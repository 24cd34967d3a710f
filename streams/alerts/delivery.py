"""Decide what of the topic `alerts` one sink gets next: a pure state, which its follower asks with the time.

A sink gets each incident at least once, in its newest state. What changed several times while the sink was away is sent
once. A sink that fails is tried again with growing pauses; what it refuses is tried a few times, so that one alert
which it does not take keeps no other one waiting.
"""

from __future__ import annotations

from typing import Final

import msgspec

from actions.incidents import Alert
from unship.budgets.table import ALERTS_WAITING

Place = tuple[int, int]
"""Partition and offset of a record of `alerts`."""

WAITING_MAX: Final = ALERTS_WAITING.limit
PAUSE_MIN_MS: Final = 1_000
PAUSE_MAX_MS: Final = 30_000
REFUSED_TRIES: Final = 4
"""How often an alert is sent that the sink refuses."""

KEEP_MS: Final = 86_400_000
"""An alert is tried for so long; and a new sink gets nothing of incidents that were resolved before."""


class Waiting(msgspec.Struct):
    """An alert that waits; `first` is the place of the oldest record of its incident that was not sent."""

    alert: Alert
    first: Place
    since: int
    refused: int = 0


class Delivery:
    """The incidents that one sink has not got yet, and how the last tries ended. All times are in ms."""

    def __init__(self, repeat_ms: int | None = None) -> None:
        """Begin with nothing.

        Args:
            repeat_ms: After so long an open incident is sent again; None for a sink that remembers.
        """
        self._repeat_ms = repeat_ms
        self._waiting: dict[str, Waiting] = {}
        self._open: dict[str, tuple[Alert, int]] = {}
        self._newest: dict[str, int] = {}
        self._read: dict[int, int] = {}
        self._failures = 0
        self._due_at = 0

    def take(self, place: Place, alert: Alert | None, append_ts: int, position: int | None) -> str | None:
        """Take the next record of a partition.

        Args:
            place: Where it is.
            alert: What it holds; None for a record that holds no alert.
            append_ts: When it was appended.
            position: The first offset of the partition that the sink has not got; None for a new sink.

        Returns:
            A sentence if an alert had to be dropped for it.
        """
        partition, offset = place
        self._read[partition] = offset + 1
        if alert is None or alert.ts <= self._newest.get(alert.incident, -1):
            return None
        self._newest[alert.incident] = alert.ts
        if len(self._newest) > 10 * WAITING_MAX:
            del self._newest[next(iter(self._newest))]
        if self._repeat_ms is not None:
            self._note_open(alert, append_ts)
        if position is not None and offset < position:
            return None
        before = self._waiting.get(alert.incident)
        if before is not None:
            before.alert, before.refused = alert, 0
            return None
        self._waiting[alert.incident] = Waiting(alert, place, append_ts)
        return self._drop_beyond()

    def _note_open(self, alert: Alert, now: int) -> None:
        if alert.status == "firing":
            self._open[alert.incident] = alert, now
        else:
            self._open.pop(alert.incident, None)
        if len(self._open) > WAITING_MAX:
            del self._open[next(iter(self._open))]

    def _drop_beyond(self) -> str | None:
        if len(self._waiting) <= WAITING_MAX:
            return None
        oldest = next(iter(self._waiting))
        del self._waiting[oldest]
        return f"alert {oldest} was dropped: {WAITING_MAX} incidents wait"

    def started(self, now: int) -> None:
        """Begin to send: a new sink gets nothing of incidents that were resolved a day before it began."""
        for name, each in list(self._waiting.items()):
            if each.alert.status == "resolved" and each.since < now - KEEP_MS:
                del self._waiting[name]
            else:
                each.since = now

    def due(self, now: int) -> Alert | None:
        """Return what is to be sent now, None if there is nothing or the sink has a pause."""
        if now < self._due_at:
            return None
        waits = next(iter(self._waiting.values()), None)
        if waits is not None:
            return waits.alert
        if self._repeat_ms is not None:
            for alert, sent in self._open.values():
                if now - sent >= self._repeat_ms:
                    return alert
        return None

    def sent(self, alert: Alert, now: int) -> None:
        """Note that the sink has an alert; a newer state that arrived meanwhile still waits."""
        self._failures, self._due_at = 0, 0
        found = self._waiting.get(alert.incident)
        if found is not None and found.alert.ts == alert.ts:
            del self._waiting[alert.incident]
        if alert.incident in self._open and self._open[alert.incident][0].ts == alert.ts:
            self._open[alert.incident] = alert, now

    def failed(self, alert: Alert, now: int, *, refused: bool) -> bool:
        """Note that the sink has not got an alert, and begin a pause; return whether the alert is not tried again.

        Args:
            alert: What was sent.
            now: The time.
            refused: Whether the sink refused it, which it will do again; else it was away, or did not answer.
        """
        pause = min(PAUSE_MIN_MS << min(self._failures, 10), PAUSE_MAX_MS)
        self._failures, self._due_at = self._failures + 1, now + pause
        if alert.incident in self._open:
            self._open[alert.incident] = self._open[alert.incident][0], now
        found = self._waiting.pop(alert.incident, None)
        if found is None:
            return False
        found.refused += refused
        if found.refused >= REFUSED_TRIES or now - found.since >= KEEP_MS:
            return True
        # Behind the others, which it must not keep waiting.
        self._waiting[alert.incident] = found
        return False

    @property
    def failures(self) -> int:
        """Return how many tries in a row have failed."""
        return self._failures

    @property
    def waiting(self) -> int:
        """Return how many incidents wait."""
        return len(self._waiting)

    def positions(self) -> dict[int, int]:
        """Return of each partition the offset below which the sink has everything."""
        found = dict(self._read)
        for each in self._waiting.values():
            partition, offset = each.first
            found[partition] = min(found[partition], offset)
        return found
