"""What a pair of source partitions has joined and not put into a batch, in the order of lines."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import msgspec
import numpy as np

from detectors.base import Ints
from streams.config.resolved import ModelConfig
from streams.join.batch_parts import Parts, is_plain, parts_of
from streams.join.record_size import COUNT_BYTES, RecordSizes, Sizes, line_beyond
from streams.join.rows import ModelJoined
from streams.ledger.places import INDEX_BITS
from streams.ledger.records import Part
from streams.window.batch_window import BatchWindow
from streams.window.cells import Cells
from streams.window.join_window import Pair
from streams.window.joined import (
    ANSWER,
    CELL,
    LINE,
    SOURCE,
    Outcomes,
    SavedOutcomes,
    Seen,
    outcomes_joined,
    seen_joined,
)
from streams.window.pending_predictions import PendingPrediction
from streams.window.slice_values import text_bytes
from streams.window.tally import Row

if TYPE_CHECKING:
    from streams.join.partition import Given

_Lined = TypeVar("_Lined")
_Rows = TypeVar("_Rows", Outcomes, Seen)
EVERYTHING: Final = np.iinfo(np.int64).max
"""A line after all others."""

SEEN_BYTES: Final = 32
"""The four numbers of a prediction that was read for the first time, besides those of its slices."""

NO_SIZES: Final[Sizes] = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))


class SavedPending(msgspec.Struct, frozen=True):
    """A saved `Pending`."""

    outcomes: SavedOutcomes | None
    seen: Ints | None
    seen_objects: list[tuple[int, PendingPrediction]]
    pairs: list[tuple[int, Pair]]
    seen_pairs: list[tuple[int, tuple[PendingPrediction, PendingPrediction]]]
    counted: list[tuple[int, Row]]


class Pending:
    """Rows and counts, each with the line at which it is complete, and the values that no digest has yet."""

    def __init__(self, window: BatchWindow) -> None:
        self._window = window
        self._outcomes = _Queue[Outcomes](window, outcomes_joined)
        self._seen = _Queue[Seen](window, seen_joined)
        self._objects: list[tuple[int, PendingPrediction]] = []
        self._pairs: list[tuple[int, Pair]] = []
        self._seen_pairs: list[tuple[int, tuple[PendingPrediction, PendingPrediction]]] = []
        self._counted: list[tuple[int, Row]] = []
        self._line = 0
        # The parts of batches that are expected next.
        self._expected: _Expected | None = None
        # Of each log, what was given, and from which place on it is in no digest.
        self._given: tuple[list[tuple[Given, int]], list[tuple[Given, int]]] = ([], [])

    @property
    def rows(self) -> int:
        """Return how many rows of outcomes and predictions there are."""
        rows: int = sum(columns.shape[1] for columns in self._columns_of_chunks())
        return rows + len(self._objects)

    def next_lines(self, count: int) -> Ints:
        """Return the lines of the next records, where no other numbers give them."""
        first, self._line = self._line, self._line + count
        return np.arange(first, self._line) << INDEX_BITS

    def _columns_of_chunks(self) -> list[Ints]:
        return [chunk.columns for queue in (self._outcomes, self._seen) for chunk in queue.chunks()]

    @property
    def counted(self) -> list[tuple[int, Row]]:
        """Return changes of counts with their lines."""
        return self._counted

    def counts(self) -> Counter[str]:
        """Return the sum of the changes, by reason."""
        found: Counter[str] = Counter()
        for _, (reason, change, _, _) in self._counted:
            found[reason] += change
        return found

    def accepted(self, first: int) -> Ints:
        """Return the lines from `first` on at which rows were completed."""
        lines = [columns[LINE] for columns in self._columns_of_chunks()]
        lines.append(np.array([line for line, _ in self._objects], np.int64))
        found = np.concatenate(lines)
        # Mostly in order: sorting takes less time than a table of what is different.
        found.sort(kind="stable")
        found = found[found.searchsorted(first) :]
        return found[np.append(True, found[1:] != found[:-1])] if found.size else found

    def models_seen(self, first: int) -> Iterator[tuple[int, str]]:
        """Yield (line, model) of the first prediction of each model from line `first` on."""
        series, names = self._window.slow.series, self._window.slow.series.models()
        for chunk in self._seen.chunks():
            models, places = np.unique(chunk.cells.models_of(chunk.columns[CELL]), return_index=True)
            for model, line in zip(models.tolist(), chunk.columns[LINE, places].tolist(), strict=True):
                if line >= first:
                    yield line, names[model]
        yield from ((line, series[each.series].model) for line, each in self._objects if line >= first)

    def line_beyond(self, last: int, counts: int) -> int | None:
        """Return the first line up to `last` of which a record has no room for everything that is pending.

        Args:
            last: The last line that the record may hold.
            counts: Changes of counts that are in the record and not here.
        """
        lines = np.array([line for line, _ in _until(self._counted, last)], np.int64)
        counted = lines, np.full_like(lines, COUNT_BYTES), np.full_like(lines, -1)
        return line_beyond([*self._sizes(last), counted], counts, self._window.part_bytes)

    def sizes(self) -> RecordSizes:
        """Return how many bytes the rows take that are pending."""
        return RecordSizes(self._sizes(EVERYTHING), self._window.part_bytes)

    def _sizes(self, last: int) -> list[Sizes]:
        pairs: list[list[tuple[int, tuple[PendingPrediction, PendingPrediction]]]] = [
            [(line, (each, each)) for line, each in _until(self._objects, last)],
            [(line, (pair.live, pair.shadow)) for line, pair in _until(self._pairs, last)],
            _until(self._seen_pairs, last),
        ]
        return [
            self._sizes_of(self._outcomes.until(last)),
            self._sizes_of(self._seen.until(last)),
            *map(self._sizes_of_pairs, pairs),
        ]

    def _sizes_of(self, rows: Outcomes | Seen | None) -> Sizes:
        if rows is None:
            return NO_SIZES
        cells, columns = rows.cells, rows.columns
        if isinstance(rows, Outcomes):
            sizes = cells.row_bytes_of(columns[CELL]) + self._window.sources.bytes_of(columns[SOURCE])
        else:
            slices = 8 * len(self._window.dimensions)
            sizes = (
                cells.text_bytes_of(columns[CELL])
                + self._window.answers.bytes_of(columns[ANSWER])
                + SEEN_BYTES
                + slices
            )
        return columns[LINE], sizes, cells.models_of(columns[CELL])

    def _sizes_of_pairs(self, entries: list[tuple[int, tuple[PendingPrediction, PendingPrediction]]]) -> Sizes:
        if not entries:
            return NO_SIZES
        series = self._window.slow.series
        found = []
        for line, (one, other) in entries:
            names = (series[one.series].version, series[other.series].version)
            size = series.rules[one.series].row_bytes + text_bytes(one.slices) + text_bytes(names)
            found.append((line, size, series.model_number(series[one.series].model)))
        lines, sizes, models = np.array(found, np.int64).T
        return lines, sizes, models

    def take(self, side: int, given: Given, *, shared: bool) -> None:
        """Take what the window has joined with the records that were given."""
        joined = self._window.take()
        self._expected = None
        self._outcomes.add(joined.outcomes)
        self._seen.add(joined.seen)
        _extend(self._objects, joined.seen_objects)
        _extend(self._pairs, joined.pairs)
        _extend(self._seen_pairs, joined.seen_pairs)
        self._given[side].append((given, 0))
        self.take_counts(shared=shared)

    def take_counts(self, *, shared: bool) -> None:
        """Take the counts that were changed; their places are lines if both logs are `shared`."""
        rows = self._window.slow.tally.take()
        if rows:
            if shared:
                # Positions are lines where both logs are numbered by them.
                lines = [max(row[2], row[3]) for row in rows]
            else:
                lines = self._window.lines_of([row[2] for row in rows], [row[3] for row in rows]).tolist()
            _extend(self._counted, list(zip(lines, rows, strict=True)))

    def settle(self, line: int | None) -> Iterator[tuple[list[bytes], int]]:
        """Yield for each log the values up to a line that were not yielded before, and the offset after the last.

        The offset is -1 where there is none.
        """
        for given in self._given:
            values: list[bytes] = []
            end = -1
            while given:
                records, begin = given[0]
                stop = records.line.size
                if line is not None:
                    stop = int(records.line.searchsorted(line, side="right"))
                if stop > begin:
                    values += records.values[begin:stop]
                    end = int(records.offsets[stop - 1]) + 1
                if stop < records.line.size:
                    given[0] = (records, max(begin, stop))
                    break
                del given[0]
            yield values, end

    def expect(self, lines: list[int], config_of: Callable[[str], ModelConfig]) -> None:
        """Build the parts of the batches that end with these lines, if nothing but plain rows is joined."""
        names = self._window.slow.series.models()
        if self._objects or self._pairs or self._seen_pairs or not all(is_plain(config_of(name)) for name in names):
            return
        rows: dict[int, list[Any]] = {}
        edges = []
        queues: tuple[Any, Any] = (self._outcomes, self._seen)
        for place, queue in enumerate(queues):
            ordered = queue.ordered()
            edges.append([0] * len(lines))
            if ordered is not None:
                edges[place] = np.searchsorted(ordered.columns[LINE], lines, side="right").tolist()
                for model, part in _split(ordered):
                    rows.setdefault(model, [None, None])[place] = part
        series, last = self._window.slow.series, np.array(lines)
        found = {
            names[model]: parts_of(names[model], config_of(names[model]), series, (outcomes, seen), last)
            for model, (outcomes, seen) in rows.items()
        }
        self._expected = _Expected(lines, edges, sorted(found.items()))

    def expected_parts(self) -> dict[str, list[Part]]:
        """Return the parts of the batches that are expected, by model."""
        return {} if self._expected is None else self._expected.by_model()

    def take_expected(self, line: int | None) -> list[Part] | None:
        """Return the parts of the batch up to a line if it is the expected one; its rows are pending no more."""
        expected = self._expected
        if expected is None or not expected.ends_with(line):
            self._expected = None
            return None
        parts = expected.take()
        if parts is None:
            return None
        outcomes, seen = expected.ends
        self._outcomes.go_to(outcomes)
        self._seen.go_to(seen)
        if not self._outcomes.chunks():
            self._window.forget_sources()
        self._forget_series()
        return parts

    def by_model(self, line: int | None) -> Iterator[tuple[str, ModelJoined]]:
        """Yield what was joined up to a line, by model in the order of names; it is pending no more."""
        last = EVERYTHING if line is None else line
        names = self._window.slow.series.models()
        found: dict[str, ModelJoined] = {}

        def of(model: str) -> ModelJoined:
            return found.setdefault(model, ModelJoined())

        outcomes = self._outcomes.take(last)
        if outcomes is not None:
            for model, part in _split(outcomes):
                of(names[model]).outcomes = part
        seen = self._seen.take(last)
        if seen is not None:
            for model, part in _split(seen):
                of(names[model]).seen = part
        series = self._window.slow.series
        for each in _taken(self._objects, last):
            of(series[each.series].model).unlabelled.append(each)
        for pair in _taken(self._pairs, last):
            of(series[pair.live.series].model).pairs.append(pair)
        for both in _taken(self._seen_pairs, last):
            of(series[both[0].series].model).seen_pairs.append(both)
        if not self._outcomes.chunks():
            self._window.forget_sources()
        yield from sorted(found.items())
        self._forget_series()

    def _forget_series(self) -> None:
        """Forget series that neither the window nor what is pending has."""
        if not self._window.slow.series.crowded:
            return
        tables = [chunk.cells for queue in (self._outcomes, self._seen) for chunk in queue.chunks()]
        objects = [each for _, each in self._objects]
        objects += [each for _, pair in self._pairs for each in (pair.live, pair.shadow)]
        objects += [each for _, pair in self._seen_pairs for each in pair]
        self._window.forget_series(tables, objects)

    def take_counted(self, line: int | None) -> list[Row]:
        """Return the changes of counts up to a line, which are pending no more."""
        return _taken(self._counted, EVERYTHING if line is None else line)

    def drop(self) -> None:
        """Drop everything that was joined and counted."""
        for entries in (self._outcomes, self._seen, self._objects, self._pairs, self._seen_pairs, self._counted):
            entries.clear()
        self._expected = None
        self._window.forget_sources()
        self._forget_series()

    def save(self) -> SavedPending:
        """Return everything; the values must be in their digests."""
        assert not any(self._given), "values of records are in no digest"
        outcomes, seen = self._outcomes.whole(), self._seen.whole()
        return SavedPending(
            None if outcomes is None else outcomes.save(),
            None if seen is None else seen.columns.reshape(-1),
            self._objects,
            self._pairs,
            self._seen_pairs,
            self._counted,
        )

    def load(self, saved: SavedPending, cells: Cells, sources: list[str], answers: list[str]) -> None:
        """Load what `save` returned."""
        self._outcomes.add([] if saved.outcomes is None else [saved.outcomes.load(cells, sources)])
        self._seen.add([] if saved.seen is None else [Seen(cells, answers, saved.seen.reshape(5, -1))])
        self._objects, self._pairs, self._seen_pairs = saved.seen_objects, saved.pairs, saved.seen_pairs
        self._counted = saved.counted


class _Expected:
    """The parts of batches that end with these lines; `edges` are how many rows of each queue are before these ends."""

    def __init__(self, lines: list[int], edges: list[list[int]], parts: list[tuple[str, Parts]]) -> None:
        self._lines = lines
        self._edges = edges
        self._parts = parts
        self._taken = 0

    @property
    def ends(self) -> tuple[int, int]:
        """Return how many rows of each queue were taken."""
        outcomes, seen = (edges[self._taken - 1] for edges in self._edges)
        return outcomes, seen

    def by_model(self) -> dict[str, list[Part]]:
        """Return by model the parts of batches that are not built by themselves."""
        unfit = set().union(*(parts.unfit for _, parts in self._parts))
        return {
            model: [part for number, part in enumerate(parts.parts) if part is not None and number not in unfit]
            for model, parts in self._parts
        }

    def ends_with(self, line: int | None) -> bool:
        """Return whether the next batch ends with a line."""
        return self._taken < len(self._lines) and line == self._lines[self._taken]

    def take(self) -> list[Part] | None:
        """Return the parts of the next batch, None if it has to be built by itself."""
        number = self._taken
        self._taken = number + 1
        if any(number in parts.unfit for _, parts in self._parts):
            return None
        return [part for _, parts in self._parts if (part := parts.parts[number]) is not None]


class _Queue(Generic[_Rows]):
    """Rows in the order of lines, of which those up to a line are taken again and again."""

    def __init__(self, window: BatchWindow, joined: Callable[[Sequence[_Rows]], _Rows]) -> None:
        self._window = window
        self._joined: Callable[[Sequence[_Rows]], _Rows] = joined
        # Rows in order, from `_begin` on, and chunks that were added since.
        self._ordered: _Rows | None = None
        self._begin = 0
        self._added: list[_Rows] = []

    def add(self, chunks: list[_Rows]) -> None:
        """Add rows."""
        self._added += chunks

    def chunks(self) -> list[_Rows]:
        """Return what there is, in any order."""
        if self._ordered is None:
            return self._added
        rest: Any = self._ordered.part(slice(self._begin, None))
        return [rest, *self._added]

    def clear(self) -> None:
        """Drop everything."""
        self._ordered, self._begin, self._added = None, 0, []

    def ordered(self) -> _Rows | None:
        """Return all rows in order, None if there are none; `go_to` counts from the first of them."""
        self._ordered, self._begin, self._added = self.whole(), 0, []
        return self._ordered

    def go_to(self, begin: int) -> None:
        """Take the rows before a number."""
        if self._ordered is not None and begin < self._ordered.columns.shape[1]:
            self._begin = begin
        else:
            self.clear()

    def whole(self) -> _Rows | None:
        """Return all rows in order, under the present cells; None if there are none."""
        chunks = self.chunks()
        return self._joined([self._window.present(chunk) for chunk in chunks]) if chunks else None

    def _order(self) -> None:
        if self._added:
            # Only where rows were added: there may be a hundred batches in what was.
            self._ordered, self._begin, self._added = self.whole(), 0, []

    def until(self, last: int) -> _Rows | None:
        """Return the rows up to a line, None if there are none."""
        self._order()
        rows = self._ordered
        if rows is None:
            return None
        some: Any = rows.part(slice(self._begin, int(np.searchsorted(rows.columns[LINE], last, side="right"))))
        return cast(_Rows, some)

    def take(self, last: int) -> _Rows | None:
        """Return the rows up to a line, None if there are none; they are not here any more."""
        self._order()
        rows, begin = self._ordered, self._begin
        if rows is None:
            return None
        lines = rows.columns[LINE]
        end = max(int(np.searchsorted(lines, last, side="right")), begin)
        if end == lines.size:
            self.clear()
        else:
            self._begin = end
        if end == begin:
            return None
        some: Any = rows.part(slice(begin, end))
        return cast(_Rows, some)


def _split(rows: Any) -> Iterator[tuple[int, Any]]:
    """Yield rows by the number of their model."""
    models = rows.cells.models_of(rows.columns[CELL])
    if bool((models == models[0]).all()):
        yield int(models[0]), rows
        return
    order = np.argsort(models, kind="stable")
    edges = np.flatnonzero(np.diff(models[order], prepend=-1))
    for begin, part in zip(edges.tolist(), np.split(order, edges[1:]), strict=True):
        yield int(models[order[begin]]), rows.part(part)


def _line(entry: tuple[int, Any]) -> int:
    return entry[0]


def _extend(entries: list[tuple[int, _Lined]], more: list[tuple[int, _Lined]]) -> None:
    if more:
        entries += more
        entries.sort(key=_line)


def _until(entries: list[tuple[int, _Lined]], last: int) -> list[tuple[int, _Lined]]:
    return entries[: bisect_right(entries, last, key=_line)]


def _taken(entries: list[tuple[int, _Lined]], last: int) -> list[_Lined]:
    """Return the entries up to a line, and remove them."""
    stop = bisect_right(entries, last, key=_line)
    taken = [entry for _, entry in entries[:stop]]
    del entries[:stop]
    return taken
