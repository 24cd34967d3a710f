"""Predictions as answers of replicas: which of a block may change what is known of one."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from operator import attrgetter
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from actions.replica_watch import ReplicaWatch
from detectors.base import Bools, Ints
from streams.ledger.places import INDEX_BITS
from streams.window.records import Records
from unship.events import Epoch, Prediction, Role
from unship.topics import SOURCES

_Shown: TypeAlias = tuple[str, str | None, str, Role, Epoch | None]
"""Model, replica, version, role and epoch."""

_PREDICTIONS: Final = SOURCES[0]


class _Run(NamedTuple):
    """Answers of one replica that show the same, with their lines, positions and join clocks.

    They are `alone` if no other answer of the replica in the block shows another version in such a role.
    """

    event: Prediction
    alone: bool
    line: Ints
    position: Ints
    at: Ints


class Answers:
    """Answers that the watch over replicas has not seen yet."""

    def __init__(self) -> None:
        self._runs: dict[int, _Run] = {}
        self._next_number = 0
        # (line, run, place in it) of the next answer of each run.
        self._waiting: list[tuple[int, int, int]] = []

    def note(self, records: Records, seen: Bools) -> None:
        """Note a block of predictions, those that were `seen` for the first time."""
        groups: defaultdict[_Shown, list[int]] = defaultdict(list)
        for place, shown in enumerate(_shown_by(records)):
            groups[shown].append(place)
        shown_by = Counter((model, replica, role == "live") for model, replica, _, role, _ in groups)
        for (model, replica, version, role, epoch), places in groups.items():
            event = Prediction(
                id="-",
                model=model,
                version=version,
                output=0,
                role=role,
                replica=replica,
                epoch=epoch,
            )
            rows = np.array(places)
            if replica is None or not (rows := rows[seen[rows]]).size:
                continue
            alone = shown_by[model, replica, role == "live"] == 1
            number, self._next_number = self._next_number, self._next_number + 1
            self._runs[number] = _Run(event, alone, records.line[rows], records.position[rows], records.at[rows])
            heapq.heappush(self._waiting, (int(records.line[rows[0]]), number, 0))

    def apply(self, watch: ReplicaWatch, partition: int, line: int | None) -> None:
        """Let the watch see the answers up to a line, in the order of lines.

        Of many equal answers of a replica it is asked about those only that may be news: the first one, and those after
        the times from which the next one is.
        """
        waiting = self._waiting
        while waiting and (line is None or waiting[0][0] <= line):
            _, number, place = heapq.heappop(waiting)
            run = self._runs[number]
            self._see(watch, run, place, partition)
            place = self._next(watch, run, place)
            if place < run.line.size:
                heapq.heappush(waiting, (int(run.line[place]), number, place))
            else:
                del self._runs[number]

    @staticmethod
    def _see(watch: ReplicaWatch, run: _Run, place: int, partition: int) -> None:
        at, position = int(run.at[place]), int(run.position[place])
        if watch.is_news(run.event, at):
            watch.answered(run.event, (_PREDICTIONS, partition, position >> INDEX_BITS), at)

    def _next(self, watch: ReplicaWatch, run: _Run, place: int) -> int:
        """Return the place of the next answer that may be news."""
        if not run.alone:
            return place + 1
        due = watch.news_from(run.event, int(run.at[place]), len(self._runs))
        if due is None:
            return place + 1
        return max(place + 1, int(np.searchsorted(run.at, due)))


_FIELDS: Final = ("model", "replica", "version", "role", "epoch")


def _shown_by(records: Records) -> Iterable[_Shown]:
    """Return what each prediction shows."""
    fields = records.shape.fields
    if not records.odd and fields.issuperset(_FIELDS):
        return map(attrgetter(*_FIELDS), records.items)
    missing = {"replica": None, "role": "live", "epoch": None}
    columns = [records.column(name, missing.get(name)) for name in _FIELDS]
    for place in records.odd:
        for name, column in zip(_FIELDS, columns, strict=True):
            column[place] = getattr(records.items[place], name)
    return zip(*columns, strict=True)
