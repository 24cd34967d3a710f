"""What was joined and is in no batch yet, as columns in the order of lines.

A *line* numbers the records that a pair of source partitions was given, of both logs alike. A batch takes what was
joined up to one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from detectors.base import Floats, Ints
from streams.losses.columns import Objects, Scalars, objects, scalars_joined
from streams.window.cells import Cells

LINE, CELL, POSITION, AT, LABELLED_BY, LABELLED_AT, SOURCE, UNIT = range(8)
"""The rows of `columns`; predictions alone have the first four, and the class that was answered."""

ANSWER: Final = 4
"""The row of `Seen.columns` with the number of the class, -1 for none."""

NOTHING_MORE: Final = (None, None, None)


class Outcomes(msgspec.Struct, frozen=True):
    """Predictions with their labels; `columns` has shape (8, outcomes).

    The line is where the later of the two was read, and the source indexes `sources`. `more` is None, or has (scores by
    class, engagement, latency in ms) of each: only some losses need these.
    """

    cells: Cells
    sources: list[str]
    columns: Ints
    output: Scalars
    score: Scalars
    truth: Scalars
    more: Objects | None = None

    def part(self, index: Any) -> Outcomes:
        """Return the entries of an index, a slice or a mask."""
        return Outcomes(
            self.cells,
            self.sources,
            self.columns[:, index],
            self.output.part(index),
            self.score.part(index),
            self.truth.part(index),
            None if self.more is None else self.more[index],
        )

    def save(self) -> SavedOutcomes:
        """Return everything but the cells and the sources."""
        values = (self.output, self.score, self.truth)
        return SavedOutcomes(
            list(self.columns),
            [column.kinds.astype(np.int64) for column in values],
            [column.numbers for column in values],
            [None if column.others is None else column.others.tolist() for column in values],
            None if self.more is None else self.more.tolist(),
        )


class SavedOutcomes(msgspec.Struct, frozen=True):
    """Saved `Outcomes`; kinds, numbers and others are those of outputs, scores and truths."""

    columns: list[Ints]
    kinds: list[Ints]
    numbers: list[Floats]
    others: list[list[Any] | None]
    more: list[tuple[Any, Any, Any]] | None

    def load(self, cells: Cells, sources: list[str]) -> Outcomes:
        """Return what was saved."""
        others = [None if each is None else objects(each) for each in self.others]
        columns = zip(self.numbers, self.kinds, others, strict=True)
        output, score, truth = (Scalars(numbers, kinds.astype(np.uint8), each) for numbers, kinds, each in columns)
        more = None if self.more is None else objects(self.more)
        return Outcomes(cells, sources, np.array(self.columns, np.int64), output, score, truth, more)


class Seen(msgspec.Struct, frozen=True):
    """Predictions that were read for the first time; `columns` has shape (5, predictions).

    The class indexes `answers`.
    """

    cells: Cells
    answers: list[str]
    columns: Ints

    def part(self, index: Any) -> Seen:
        """Return the entries of an index, a slice or a mask."""
        return Seen(self.cells, self.answers, self.columns[:, index])


def outcomes_joined(chunks: Sequence[Outcomes]) -> Outcomes:
    """Return chunks of the same cells and sources as one, in the order of lines."""
    rows = chunks[0]
    if len(chunks) > 1:
        more = None
        if any(chunk.more is not None for chunk in chunks):
            more = np.concatenate([_more(chunk) for chunk in chunks])
        rows = Outcomes(
            rows.cells,
            rows.sources,
            np.concatenate([chunk.columns for chunk in chunks], axis=1),
            scalars_joined([chunk.output for chunk in chunks]),
            scalars_joined([chunk.score for chunk in chunks]),
            scalars_joined([chunk.truth for chunk in chunks]),
            more,
        )
    order = _order(rows.columns, LABELLED_BY)
    return rows if order is None else rows.part(order)


def seen_joined(chunks: Sequence[Seen]) -> Seen:
    """Return chunks of the same cells as one, in the order of lines."""
    rows = chunks[0]
    if len(chunks) > 1:
        rows = Seen(rows.cells, rows.answers, np.concatenate([chunk.columns for chunk in chunks], axis=1))
    order = _order(rows.columns, POSITION)
    return rows if order is None else rows.part(order)


def _order(columns: Ints, position: int) -> Ints | None:
    """Return the order of lines, inside a line that of some positions; None if it is that already."""
    line, inside = columns[LINE], columns[position]
    if line.size < 2 or (bool((line[1:] >= line[:-1]).all()) and bool((inside[1:] >= inside[:-1]).all())):
        return None
    return np.lexsort((inside, line))


def _more(chunk: Outcomes) -> Objects:
    return objects([NOTHING_MORE] * chunk.columns.shape[1]) if chunk.more is None else chunk.more
