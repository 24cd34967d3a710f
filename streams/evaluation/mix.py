"""Find out whether another mix of requests explains a rise of the overall loss.

The rise since the change point is split, on one dimension of slices at a time, into a part between the slices (their
shares changed) and a part within them (their losses changed). A version that is only asked harder questions has no part
within.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import msgspec

from detectors.base import Floats, rounded
from detectors.change_point import mean_upper_bound
from detectors.rows.types import Alarm
from detectors.rows.watch import Health
from streams.config.resolved import ModelConfig
from streams.evaluation.slices import Stream

#: A slice with a thinner baseline is measured against the overall one.
LEAST = 100.0
Z_95 = 1.6448536269514722


class Split(msgspec.Struct, frozen=True):
    """Hold a rise and its part within the slices of one dimension, with bounds that hold at 95 % at any time."""

    dimension: str
    rise: float
    within: float
    lower: float
    upper: float


def explain_by_mix(health: Health, alarm: Alarm, streams: list[Stream], config: ModelConfig) -> None:
    """Note on an alarm of the overall stream the dimension and value that explain it; once found, they stay."""
    if alarm.stream != 0 or alarm.mix is not None:
        return
    for split in splits(health, alarm, streams, config):
        if split.rise > 0 and rounded(split.upper) < rounded(max(config.worse_by, split.rise / 2)):
            alarm.explain(split.dimension, _raising_stream(health, alarm, streams, split.dimension))
            return


def is_genuine(health: Health, streams: list[Stream], config: ModelConfig) -> bool:
    """Return whether a version that may serve as target got worse itself, and was not only asked harder questions.

    Its own alarm counts unless, on some dimension, less than half of the rise lies within the slices or
    that part may still be nothing: then it stays fit, and the comparison with it decides.
    """
    overall = [alarm for alarm in health.alarms if alarm.stream == 0]
    if not overall:
        return bool(health.alarms)
    for alarm in overall:
        for split in splits(health, alarm, streams, config):
            if rounded(split.within) < rounded(max(config.worse_by, split.rise / 2)) or rounded(split.lower) <= 0:
                return False
    return True


def splits(health: Health, alarm: Alarm, streams: list[Stream], config: ModelConfig) -> list[Split]:
    """Return the split of an overall alarm's rise for each dimension of slices."""
    losses = len(health.rows.banks)
    counts, sums = alarm.window[alarm.loss].sum(axis=1), alarm.window[losses + alarm.loss].sum(axis=1)
    if not counts[0]:
        return []
    overall, known = health.rows.baseline(alarm.loss, 0)
    rise = float(sums[0]) / float(counts[0]) - overall
    return [
        _split(health, alarm.loss, dimension, _members(streams, dimension), counts, sums, (overall, known), rise)
        for dimension in config.slices_by
        if _members(streams, dimension)
    ]


def is_worse_than_the_rest(
    health: Health, alarm: Alarm, streams: list[Stream], stream: int, significance: float
) -> bool:
    """Return whether a slice rose more than all requests without it, so that the version did not get worse everywhere.

    Both rises are since the alarm's change point, each outcome measured against what was usual in its slice of the same
    dimension. Their difference is tested one-sidedly by the normal approximation (Welch's test), with the error of the
    baselines added. Where there are no other requests, nothing is worse than they are.

    Args:
        health: of the version.
        alarm: its window has what came since the change point.
        streams: all streams, of which `stream` is a slice.
        stream: the slice.
        significance: how often chance may give True for equal rises.
    """
    losses = len(health.rows.banks)
    counts, sums = alarm.window[alarm.loss].sum(axis=1), alarm.window[losses + alarm.loss].sum(axis=1)
    members = _members(streams, streams[stream].dimension)
    own, rest = _Rise(), _Rise()
    left_n, left_k = float(counts[0]), float(sums[0])
    for each in [*members, 0]:
        n, k = (left_n, left_k) if each == 0 else (float(counts[each]), float(sums[each]))
        left_n, left_k = left_n - n, left_k - k
        mean, known = health.mix.usual(alarm.loss, each) if each else (0.0, 0.0)
        if known < LEAST:
            mean, known = health.rows.baseline(alarm.loss, 0)
        (own if each == stream else rest).add(n, k, mean, known)
    if not own.n or not rest.n:
        return False
    error = NormalDist().inv_cdf(1.0 - significance) * math.sqrt(own.variance + rest.variance)
    return rounded(own.mean - rest.mean) > rounded(error)


class _Rise:
    """Add up by how much outcomes of some slices are worse than usual."""

    def __init__(self) -> None:
        self.n = self._total = self._squares = self._usual = 0.0

    def add(self, n: float, k: float, usual: float, known: float) -> None:
        """Add `n` outcomes with losses `k` of a slice whose usual mean rests on `known` outcomes."""
        if n <= 0:
            return
        self.n += n
        self._total += k - n * usual
        # Losses in [0, 1] have squares of at most themselves.
        self._squares += max(k * (1 - 2 * usual) + n * usual * usual, 0.0)
        self._usual += n * n * usual * (1 - usual) / max(known, 1.0)

    @property
    def mean(self) -> float:
        """Return the mean rise."""
        return self._total / self.n

    @property
    def variance(self) -> float:
        """Return the variance of the mean rise, that of what was usual included."""
        return max(self._squares / self.n - self.mean**2, 0.0) / self.n + self._usual / self.n**2


def _members(streams: list[Stream], dimension: str) -> list[int]:
    return [i for i, stream in enumerate(streams) if stream.dimension == dimension]


def _split(
    health: Health,
    loss: int,
    dimension: str,
    members: list[int],
    counts: Floats,
    sums: Floats,
    overall: tuple[float, float],
    rise: float,
) -> Split:
    """Return the split on one dimension.

    Each outcome's loss minus its slice's baseline is a term; their mean is the part within.

    Losses in [0, 1] have squares of at most themselves, so the terms' squares are bounded by sums that are kept. The
    error of the baselines is added to both bounds.
    """
    everything = float(counts[0])
    total, squares, variance = 0.0, 0.0, 0.0
    left_n, left_k = everything, float(sums[0])
    for stream in [*members, 0]:
        if stream == 0:
            # Predictions without a value of this dimension are measured against the overall baseline.
            n, k = left_n, left_k
        else:
            n, k = float(counts[stream]), float(sums[stream])
            left_n, left_k = left_n - n, left_k - k
        if n <= 0:
            continue
        mean, known = health.mix.usual(loss, stream)
        if known < LEAST:
            mean, known = overall
        total += k - n * mean
        squares += max(k * (1 - 2 * mean) + n * mean * mean, 0.0)
        variance += (n / everything) ** 2 * mean * (1 - mean) / max(known, 1.0)
    error = Z_95 * math.sqrt(variance)
    upper = float(mean_upper_bound(total, squares, everything)) + error
    lower = -float(mean_upper_bound(-total, squares, everything)) - error
    return Split(dimension, rise, total / everything, lower, upper)


def _raising_stream(health: Health, alarm: Alarm, streams: list[Stream], dimension: str) -> int:
    """Return the number of the slice whose change of share raises the mean loss most."""
    counts = alarm.window[alarm.loss].sum(axis=1)
    overall, _ = health.rows.baseline(alarm.loss, 0)
    weight = {}
    for stream in _members(streams, dimension):
        mean, known = health.mix.usual(alarm.loss, stream)
        change = float(counts[stream]) / float(counts[0]) - health.mix.share(stream)
        weight[stream] = change * ((mean if known >= LEAST else overall) - overall)
    return max(weight, key=lambda stream: (weight[stream], -stream))
