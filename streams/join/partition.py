"""Join one pair of source partitions, and return batches for the ledger.

All drivers use this module. They differ only in what decides which records are read next, and when a batch ends:
`streams.join.source_reader` for two logs that grow, `streams.join.line_cutter` for records that are in one order
already. Both pass blocks of records of one log; a *line* numbers the events of both in the order in which they were
passed, with room for those of a packed record, and a batch takes what came of the events up to a line.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import numpy as np

from actions.replica_watch import ReplicaWatch, SavedWatch
from detectors.base import Ints
from streams.config.resolved import CONFIG_DIGITS, Config
from streams.config.units import DAY_MS
from streams.join.answers import Answers
from streams.join.pending import EVERYTHING, Pending, SavedPending
from streams.join.rows import PartBuilder, counted_rows
from streams.ledger.coverage import ORIGIN, Corner
from streams.ledger.digests import RangeDigest, SavedDigest
from streams.ledger.places import INDEX_BITS, place_of, rising
from streams.ledger.records import Batch, Part, ReplicaFacts, replica_facts
from streams.window.batch_window import BatchWindow, BeyondMemory, SavedBatchWindow
from streams.window.decoding import Block, Shape, times_of
from streams.window.fingerprints import PUBLIC
from streams.window.records import Records
from streams.window.series import window_rule
from streams.window.tally import Row, Tally, merged
from unship.events import Feedback, Prediction
from unship.rejections import RejectCode, Rejection
from unship.topics import EVENT_TOPICS, SOURCES

PREDICTIONS: Final = 0
FEEDBACK: Final = 1

NO_OUTPUT: Final = Rejection(RejectCode.BAD_EVENT, "Object missing required field `output` - at `$`")
"""Why a prediction without an answer is rejected where a loss needs it."""

KINDS: Final = tuple(EVENT_TOPICS[topic] for topic in SOURCES)


class Raw(NamedTuple):
    """A record of a source partition as the log holds it."""

    offset: int
    append_ts: int
    value: bytes | None


class Given(NamedTuple):
    """Consecutive records of one log, with what they were decoded to: an event each, or several in a packed one.

    `at` is the join clock of their log at each: the running maximum of append times, in milliseconds.
    """

    offsets: Ints
    append_ts: Ints
    values: list[bytes]
    block: Block
    shape: Shape
    at: Ints
    line: Ints

    @property
    def positions(self) -> Ints:
        """The positions of the events, which rise along the log."""
        return self._of_events(self.offsets << INDEX_BITS)

    @property
    def lines(self) -> Ints:
        """The lines of the events."""
        return self._of_events(self.line)

    def _of_events(self, column: Ints) -> Ints:
        return column if self.block.inner is None else self.block.records_of(column) | self.block.inner


class SavedJoin(msgspec.Struct, frozen=True):
    """A saved `PartitionJoin`."""

    base: Corner
    end: Corner
    window: SavedBatchWindow
    pending: SavedPending
    replicas: SavedWatch
    digests: tuple[SavedDigest, SavedDigest]
    tally: list[Row]


class PartitionJoin:
    """Joins one pair of source partitions. `base` and `end` are the corners of the last batch and of now.

    `secret` keeps ids from being chosen so that they are mistaken for others, and `beyond` is where rows go that do not
    fit into memory.
    """

    def __init__(
        self,
        config: Config,
        *,
        partition: int = 0,
        incarnation: int = 0,
        secret: bytes = PUBLIC,
        beyond: BeyondMemory | None = None,
    ) -> None:
        self.config = config
        self.partition = partition
        self.incarnation = incarnation
        self.base = self.end = ORIGIN
        self.replicas = ReplicaWatch(config.places.replicas, config.models)
        self.tally = Tally()
        rules = {name: window_rule(model) for name, model in config.models.items()}
        default = window_rule(config.defaults)
        self.window = BatchWindow(rules, default, self.tally, secret, beyond)
        self.pending = Pending(self.window)
        self._config = config.digest()[:CONFIG_DIGITS]
        self._answers = Answers()
        self._digests = (RangeDigest(), RangeDigest())

    # Reading

    def take(self, side: int, given: Given, *, shared: bool = False) -> list[tuple[int, Rejection]]:
        """Join the next records of a log; return the numbers and the rejections of the events that are rejected.

        Args:
            side: `PREDICTIONS` or `FEEDBACK`.
            given: The records; offsets of a side rise.
            shared: Whether both logs have one clock and offsets are lines; then `expire` is called after both.
        """
        if side == PREDICTIONS and not shared:
            self.window.witness(given.offsets << INDEX_BITS, given.at)
        rejected, positions = _rejected(given, self._needs_output), given.positions
        self.window.note_lines(side, positions, given.lines)
        for place, why in rejected:
            self.tally.add(why.code, _place(side, int(positions[place])))
        records = _accepted(given, positions, rejected)
        if records.items and side == PREDICTIONS:
            seen = self.window.add_predictions(records)
            if "replica" in records.shape.fields or records.odd:
                self._answers.note(records, seen)
        elif records.items:
            self._labelled(records)
        if not shared:
            self.window.expire()
        self.pending.take(side, given, shared=shared)
        return rejected

    def expire(self) -> None:
        """Evict feedback that no later prediction can belong to, where both logs have one clock."""
        self.window.expire()
        self.pending.take_counts(shared=True)

    def _needs_output(self, model: str) -> bool:
        return self.config.of(model).needs_truth

    def _labelled(self, records: Records) -> None:
        if self.window.slow.engagement or not records.odd:
            self.window.add_feedback(records)
            return
        # No model has a loss of engagement, so feedback without a truth is unusable.
        unusable = [place for place in records.odd if _has_no_truth(records.items[place])]
        for place in unusable:
            self.tally.add(RejectCode.UNUSABLE_TRUTH, (-1, int(records.position[place])))
        records = records.without(unusable)
        if records.items:
            self.window.add_feedback(records)

    def skip(self, side: int, position: int, *, lost: int = 0) -> None:
        """Continue one log at a position, below which no record follows; the `lost` records among them are counted."""
        self.end = (position, self.end[1]) if side == PREDICTIONS else (self.end[0], position)
        if lost:
            self.tally.add(RejectCode.HOLE, _place(side, rising(position - 1)), lost)

    def settle(self, line: int | None = None) -> None:
        """Note that the next batch begins after a line, or after everything that was read."""
        for side, (values, end) in enumerate(self.pending.settle(line)):
            self._digests[side].extend(values)
            if end >= 0:
                self.end = (end, self.end[1]) if side == PREDICTIONS else (self.end[0], end)
        self._answers.apply(self.replicas, self.partition, line)

    def counts(self) -> Counter[str]:
        """Return the counts, by reason, of what was not used and is in no batch yet."""
        return self.pending.counts() + self.tally.total() + self.window.slow.unused()

    # Batches

    @property
    def rows(self) -> int:
        """Return how many rows of outcomes and predictions the next batch would have."""
        return self.pending.rows

    @property
    def waiting(self) -> int:
        """Return how many rows the next batch would have, counts included."""
        return self.rows + len(self.tally) + len(self.pending.counted)

    def line_beyond(self, last: int = EVERYTHING) -> int | None:
        """Return the first line up to `last` that a batch has no room for, None if it has."""
        return self.pending.line_beyond(last, len(self.tally))

    def batches(
        self, clock: int, ledger_partitions: int, route: Callable[[str], int], line: int | None = None
    ) -> list[Batch]:
        """Return everything up to a line since the last call, one batch for each ledger partition.

        All of them are between the same two corners, also those without a row, so that each fold's coverage grows by
        what was read. Counts belong to no model; they are in the batch of the first partition.

        Args:
            clock: The time up to which the partition was read.
            ledger_partitions: How many partitions the ledger has.
            route: The ledger partition of a model.
            line: The last line that the batch may hold; everything if None.
        """
        self.settle(line)
        parts: list[list[Part]] = [[] for _ in range(ledger_partitions)]
        rows = self.pending.take_counted(line)
        expected = self.pending.take_expected(line)
        if expected is not None:
            for part in expected:
                parts[route(part.model)].append(part)
        for model, joined in self.pending.by_model(line) if expected is None else ():
            builder = PartBuilder(self.config.of(model), self.window.slow.series)
            parts[route(model)].append(builder.part(model, joined))
            rows += builder.counted.take()
        rows = [_placed(row) for row in merged((*rows, *self.tally.take()))]
        counted = [counted_rows(rows if k == 0 else ()) for k in range(ledger_partitions)]
        digest = hashlib.sha256(b"".join(each.take() for each in self._digests)).hexdigest()
        base, self.base = self.base, self.end
        return [
            Batch(self.partition, self.incarnation, self._config, base, self.end, clock, digest, parts[k], counted[k])
            for k in range(ledger_partitions)
        ]

    def expect(self, lines: list[int]) -> None:
        """Expect that the next batches end with these lines: then all of them are built together."""
        self.pending.expect(lines, self.config.of)

    def batch(self, clock: int, line: int | None = None) -> Batch:
        """Return everything up to a line since the last call as one batch, for a ledger of one partition."""
        return self.batches(clock, 1, lambda model: 0, line)[0]

    def facts(self, clock: int) -> list[ReplicaFacts]:
        """Return the replica facts from the answers settled since the last call, some for each model."""
        return replica_facts(clock, self.replicas.take())

    def drop(self) -> None:
        """Drop what was joined: it is in the ledger already, and the records were read only to fill the window."""
        self.settle()
        self.pending.drop()
        self.tally.take()
        self.replicas.take()
        for digest in self._digests:
            digest.take()

    def begin_at(self, end: Corner) -> None:
        """Let the next batch begin at a corner, with nothing that was joined below it."""
        self.drop()
        self.base = self.end = end

    # Snapshots

    def save(self) -> SavedJoin:
        """Return everything needed to continue with the next record of either log."""
        predictions, feedback = self._digests
        # First, because it may add cells of earlier tables to the window's present one.
        pending = self.pending.save()
        return SavedJoin(
            self.base,
            self.end,
            self.window.save(),
            pending,
            self.replicas.save(),
            (predictions.save(), feedback.save()),
            self.tally.save(),
        )

    def load(self, saved: SavedJoin) -> None:
        """Load what `save` returned into a new join of the same configuration.

        Raises:
            DamagedRows: Rows outside memory are not those that were saved.
        """
        self.base, self.end = saved.base, saved.end
        self.window.load(saved.window, rising(saved.end[1]))
        self.pending.load(saved.pending, self.window.cells, self.window.sources.names, self.window.answers.names)
        self.replicas.load(saved.replicas)
        for digest, kept in zip(self._digests, saved.digests, strict=True):
            digest.load(kept)
        self.tally.load(saved.tally)


def _has_no_truth(feedback: Feedback) -> bool:
    return feedback.truth is None and not feedback.retract


def _place(side: int, position: int) -> tuple[int, int]:
    return (position, -1) if side == PREDICTIONS else (-1, position)


def _placed(row: Row) -> Row:
    """Return a change of a count with places instead of positions."""
    reason, change, prediction, feedback = row
    return reason, change, place_of(prediction), place_of(feedback)


def _rejected(given: Given, needs_output: Callable[[str], bool]) -> list[tuple[int, Rejection]]:
    """Return the places and the rejections of records that are no events, or of a time that does not fit."""
    items = given.block.items
    found = []
    for place in given.block.odd:
        item = items[place]
        if isinstance(item, Rejection):
            found.append((place, item))
        elif isinstance(item, Prediction) and item.output is None and needs_output(item.model):
            found.append((place, NO_OUTPUT))
    known = dict(found)
    ts, append_ts = times_of(items, [given.shape], given.block.odd), given.block.records_of(given.append_ts)
    if ts is None and int(append_ts.min()) >= 0:
        return found
    ts = np.full_like(append_ts, -1) if ts is None else ts
    unfit = (ts > append_ts + DAY_MS) | ((ts < 0) & (append_ts < 0))
    for place in np.flatnonzero(unfit).tolist():
        if place not in known:
            code = refusal(None if ts[place] < 0 else int(ts[place]), int(append_ts[place]))
            assert code is not None, place
            found.append((place, Rejection(code, "more than a day after its append time")))
    return sorted(found, key=lambda each: each[0])


def _accepted(given: Given, positions: Ints, rejected: list[tuple[int, Rejection]]) -> Records:
    """Return what is an event."""
    block = given.block
    at = block.records_of(given.at)
    records = Records(block.items, block.odd, given.shape, block.values, positions, at, given.lines)
    return records.without([place for place, _ in rejected]) if rejected else records


def refusal(ts: int | None, append_ts: int) -> RejectCode | None:
    """Return why an event's own time (ms) does not fit the append time of its record, None if it fits.

    >>> refusal(5_000, 4_000), refusal(4_000 + DAY_MS + 1, 4_000).value, refusal(None, -1).value
    (None, 'FUTURE_TS', 'BAD_TIME')
    """
    if ts is not None:
        return RejectCode.FUTURE_TS if ts > append_ts + DAY_MS else None
    # Only in a recording without append times: no line before it had a time.
    return RejectCode.BAD_TIME if append_ts < 0 else None
