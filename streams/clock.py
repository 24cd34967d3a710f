"""The source clock: time as the log tells it.

A line's append time is the one its log recorded (`at`) or, in a recording without, the running maximum of the events'
own times. There, one corrupt time in the future would carry the clock away and mature everything at once; so a lone
jump of more than a day is refused, and believed only from the second line in a row that makes it.
"""

import msgspec

DAY_MS = 86_400_000
HOUR_MS = 3_600_000


class SourceClock(msgspec.Struct):
    """Running maximum of append times, in milliseconds; -1 before the first line with a time."""

    now: int = -1
    jump: int = -1

    def read(self, ts: int | None) -> int | None:
        """Return the append time of a line without `at`, or None if its time is refused.

        >>> clock = SourceClock()
        >>> clock.read(1_000), clock.read(900), clock.read(None)
        (1000, 1000, 1000)
        >>> far = 1_000 + 2 * DAY_MS
        >>> clock.read(far), clock.read(far + 5), clock.now == far + 5
        (None, 172801005, True)
        """
        if ts is None or ts <= self.now:
            self.jump = -1
            return self.now if self.now >= 0 else None
        if self.now >= 0 and ts > self.now + DAY_MS and not (self.jump >= 0 and abs(ts - self.jump) <= HOUR_MS):
            self.jump = ts
            return None
        self.jump = -1
        self.now = ts
        return ts

    def read_appended(self, append_ts: int, ts: int | None) -> int | None:
        """Return the clock after a line that its log stamped, or None if its own time is more than a day ahead of
        that."""
        self.now = max(self.now, append_ts)
        if ts is not None and ts > append_ts + DAY_MS:
            return None
        return self.now
