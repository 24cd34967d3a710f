"""Count how many outcomes a live period has judged lately: what is missing will be there at this rate."""

from __future__ import annotations

import msgspec

from detectors.base import rounded
from streams.config.units import DAY_MS, HOUR_MS

#: A day, and what is left of the hour in which it began.
HOURS_MAX = 25


class Pace(msgspec.Struct):
    """Count judged outcomes by hours of the source clock, the newest `HOURS_MAX` of which are kept.

    `begin` is when the first outcome of the live period could be judged, `newest` when the newest one was, -1 before
    the first. `hours` has (hour since 1970, outcomes).
    """

    begin: int = -1
    newest: int = -1
    hours: list[tuple[int, int]] = []

    def add(self, count: int, now: int, begin: int) -> None:
        """Count outcomes that were judged at `now` (ms); the first ones could have been judged from `begin` on."""
        if self.begin < 0:
            self.begin = min(begin, now)
        self.newest = max(self.newest, now)
        hour = self.newest // HOUR_MS
        if self.hours and self.hours[-1][0] == hour:
            self.hours[-1] = hour, self.hours[-1][1] + count
        else:
            self.hours = [*(each for each in self.hours if each[0] > hour - HOURS_MAX), (hour, count)]

    def per_day(self, now: int) -> float | None:
        """Return how many outcomes a day has at the rate of the last 24 hours, None where no time has passed yet.

        Those are whole hours, so that up to 25 count; a live period that began later counts from its beginning.

        >>> pace = Pace()
        >>> pace.add(600, now=DAY_MS + HOUR_MS, begin=DAY_MS)
        >>> pace.per_day(DAY_MS + 2 * HOUR_MS), pace.per_day(9 * DAY_MS), Pace().per_day(DAY_MS)
        (7200.0, 0.0, None)
        """
        first = (now - DAY_MS) // HOUR_MS
        begin = max(self.begin, first * HOUR_MS)
        if self.begin < 0 or now <= begin:
            return None
        count = sum(count for hour, count in self.hours if hour >= first)
        return rounded(count * DAY_MS / (now - begin))

    def reached_at(self, missing: int, now: int) -> int | None:
        """Return when so many more outcomes will have been judged at this rate (ms), None where there is no rate."""
        rate = self.per_day(now)
        return now + round(missing * DAY_MS / rate) if rate else None
