"""Join recorded sources again and compare, batch by batch, with the rows in a ledger.

Where a live monitor cuts its batches depends on when it reads, and the batches of several readers may overlap. The rows
between two corners do not depend on that. So the sources are joined again, up to the corner of each batch; each row
that the fold applies must be among those that were joined, and none may be left over.

Batches that follow one another are first compared all at once (`streams.audit.blocks`), because most are of one reader
and hold what it joined. Row by row, batch by batch, is for the others, and for naming the first difference.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from math import isnan
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from detectors.base import Floats
from streams.audit.blocks import ANSWERED, CLASSES, changes_in, hold_the_same, units_in
from streams.audit.differences import Difference, difference
from streams.config.resolved import Config
from streams.join.partition import FEEDBACK, PREDICTIONS
from streams.join.source_reader import Position, SourceReader
from streams.join.source_records import SourceRecords, source_records
from streams.ledger.coverage import ORIGIN, Corner, Coverage
from streams.ledger.digests import RangeDigest
from streams.ledger.places import offset_of, shown
from streams.ledger.records import Batch, Coded, PairRows, Part, PredictionRows, Scalar, UnlabelledRows
from streams.recordings.lines import Topics
from streams.topics.partitioner import partition_of
from unship.topics import SOURCES

Key: TypeAlias = tuple[str, int, int]
"""The kind of a row, and its places in both logs; -1 where it comes from the other one alone."""

Row: TypeAlias = dict[str, Any]
_COUNT: Final = "count of "
_encode = msgspec.json.Encoder().encode


class Rejoin:
    """Joins one pair of source partitions again, for one ledger partition.

    Args:
        topics: The topics with the sources.
        partition: Number of the source partition.
        partitions: How many source partitions there are.
        ledger: Number of the ledger partition, and how many of them there are.
        incarnation: The incarnation of the source partition.
    """

    def __init__(
        self, topics: Topics, partition: int, partitions: int, ledger: tuple[int, int], incarnation: int
    ) -> None:
        self.topics = topics
        self.partition = partition
        self.partitions = partitions
        self.ledger = ledger
        self.incarnation = incarnation
        self.corner = ORIGIN
        self.reader: SourceReader | None = None
        self._pending: dict[Key, Row] = {}
        self._logs = tuple(_Log(topics, topic, partition) for topic in SOURCES)
        self._by_row = False
        ends = topics.ends()
        kept = [topics.first(topic, partition) for topic in SOURCES if (topic, partition) in ends]
        # True if the sources are kept from their first record on; if not, they cannot be joined.
        self.whole = bool(kept) and not any(kept)

    def begin(self, config: Config) -> None:
        """Join under this configuration from the present corner on; the window is filled from the first record."""
        position = Position(self.partitions, self.incarnation, self.corner)
        _, count = self.ledger
        self.reader = SourceReader(
            config,
            self.partition,
            position,
            ledger_partitions=count,
            route=self._route,
        )
        self._read(self.corner)
        self._pending.clear()

    def _route(self, model: str) -> int:
        return 0 if self.ledger[1] == 1 else partition_of(model.encode(), self.ledger[1])

    def agrees(self, batches: Sequence[Batch], config: Config) -> bool:
        """Return whether batches hold exactly what the sources give; if not, `check` compares them one by one.

        Args:
            batches: Batches that the fold does not refuse, all new to it: the first one starts at `corner`, each other
                one at the corner that the one before it reaches.
            config: The configuration in force.
        """
        if self._by_row or self._pending or not self.whole or batches[0].base != self.corner:
            return False
        if self.reader is None:
            self.begin(config)
        assert self.reader is not None
        begun, self.corner = self.corner, batches[-1].end
        values = self._read(self.corner)
        joined = self.reader.flush()[self.ledger[0]]
        if _digests(batches, values) == [batch.source_digest for batch in batches] and hold_the_same(batches, joined):
            return True
        # Some rows may be right all the same, such as equal values of two types in a slice. Where they are, comparing
        # whole blocks again would fail again, after reading from the first record on each time.
        self._by_row, self.corner, self.reader = True, begun, None
        return False

    def check(self, batch: Batch, before: Coverage, after: Coverage, config: Config) -> Difference | None:
        """Compare the rows of a batch that the fold applies with the sources; return None if they agree.

        Args:
            batch: A batch that the fold does not refuse.
            before: The coverage of the partition before it.
            after: The coverage after it.
            config: The configuration in force.
        """
        where = f"{_range('predictions', batch, 0)}, {_range('feedback', batch, 1)}"
        if not self.whole:
            return self._check_digest(batch, where)
        if self.reader is None:
            self.begin(config)
        assert self.reader is not None
        base, self.corner = self.corner, (max(self.corner[0], batch.end[0]), max(self.corner[1], batch.end[1]))
        self._read(self.corner)
        ours = self.reader.flush()[self.ledger[0]]
        self._pending.update(_rows_of(ours, config))
        for key, row in _rows_of(batch, config):
            if _is_in(key, before):
                continue
            joined = self._pending.pop(key, None)
            if key[0] in (CLASSES, ANSWERED) and joined is None:
                continue
            # As text, because True equals 1, but they are two values of a slice.
            if _encode(joined) != _encode(row):
                return difference(f"{_named(key)} of {where}", _shown(row), _shown(joined))
        for key in [key for key in self._pending if _is_in(key, after)]:
            if key[0] in (CLASSES, ANSWERED):
                del self._pending[key]
                continue
            return difference(f"{_named(key)} of {where}", "absent", _shown(self._pending[key]))
        if (base, self.corner) != (batch.base, batch.end):
            return self._check_digest(batch, where)
        return self._digests_differ(batch, where, ours.source_digest)

    def _read(self, corner: Corner) -> tuple[list[SourceRecords], list[SourceRecords]]:
        """Read both logs up to a corner, in the order of append times; return what was read of each."""
        reader = self.reader
        assert reader is not None
        read: tuple[list[SourceRecords], list[SourceRecords]] = ([], [])
        while True:
            for side in (PREDICTIONS, FEEDBACK):
                begin = reader.next_offset(side)
                if reader.queued(side) or begin >= corner[side]:
                    continue
                page = self._logs[side].read(begin, corner[side])
                if page.values:
                    reader.give(side, page)
                    read[side].append(page)
                else:
                    # There is no record between the last one and the corner.
                    reader.skip(side, corner[side])
            full = (reader.next_offset(PREDICTIONS) >= corner[0], reader.next_offset(FEEDBACK) >= corner[1])
            if not reader.advance(full) and all(full):
                return read

    def _check_digest(self, batch: Batch, where: str) -> Difference | None:
        """Compare the digest of a batch with that of its range, if all of its records are kept."""
        ends = self.topics.ends()
        for side, topic in enumerate(SOURCES):
            first = self.topics.first(topic, self.partition) if (topic, self.partition) in ends else batch.end[side]
            if batch.base[side] < min(first, batch.end[side]):
                return None
        digests = [self._digest_of(side, batch.base[side], batch.end[side]) for side in (PREDICTIONS, FEEDBACK)]
        return self._digests_differ(batch, where, hashlib.sha256(b"".join(digests)).hexdigest())

    def _digest_of(self, side: int, begin: int, end: int) -> bytes:
        digest = RangeDigest()
        while (page := self._logs[side].read(begin, end)).values:
            digest.extend([value or b"" for value in page.values])
            begin = int(page.offsets[-1]) + 1
        return digest.take()

    @staticmethod
    def _digests_differ(batch: Batch, where: str, computed: str) -> Difference | None:
        if batch.source_digest == computed:
            return None
        return Difference(f"the source records {where}", "their digest", batch.source_digest, computed)


class _Log:
    """Reads one source partition by pages; what a page has beyond the end asked for is kept for the next call."""

    def __init__(self, topics: Topics, topic: str, partition: int) -> None:
        self._topics = topics
        self._place = topic, partition
        self._page = source_records([], [], [])
        self._next = 0

    def read(self, begin: int, end: int) -> SourceRecords:
        """Return some records of a range, from its first one on; none if there is no record in it."""
        if begin >= end:
            return source_records([], [], [])
        if begin != self._next or not self._page.values:
            page = self._topics.read(*self._place, begin)
            self._page = source_records(
                [taken.offset for taken in page], [taken.append_ts for taken in page], [taken.value for taken in page]
            )
        count = int(np.searchsorted(self._page.offsets, end))
        read, self._page = self._page.part(0, count), self._page.part(count, len(self._page.values))
        # Where only records beyond the range are kept, the next call may ask for any offset up to the first of them.
        self._next = int(read.offsets[-1]) + 1 if count else begin
        return read


def _digests(batches: Sequence[Batch], read: tuple[list[SourceRecords], list[SourceRecords]]) -> list[str]:
    """Return the digest of the source records of each batch."""
    sides = []
    for side, pages in enumerate(read):
        offsets = [offset for page in pages for offset in page.offsets.tolist()]
        values = [value or b"" for page in pages for value in page.values]
        digest, begin, digests = RangeDigest(), 0, []
        for batch in batches:
            end = bisect_left(offsets, batch.end[side], begin)
            digest.extend(values[begin:end])
            digests.append(digest.take())
            begin = end
        sides.append(digests)
    return [hashlib.sha256(predictions + feedback).hexdigest() for predictions, feedback in zip(*sides, strict=True)]


def _range(topic: str, batch: Batch, side: int) -> str:
    return f"{topic}[{batch.partition}]@{batch.base[side]}..{batch.end[side] - 1}"


def _rows_of(batch: Batch, config: Config) -> Iterator[tuple[Key, Row]]:
    """Yield a batch's rows by kind and place, independent of their order and coding."""
    for part in batch.parts:
        names = config.of(part.model).slices_by
        yield from _seen(part)
        yield from _outcomes(part, names)
        if part.pairs is not None:
            yield from _pairs("pair", part, part.pairs, names)
        if part.unlabelled is not None:
            yield from _unlabelled(part, part.unlabelled, names)
    changes: Counter[Key] = Counter()
    for reason, p, f, change in changes_in(batch.counted):
        changes[_COUNT + reason, p, f] += change
    yield from ((key, {"change": change}) for key, change in changes.items() if change)


def _seen(part: Part) -> Iterator[tuple[Key, Row]]:
    seen, arms, model = part.seen, part.arms, part.model
    slices = list(zip(*map(_values, seen.slices), strict=True)) if seen.slices else [()] * seen.position.size
    yield from _answered(seen)
    rows = zip(seen.arm.tolist(), seen.predicted_at.tolist(), seen.position.tolist(), slices, strict=True)
    for arm, at, p, values in rows:
        who = {"model": model, "version": arms[arm].version, "role": arms[arm].role}
        yield ("prediction", p, -1), {**who, "predicted_at": at, "slices": list(values)}


def _outcomes(part: Part, names: Sequence[str]) -> Iterator[tuple[Key, Row]]:
    columns = part.outcomes
    losses = _by_row(columns.losses)
    slices = _by_name(names, columns.slices, columns.position.size)
    sources = _values(columns.source)
    classes, units = columns.classes, units_in(columns).tolist()
    for i, (p, f) in enumerate(zip(columns.position.tolist(), columns.labelled_by.tolist(), strict=True)):
        arm = part.arms[columns.arm[i]]
        if classes is not None and classes.codes[i] >= 0:
            answer, truth = classes.pairs[classes.codes[i]]
            yield (CLASSES, p, f), {"answer": answer, "truth": truth}
        yield (
            ("outcome", p, f),
            {
                "model": part.model,
                "version": arm.version,
                "role": arm.role,
                "losses": losses[i],
                "slices": slices[i],
                "source": sources[i],
                "predicted_at": int(columns.predicted_at[i]),
                "labelled_at": int(columns.labelled_at[i]),
                "unit": units[i],
            },
        )


def _unlabelled(part: Part, rows: UnlabelledRows, names: Sequence[str]) -> Iterator[tuple[Key, Row]]:
    arms, losses, slices = part.arms, _by_row(rows.losses), _by_name(names, rows.slices, rows.position.size)
    units = units_in(rows).tolist()
    yield from _answered(rows)
    for i, (p, at) in enumerate(zip(rows.position.tolist(), rows.predicted_at.tolist(), strict=True)):
        arm = arms[rows.arm[i]]
        row = {"model": part.model, "version": arm.version, "role": arm.role, "predicted_at": at}
        row |= {"losses": losses[i], "slices": slices[i], "unit": units[i]}
        yield ("prediction", p, -1), row
    if rows.pairs is not None:
        yield from _pairs("unlabelled pair", part, rows.pairs, names)


def _answered(rows: PredictionRows | UnlabelledRows) -> Iterator[tuple[Key, Row]]:
    if rows.answer is not None:
        for p, name in zip(rows.position.tolist(), _values(rows.answer), strict=True):
            if name is not None:
                yield (ANSWERED, p, -1), {"answer": name}


def _pairs(kind: str, part: Part, pairs: PairRows, names: Sequence[str]) -> Iterator[tuple[Key, Row]]:
    arms, excess, slices = part.arms, _by_row(pairs.excess), _by_name(names, pairs.slices, pairs.position.size)
    for i, (p, f) in enumerate(zip(pairs.later.tolist(), pairs.labelled_by.tolist(), strict=True)):
        live, shadow = arms[pairs.live[i]], arms[pairs.shadow[i]]
        yield (
            (f"{kind} of {live.version} and {shadow.version}", p, f),
            {
                "model": part.model,
                "excess": excess[i],
                "slices": slices[i],
                "live_at": int(pairs.position[i]),
                "predicted_at": int(pairs.predicted_at[i]),
            },
        )


def _values(column: Coded) -> list[Scalar | None]:
    return [None if code < 0 else column.values[code] for code in column.codes.tolist()]


def _by_name(names: Sequence[str], columns: Sequence[Coded], count: int) -> list[Row]:
    """Return the slices of each of so many rows."""
    values = [_values(column) for column in columns]
    return [{name: column[i] for name, column in zip(names, values, strict=False)} for i in range(count)]


def _by_row(losses: Floats) -> list[list[float | None]]:
    return [[None if isnan(value) else value for value in row] for row in losses.T.tolist()]


def _is_in(key: Key, coverage: Coverage) -> bool:
    kind, p, f = key[0], offset_of(key[1]), offset_of(key[2])
    if f < 0 and not kind.startswith(_COUNT):
        # Predictions that were applied, joined or not, are a single prefix.
        return p < coverage.predictions
    return any(p < corner[0] and f < corner[1] for corner in coverage.corners)


def _named(key: Key) -> str:
    kind, p, f = key
    places = [f"{topic}@{shown(place)}" for topic, place in zip(SOURCES, (p, f), strict=True) if place >= 0]
    return f"{kind} at {', '.join(places)}"


def _shown(row: Row | None) -> Any:
    return "absent" if row is None else row
