"""Keep outcomes that wait for their cohort to close, and how they are laid out to be judged.

A cohort is the predictions of one interval of time. It is judged when every label that may count has had the same time
to come. Inside, outcomes are taken in the order of a hash of the places of their predictions. So neither the order nor
the bursts of the labels matter, nor how predictions were sorted: a job that goes from the small stores to the large
ones every night gets no worse within it. Where predictions without a label are judged too, they wait in the same
cohort, and those count whose label did not come: that is known only now, and it is a function of the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, get_args

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from detectors.base import Bools, Ints
from detectors.rows.types import Entries
from streams.evaluation.label_parts import add_counts
from streams.evaluation.outcomes import Outcomes
from streams.evaluation.plausibility import PairCount, add_pair
from streams.evaluation.slices import SliceTable
from streams.evaluation.sources import SourceTable
from streams.ledger.places import hashed
from streams.ledger.records import Arm, Coded, PairRows, UnlabelledRows
from unship.events import Role

ARM, PREDICTED_AT, POSITION, SOURCE, UNIT = range(5)
STREAMS = 5
#: Different pairs of classes that are counted of an arm's outcomes in a cohort.
PAIRS_OF_COHORT = 64
#: In place of an arm that was forgotten.
NOBODY = Arm("", "")
#: In place of the source of a prediction without a label.
NO_SOURCE = -1
#: In place of the unit of a prediction that has none.
NO_UNIT = 0


class Arrived(msgspec.Struct):
    """Hold rows as they arrived: integer columns (5 + 1 + dimensions, n) and losses (losses, n).

    `pairs` are laid out alike, with the shadow's arm in place of the source, and no units.
    """

    columns: list[NDArray[np.int64]]
    losses: list[NDArray[np.float64]]
    pairs: list[NDArray[np.int64]]
    excess: list[NDArray[np.float64]]


class OpenCohort(msgspec.Struct):
    """Hold one interval: outcomes, predictions as judged if no label comes, and the number of predictions by arm.

    `classes` counts the classes of outcomes by arm, as long as anybody asks for them; `parts` predictions and labels by
    arm and part.
    """

    labelled: Arrived
    unlabelled: Arrived
    predictions: dict[int, int]
    classes: dict[int, list[PairCount]] = {}
    parts: dict[int, dict[int, list[int]]] = {}

    def add_parts(self, arm: int, counts: dict[int, list[int]]) -> None:
        """Count predictions and labels of an arm by parts."""
        add_counts(self.parts.setdefault(arm, {}), counts)

    def add_classes(self, arm: int, counts: list[PairCount]) -> None:
        """Count classes of an arm's outcomes."""
        known = self.classes.get(arm, [])
        for count in counts:
            known = add_pair(known, count, PAIRS_OF_COHORT)
        self.classes[arm] = known

    def move_source(self, source: int, to: int) -> None:
        """Count outcomes of one source as those of another one."""
        for columns in self.labelled.columns:
            columns[SOURCE, columns[SOURCE] == source] = to


class Closed(msgspec.Struct, frozen=True):
    """Hold a cohort's outcomes in the order of `shuffled`; `begin` and `width` in ms, width 0 without a maturity.

    `revised` is how many labels of each arm were replaced or taken back before.
    """

    columns: Ints
    losses: NDArray[np.float64]
    pairs: Ints
    excess: NDArray[np.float64]
    predictions: dict[int, int]
    begin: int
    width: int
    revised: dict[int, int] = {}

    def of(self, arm: int, since: int, before: int | None = None) -> Entries:
        """Return the outcomes of one arm whose predictions were made in [since, before)."""
        use = (self.columns[ARM] == arm) & (self.columns[PREDICTED_AT] >= since)
        if before is not None:
            use &= self.columns[PREDICTED_AT] < before
        columns, losses = self.columns, self.losses
        found = np.count_nonzero(use)
        if not found:
            columns, losses = columns[:, :0], losses[:, :0]
        elif found < use.size:
            some = use.nonzero()[0]
            columns, losses = columns.take(some, axis=1), losses.take(some, axis=1)
        # Of the cohort in which it went live a version has the rest only.
        begin = max(self.begin, since) if self.width else None
        unit = columns[UNIT] if np.count_nonzero(columns[UNIT]) else None
        return Entries(columns[PREDICTED_AT], columns[STREAMS:], columns[SOURCE], losses, begin, unit)

    def pairs_of(self, live: int, shadow: int, since: int) -> tuple[Ints, NDArray[np.float64]]:
        """Return streams and excess losses of the requests that both arms answered since `since`."""
        pairs = self.pairs
        use = (pairs[ARM] == live) & (pairs[SOURCE] == shadow) & (pairs[PREDICTED_AT] >= since)
        return pairs[STREAMS:, use], self.excess[:, use]


def new_cohort() -> OpenCohort:
    """Return a cohort without outcomes."""
    return OpenCohort(Arrived([], [], [], []), Arrived([], [], [], []), {})


class Layout(msgspec.Struct, dict=True):
    """Turn a record's columns into the model's own numbers: arms, streams and sources by first appearance.

    The numbers of forgotten arms are `free`, and given again.
    """

    arms: list[Arm]
    slices: SliceTable
    sources: SourceTable
    free: list[int] = []

    def arm_numbers(self, arms: list[Arm], kept: Bools) -> Ints:
        """Return the model's number of each of a record's arms, -1 for one that is not kept."""
        return np.array([self._number(arm) if use else -1 for arm, use in zip(arms, kept, strict=True)], np.int64)

    def _number(self, arm: Arm) -> int:
        number = self._numbers.get(arm)
        if number is None:
            if self.free:
                number = self.free.pop()
                self.arms[number] = arm
            else:
                number = len(self.arms)
                self.arms.append(arm)
            self._numbers[arm] = number
        return number

    def number_of(self, version: str, role: str) -> int:
        """Return the number of an arm, -1 if it has not answered yet."""
        return self._numbers.get(Arm(version, role), -1)

    def numbers_of(self, version: str) -> list[int]:
        """Return the numbers of a version's arms."""
        return [number for role in get_args(Role) if (number := self.number_of(version, role)) >= 0]

    def forget(self, version: str) -> None:
        """Let the numbers of a version's arms be given to others."""
        for number in self.numbers_of(version):
            del self._numbers[self.arms[number]]
            self.arms[number] = NOBODY
            self.free.append(number)

    @cached_property
    def _numbers(self) -> dict[Arm, int]:
        return {arm: number for number, arm in enumerate(self.arms) if arm != NOBODY}

    def columns(self, record: Outcomes, numbers: Ints) -> Ints:
        """Return the integer columns of a record's outcomes."""
        source = self.sources.encode(record.source)
        places = record.predicted_at, record.position
        return self._columns(record.arm, *places, source, record.unit, record.slices, numbers)

    def unlabelled_columns(self, unlabelled: UnlabelledRows, numbers: Ints) -> Ints:
        """Return the integer columns of predictions without a label."""
        source = np.full_like(unlabelled.arm, NO_SOURCE)
        places = unlabelled.predicted_at, unlabelled.position
        return self._columns(unlabelled.arm, *places, source, unlabelled.unit, unlabelled.slices, numbers)

    def _columns(
        self,
        arm: Ints,
        predicted_at: Ints,
        position: Ints,
        source: Ints,
        unit: Ints | UnsetType,
        slices: list[Coded],
        numbers: Ints,
    ) -> Ints:
        columns = np.empty((STREAMS + 1 + len(slices), arm.size), np.int64)
        columns[ARM] = numbers[arm] if arm.size else arm
        columns[PREDICTED_AT], columns[POSITION], columns[SOURCE], columns[STREAMS] = predicted_at, position, source, 0
        columns[UNIT] = NO_UNIT if unit is UNSET else unit
        for i, column in enumerate(slices):
            columns[STREAMS + 1 + i] = self.slices.encode(i, column)
        return columns

    def pair_columns(self, pairs: PairRows | None, numbers: Ints) -> Ints | None:
        """Return the integer columns of pairs, None if there are none."""
        if pairs is None or not pairs.live.size:
            return None
        streams = [self.slices.encode(i, column) for i, column in enumerate(pairs.slices)]
        units = overall = np.zeros_like(pairs.live)
        return np.stack(
            [numbers[pairs.live], pairs.predicted_at, pairs.position, numbers[pairs.shadow], units, overall, *streams]
        )


def add_outcomes(
    open_: dict[int, OpenCohort], columns: Ints, losses: NDArray[np.float64], width: int, labelled: bool = True
) -> None:
    """Put outcomes, or predictions as they are without a label, into their cohorts; width 0 puts all into cohort 0."""
    if not columns.shape[1]:
        return
    for cohort, some, values in _by_cohort(columns, losses, width):
        entry = open_.setdefault(cohort, new_cohort())
        rows = entry.labelled if labelled else entry.unlabelled
        rows.columns.append(some)
        rows.losses.append(values)


def add_pairs(
    open_: dict[int, OpenCohort], columns: Ints, excess: NDArray[np.float64], width: int, labelled: bool = True
) -> None:
    """Put pairs into the cohorts they belong to."""
    for cohort, some, values in _by_cohort(columns, excess, width):
        entry = open_.setdefault(cohort, new_cohort())
        rows = entry.labelled if labelled else entry.unlabelled
        rows.pairs.append(some)
        rows.excess.append(values)


def _by_cohort(columns: Ints, values: NDArray[np.float64], width: int) -> list[tuple[int, Ints, NDArray[np.float64]]]:
    """Return each cohort's rows, in their order."""
    if not width:
        return [(0, columns, values)]
    cohort = columns[PREDICTED_AT] // width
    first, last = int(np.minimum.reduce(cohort)), int(np.maximum.reduce(cohort))
    if first == last:
        # The usual case of a small record, which would spend most of its time in sorting next to nothing.
        return [(first, columns, values)]
    cohort -= first
    if last - first < 65_536:
        # Sorting small integers is much cheaper.
        cohort = cohort.astype(np.uint16)
    order = cohort.argsort(kind="stable")
    cohort, columns, values = cohort[order], columns.take(order, axis=1), values.take(order, axis=1)
    edges = [0, *((cohort[1:] != cohort[:-1]).nonzero()[0] + 1).tolist(), cohort.size]
    return [(first + int(cohort[begin]), columns[:, begin:end], values[:, begin:end]) for begin, end in pairwise(edges)]


def in_force(cohort: OpenCohort, rows: int, losses: int) -> tuple[OpenCohort, dict[int, int]]:
    """Return a cohort with the label in force of each prediction, and how many labels of each arm were revised.

    A prediction's labels arrived in the order in which they were in force. One that was taken back has no source: then
    the prediction has no label, nor has a pair with it.

    Args:
        cohort: What arrived.
        rows: How many integers a row has.
        losses: How many losses a row has.
    """
    arrived = cohort.labelled
    columns, values = _joined(arrived.columns, rows, np.int64), _joined(arrived.losses, losses, np.float64)
    pairs, excess = _joined(arrived.pairs, rows, np.int64), _joined(arrived.excess, losses, np.float64)
    last = _last_of(columns[[ARM, POSITION]])
    again = np.setdiff1d(np.arange(columns.shape[1]), last)
    some = np.isin(columns[POSITION, last], columns[POSITION, again])
    revised = dict(enumerate(np.bincount(columns[ARM, last][some]).tolist())) if again.size else {}
    last = last[columns[SOURCE, last] != NO_SOURCE]
    columns, values = columns[:, last], values[:, last]
    newest = _last_of(pairs[[ARM, POSITION, SOURCE]])
    newest = newest[~_not_among(pairs[[ARM, POSITION]][:, newest], columns[[ARM, POSITION]])]
    labelled = Arrived([columns], [values], [pairs[:, newest]], [excess[:, newest]])
    return OpenCohort(labelled, cohort.unlabelled, cohort.predictions), revised


def _last_of(keys: Ints) -> Ints:
    """Return the places of the last column with each key, in order.

    >>> _last_of(np.array([[0, 1, 0], [7, 7, 7]])).tolist()
    [1, 2]
    """
    if not keys.shape[1]:
        return np.zeros(0, np.int64)
    order = np.lexsort(keys)
    ordered = keys[:, order]
    ends = np.append((ordered[:, 1:] != ordered[:, :-1]).any(axis=0), True)
    return np.sort(order[ends])


def labelled_by_arm(cohort: OpenCohort) -> dict[int, int]:
    """Return how many outcomes of each arm have a label."""
    counts: Counter[int] = Counter()
    for columns in cohort.labelled.columns:
        counts.update(dict(enumerate(np.bincount(columns[ARM]).tolist())))
    return dict(counts)


def close_cohort(
    cohort: OpenCohort, number: int, width: int, losses: int, dimensions: int, silent: Sequence[int] = ()
) -> Closed:
    """Return a cohort's outcomes and pairs in the order of `shuffled`: neither of labels nor of predictions.

    Without a maturity (width 0) the cohort is what one record brought: at least inside a record the order of a
    sorted export then plays no part.

    Args:
        cohort: what arrived.
        number: its number; it begins at `number * width`.
        width: its width in ms.
        losses: how many losses a row has.
        dimensions: how many slices a row has.
        silent: arms of which a missing label means nothing, so that only their labelled rows are taken.
    """
    rows, arrived = STREAMS + 1 + dimensions, cohort.labelled
    columns, values = _joined(arrived.columns, rows, np.int64), _joined(arrived.losses, losses, np.float64)
    pairs, excess = _joined(arrived.pairs, rows, np.int64), _joined(arrived.excess, losses, np.float64)
    if cohort.unlabelled.columns:
        arrived = cohort.unlabelled
        known = columns[[ARM, POSITION]] if width else np.zeros((2, 0), np.int64)
        # First the pairs, as `known` is those of the labelled rows: the live prediction's label decides for a pair.
        more, more_values = _joined(arrived.pairs, rows, np.int64), _joined(arrived.excess, losses, np.float64)
        use = _not_among(more[[ARM, POSITION]], known) & ~np.isin(more[ARM], silent)
        pairs, excess = _appended(pairs, more, use), _appended(excess, more_values, use)
        more, more_values = _joined(arrived.columns, rows, np.int64), _joined(arrived.losses, losses, np.float64)
        use = _not_among(more[[ARM, POSITION]], known) & ~np.isin(more[ARM], silent)
        columns, values = _appended(columns, more, use), _appended(values, more_values, use)
    columns, values = _in_order(columns, values)
    pairs, excess = _in_order(pairs, excess)
    return Closed(columns, values, pairs, excess, cohort.predictions, number * width, width)


def _in_order(columns: Ints, values: NDArray[np.float64]) -> tuple[Ints, NDArray[np.float64]]:
    """Return rows in the order of `shuffled`."""
    if columns.shape[1] < 2:
        return columns, values
    order = shuffled(columns[POSITION])
    return columns.take(order, axis=1), values.take(order, axis=1)


def shuffled(position: Ints) -> Ints:
    """Return the order of predictions by the hash of their places; those of one place, as pairs have, keep theirs.

    >>> shuffled(np.array([5, 6, 7, 8, 6])).tolist()
    [0, 2, 3, 1, 4]
    """
    key = hashed(position)
    # Sorting without keeping the order of equals is several times as fast.
    order = key.argsort()
    key = key[order]
    return order if (key[1:] != key[:-1]).all() else hashed(position).argsort(kind="stable")


def _joined(parts: list[NDArray[Any]], rows: int, kind: type[np.generic]) -> NDArray[Any]:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts, axis=1) if parts else np.zeros((rows, 0), kind)


def _appended(columns: NDArray[Any], more: NDArray[Any], use: NDArray[np.bool_]) -> NDArray[Any]:
    return np.concatenate([columns, more[:, use]], axis=1)


def _not_among(keys: Ints, known: Ints) -> NDArray[np.bool_]:
    """Return which of the columns of `keys` are none of the columns of `known`.

    >>> _not_among(np.array([[0, 1, 0], [7, 7, 8]]), np.array([[0], [7]])).tolist()
    [False, True, True]
    """
    if not keys.shape[1] or not known.shape[1]:
        return np.ones(keys.shape[1], np.bool_)
    everything = np.concatenate([known, keys], axis=1)
    order = np.lexsort(everything)
    ordered = everything[:, order]
    group = np.append(0, (ordered[:, 1:] != ordered[:, :-1]).any(axis=0).cumsum())
    taken = np.zeros(group[-1] + 1, np.bool_)
    taken[group[order < known.shape[1]]] = True
    free = np.empty(order.size, np.bool_)
    free[order] = ~taken[group]
    return free[known.shape[1] :]
