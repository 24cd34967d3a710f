"""Read one pair of source partitions from a committed position, and return batches for the ledger.

The reader is pure: the driver passes it records as they are fetched and appends what it returns. It may crash at any
instant, continue after a rebalance, or run twice; the coverage in the fold (`streams.ledger.coverage`) drops what is
repeated, under three rules of the driver:

* a position is committed only after every ledger partition has acknowledged all batches up to it;
* after any error in appending or committing, the reader is dropped and a new one starts from the committed position;
* an offset always names the same bytes. The position has fingerprints of the last records below it, so that a log that
  was truncated or created again is noticed.

A new reader first fills the join's window again: it reads from the *low water*, below which no record can meet a future
one, up to the committed corner, and returns nothing of that. With a and b the join clocks of predictions and
feedback, H the longest horizon and E the longest early time of any model, records below the low water are older than
min(b - H, a - H - E) for predictions and min(a - E, b - H - E, a - H - 2 E) for feedback, and older than the beginning
of the intervals that these times are in: of an interval only the first records of a request are kept
(`streams.window.pending_predictions`, `streams.window.early_labels`).

The two logs are read in the order of their append times as far as both are fetched, so that which log was fetched first
changes only the corners.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Final, cast

import msgspec
import numpy as np

from detectors.base import Ints
from streams.config.resolved import Config
from streams.config.units import NEVER
from streams.join.dead_letters import DeadLetter, dead_letter
from streams.join.partition import FEEDBACK, KINDS, PREDICTIONS, Given, PartitionJoin, Raw, SavedJoin
from streams.join.source_records import SourceRecords, joined
from streams.ledger.coverage import ORIGIN, Corner
from streams.ledger.records import Batch, ReplicaFacts
from streams.topics.partitioner import partitions_of_ids
from streams.window.batch_window import BeyondMemory
from streams.window.decoding import Block, NarrowDecoder, decoded_records, source_decoders, with_packed
from streams.window.fingerprints import PUBLIC
from unship.rejections import RejectCode, Rejection
from unship.topics import SOURCES

SAMPLE_RECORDS: Final = 512
"""Places that the low water can fall on: one in so many records of a log."""

WAITING_MAX: Final = 20_000
"""How many records of one log may wait for the other one; then the driver stops fetching it."""

WAITING_BYTES_MAX: Final = 8 * 1_048_576
"""About how many bytes of one log may: a packed record holds many events."""

TAKEN_BYTES_MAX: Final = 2 * 1_048_576
"""About so many bytes are joined at once."""

MISROUTED: Final = "its id does not belong to partition {} of {}; librdkafka clients need partitioner=murmur2_random"


class Fingerprint(msgspec.Struct, frozen=True):
    """What identifies a record: at its offset, another record has another fingerprint."""

    offset: int
    append_ts: int
    digest: str


class Position(msgspec.Struct, frozen=True):
    """How far a reader has read. To fill the window, a new one begins at `low`, with the join clocks `low_clocks`.

    `clocks` are the join clocks at `end`, and `last` the fingerprints of the newest records below it, of predictions
    and of feedback; None where nothing was read yet.
    """

    partitions: int
    incarnation: int = 0
    end: Corner = ORIGIN
    low: Corner = ORIGIN
    low_clocks: tuple[int, int] = (-1, -1)
    last: tuple[Fingerprint | None, Fingerprint | None] = (None, None)


class SavedSide(msgspec.Struct, frozen=True):
    """Where one log was read to: the next offset, the join clock before it, and where a window can be filled from."""

    next: int
    clock: int
    samples: list[tuple[int, int]]
    since_sample: int


class SavedReader(msgspec.Struct, frozen=True):
    """A saved `SourceReader`, at its position: another one may fill its window from here."""

    position: Position
    sides: tuple[SavedSide, SavedSide]
    gone: bool
    join: SavedJoin


class _Side:
    """One of the two logs: its queue of records to be read, and its join clock."""

    def __init__(self, low: int, clock: int, decoder: NarrowDecoder) -> None:
        self.decoder = decoder
        self.queue: deque[SourceRecords] = deque()
        self.queued = 0
        self.bytes = 0
        self.clock = clock
        self.next = low
        self.last: Raw | None = None
        # (offset, join clock before it): where a window can be filled from, oldest first.
        self.samples: deque[tuple[int, int]] = deque([(low, clock)])
        self.since_sample = 0

    def give(self, records: SourceRecords) -> None:
        self.queue.append(records)
        self.queued += len(records.values)
        self.bytes += sum(map(len, _without_none(records.values)))

    @property
    def end(self) -> int:
        """The offset after the last record that is queued."""
        return int(self.queue[-1].offsets[-1]) + 1 if self.queue else self.next

    def clocks(self, records_max: int) -> Ints:
        """Return the join clock at each of the next records."""
        found: list[Ints] = []
        size = 0
        for records in self.queue:
            found.append(records.append_ts[: records_max - size])
            size += found[-1].size
            if size == records_max:
                break
        return self.clocks_at(np.concatenate(found) if found else np.zeros(0, np.int64))

    def clocks_at(self, append_ts: Ints) -> Ints:
        """Return the join clock at each of the records with these append times, which are the next ones."""
        return np.maximum(np.maximum.accumulate(append_ts), self.clock)

    def take(self, count: int) -> SourceRecords:
        """Remove the next records, `count` of them, and note that they were read."""
        taken: list[SourceRecords] = []
        left = count
        while left:
            records = self.queue[0]
            if len(records.values) <= left:
                taken.append(self.queue.popleft())
            else:
                taken.append(records.part(0, left))
                self.queue[0] = records.part(left, len(records.values))
            left -= len(taken[-1].values)
        self.queued -= count
        self.bytes -= self.bytes * count // (self.queued + count)
        return joined(taken)

    def passed(self, records: SourceRecords, at: Ints) -> None:
        """Note records that were read, with the join clock at each."""
        for place in range(SAMPLE_RECORDS - self.since_sample, at.size, SAMPLE_RECORDS):
            before = int(at[place - 1]) if place else self.clock
            self.samples.append((int(records.offsets[place]), before))
        self.since_sample = (self.since_sample + at.size - 1) % SAMPLE_RECORDS + 1
        self.clock = int(at[-1])
        offset = int(records.offsets[-1])
        self.next, self.last = offset + 1, Raw(offset, int(records.append_ts[-1]), records.values[-1])

    def save(self) -> SavedSide:
        return SavedSide(self.next, self.clock, list(self.samples), self.since_sample)

    def load(self, saved: SavedSide) -> None:
        self.next, self.clock, self.since_sample = saved.next, saved.clock, saved.since_sample
        self.samples = deque(saved.samples)

    def low_water(self, oldest_ms: int) -> tuple[int, int]:
        """Return the newest sample below which every record is older than `oldest_ms`, and drop those before it."""
        while len(self.samples) > 1 and self.samples[1][1] < oldest_ms:
            self.samples.popleft()
        return self.samples[0]


class SourceReader:
    """Reads one partition of both source topics; see the module.

    Args:
        config: The configuration in force.
        partition: Number of the partition, the same in both topics.
        position: The committed position; for the first reader, the origin with the number of partitions.
        ledger_partitions: Number of partitions of the ledger.
        route: The ledger partition of a model.
        secret: Keeps ids from being chosen so that they are mistaken for others.
        beyond: Where rows of the window go that do not fit into memory; None for nowhere.
        in_pieces: Whether batches end where a ledger record has no room for more; then `flush_in_pieces` returns all.
    """

    fall_back_ms = 1_000
    """How far append times may go back where another broker becomes leader.

    After a loss of feedback the join clock may be lower by that, and predictions that were labelled must stay closed.
    """

    def __init__(
        self,
        config: Config,
        partition: int,
        position: Position,
        *,
        ledger_partitions: int = 1,
        route: Callable[[str], int] = lambda model: 0,
        secret: bytes = PUBLIC,
        beyond: BeyondMemory | None = None,
        in_pieces: bool = False,
    ) -> None:
        self.partition = partition
        self.partitions = position.partitions
        self.incarnation = position.incarnation
        self.dead: list[DeadLetter] = []
        self._join = PartitionJoin(
            config, partition=partition, incarnation=position.incarnation, secret=secret, beyond=beyond
        )
        self._ledger_partitions = ledger_partitions
        self._route = route
        begins = zip(position.low, position.low_clocks, source_decoders(), strict=True)
        self._sides = tuple(_Side(low, clock, decoder) for low, clock, decoder in begins)
        self._committed = position
        self._target: Corner | None = position.end
        self._gone = False
        self._lost = [0, 0]
        self._full: list[tuple[int, list[Batch]]] | None = [] if in_pieces else None
        self._end_of_filling()

    # Reading

    @property
    def began(self) -> Position:
        """Return the committed position that it began from."""
        return self._committed

    @property
    def filling(self) -> bool:
        """Return whether the window is still being filled with records whose outcomes are in the ledger already."""
        return self._target is not None

    def next_offset(self, side: int) -> int:
        """Return the offset of the next record of a log to pass to `give`."""
        log = self._sides[side]
        return log.end if log.queue else max(log.next, self._lost[side])

    def queued(self, side: int) -> int:
        """Return how many records of a log wait to be read."""
        return self._sides[side].queued

    def has_room(self, side: int) -> bool:
        """Return whether more records of a log may be passed to `give` now."""
        return self._sides[side].queued < WAITING_MAX and self._sides[side].bytes < WAITING_BYTES_MAX

    def give(self, side: int, records: SourceRecords) -> None:
        """Queue records of one log in the order of their offsets; those that were queued before are skipped."""
        begin = int(np.searchsorted(records.offsets, self.next_offset(side)))
        if begin < len(records.values):
            self._sides[side].give(records.part(begin, len(records.values)) if begin else records)

    def skip(self, side: int, offset: int, *, lost: bool = False) -> None:
        """Continue a log at `offset`: the records before it are transaction markers, or were deleted.

        If they were `lost`, they are counted, one for each offset. All records queued before must have been read.
        """
        log = self._sides[side]
        assert not log.queue or int(log.queue[0].offsets[0]) >= offset, "records wait that come before"
        if self._target is not None and offset > self._target[side]:
            # Offsets from the target on are counted when the window is full.
            if lost:
                self._lost[side] = max(self._lost[side], offset)
            offset = self._target[side]
        if offset <= log.next:
            return
        if lost and side == FEEDBACK:
            # How much time is lost is unknown until the next feedback is read.
            self._gone = True
            self._join.window.close_unanswered(NEVER)
        if not self.filling:
            self._join.skip(side, offset, lost=offset - log.next if lost else 0)
        log.next = offset
        self._end_of_filling()

    def advance(self, caught_up: tuple[bool, bool], records_max: int = 4_096, *, fill_only: bool = False) -> int:
        """Join queued records, oldest first; return how many were read.

        Args:
            caught_up: Whether all records of each log are queued: only then may the other one be read further.
            records_max: How many records to read at most.
            fill_only: Whether to stop when the window is full.
        """
        records_max = min(records_max, self._records_at_once())
        read = 0
        while read < records_max and any(counts := self._oldest(caught_up, records_max - read)):
            for side, count in enumerate(counts):
                if count:
                    self._read(side, self._sides[side].take(count))
            read += sum(counts)
            self._end_of_filling()
            if fill_only and not self.filling:
                break
        return read

    def _records_at_once(self) -> int:
        """Return how many records have about as many bytes as may be joined at once."""
        waiting = sum(side.bytes for side in self._sides)
        return max(TAKEN_BYTES_MAX * sum(side.queued for side in self._sides) // waiting, 1) if waiting else 1

    def _oldest(self, caught_up: tuple[bool, bool], records_max: int) -> tuple[int, int]:
        """Return how many records of each log are next in the order of append times, as far as that is known."""
        if self._target is not None:
            self._pass_holes(self._target)
        predictions, feedback = (side.clocks(records_max) for side in self._sides)
        if self._target is not None:
            # Fill the window up to the corner before anything above it is read.
            below = [self._below(side, times.size) for side, times in enumerate((predictions, feedback))]
            predictions, feedback = predictions[: below[0]], feedback[: below[1]]
            full = [side.next >= end for side, end in zip(self._sides, self._target, strict=True)]
            caught_up = (full[0], full[1])
        known = NEVER
        for side, times in enumerate((predictions, feedback)):
            if not times.size and not caught_up[side]:
                # The next record of this log may be older than all of the other one.
                return 0, 0
            if times.size == self._sides[side].queued and not caught_up[side]:
                known = min(known, int(times[-1]))
        merged = np.concatenate([predictions, feedback])
        order = np.argsort(merged, kind="stable")[:records_max]
        order = order[merged[order] <= known]
        if self._gone and (order >= predictions.size).any():
            # The next feedback decides which predictions are closed, so those behind it are read after it.
            order = order[: int((order >= predictions.size).argmax()) + 1]
        of_predictions = int((order < predictions.size).sum())
        return of_predictions, order.size - of_predictions

    def _pass_holes(self, target: Corner) -> None:
        """Go to the corner where no record is left before it: what was there is no record, such as the end of a
        transaction.
        """
        for side, end in zip(self._sides, target, strict=True):
            if side.next < end and side.queue and int(side.queue[0].offsets[0]) >= end:
                side.next = end
        self._end_of_filling()

    def _below(self, side: int, count: int) -> int:
        """Return how many of the next records are below the corner that the window is filled up to."""
        assert self._target is not None, "the window is full"
        found = 0
        for records in self._sides[side].queue:
            inside = int(np.searchsorted(records.offsets, self._target[side]))
            found += inside
            if inside < len(records.values) or found >= count:
                break
        return min(found, count)

    def _read(self, side: int, records: SourceRecords) -> None:
        log, join = self._sides[side], self._join
        at = log.clocks_at(records.append_ts)
        if self._gone and side == FEEDBACK:
            self._gone = False
            join.window.close_unanswered(int(at[0]) + join.window.slow.early.early_ms + self.fall_back_ms)
        decoder = log.decoder
        block, packed = decoded_records(decoder, KINDS[side], records.values)
        block = self._routed(with_packed(block, packed))
        values = _without_none(records.values)
        line = join.pending.next_lines(len(values))
        shape = decoder.shape_of(KINDS[side])
        rejected = join.take(side, Given(records.offsets, records.append_ts, values, block, shape, at, line))
        if self.filling:
            join.drop()
        else:
            self._cut_full(side, at, line)
            join.settle()
            self.dead += [self._dead_letter(side, records, block, number, why) for number, why in rejected]
        log.passed(records, at)

    def _dead_letter(self, side: int, records: SourceRecords, block: Block, number: int, why: Rejection) -> DeadLetter:
        place = number if block.record is None else int(block.record[number])
        index = 0 if block.inner is None else int(block.inner[number])
        offset = int(records.offsets[place])
        return dead_letter(SOURCES[side], self.partition, offset, records.values[place], why, index)

    def _routed(self, block: Block) -> Block:
        """Return a block with a rejection in place of each event that belongs to another partition."""
        if self.partitions == 1:
            return block
        rejected = {place for place in block.odd if isinstance(block.items[place], Rejection)}
        good = [place for place in range(len(block.items)) if place not in rejected] if rejected else None
        items = block.items if good is None else [block.items[place] for place in good]
        if not items:
            return block
        places = partitions_of_ids(list(map(attrgetter("id"), items)), self.partitions)
        misrouted = np.flatnonzero(places != self.partition).tolist()
        if not misrouted:
            return block
        why = Rejection(RejectCode.MISROUTED, MISROUTED.format(self.partition, self.partitions))
        for number in misrouted:
            place = number if good is None else good[number]
            block.items[place] = why
            rejected.add(place)
        return block._replace(odd=sorted({*block.odd, *rejected}))

    def _end_of_filling(self) -> None:
        if self._target is None:
            return
        if all(side.next >= end for side, end in zip(self._sides, self._target, strict=True)):
            self._join.begin_at(self._target)
            self._target = None
            for side, offset in enumerate(self._lost):
                self.skip(side, offset, lost=True)

    # Batches

    @property
    def waiting(self) -> int:
        """Return how many rows the next batches would have."""
        return 0 if self.filling else self._join.waiting + sum(rows for rows, _ in self._full or ())

    @property
    def moved(self) -> bool:
        """Return whether anything was read since the last batches."""
        return not self.filling and (self._join.base != self._join.end or bool(self._full))

    def flush(self, stated: tuple[int, int] = (-1, -1)) -> list[Batch]:
        """Return a batch for each ledger partition, with everything that was read since the last call.

        Args:
            stated: For each log that was read to its end, a time (ms) that every later record of it will reach; -1 for
                a log with more records. So an idle log does not stop the clock.
        """
        assert not self.filling, "the window is not full yet"
        clocks = [max(side.clock, at) for side, at in zip(self._sides, stated, strict=True)]
        self._join.window.evict(self._sides[PREDICTIONS].clock, self._sides[FEEDBACK].clock)
        return self._join.batches(min(clocks), self._ledger_partitions, self._route)

    def flush_in_pieces(self, stated: tuple[int, int] = (-1, -1)) -> list[list[Batch]]:
        """Return the batches of `flush` behind those that were full before, each with a batch for each partition."""
        pieces = [*(batches for _, batches in self._full or ()), self.flush(stated)]
        if self._full:
            self._full = []
        return pieces

    def _cut_full(self, side: int, at: Ints, line: Ints) -> None:
        """End batches that have no room for more, while records of a log are joined and not noted as read yet."""
        while self._full is not None and (beyond := self._join.line_beyond()) is not None:
            read = int(np.searchsorted(line, beyond - 1, side="right"))
            mine = int(at[read - 1]) if read else self._sides[side].clock
            clock, rows = min(mine, self._sides[1 - side].clock), self._join.waiting
            batches = self._join.batches(clock, self._ledger_partitions, self._route, beyond - 1)
            self._full.append((rows - self._join.waiting, batches))

    def replica_facts(self) -> list[ReplicaFacts]:
        """Return the replica facts from the answers read since the last call, one record for each model.

        The driver appends each after the batch of its ledger partition. They have places, but no clock.
        """
        assert not self.filling, "the window is not full yet"
        return self._join.facts(-1)

    def position(self) -> Position:
        """Return what to commit once everything that `flush` returned so far is acknowledged."""
        assert not self.moved, "the position is that of the last batches"
        a, b = (side.clock for side in self._sides)
        window = self._join.window.slow
        horizon, early = max(rule.horizon_ms for rule in window.rules), window.early.early_ms
        # Whether feedback came too late for a prediction, or has none, is decided from all it may belong to.
        interval = window.witnesses.interval_ms
        old_p = min(b - horizon - early, a - horizon - 2 * early - interval)
        # From the beginning of intervals on, because which records are kept of one follows from all of it.
        low_p = self._sides[PREDICTIONS].low_water(window.begin_of(old_p))
        # Feedback is read again from before the first truth that may still label a prediction: it decides whether that
        # truth is counted.
        old_f = min(a - early, b - horizon - early, a - horizon - 2 * early)
        low_f = self._sides[FEEDBACK].low_water(window.early.begin_of(old_f))
        last = tuple(
            known if side.last is None else fingerprint(side.last)
            for side, known in zip(self._sides, self._committed.last, strict=True)
        )
        end = self._join.end
        low, clocks = (low_p[0], low_f[0]), (low_p[1], low_f[1])
        return Position(self.partitions, self.incarnation, end, low, clocks, (last[0], last[1]))

    # Snapshots

    def save(self) -> SavedReader | None:
        """Return everything needed to continue at `position`; None if there is no room for rows outside memory."""
        assert not self.filling, "the window is not full yet"
        position = self.position()
        if not self._join.window.generations.keep_all():
            return None
        predictions, feedback = (side.save() for side in self._sides)
        return SavedReader(position, (predictions, feedback), self._gone, self._join.save())

    def resume(self, saved: SavedReader) -> None:
        """Fill the window of a new reader from where another one was saved, which is not beyond the committed corner.

        Raises:
            DamagedRows: Rows outside memory are not those that were saved; the reader cannot be used.
        """
        assert follows(saved.position, self._committed), "saved beyond what is committed"
        self._target = self._committed.end
        self._join.load(saved.join)
        for side, kept in zip(self._sides, saved.sides, strict=True):
            side.load(kept)
        self._gone = saved.gone
        self._end_of_filling()


def follows(saved: Position, committed: Position) -> bool:
    """Return whether a window that was saved at one position can be filled from there up to a committed one.

    It cannot if it lacks records between, or if what is committed can be had from fewer records.
    """
    same = (saved.partitions, saved.incarnation) == (committed.partitions, committed.incarnation)
    between = zip(committed.low, saved.end, committed.end, strict=True)
    known = zip(saved.end, committed.end, saved.last, committed.last, strict=True)
    return (
        same
        and all(low <= at <= end for low, at, end in between)
        and all(mine == other for at, end, mine, other in known if at == end)
    )


def fingerprint(raw: Raw) -> Fingerprint:
    """Return what identifies a record.

    >>> fingerprint(Raw(3, 1_000, b"x")).digest
    '2d711642b726b044'
    """
    return Fingerprint(raw.offset, raw.append_ts, hashlib.sha256(raw.value or b"").hexdigest()[:16])


def _without_none(values: list[bytes | None]) -> list[bytes]:
    return [value or b"" for value in values] if None in values else cast(list[bytes], values)
