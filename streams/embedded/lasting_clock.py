"""The wall clock of a monitor, which follows a jump ahead only once it has lasted.

A machine may start with a clock that is a year ahead, until it is put right. What is judged by such a time is judged
for good: labels that are still to come would be late. So a jump is distinguished from time that has passed by the time
since the machine was started, which nobody sets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from unship.log.embedded.table import CLOCK_AHEAD_MS, CLOCK_FRESH_MS

LASTS_MS: Final = CLOCK_FRESH_MS
"""A jump that is still there after so long is the time: then appends by that time are taken again."""


class LastingClock:
    """Reads the wall clock, in milliseconds since the epoch.

    Example:
        >>> now = {"wall": 1_000_000, "boot": 5_000}
        >>> clock = LastingClock(lambda: now["wall"], lambda: now["boot"])
        >>> now |= {"wall": 999_000_000, "boot": 6_000}
        >>> clock()
        1001000
        >>> now |= {"wall": 999_060_000, "boot": 66_000}
        >>> clock()
        999060000
    """

    def __init__(self, wall_ms: Callable[[], int], boot_ms: Callable[[], int]) -> None:
        """Take the wall clock and the time since the machine was started, in milliseconds."""
        self._wall_ms, self._boot_ms = wall_ms, boot_ms
        self._wall, self._boot = wall_ms(), boot_ms()
        self._jumped_at: int | None = None

    def __call__(self) -> int:
        """Return the time."""
        wall, boot = self._wall_ms(), self._boot_ms()
        expected = self._wall + boot - self._boot
        if wall > expected + CLOCK_AHEAD_MS:
            self._jumped_at = boot if self._jumped_at is None else self._jumped_at
            if boot - self._jumped_at < LASTS_MS:
                return expected
        self._wall, self._boot, self._jumped_at = wall, boot, None
        return wall
