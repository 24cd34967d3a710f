"""The source clock: time as the append times of the logs show it.

The append time of a line is the one that its log recorded (`at`) or, in a recording without append times, the running
maximum of the events' own times, each of which a second line has confirmed (`streams.join.confirmed_times`).
"""

from __future__ import annotations

import msgspec

from streams.config.units import DAY_MS
from unship.topics import SOURCES


class SourceClock(msgspec.Struct):
    """The clocks of one reader, in milliseconds; -1 before the first line with a time.

    `now` is the source clock: the smallest over the source partitions of the largest append time seen there, so that
    no cohort closes before the outcomes of a partition that lags. `at` is the join clock of the line read last: the
    running maximum of its own log. In a recording without append times both are one running maximum.
    """

    now: int = -1
    at: int = -1
    logs: dict[str, int] = {}
    partitions: dict[int, int] = {}

    def read(self, ts: int | None) -> int | None:
        """Read the time of a line without `at`; return the source clock, or None if no line had a time yet.

        >>> clock = SourceClock()
        >>> clock.read(None), clock.read(1_000), clock.read(900), clock.read(None), clock.now
        (None, 1000, 1000, 1000, 1000)
        """
        if ts is not None:
            self.now = max(self.now, ts)
        self.at = self.now
        return self.now if self.now >= 0 else None

    def read_appended(self, topic: str, partition: int, append_ts: int, ts: int | None) -> int | None:
        """Read an append time; return the source clock, or None if the event's own time is more than a day later.

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
        """Read a line without a time."""
        self.at = self.now

    def reached(self, now: int, at: int) -> None:
        """Note the clocks at the last of several lines whose times were read together."""
        self.now, self.at = now, at

    def advance(self, now: int) -> None:
        """Advance the source clock to `now` without a line."""
        self.now = max(self.now, now)
