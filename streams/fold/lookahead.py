"""Look ahead: what the next records bring of a model, so that its detectors step many of them at once.

Only where outcomes count on arrival, and only by a driver that has read ahead, as a replay has. What was looked at is
used where it turns out to be so, down to the last outcome; else it is thrown away, and the record is judged by itself.
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
from streams.evaluation.cohorts import Layout
from streams.evaluation.periods import ModelState
from streams.ledger.records import Coded, Part

RECORDS_AHEAD: Final = 64
"""So many records cost little more than one."""


class Ahead(msgspec.Struct):
    """Hold what the next records lead to in the rows of one version; `taken` of them were judged."""

    health: Health
    rules: Rules
    entries: Entries
    bounds: list[int]
    foresight: Foresight
    taken: int = 0

    def judge(self, health: Health, entries: Entries, rules: Rules) -> bool:
        """Judge the outcomes of a record if they are those that were foreseen; return whether they are."""
        number = self.taken
        if health is not self.health or rules is not self.rules or number == self.foresight.cohorts:
            return False
        if health.degraded or not _equal(entries, self.entries.part(*self.bounds[number : number + 2])):
            return False
        health.judge_foreseen(self.foresight, number, entries)
        self.taken = number + 1
        return True


class _Columns(NamedTuple):
    """The outcomes of some records, those of a record in the order of their predictions."""

    record: Ints
    arm: Ints
    entries: Entries


def look_ahead(state: ModelState, parts: Sequence[Part], mine: Rules, others: Rules) -> dict[str, Ahead]:
    """Return what parts lead to, by version; `mine` are the rules of the live version, `others` those of the others."""
    live, layout = state.live, state.layout
    if live is None:
        return {}
    streams, sources = len(layout.slices.streams), len(layout.sources.names)
    variants = 1 if sources < 2 else 1 + sources
    found: dict[str, Ahead] = {}
    judged = [(live.health, "live", variants, mine)]
    judged += [(other.health, other.role, 1, others) for other in live.concurrent.values()]
    judged = [each for each in judged if each[0].is_foreseeable(each[3])]
    columns = _columns(layout, parts) if judged else None
    if columns is None:
        return {}
    for health, role, expected, rules in judged:
        number = layout.number_of(health.version, role)
        if number < 0 or (health.rows.streams, health.rows.variants) != (streams, expected):
            continue
        use = ((columns.arm == number) & (columns.entries.predicted_at >= live.since)).nonzero()[0]
        record = columns.record[use]
        if not use.size:
            continue
        edges = np.append((record[1:] != record[:-1]).nonzero()[0] + 1, use.size)
        bounds = np.append(0, edges)
        entries = _taken(columns.entries, use)
        foresight = health.foresee(entries, bounds, rules) if bounds.size > 2 else None
        if foresight is not None:
            found[health.version] = Ahead(health, rules, entries, bounds.tolist(), foresight)
    return found


def _columns(layout: Layout, parts: Sequence[Part]) -> _Columns | None:
    """Return the outcomes of the first parts that name nothing new."""
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
    record = np.repeat(np.arange(len(every)), [rows.arm.size for rows in every])
    predicted_at = np.concatenate([rows.predicted_at for rows in every])
    order = np.lexsort((np.concatenate([rows.position for rows in every]), predicted_at, record))
    streams = [np.zeros_like(record)]
    streams += [table.of([rows.slices[place] for rows in every]) for place, table in enumerate(slices)]
    entries = Entries(
        predicted_at,
        np.stack(streams),
        sources.of([rows.source for rows in every]),
        np.concatenate([rows.losses for rows in every], axis=1),
    )
    arm = arms.of([Coded([], rows.arm) for rows in every])
    return _Columns(record, arm[order], _taken(entries, order))


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
