"""The source clock: time as the log tells it; and the wall clock of whoever commands.

A line's append time is the one its log recorded (`at`) or, in a recording without, the running maximum of the events'
own times. There, one corrupt time in the future would carry the clock away and mature everything at once; so a lone
jump of more than a day is refused, and believed only from the second line in a row that makes it.
"""

import msgspec

from streams.config.units import DAY_MS, HOUR_MS
from unship.topics import SOURCES


class SourceClock(msgspec.Struct):
    """How far time has come, in milliseconds; -1 before the first line with a time.

    `now` is the source clock: the smallest over the source partitions of the largest append time seen there, so that a
    partition that lags behind is never cut off. `at` is the join clock of the line read last: the running maximum of
    its own log. In a recording without append times both are one running maximum.
    """

    now: int = -1
    at: int = -1
    jump: int = -1
    logs: dict[str, int] = {}
    partitions: dict[int, int] = {}

    def read(self, ts: int | None) -> int | None:
        """Take a line without `at`; return the source clock, or None if the line's time is refused.

        >>> clock = SourceClock()
        >>> clock.read(1_000), clock.read(900), clock.read(None), clock.now
        (1000, 1000, 1000, 1000)
        >>> far = 1_000 + 2 * DAY_MS
        >>> clock.read(far), clock.read(far + 5), clock.now == far + 5
        (None, 172801005, True)
        """
        if ts is None or ts <= self.now:
            self.jump = -1
            self.at = self.now
            return self.now if self.now >= 0 else None
        if self.now >= 0 and ts > self.now + DAY_MS and not (self.jump >= 0 and abs(ts - self.jump) <= HOUR_MS):
            self.jump = ts
            return None
        self.jump = -1
        self.now = self.at = ts
        return ts

    def read_appended(self, topic: str, partition: int, append_ts: int, ts: int | None) -> int | None:
        """Take a line that its log stamped; return the source clock, or None if its own time is a day ahead of that.

        >>> clock = SourceClock()
        >>> clock.read_appended("predictions", 0, 1_000, None), clock.read_appended("feedback", 0, 900, None)
        (1000, 1000)
        >>> clock.now, clock.at
        (1000, 900)
        """
        log = f"{topic}/{partition}"
        self.at = self.logs[log] = max(self.logs.get(log, -1), append_ts)
        # Topics may carry a prefix of the site's own.
        if topic.rpartition(".")[2] in SOURCES:
            self.partitions[partition] = max(self.partitions.get(partition, -1), append_ts)
        self.now = max(self.now, min(self.partitions.values(), default=append_ts))
        return None if ts is not None and ts > append_ts + DAY_MS else self.now

    def stay(self) -> None:
        """Take a line that tells no time."""
        self.at = self.now

    def advance(self, now: int) -> None:
        """Let the source clock go to `now` without a line."""
        self.now = max(self.now, now)
