"""The window of one pair of logs, for whole blocks of records: what is usual is joined by array operations.

Usual is one prediction of a key, then one label in time. Such predictions are rows of `streams.window.generations`, and
a block of labels finds and labels its rows in a few operations. Everything else goes through
`streams.window.join_window`, one record after the other: a second prediction or label of a key; a label ahead of its
prediction, too late, of another model or without a truth; a model that is judged without labels. With the first such
record of a key, everything that is known of the key moves there. So there is one set of rules, and this module only
recognises when none of them matters.

A key is in one place only, so the order between the usual and the others makes no difference. Nor does it matter
whether the predictions of a block are joined before its feedback (`streams.window.join_window` shows why).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import isnan
from operator import attrgetter
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from detectors.base import Bools, Ints
from streams.losses.classes import classes_of_numbers
from streams.losses.columns import FLOAT, NOTHING, Scalars, objects, scalars
from streams.losses.pairs import NAME_BYTES, PAIRS_MAX, class_text
from streams.window.cells import KINDS, NO_CELL, Cells, SavedCells
from streams.window.early_labels import PendingFeedback
from streams.window.fingerprints import Fingerprinter, Fingerprints, Key
from streams.window.generation_list import GenerationList
from streams.window.generations import CLOSED, MOVED, WAITS, Generation, SavedGeneration, SavedKept
from streams.window.join_window import JoinWindow, Outcome, Pair, SavedWindow
from streams.window.joined import CELL, NOTHING_MORE, Outcomes, Seen
from streams.window.pending_predictions import PendingPrediction
from streams.window.records import Records, score_column, scores_of, spread, units_of
from streams.window.series import WindowRule
from streams.window.slice_values import SourceNames
from streams.window.stored_rows import RowStore
from streams.window.tally import Tally
from unship.codec import decode_value
from unship.events import Feedback, Prediction

_Rows = TypeVar("_Rows", Outcomes, Seen)
_Entry = TypeVar("_Entry")

PART_BYTES, PART_BYTES_OF_SLICE = 1_024 + PAIRS_MAX * (2 * NAME_BYTES + 8), 64
"""What the name of a model, the heads of its columns and the names of classes take in a ledger record, with the heads
of each slice."""


class Joined(NamedTuple):
    """What was joined since the last call of `take`; objects with their lines are those of the window of objects."""

    outcomes: list[Outcomes]
    seen: list[Seen]
    seen_objects: list[tuple[int, PendingPrediction]]
    pairs: list[tuple[int, Pair]]
    seen_pairs: list[tuple[int, tuple[PendingPrediction, PendingPrediction]]]


class BeyondMemory(NamedTuple):
    """Where the rows of a window go that are beyond so many bytes of memory."""

    store: RowStore
    memory_max: int


class BatchWindow:
    """Joins blocks of predictions and of feedback; what is not used is counted in `tally`.

    Args:
        rules: How long what belongs to each model is kept, by its name.
        default: The same for all other models.
        tally: Where it is counted.
        secret: Keeps ids from being chosen so that they are mistaken for others.
        beyond: Where rows go that do not fit into memory; None for nowhere.
    """

    def __init__(
        self,
        rules: dict[str, WindowRule],
        default: WindowRule,
        tally: Tally,
        secret: bytes,
        beyond: BeyondMemory | None = None,
    ) -> None:
        self.slow = JoinWindow(rules, default, tally)
        every = (default, *rules.values())
        self.dimensions = tuple(dict.fromkeys(name for rule in every for name in rule.slices_by))
        self.cells = Cells(self.slow.series, self.dimensions)
        self.generations = GenerationList(self.cells, *beyond or ())
        self.sources = SourceNames([])
        self.answers = SourceNames(["0", "1"])
        self._reach_ms = max(rule.horizon_ms for rule in every) + self.slow.early.early_ms
        self._printer = Fingerprinter(secret)
        self._joined = Joined([], [], [], [], [])
        # The join clock of the prediction log.
        self._predictions_at = -1
        self._slow_seen: list[tuple[int, int, int, int, int]] = []
        # Positions and lines of the newest records of each log.
        self._newest = (_Lines(_ints([]), _ints([])), _Lines(_ints([]), _ints([])))

    @property
    def part_bytes(self) -> int:
        """How many bytes the part of any model takes in a ledger record besides its rows, at most."""
        return PART_BYTES + PART_BYTES_OF_SLICE * len(self.dimensions)

    def limit_generations(self, rows: int) -> None:
        """Let a generation have so many rows, from the first one on, instead of more and more."""
        self.generations.limit(rows, self.cells)

    def note_lines(self, side: int, positions: Ints, lines: Ints) -> None:
        """Note the lines of the next records of a log, also of those that are no events."""
        noted = _Lines(positions, lines)
        self._newest = (noted, self._newest[1]) if side == 0 else (self._newest[0], noted)

    def take(self) -> Joined:
        """Return what was joined since the last call."""
        taken, self._joined = self._joined, Joined([], [], [], [], [])
        return taken

    # Predictions

    def add_predictions(self, block: Records) -> Bools:
        """Add predictions; return which of them repeat no other and are within the limits."""
        seen = np.ones(len(block.items), np.bool_)
        begin = 0
        while begin < len(block.items):
            end = min(len(block.items), begin + self._room())
            self._add_predictions(block.part(begin, end), seen[begin:end])
            begin = end
        self._collect()
        return seen

    def _room(self) -> int:
        newest = self.generations[-1]
        if self.cells.full:
            self._renew_cells()
        if not newest.room or newest.cells is not self.cells:
            newest = self.generations.begin(self.cells)
        return newest.room

    def _renew_cells(self) -> None:
        # Their codes are those of the table that is left.
        self._collect_seen()
        self.cells = Cells(self.slow.series, self.dimensions)

    def _current(self, cells: Cells, codes: Ints) -> Ints:
        """Return codes of an earlier table of cells as those of the present one."""
        if cells is self.cells:
            return codes
        found, places = np.unique(codes, return_inverse=True)
        moved = [NO_CELL if code == NO_CELL else self.cells.code_of(*cells.key_of(code)) for code in found.tolist()]
        return np.array(moved, np.int64)[places]

    def _add_predictions(self, block: Records, seen: Bools) -> None:
        keys = block.keys()
        prints = self._printer.of(keys)
        generation = self.generations[-1]
        cell, output, score = self._columns(block)
        rows = np.arange(generation.size, generation.size + len(keys))
        generation.add(prints, block.position, block.at, cell, output, score)
        if "unit_hash" in block.shape.fields:
            generation.answers.unit[rows] = units_of(block.column("unit_hash", None))
        usual = self.cells.usual(cell)
        unusual = ~usual | self._known_slowly(keys)
        unusual |= _of_same_keys(keys, ~usual)
        where, row = self.generations.find(prints, len(self.generations) - 1)
        unusual |= where >= 0
        where, row = self._put(generation, prints, rows, unusual, where, row)
        if not unusual.any():
            self._keep_objects(block, rows, output)
            self._close(generation, rows)
            columns = np.array([block.line, cell, block.position, block.at, self._classes(cell, output)])
            self._joined.seen.append(Seen(self.cells, self.answers.names, columns))
            return
        generation.state[rows[unusual]] = MOVED
        usual = ~unusual
        self._keep_objects(block, rows, output)
        self._close(generation, rows[usual])
        if usual.any():
            answers = self._classes(cell[usual], output.part(usual))
            columns = np.array([*(each[usual] for each in (block.line, cell, block.position, block.at)), answers])
            self._joined.seen.append(Seen(self.cells, self.answers.names, columns))
        for place in np.flatnonzero(unusual).tolist():
            self._move(keys[place], int(where[place]), int(row[place]))
            seen[place] = self._add_prediction(block, place)

    def _put(
        self, generation: Generation, prints: Fingerprints, rows: Ints, unusual: Bools, where: Ints, row: Ints
    ) -> tuple[Ints, Ints]:
        """Let usual rows be found, those of one key that comes twice excepted, which `unusual` then has."""
        if unusual.any():
            use, others = np.flatnonzero(~unusual), np.flatnonzero(unusual)
            owners = rows.copy()
            # Their keys may have rows of earlier blocks, which have to move.
            known = generation.index.find(prints.part(others))
            owners[others[known >= 0]] = known[known >= 0]
            owners[use] = generation.index.put(prints.part(use), rows[use])
        else:
            owners = generation.index.put(prints, rows)
        again = owners != rows
        if again.any():
            unusual |= again
            where[again], row[again] = len(self.generations) - 1, owners[again]
            first = owners[again] - rows[0]
            unusual[first[first >= 0]] = True
        return where, row

    def _columns(self, block: Records) -> tuple[Ints, Scalars, Scalars]:
        """Return cells, outputs and scores; the cell is `NO_CELL` where an event is not usual by itself."""
        items, shape = block.items, block.shape
        if block.odd:
            odd = set(block.odd)
            usual = [item for place, item in enumerate(items) if place not in odd]
            some = block._replace(items=usual, odd=[])
            cell = np.full(len(items), NO_CELL, np.int64)
            use = np.setdiff1d(np.arange(len(items)), block.odd)
            cells, outputs, scores = self._columns(some) if usual else (cell[:0], scalars([]), scalars([]))
            cell[use] = cells
            return cell, spread(outputs, use, len(items)), spread(scores, use, len(items))
        cell = self.cells.codes(shape, items)
        return cell, scalars(list(map(attrgetter("output"), items))), scores_of(items, shape)

    def _classes(self, cell: Ints, output: Scalars) -> Ints:
        """Return the numbers of the classes that were answered, -1 for none."""
        found = np.full(cell.size, -1, np.int64)
        kinds = self.cells.kinds_of(cell)
        for number in np.unique(kinds).tolist():
            use = np.flatnonzero(kinds == number)
            if KINDS[number] == "binary" and output.numeric:
                # The numbers 0 and 1 are those of the names "0" and "1".
                found[use] = np.nan_to_num(classes_of_numbers(output.part(use)), nan=-1.0)
            elif KINDS[number]:
                found[use] = self._named_classes(output.part(use), KINDS[number])
        return found

    def _named_classes(self, output: Scalars, kind: str) -> list[int]:
        known: dict[tuple[type, object], int] = {}
        numbers = []
        for value in output:
            key = value.__class__, None if value.__class__ is list else value
            if key not in known:
                name = class_text(value, kind)
                known[key] = -1 if name is None else self.answers.of_row(name)
            numbers.append(known[key])
        return numbers

    def _keep_objects(self, block: Records, rows: Ints, output: Scalars) -> None:
        """Keep what is no number: text and lists that were answered, and the scores of classes."""
        generation = self.generations[-1]
        scores = None
        if "scores" in block.shape.fields and any(rule.scores for rule in self.slow.rules):
            # A thousand classes take a hundred times as much as everything else of a prediction.
            rules, cell = self.slow.series.rules, generation.cell[rows].astype(np.int64)
            codes = np.where(cell == NO_CELL, NO_CELL, generation.cells.series_of(cell)).tolist()
            given = zip(block.column("scores", None), codes, strict=True)
            # Rows without a cell are kept elsewhere.
            scores = [each if code >= 0 and rules[code].scores else None for each, code in given]
        if output.others is None and scores is None:
            return
        others = [None] * rows.size if output.others is None else output.others.tolist()
        for row, other, by_class in zip(rows.tolist(), others, scores or [None] * rows.size, strict=True):
            if other is not None or by_class is not None:
                generation.answers.keep(row, other, by_class)

    def _close(self, generation: Generation, rows: Ints) -> None:
        """Let rows take no label if they were read before feedback was lost."""
        until = self.slow.closed_until
        if until >= 0 and rows.size and int(generation.at[rows[0]]) <= until:
            generation.state[rows[generation.at[rows] <= until]] = CLOSED

    def _add_prediction(self, block: Records, place: int) -> bool:
        item = block.items[place]
        event = item if isinstance(item, Prediction) else decode_value("prediction", block.value_of(place))
        assert isinstance(event, Prediction), "the codec accepts what the narrow type accepts"
        pending = self.slow.add_prediction(event, int(block.position[place]), int(block.at[place]))
        if pending is None:
            return False
        line = int(block.line[place])
        if self.slow.series.rules[pending.series].unlabelled:
            self._joined.seen_objects.append((line, pending))
        else:
            cell = self.cells.code_of(pending.series, pending.slices)
            name = class_text(event.output, self.slow.series.rules[pending.series].classes)
            answer = -1 if name is None else self.answers.of_row(name)
            self._slow_seen.append((line, cell, pending.position, pending.at, answer))
        return True

    # Feedback

    def add_feedback(self, block: Records) -> None:
        """Add labels."""
        keys = block.keys()
        prints = self._printer.of(keys)
        slowly = self._known_slowly(keys)
        truth = scalars(block.column("truth", None))
        source = self._source_codes(block)
        unusual = source < 0
        unusual[block.odd] = True
        if self.slow.engagement and "engagement" in block.shape.fields:
            # A row does not keep it, but a prediction of another model that is read later may be judged by it.
            unusual |= [each is not None for each in block.column("engagement", None)]
        if "retract" in block.shape.fields:
            unusual |= block.column("retract", False)
        # A later label of such a key must not be ahead of it.
        slowly |= _of_same_keys(keys, unusual)
        where, row = self.generations.find(prints, len(self.generations))
        answered = np.zeros(len(keys), np.bool_)
        named = self._named(block)
        for number, generation in enumerate(self.generations):
            use = np.flatnonzero((where == number) & ~slowly)
            if use.size:
                answered[self._label(generation, row[use], use, block, truth, source, named)] = True
        for place in np.flatnonzero(~answered).tolist():
            self._move(keys[place], int(where[place]), int(row[place]))
            item = block.items[place]
            event = item if isinstance(item, Feedback) else decode_value("feedback", block.value_of(place))
            assert isinstance(event, Feedback), "the codec accepts what the narrow type accepts"
            self.slow.add_feedback(event, int(block.position[place]), int(block.at[place]))
        self._collect()

    def _source_codes(self, block: Records) -> Ints:
        """Return the numbers of the label sources, -1 for those beyond what a row can name."""
        if "source" not in block.shape.fields:
            return np.full(len(block.items), self.sources.of_row("default"), np.int64)
        names = block.column("source", "default")
        numbers = {name: self.sources.of_row(name) for name in dict.fromkeys(names)}
        return np.fromiter(map(numbers.__getitem__, names), np.int64, len(names))

    def _named(self, block: Records) -> Ints | None:
        """Return the number of the model that each label names, -1 for none, -2 for one that is not known."""
        if "model" not in block.shape.fields:
            return None
        names = block.column("model", None)
        known = self.slow.series.model_number
        numbers = {name: -1 if name is None else known(name) for name in dict.fromkeys(names)}
        numbers = {name: -2 if name is not None and number < 0 else number for name, number in numbers.items()}
        return np.fromiter(map(numbers.__getitem__, names), np.int64, len(names))

    def _label(
        self,
        generation: Generation,
        rows: Ints,
        use: Ints,
        block: Records,
        truth: Scalars,
        source: Ints,
        named: Ints | None,
    ) -> Ints:
        """Label rows where nothing is unusual; return the places of these labels."""
        label = generation.label
        cell = generation.cell[rows].astype(np.int64)
        horizon, early = generation.cells.reach_of(cell)
        since = block.at[use] - generation.at[rows]
        fits = (generation.state[rows] == WAITS) & (label.position[rows] < 0) & (since >= -early) & (since <= horizon)
        if named is not None:
            fits &= (named[use] == -1) | (named[use] == generation.cells.models_of(cell))
        if not fits.all():
            # All labels of such a key are counted where the first one is, in the order of their log.
            fits &= ~np.isin(rows, rows[~fits])
            rows, use, cell = rows[fits], use[fits], cell[fits]
        position = block.position[use]
        # Written in reverse, so that of several labels of a row the first one is there in the end.
        label.position[rows[::-1]] = position[::-1]
        first = label.position[rows] == position
        if not first.all():
            rows, use, cell, position = rows[first], use[first], cell[first], position[first]
        if not use.size:
            return use
        truths = truth.part(use)
        label.at[rows], label.truth[rows], label.kind[rows] = block.at[use], truths.numbers, truths.kinds
        label.source[rows] = source[use]
        label.named[rows] = False if named is None else named[use] >= 0
        if truths.others is not None:
            for row, other in zip(rows.tolist(), truths.others.tolist(), strict=True):
                if other is not None:
                    label.keep(row, other)
        generation.labelled(rows)
        scores = generation.answers.score[rows]
        kinds = np.where(np.isnan(scores), NOTHING, FLOAT).astype(np.uint8)
        line = np.maximum(block.line[use], self._newest[0].of(generation.position[rows]))
        cell = self._current(generation.cells, cell)
        columns = [line, cell, generation.position[rows], generation.at[rows], position, block.at[use], source[use]]
        columns.append(generation.answers.unit[rows])
        values = generation.answers.outputs(rows), Scalars(scores, kinds), truths, generation.answers.more_of(rows)
        self._joined.outcomes.append(Outcomes(self.cells, self.sources.names, np.array(columns), *values))
        return use

    # The others

    def _known_slowly(self, keys: Sequence[Key]) -> Bools:
        """Return which keys are in the window of objects."""
        known = np.zeros(len(keys), np.bool_)
        for table in self.slow.tables():
            known |= np.fromiter(map(table.__contains__, keys), np.bool_, len(keys))
        return known

    def _move(self, key: Key, where: int, row: int) -> None:
        """Move what is known of a key to the window of objects."""
        if where < 0:
            return
        generation = self.generations[where]
        state = int(generation.state[row])
        if state == MOVED:
            return
        generation.state[row] = MOVED
        cell, label = int(generation.cell[row]), generation.label
        place = np.array([row])
        (output,) = generation.answers.outputs(place)
        _, scores = generation.answers.others_of(row)
        score = float(generation.answers.score[row])
        # A closed row takes no label, so it is as if it had one.
        labelled_by = int(generation.position[row] if state == CLOSED else label.position[row])
        series, values = generation.cells.key_of(cell)
        pending = PendingPrediction(
            key, int(generation.position[row]), int(generation.at[row]), series, output,
            None if isnan(score) else score, scores, values, (None, int(generation.answers.unit[row])),
            labelled_by,
        )  # fmt: skip
        feedback = None
        if labelled_by >= 0 and state == WAITS:
            (truth,) = generation.label.truths(place)
            pending.label(labelled_by, truth, None)
            source = self.sources.names[int(label.source[row])]
            pending.put_in_force(source)
            pending.join()
            model = self.slow.series[series].model if label.named[row] else None
            feedback = PendingFeedback(key, labelled_by, int(label.at[row]), pending.truth, source, model, matched=True)
        self.slow.adopt(pending, feedback)

    def _collect(self) -> None:
        """Take what the window of objects has joined."""
        self._collect_seen()
        joined = self._joined
        outcomes, pairs, seen_pairs = self.slow.take()
        joined.pairs.extend(self._with_lines(pairs, [(pair.live, pair.shadow) for pair in pairs]))
        joined.seen_pairs.extend(self._with_lines(seen_pairs, seen_pairs))
        if outcomes:
            joined.outcomes.append(self._columns_of(outcomes))

    def _collect_seen(self) -> None:
        if self._slow_seen:
            self._joined.seen.append(Seen(self.cells, self.answers.names, np.array(self._slow_seen, np.int64).T))
            self._slow_seen = []

    def _columns_of(self, outcomes: Sequence[Outcome]) -> Outcomes:
        pending = [outcome.prediction for outcome in outcomes]
        more = [(each.scores, each.engagement, each.latency_ms) for each in pending]
        columns = [
            self._lines_of(pending),
            [self.cells.code_of(each.series, each.slices) for each in pending],
            [each.position for each in pending],
            [each.at for each in pending],
            [each.labelled_by for each in pending],
            [outcome.labelled_at for outcome in outcomes],
            [self.sources.add(outcome.source) for outcome in outcomes],
            [each.unit for each in pending],
        ]
        return Outcomes(
            self.cells,
            self.sources.names,
            np.array(columns, np.int64),
            scalars([each.output for each in pending]),
            score_column([each.score for each in pending]),
            scalars([each.truth for each in pending]),
            objects(more) if any(each != NOTHING_MORE for each in more) else None,
        )

    def _with_lines(
        self, entries: Sequence[_Entry], pairs: Sequence[tuple[PendingPrediction, PendingPrediction]]
    ) -> Iterator[tuple[int, _Entry]]:
        """Yield entries with the later lines of their two predictions."""
        one, other = (self._lines_of([pair[place] for pair in pairs]) for place in (0, 1))
        yield from zip(np.maximum(one, other).tolist(), entries, strict=True)

    def _lines_of(self, pending: Sequence[PendingPrediction]) -> Ints:
        return self.lines_of([each.position for each in pending], [each.labelled_by for each in pending])

    def lines_of(self, predictions: Sequence[int], feedback: Sequence[int]) -> Ints:
        """Return the later line of each two positions, of those that were added last; -1 where neither is."""
        newest, labels = self._newest
        return np.maximum(newest.of(_ints(predictions)), labels.of(_ints(feedback)))

    def present(self, rows: _Rows) -> _Rows:
        """Return rows with the present cells."""
        if rows.cells is self.cells:
            return rows
        columns = rows.columns.copy()
        columns[CELL] = self._current(rows.cells, columns[CELL])
        return msgspec.structs.replace(rows, cells=self.cells, columns=columns)

    # Snapshots

    def save(self) -> SavedBatchWindow:
        """Return everything but what was joined, which must have been taken."""
        assert not any(self._joined), "something joined was not taken"
        (_, *older), kept, in_memory = self.generations.save(self.cells, self._current)
        # Last, because cells of other tables were added to the present ones.
        slow, cells = self.slow.save(), self.cells.save()
        names = self.sources.names, self.answers.names
        return SavedBatchWindow(slow, cells, in_memory, names[0], self._predictions_at, older, kept, names[1])

    def load(self, saved: SavedBatchWindow, feedback: int) -> None:
        """Load what `save` returned into a new window of the same rules.

        Args:
            saved: What was saved.
            feedback: The position in the feedback log at which it was saved.

        Raises:
            DamagedRows: Rows outside memory are not those that were saved.
        """
        self.slow.load(saved.slow)
        self.cells.load(saved.cells)
        tables = [self.cells]
        for cells in saved.older:
            tables.append(Cells(self.slow.series, self.dimensions))
            tables[-1].load(cells)
        self.generations.load(tables, saved.kept, saved.generations, feedback)
        self.sources, self.answers = SourceNames(saved.sources), SourceNames(saved.answers)
        self._predictions_at = saved.predictions_at

    # What is not joined any more

    def witness(self, position: Ints, at: Ints) -> None:
        """Note records of the prediction log: they may show that earlier feedback is unmatched."""
        self.slow.witness_all(position, at)
        self._predictions_at = int(at[-1])

    def expire(self) -> None:
        """Evict feedback that no future prediction can belong to; what is evicted unmatched is counted."""
        self.slow.expire(self._predictions_at)

    def forget_sources(self) -> None:
        """Forget label sources that no row names; to be called where nothing is joined that names one."""
        self.sources = self.sources.fewer()

    def forget_series(self, tables: Iterable[Cells], pending: Iterable[PendingPrediction]) -> None:
        """Forget series that no row has, neither here nor in these tables and predictions."""
        used = self.slow.series_in_use().union(each.series for each in pending)
        every = [self.cells, *tables, *(generation.cells for generation in self.generations)]
        for table in {id(table): table for table in every}.values():
            used |= table.series_in_use
        self.slow.series.keep(used)

    def evict(self, predictions_at: int, feedback_at: int) -> None:
        """Evict what no future record can belong to."""
        self.slow.evict(predictions_at, feedback_at)
        self.generations.drop(min(predictions_at, feedback_at) - self._reach_ms)

    def close_unanswered(self, until: int) -> None:
        """Label no pending prediction any more, and none that is read up to the join clock `until`."""
        self.slow.close_unanswered(until)
        for generation in self.generations:
            rows = np.arange(generation.size)
            waits = (generation.state[rows] == WAITS) & (generation.label.position[rows] < 0)
            generation.state[rows[waits]] = CLOSED


class SavedBatchWindow(msgspec.Struct, frozen=True):
    """A saved `BatchWindow`. Its generations in memory are under one table of cells; `kept` ones may be under older."""

    slow: SavedWindow
    cells: SavedCells
    generations: list[SavedGeneration]
    sources: list[str]
    predictions_at: int
    older: list[SavedCells] = []
    kept: list[SavedKept] = []
    answers: list[str] = []


class _Lines(NamedTuple):
    """The positions of a block's records, which rise, and their lines."""

    positions: Ints
    lines: Ints

    def of(self, position: Ints) -> Ints:
        """Return the lines of these positions, -1 for those that are not in the block."""
        if not self.positions.size:
            return np.full_like(position, -1)
        place = np.minimum(np.searchsorted(self.positions, position), self.positions.size - 1)
        return np.where(self.positions[place] == position, self.lines[place], -1)


def _of_same_keys(keys: Sequence[Key], some: Bools) -> Bools:
    """Return which entries have the key of one that is selected."""
    if not some.any():
        return some
    selected = {keys[place] for place in np.flatnonzero(some).tolist()}
    return np.fromiter(map(selected.__contains__, keys), np.bool_, len(keys))


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, np.int64)
