"""Look ahead: what the next records bring of a model, so that its detectors step many small cohorts at once.

Only a driver that has read ahead can do so, as a replay has. What was looked at is used where it turns out to be so,
down to the last outcome; else it is thrown away, and the cohort is judged by itself. Without a maturity the outcomes of
a record are a cohort.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors.base import Ints
from detectors.rows.foresight import Foresight
from detectors.rows.types import Entries, Rules
from detectors.rows.watch import Health
from streams.evaluation.cohorts import ARM, POSITION, PREDICTED_AT, SOURCE, STREAMS, UNIT
from streams.evaluation.periods import ModelState
from streams.fold.uncovered import above_places
from streams.ledger.places import hashed
from streams.ledger.records import Coded, Part

RECORDS_AHEAD: Final = 64
"""So many records cost little more than one."""

RECORDS_AHEAD_MATURE: Final = 512
"""A maturity passes between a record and the end of its cohort, so there it has to be more of them."""


class Ahead(msgspec.Struct):
    """Hold what the next cohorts lead to in the rows of one version; `taken` of them were judged.

    `shape` is how many streams the rows have, and how many variants of each.
    """

    health: Health
    rules: Rules
    entries: Entries
    bounds: list[int]
    foresight: Foresight
    shape: tuple[int, int]
    taken: int = 0

    def judge(self, health: Health, entries: Entries, rules: Rules) -> bool:
        """Judge the outcomes of a cohort if they are those that were foreseen; return whether they are."""
        number = self.taken
        if health is not self.health or rules is not self.rules or number == self.foresight.cohorts:
            return False
        if (health.rows.streams, health.rows.variants) != self.shape:
            return False
        if health.degraded or not _equal(entries, self.entries.part(*self.bounds[number : number + 2])):
            return False
        health.judge_foreseen(self.foresight, number, entries)
        self.taken = number + 1
        return True

    def leave(self) -> None:
        """Look ahead no more: the rows keep nothing of what was computed for the cohorts after the present one."""
        self.health.detach()


class _Columns(NamedTuple):
    """The outcomes of some cohorts, those of a cohort in the order in which they are judged."""

    cohort: Ints
    arm: Ints
    entries: Entries


def look_ahead(
    state: ModelState, parts: Sequence[Part], partition: int, width: int, mine: Rules, others: Rules
) -> dict[str, Ahead]:
    """Return what the next parts lead to, by version.

    Args:
        state: What is known of the model.
        parts: Its parts in the next records.
        partition: The source partition of these records.
        width: The width of its cohorts in ms, 0 without a maturity.
        mine: What an alarm of the live version takes.
        others: What one of the others takes.
    """
    live, layout = state.live, state.layout
    if live is None:
        return {}
    streams, sources = len(layout.slices.streams), layout.sources.places
    variants = 1 if sources < 2 else 1 + sources
    found: dict[str, Ahead] = {}
    judged = [(live.health, "live", variants, mine)]
    judged += [
        (other.health, other.role, variants if other.beside else 1, others) for other in live.concurrent.values()
    ]
    judged = [each for each in judged if each[0].is_foreseeable(each[3])]
    columns = _columns(state, parts, above_places(partition), width) if judged else None
    if columns is None:
        return {}
    for health, role, expected, rules in judged:
        number = layout.number_of(health.version, role)
        if number < 0 or (health.rows.streams, health.rows.variants) != (streams, expected):
            continue
        use = ((columns.arm == number) & (columns.entries.predicted_at >= live.since)).nonzero()[0]
        cohort = columns.cohort[use]
        if not use.size:
            continue
        edges = np.append((cohort[1:] != cohort[:-1]).nonzero()[0] + 1, use.size)
        bounds = np.append(0, edges)
        entries = _taken(columns.entries, use)
        foresight = health.foresee(entries, bounds, rules) if bounds.size > 2 else None
        if foresight is not None:
            found[health.version] = Ahead(health, rules, entries, bounds.tolist(), foresight, (streams, expected))
    return found


def _columns(state: ModelState, parts: Sequence[Part], above: int, width: int) -> _Columns | None:
    """Return the outcomes of open cohorts, and of the first parts that name nothing new; `above` is added to places."""
    layout = state.layout
    arms, sources = _Table(), _Table()
    slices = [_Table() for _ in layout.slices.dimensions]
    plain: list[Part] = []
    for part in parts:
        rows, numbers = part.outcomes, [layout.number_of(arm.version, arm.role) for arm in part.arms]
        known = [layout.slices.known(place, column.values) for place, column in enumerate(rows.slices)]
        named = layout.sources.known(rows.source.values)
        if part.pairs is not None or part.unlabelled is not None or named is None or None in known:
            break
        plain.append(part)
        arms.add(numbers, rows.arm.size)
        sources.add(named, rows.arm.size)
        for table, each in zip(slices, known, strict=True):
            table.add(each or [], rows.arm.size)
    every = [part.outcomes for part in plain]
    if len(every) < 2 or not sum(rows.arm.size for rows in every):
        return None
    arm = arms.of([Coded([], rows.arm) for rows in every])
    columns = np.empty((STREAMS + 1 + len(slices), arm.size), np.int64)
    # No row of detectors asks for units: a comparison alone does.
    columns[ARM], columns[UNIT], columns[STREAMS] = arm, 0, 0
    columns[PREDICTED_AT] = np.concatenate([rows.predicted_at for rows in every])
    columns[POSITION] = np.concatenate([rows.position for rows in every]) + above
    columns[SOURCE] = sources.of([rows.source for rows in every])
    for place, table in enumerate(slices):
        columns[STREAMS + 1 + place] = table.of([rows.slices[place] for rows in every])
    losses = np.concatenate([rows.losses for rows in every], axis=1)
    if width:
        waiting = [cohort.labelled for cohort in state.open_cohorts.values()]
        columns = np.concatenate([*(each for rows in waiting for each in rows.columns), columns], axis=1)
        losses = np.concatenate([*(each for rows in waiting for each in rows.losses), losses], axis=1)
        cohort = columns[PREDICTED_AT] // width
    else:
        cohort = np.repeat(np.arange(len(every)), [rows.arm.size for rows in every])
    order = np.lexsort((hashed(columns[POSITION]), cohort))
    columns = columns.take(order, axis=1)
    entries = Entries(columns[PREDICTED_AT], columns[STREAMS:], columns[SOURCE], losses.take(order, axis=1))
    return _Columns(cohort[order], columns[ARM], entries)


class _Table:
    """The numbers of the codes of each record."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._begins: list[int] = []
        self._sizes: list[int] = []

    def add(self, numbers: list[int], rows: int) -> None:
        """Add the numbers of the codes of the next record, which has so many rows; the number of code -1 is -1."""
        self._begins.append(len(self._numbers) + 1)
        self._sizes.append(rows)
        self._numbers += [-1, *numbers]

    def of(self, columns: Sequence[Coded]) -> Ints:
        """Return the numbers of the codes of all records."""
        codes = np.concatenate([column.codes for column in columns])
        numbers: Ints = np.array(self._numbers, np.int64)[codes + np.repeat(self._begins, self._sizes)]
        return numbers


def _taken(entries: Entries, use: Ints) -> Entries:
    return Entries(
        entries.predicted_at[use], entries.streams[:, use], entries.source[use], entries.losses.take(use, axis=1)
    )


def _equal(one: Entries, other: Entries) -> bool:
    return (
        one.predicted_at.size == other.predicted_at.size
        and one.losses.tobytes() == other.losses.tobytes()
        and one.streams.tobytes() == other.streams.tobytes()
        and one.source.tobytes() == other.source.tobytes()
        and one.predicted_at.tobytes() == other.predicted_at.tobytes()
    )
