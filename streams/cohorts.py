"""Outcomes that wait for their cohort to close, and how they are laid out to be judged.

A cohort is the predictions of one interval of time. It is judged when every label that may count has had the same time
to come; inside, outcomes are taken in the order of their predictions, so neither the order nor the bursts of the labels
matter.
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.records import Arm, Ints, Outcomes
from streams.rows import Entries
from streams.slices import SliceTable, SourceTable

ARM, PREDICTED_AT, POSITION, SOURCE = range(4)
STREAMS = 4


class OpenCohort(msgspec.Struct):
    """Outcomes of one interval as they arrived: integer columns (4 + 1 + dimensions, n) and losses (losses, n).

    `pairs` are laid out alike, with the shadow's arm in place of the source. `predictions` counts by arm.
    """

    columns: list[NDArray[np.int64]]
    losses: list[NDArray[np.float64]]
    pairs: list[NDArray[np.int64]]
    excess: list[NDArray[np.float64]]
    predictions: dict[int, int]


class Closed(msgspec.Struct, frozen=True):
    """A cohort's outcomes in prediction order; `begin` and `width` in ms, width 0 without a maturity."""

    columns: Ints
    losses: NDArray[np.float64]
    pairs: Ints
    excess: NDArray[np.float64]
    predictions: dict[int, int]
    begin: int
    width: int

    def of(self, arm: int, since: int, before: int | None = None) -> Entries:
        """Return the outcomes of one arm whose predictions were made in [since, before)."""
        use = (self.columns[ARM] == arm) & (self.columns[PREDICTED_AT] >= since)
        if before is not None:
            use &= self.columns[PREDICTED_AT] < before
        columns = self.columns[:, use]
        return Entries(columns[PREDICTED_AT], columns[STREAMS:], columns[SOURCE], self.losses[:, use])

    def pairs_of(self, live: int, shadow: int, since: int) -> tuple[Ints, NDArray[np.float64]]:
        """Return streams and excess losses of the requests that both arms answered since `since`."""
        pairs = self.pairs
        use = (pairs[ARM] == live) & (pairs[SOURCE] == shadow) & (pairs[PREDICTED_AT] >= since)
        return pairs[STREAMS:, use], self.excess[:, use]


def new_cohort() -> OpenCohort:
    """Return a cohort without outcomes."""
    return OpenCohort([], [], [], [], {})


class Layout(msgspec.Struct):
    """Turns a record's columns into the model's own numbers: arms, streams and sources by first appearance."""

    arms: list[Arm]
    slices: SliceTable
    sources: SourceTable

    def arm_numbers(self, record: Outcomes) -> Ints:
        """Return the model's number of each of the record's arms."""
        numbers = []
        for arm in record.arms:
            if arm not in self.arms:
                self.arms.append(arm)
            numbers.append(self.arms.index(arm))
        return np.array(numbers, np.int64)

    def columns(self, record: Outcomes, numbers: Ints) -> Ints:
        """Return the integer columns of a record's outcomes."""
        streams = [self.slices.encode(i, column) for i, column in enumerate(record.slices)]
        overall = np.zeros_like(record.arm)
        arm = numbers[record.arm] if record.arm.size else record.arm
        return np.array(
            [arm, record.predicted_at, record.position, self.sources.encode(record.source), overall, *streams]
        )

    def pair_columns(self, record: Outcomes, numbers: Ints) -> Ints | None:
        """Return the integer columns of a record's pairs, None if there are none."""
        pairs = record.pairs
        if pairs is None or not pairs.live.size:
            return None
        streams = [self.slices.encode(i, column) for i, column in enumerate(pairs.slices)]
        overall = np.zeros_like(pairs.live)
        return np.stack(
            [numbers[pairs.live], pairs.predicted_at, pairs.position, numbers[pairs.shadow], overall, *streams]
        )


def add_outcomes(open_: dict[int, OpenCohort], columns: Ints, losses: NDArray[np.float64], width: int) -> None:
    """Put outcomes into the cohorts they belong to; width 0 puts all into cohort 0."""
    if not columns.shape[1]:
        return
    for cohort, use in _by_cohort(columns, width):
        entry = open_.setdefault(cohort, new_cohort())
        entry.columns.append(columns[:, use])
        entry.losses.append(losses[:, use])


def add_pairs(open_: dict[int, OpenCohort], columns: Ints, excess: NDArray[np.float64], width: int) -> None:
    """Put pairs into the cohorts they belong to."""
    for cohort, use in _by_cohort(columns, width):
        entry = open_.setdefault(cohort, new_cohort())
        entry.pairs.append(columns[:, use])
        entry.excess.append(excess[:, use])


def _by_cohort(columns: Ints, width: int) -> list[tuple[int, Ints]]:
    if not width:
        return [(0, np.arange(columns.shape[1]))]
    cohort = columns[PREDICTED_AT] // width
    if (cohort == cohort[0]).all():
        # The usual case of a small record, which would spend most of its time in sorting next to nothing.
        return [(int(cohort[0]), np.arange(cohort.size))]
    order = np.argsort(cohort, kind="stable")
    edges = np.flatnonzero(np.diff(cohort[order], prepend=-1))
    return [(int(cohort[part[0]]), part) for part in np.split(order, edges[1:])]


def close_cohort(cohort: OpenCohort, number: int, width: int, losses: int, dimensions: int) -> Closed:
    """Return a cohort's outcomes and pairs in the order of their predictions, never of their labels.

    Without a maturity (width 0) the cohort is what one record brought: at least inside a record the order of a
    label-sorted export then plays no part.
    """
    rows = STREAMS + 1 + dimensions
    columns = np.concatenate(cohort.columns, axis=1) if cohort.columns else np.zeros((rows, 0), np.int64)
    values = np.concatenate(cohort.losses, axis=1) if cohort.losses else np.zeros((losses, 0))
    pairs = np.concatenate(cohort.pairs, axis=1) if cohort.pairs else np.zeros((rows, 0), np.int64)
    excess = np.concatenate(cohort.excess, axis=1) if cohort.excess else np.zeros((losses, 0))
    order = np.lexsort((columns[POSITION], columns[PREDICTED_AT]))
    columns, values = columns[:, order], values[:, order]
    order = np.lexsort((pairs[POSITION], pairs[PREDICTED_AT]))
    pairs, excess = pairs[:, order], excess[:, order]
    return Closed(columns, values, pairs, excess, cohort.predictions, number * width, width)
