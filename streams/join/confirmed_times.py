"""Hold back the lines of a recording whose time no other line confirms yet.

In a recording without append times a line's own time is all that the clock has, and one wrong time in the future would
mature all cohorts at once and refuse every label that follows. So a line that would set the clock, or advance it by
more than a day, waits for the next line with a time. If that one is at most an hour earlier, both are taken in their
order; else the one that waits is rejected (`FUTURE_TS`). The next line is then read like any other, so it may wait for
a third one. Lines without a time would take the present time, so they wait behind it; if they become too many, it is
rejected. The end of the input takes it, as no line contradicts it.

This depends on the lines alone, not on how many are read at once. Lines with a place in a log have an append time: they
never wait, and confirm or contradict a line that does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from streams.config.units import DAY_MS, HOUR_MS
from streams.join.clock import SourceClock
from streams.join.line_cutter import Arrival
from streams.join.runs import Run
from unship.rejections import RejectCode, Rejection

BEHIND_MAX: Final = 1_000
"""So many lines without a time wait behind one whose time is not confirmed; with the next it is rejected."""

BEHIND_BYTES_MAX: Final = 8 * 1_048_576
"""The same in bytes, because a line may have megabytes: no more is held than is read at once."""

REFUSED: Final = Rejection(
    RejectCode.FUTURE_TS, "more than a day after the lines before it, or the first, and the next line is much earlier"
)


class Waiting(NamedTuple):
    """The time (ms) of the line that waits, -1 if none does, and what waits behind it."""

    ts: int = -1
    lines: int = 0
    bytes: int = 0


class Walked(NamedTuple):
    """What the times of some lines show; places count from the first of them, and -1 is the line that waited before.

    From `since` on the lines wait; `refused` are the places of those that are rejected.
    """

    refused: list[int]
    since: int
    waiting: Waiting


def walk(times: Sequence[int], sizes: Sequence[int], now: int, waiting: Waiting, *, placed: bool = False) -> Walked:
    """Return which of the next lines are taken, rejected, or wait.

    Args:
        times: Their times (ms), -1 for a line without one.
        sizes: How many bytes each line has.
        now: The clock before the line that waits, -1 before the first time.
        waiting: What waits.
        placed: Whether the times are append times, which need no confirmation.

    >>> walk([5, 9, 10 * DAY_MS, 11], [1] * 4, -1, Waiting())
    Walked(refused=[2], since=4, waiting=Waiting(ts=-1, lines=0, bytes=0))
    """
    refused: list[int] = []
    since, (ts, lines, held) = -1, waiting
    for place, time in enumerate(times):
        if ts >= 0:
            if time < 0:
                lines, held = lines + 1, held + sizes[place]
                if lines > BEHIND_MAX or held > BEHIND_BYTES_MAX:
                    refused.append(since)
                    ts = -1
                continue
            if time >= ts - HOUR_MS:
                now = ts
            else:
                refused.append(since)
            ts = -1
        if time < 0 or placed:
            continue
        if now < 0 or time > now + DAY_MS:
            ts, since, lines, held = time, place, 0, 0
        else:
            now = max(now, time)
    if ts < 0:
        return Walked(refused, len(times), Waiting())
    return Walked(refused, since, Waiting(ts, lines, held))


class ConfirmedTimes:
    """Passes arrivals on in their order, once their times are confirmed or refused."""

    def __init__(self) -> None:
        self._waiting = Waiting()
        # The first of them begins with the line that waits.
        self._held: list[Arrival | Run] = []

    def take(self, arrival: Arrival | Run, clock: SourceClock) -> Iterator[Arrival | Run]:
        """Take the next arrival; yield what is passed on. The clock has read what was passed on before."""
        if isinstance(arrival, Arrival):
            event = arrival.event
            place = arrival.place or (None if isinstance(event, Rejection) else event.at)
            ts = None if isinstance(event, Rejection) else event.ts
            time = -1 if ts is None else ts
            yield from self._take(arrival, [time if place is None else place[3]], clock, placed=place is not None)
        elif arrival.append_ts is not None:
            assert not self._held, "a log has append times"
            yield arrival
        elif not arrival.may_be_placed or not any(places := arrival.places()):
            yield from self._take_run(arrival.with_times(), clock)
        elif not self._held and all(
            place or isinstance(item, Rejection) for place, item in zip(places, arrival.items, strict=True)
        ):
            yield arrival
        else:
            for number, place in enumerate(places):
                one = arrival.part(number, number + 1).with_times()
                times = one.times() if place is None else [place[3]]
                yield from self._take(one, times, clock, placed=place is not None)

    def _take_run(self, run: Run, clock: SourceClock) -> Iterator[Arrival | Run]:
        ts = run.ts
        if not self._held and ts is not None:
            before = np.maximum.accumulate(np.append(clock.now, ts))[:-1]
            if not ((ts >= 0) & ((before < 0) | (ts > before + DAY_MS))).any():
                yield run
                return
        yield from self._take(run, run.times(), clock)

    def _take(
        self, arrival: Arrival | Run, times: Sequence[int], clock: SourceClock, *, placed: bool = False
    ) -> Iterator[Arrival | Run]:
        sizes = [len(value) for value in _values(arrival)]
        refused, since, self._waiting = walk(times, sizes, clock.now, self._waiting, placed=placed)
        if since < 0:
            self._held.append(arrival)
            return
        held, self._held = self._held, []
        if held and refused[:1] == [-1]:
            held[0] = _refusing(held[0], [0])
        yield from held
        arrival = _refusing(arrival, [place for place in refused if place >= 0])
        if since == len(times):
            yield arrival
        elif since == 0:
            self._held = [arrival]
        else:
            assert isinstance(arrival, Run), since
            self._held = [arrival.part(since, len(times))]
            yield arrival.part(0, since)

    def rest(self) -> Iterator[Arrival | Run]:
        """Yield what waits: the input has ended, so nothing contradicts it."""
        held, self._held, self._waiting = self._held, [], Waiting()
        yield from held

    def lines(self) -> list[bytes]:
        """Return the lines that wait, from which a resumed reader continues."""
        return [value for arrival in self._held for value in _values(arrival)]


def _values(arrival: Arrival | Run) -> list[bytes]:
    return arrival.values if isinstance(arrival, Run) else [arrival.value]


def _refusing(arrival: Arrival | Run, places: list[int]) -> Arrival | Run:
    """Return lines with a rejection in place of some."""
    if not places:
        return arrival
    return arrival.with_rejected(places, REFUSED) if isinstance(arrival, Run) else arrival._replace(event=REFUSED)
