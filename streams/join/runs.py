"""Runs: consecutive predictions and feedback of records that are in one order already, read as a whole.

A run is joined at once. Where batches end is decided afterwards, record by record, by `RunCuts`: that it is a run, and
how long it is, changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from detectors.base import Ints
from streams.join.clock import SourceClock
from streams.join.partition import PREDICTIONS, Given
from streams.join.record_size import RecordSizes
from streams.ledger.places import INDEX_BITS
from streams.window.decoding import Block, Shape, times_of, with_packed
from unship.events import At
from unship.rejections import Rejection
from unship.topics import SOURCES


class Run(NamedTuple):
    """Records with their sides. `odd` are the places of items that are no narrow events.

    A packed record has its first event in `items`, and all of them in `packed`. `offsets` and `append_ts` are those of
    the log that the records are read from, None in a recording. `ts` are the events' own times (`with_times`).
    """

    sides: Ints
    items: list[Any]
    odd: list[int]
    values: list[bytes]
    shapes: tuple[Shape, Shape]
    packed: dict[int, Block]
    offsets: Ints | None = None
    append_ts: Ints | None = None
    ts: Ints | None = None

    @property
    def may_be_placed(self) -> bool:
        """Whether any of the records may have a place in a log."""
        return bool(self.odd) or any("at" in shape.fields for shape in self.shapes)

    def places(self) -> list[At | None]:
        """Return the places that lines of a recording name."""
        return [getattr(item, "at", None) for item in self.items]

    def with_times(self) -> Run:
        """Return the run with the events' own times in milliseconds, -1 where there is none."""
        if self.ts is not None:
            return self
        ts = times_of(self.items, self.shapes, self.odd)
        return self._replace(ts=np.full(len(self.items), -1) if ts is None else ts)

    def times(self) -> list[int]:
        """Return the times of a run that `with_times` has returned."""
        assert self.ts is not None, "the times were not read"
        times: list[int] = self.ts.tolist()
        return times

    def part(self, begin: int, end: int) -> Run:
        """Return the records of a range."""
        some = slice(begin, end)
        return Run(
            self.sides[some],
            self.items[some],
            [place - begin for place in self.odd if begin <= place < end],
            self.values[some],
            self.shapes,
            {place - begin: block for place, block in self.packed.items() if begin <= place < end},
            None if self.offsets is None else self.offsets[some],
            None if self.append_ts is None else self.append_ts[some],
            None if self.ts is None else self.ts[some],
        )

    def with_rejected(self, places: list[int], why: Rejection) -> Run:
        """Return the run with a rejection in place of some records; of a rejected one the time is unknown."""
        items, sides = list(self.items), self.sides.copy()
        for place in places:
            items[place] = why
        sides[places] = PREDICTIONS
        ts = None if self.ts is None else self.ts.copy()
        if ts is not None:
            ts[places] = -1
        odd = sorted({*self.odd, *places})
        packed = {place: block for place, block in self.packed.items() if place not in places}
        return self._replace(items=items, sides=sides, odd=odd, packed=packed, ts=ts)

    def side(self, side: int, append_ts: Ints, at: Ints, line: Ints) -> Given:
        """Return the records of one side; the columns are those of the run."""
        mine = self.sides == side
        use, chosen = np.flatnonzero(mine), mine.tobytes()
        places = use.tolist() if self.odd or self.packed else []
        number_of = {place: number for number, place in enumerate(places)} if self.odd else {}
        odd = [number_of[place] for place in self.odd if place in number_of]
        values = list(compress(self.values, chosen))
        block = Block(list(compress(self.items, chosen)), odd, values)
        packed = {number_of[place]: inner for place, inner in self.packed.items() if place in number_of}
        offsets = line >> INDEX_BITS if self.offsets is None else self.offsets
        block = with_packed(block, packed)
        return Given(offsets[use], append_ts[use], values, block, self.shapes[side], at[use], line[use])


class Clocks(NamedTuple):
    """What a run's records read from the clock: the source clock, the join clock, and their append times."""

    now: Ints
    at: Ints
    append_ts: Ints


def read_clocks(clock: SourceClock, run: Run) -> Clocks:
    """Read the times of a run, which are confirmed (`streams.join.confirmed_times`)."""
    if run.append_ts is not None:
        return _read_appended(clock, run, run.append_ts)
    if run.may_be_placed and any(run.places()):
        return _read_each(clock, run)
    ts = run.with_times().ts
    assert ts is not None, "the times were read"
    now = np.maximum.accumulate(np.append(clock.now, ts))[1:]
    clock.reached(int(now[-1]), int(now[-1]))
    append_ts = now.copy()
    # The time of a rejected line is unknown.
    append_ts[[place for place in run.odd if isinstance(run.items[place], Rejection)]] = 0
    return Clocks(now, now, append_ts)


def _read_appended(clock: SourceClock, run: Run, append_ts: Ints) -> Clocks:
    """Read the append times of the only pair of partitions."""
    now = np.maximum(np.maximum.accumulate(append_ts), max(clock.partitions.get(0, -1), clock.now))
    at = np.empty_like(now)
    for side, topic in enumerate(SOURCES):
        use = run.sides == side
        if use.any():
            log = f"{topic}/0"
            at[use] = np.maximum(np.maximum.accumulate(append_ts[use]), clock.logs.get(log, -1))
            clock.logs[log] = int(at[use][-1])
    clock.partitions[0] = max(clock.partitions.get(0, -1), int(append_ts.max()))
    clock.reached(int(now[-1]), int(at[-1]))
    return Clocks(now, at, append_ts)


def _read_each(clock: SourceClock, run: Run) -> Clocks:
    """Read the times one by one, of places in several logs."""
    rows = []
    for item in run.items:
        place = getattr(item, "at", None)
        if isinstance(item, Rejection):
            clock.stay()
        elif place is not None:
            clock.read_appended(place[0], place[1], place[3], getattr(item, "ts", None))
        else:
            clock.read(getattr(item, "ts", None))
        append_ts = clock.at if place is None else place[3]
        rows.append((clock.now, clock.at, 0 if isinstance(item, Rejection) else append_ts))
    return Clocks(*np.array(rows, np.int64).T)


class RunCuts:
    """Where the batches of one run may end: `now` is the source clock at each record, `first` the line of the first.

    `accepted` are the places that completed a row, `counted` those that changed a count, one entry for each change, and
    `unlisted` is the first place with a prediction of a model which only the defaults configure; `sizes` are those
    of all rows. There are many batches in a run, and to find one number at a time is cheapest in lists.
    """

    def __init__(self, now: Ints, first: int, accepted: Ints, counted: Ints, unlisted: int, sizes: RecordSizes) -> None:
        self.size = now.size
        self._times = now
        self._accepted = accepted
        self.now: list[int] = now.tolist()
        self.first = first
        self.accepted: list[int] = accepted.tolist()
        self.counted: list[int] = counted.tolist()
        self.unlisted = unlisted
        self.sizes = sizes

    def from_time(self, ts: int, begin: int) -> int:
        """Return the first place from `begin` on at which the clock has reached a time."""
        return bisect_left(self.now, ts, begin)

    def after_accepted(self, begin: int, count: int) -> int:
        """Return the place after the one at which so many rows are completed from `begin` on."""
        return self._after(self.accepted, begin, count)

    def after_counted(self, begin: int, count: int) -> int:
        """Return the place after the one at which so many counts are changed from `begin` on."""
        return self._after(self.counted, begin, count)

    def _after(self, places: list[int], begin: int, count: int) -> int:
        number = bisect_left(places, begin) + max(count, 1) - 1
        return places[number] + 1 if number < len(places) else self.size + 1

    def first_accepted(self, begin: int) -> int:
        """Return the first place from `begin` on that completes a row, the number of places if none does."""
        number = bisect_left(self.accepted, begin)
        return self.accepted[number] if number < len(self.accepted) else self.size

    def end_of_interval(self, begin: int, since: int, interval_ms: int, unlisted_ms: int) -> int:
        """Return the first place from `begin` on in another interval than time `since`, when a row was completed."""
        if begin <= self.unlisted:
            end = self.from_time((since // interval_ms + 1) * interval_ms, begin)
            if end <= self.unlisted:
                return end
            # From that place on the interval is that of the defaults.
            begin, since = self.unlisted + 1, self.now[self.unlisted]
        return self.from_time((since // unlisted_ms + 1) * unlisted_ms, begin)

    def ends(self, since: int, interval_ms: int) -> list[int]:
        """Return the places at which batches end if these are ended by intervals alone.

        Rows that were completed ahead of the run are those of time `since`, -1 if there are none.
        """
        interval = self._times[self._accepted] // interval_ms
        # In order, as the clock is.
        first = np.flatnonzero(np.append(True, interval[1:] != interval[:-1])) if interval.size else interval
        intervals = interval[first].tolist()
        if since >= 0 and since // interval_ms not in intervals[:1]:
            intervals.insert(0, since // interval_ms)
        found = [bisect_left(self.now, (each + 1) * interval_ms) for each in intervals]
        return [place for place in found if place < self.size]
