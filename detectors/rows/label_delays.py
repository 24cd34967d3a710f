"""Find when labels of a prediction should have come, where there is no maturity: after twice the usual delay.

The delays of the labels that came are counted by quarters of a power of two. Predictions wait by intervals of their
time; an interval is matured once its end is twice the delay of 99 % of the labels ago, and an hour at least.
"""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np

from detectors.base import Ints
from detectors.rows.label_share import Silence

HOUR_MS = 3_600_000
#: Share of the labels that come within the usual delay.
USUAL = 0.99
#: Newest-weighted delays that are counted.
DELAYS_MAX = 20_000
#: A delay is below 2^53 ms, and a power of two has four bins.
BINS = 4 * 54
#: A horizon has so many intervals at most, so no model has more than twice as many waiting.
INTERVALS = 500


def interval_ms(horizon_ms: int) -> int:
    """Return the width of the intervals of a model with a horizon, both in milliseconds."""
    return max(HOUR_MS // 20, horizon_ms // INTERVALS)


class Interval(msgspec.Struct):
    """Hold how many predictions each arm made in an interval, and how many of them have a label."""

    predictions: dict[int, int]
    labels: dict[int, int]


class Waiting(msgspec.Struct):
    """Hold the predictions of a model whose labels may still come, by intervals of `width` ms.

    `closed_until` is the first interval that is not closed, and `silent_from` has for each arm the interval of the
    first prediction of its present run without a label. `checked` is the interval in which it was last asked what is
    matured: once in each is enough.
    """

    width: int
    delays: list[int] = []
    intervals: dict[int, Interval] = {}
    closed_until: int = 0
    silent_from: dict[int, int] = {}
    checked: int = -1

    def predicted(self, arm: int, interval: int, count: int) -> None:
        """Count predictions of an arm; those that are read when their interval is closed already are left out."""
        if interval >= self.closed_until:
            made = self._interval(interval).predictions
            made[arm] = made.get(arm, 0) + count

    def labelled(self, arm: Ints, predicted_at: Ints, labelled_at: Ints, silence: Silence) -> None:
        """Take labels: the arm and the time of their predictions, and the time at which they came (ms)."""
        if not arm.size:
            return
        self._count_delays(np.maximum(labelled_at - predicted_at, 0))
        newest: dict[int, int] = {}
        # Few of them differ, and a record has few: sorting them costs more.
        for (number, interval), count in Counter(
            zip(arm.tolist(), (predicted_at // self.width).tolist(), strict=True)
        ).items():
            newest[number] = max(newest.get(number, 0), interval)
            if interval >= self.closed_until:
                known = self._interval(interval).labels
                known[number] = known.get(number, 0) + count
        for number, interval in newest.items():
            if interval >= self.silent_from.get(number, 0):
                silence.end(number)
                self.silent_from.pop(number, None)

    def _interval(self, number: int) -> Interval:
        return self.intervals.setdefault(number, Interval({}, {}))

    def _count_delays(self, delays: Ints) -> None:
        mantissa, exponent = np.frexp(delays.astype(np.float64))
        quarter = ((np.maximum(mantissa, 0.5) - 0.5) * 8).astype(np.int64)
        self.delays = self.delays or [0] * BINS
        for place, count in Counter((4 * np.maximum(exponent, 0) + quarter).tolist()).items():
            self.delays[place] += count
        if sum(self.delays) > DELAYS_MAX:
            self.delays = [count // 2 for count in self.delays]

    @property
    def mature_after_ms(self) -> int:
        """Return how long after a prediction its label should have come: a function of the delays so far.

        >>> waiting, silence = Waiting(180_000), Silence()
        >>> waiting.mature_after_ms
        3600000
        >>> waiting.labelled(np.zeros(9, int), np.zeros(9, int), np.full(9, 7_200_000), silence)
        >>> waiting.mature_after_ms
        14680064
        """
        total = sum(self.delays)
        if not total:
            return HOUR_MS
        place = int(np.searchsorted(np.cumsum(self.delays), USUAL * total))
        exponent, quarter = divmod(place, 4)
        # The upper end of the bin: a delay in it takes no longer.
        return max(HOUR_MS, 2 * int((0.5 + (quarter + 1) / 8) * 2**exponent))

    def forget(self, arm: int) -> None:
        """Forget an arm."""
        self.silent_from.pop(arm, None)
        for interval in self.intervals.values():
            interval.predictions.pop(arm, None)
            interval.labels.pop(arm, None)

    def close(self, now: int, silence: Silence) -> None:
        """Let the intervals that are matured at a time (ms) count towards silence."""
        if now // self.width <= self.checked:
            return
        self.checked = now // self.width
        last = (now - self.mature_after_ms) // self.width - 1
        for number in sorted(each for each in self.intervals if each <= last):
            interval = self.intervals.pop(number)
            before = set(silence.lasting)
            silence.close(interval.predictions, interval.labels)
            for arm in silence.lasting:
                if arm not in before:
                    self.silent_from[arm] = number
        self.closed_until = max(self.closed_until, last + 1)
