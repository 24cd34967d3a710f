"""What a monitor's process knows of itself: how long its stages take, how far behind it is, and when it last worked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Histogram

ALIVE_S = 30.0
"""A monitor that has finished no round for so long does not work."""

STAGE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Vitals:
    """Written by the monitor's thread, read by that of its web: each field is replaced as a whole."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._stages = Histogram(
            "unship_stage_seconds",
            "How long one run of a stage of the monitor took.",
            ["stage"],
            buckets=STAGE_BUCKETS_S,
            registry=self.registry,
        )
        self.lag: Mapping[str, int] = {}
        self.caught_up = False
        self._beat_at: float | None = None

    def observe(self, stage: str, seconds: float) -> None:
        """Note how long a stage took."""
        self._stages.labels(stage).observe(seconds)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note how long the block takes."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.observe(stage, time.monotonic() - began)

    def beat(self, lag: Mapping[str, int], *, caught_up: bool) -> None:
        """Note that the monitor has finished a round.

        Args:
            lag: How many records of each topic it has not read yet.
            caught_up: Whether it has decided about everything that was there when it began.
        """
        self.lag, self.caught_up, self._beat_at = dict(lag), caught_up, time.monotonic()

    @property
    def silent_s(self) -> float | None:
        """Return how long ago the last round was finished; None if none was."""
        return None if self._beat_at is None else time.monotonic() - self._beat_at

    @property
    def alive(self) -> bool:
        """Return whether the monitor works."""
        silent_s = self.silent_s
        return silent_s is not None and silent_s < ALIVE_S
