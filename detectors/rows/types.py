"""Define what goes into the rows of detectors and what comes out: outcomes, rules of an alarm, alarms, baselines."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Floats, Ints

#: Where a row's baseline comes from, in the order of preference.
BASES = ("learning", "reference", "earlier", "previous", "first outcomes")
LEARNING, REFERENCE, EARLIER, PREVIOUS, FIRST = range(5)
#: Label sources that have sums of their own; the last is for outcomes without a label, whose source is -1.
SOURCE_CELLS = 10


class Entries(msgspec.Struct, frozen=True):
    """Hold outcomes of one version in an order of no meaning; `source` is -1 where there is no label.

    `streams` has shape (1 + dimensions, outcomes) and holds stream numbers, -1 where there is none; `losses` has shape
    (losses, outcomes), NaN where a loss could not be computed. `begin` is the time (ms) from which on they were
    predicted, as far as that is to be known; None is that of the first. `unit` has the numbers of units, 0 for none; it
    is None where there are none.
    """

    predicted_at: Ints
    streams: Ints
    source: Ints
    losses: Floats
    begin: int | None = None
    unit: Ints | None = None

    @property
    def start(self) -> int:
        """Return the time (ms) from which on they were predicted; there must be some."""
        return int(np.minimum.reduce(self.predicted_at)) if self.begin is None else self.begin

    def known(self) -> tuple[Ints, Ints]:
        """Return the stream and the place of every stream of every outcome, dimension by dimension."""
        known = (self.streams >= 0).reshape(-1).nonzero()[0]
        return self.streams.reshape(-1)[known], known % max(self.source.size, 1)

    def part(self, start: int, end: int) -> Entries:
        """Return the outcomes from `start` to before `end` alone."""
        if start == 0 and end >= self.source.size:
            return self
        part, begin = slice(start, end), self.start if self.source.size else None
        unit = None if self.unit is None else self.unit[part]
        columns = self.predicted_at[part], self.streams[:, part], self.source[part], self.losses[:, part]
        return Entries(*columns, begin, unit)


class Rules(msgspec.Struct, frozen=True):
    """Hold what an alarm takes: the promise, the weights of streams (for one loss), and what rise matters.

    `alarming` is false where another detector decides. `unlabelled` are the numbers of the losses that need no label.
    """

    promise: float
    weights: Floats
    worse_by: float
    in_time: bool
    alarming: bool
    unlabelled: tuple[int, ...] = ()


class Alarm(msgspec.Struct):
    """Hold a stream that alarmed.

    `since` is the estimated change point (ms); `needed` the outcomes from there to the alarm.

    `window` sums everything predicted since, shape (2 x losses, streams, sources): counts, then losses. `usual` has the
    counts and the losses from before, by source, shape (2, sources), of this stream and this loss.
    """

    detector: str
    loss: int
    stream: int
    at: int
    since: int
    evidence: float
    threshold: float
    needed: float
    window: NDArray[np.float64]
    mix: tuple[str, int] | None = None
    usual: NDArray[np.float64] = msgspec.field(default_factory=lambda: np.zeros((2, SOURCE_CELLS)))

    def fit(self, streams: int) -> None:
        """Make room for streams that have appeared."""
        missing = streams - self.window.shape[1]
        if missing > 0:
            self.window = np.pad(self.window, ((0, 0), (0, missing), (0, 0)))

    def add(self, window: Floats) -> None:
        """Add what was predicted since."""
        self.window += window

    def move_source(self, source: int, to: int) -> None:
        """Count outcomes of one source as those of another one."""
        for table in (self.window, self.usual):
            table[..., to] += table[..., source]
            table[..., source] = 0.0

    def explain(self, dimension: str, stream: int) -> None:
        """Note the dimension, and its slice, whose share in the requests explains the rise."""
        self.mix = dimension, stream


class StatedReference(msgspec.Struct, frozen=True):
    """Hold a mean loss that a deployment states, over `size` outcomes, and the baseline if it is ignored."""

    mean: float
    size: float
    instead_n: float
    instead_k: float
    instead: int
    ignored: bool = False


class Baselines(msgspec.Struct):
    """Hold what a version leaves behind for itself and its successors: baselines and own outcomes, (losses, streams,
    variants).

    `mix` is the record of the requests, see `RequestMix`; `by_source` are the newest healthy outcomes by source, shape
    (2 x losses, streams, sources): counts, then losses.
    """

    version: str
    healthy: bool
    n: NDArray[np.float64]
    k: NDArray[np.float64]
    own_n: NDArray[np.float64]
    own_k: NDArray[np.float64]
    mix: NDArray[np.float64]
    by_source: NDArray[np.float64]

    def move_source(self, source: int, to: int) -> None:
        """Count outcomes of one source as those of another one; without the first, as without none."""
        self.by_source[..., to] += self.by_source[..., source]
        self.by_source[..., source] = 0.0
        for table in (self.n, self.k, self.own_n, self.own_k):
            if source + 1 < table.shape[2]:
                table[..., source + 1] = table[..., 0]


def part_of(begins: Ints, size: int) -> Ints:
    """Return the number of the part that each of `size` places is in; the first of `begins` is 0.

    >>> part_of(np.array([0, 2]), 5).tolist()
    [0, 0, 1, 1, 1]
    """
    part = np.zeros(size, np.int64)
    part[begins[1:]] = 1
    return part.cumsum(out=part)


def sums_by(losses: Floats, key: Ints, width: int, counts: Ints) -> list[Floats]:
    """Return the counts and then the sums by key of each row of losses, each of shape (width,).

    Args:
        losses: shape (losses, e), NaN where there is none.
        key: shape (e,), below `width`.
        width: how many keys there are.
        counts: how often each key occurs.

    >>> counts, sums = sums_by(np.array([[0.5, np.nan, 0.25]]), np.array([1, 1, 1]), 2, np.array([0, 3]))
    >>> counts.tolist(), sums.tolist()
    ([0.0, 2.0], [0.0, 0.75])
    """
    found: list[Any] = []
    totals: list[Any] = []
    for column in losses:
        missing = np.isnan(column)
        if np.count_nonzero(missing):
            found.append(np.bincount(key, weights=~missing, minlength=width))
            totals.append(np.bincount(key, weights=np.where(missing, 0.0, column), minlength=width))
        else:
            found.append(counts.astype(np.float64))
            totals.append(np.bincount(key, weights=column, minlength=width))
    return found + totals
