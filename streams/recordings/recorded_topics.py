"""Read the topics of a recording by seeking; a small index is in memory instead of the lines."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Final

from streams.recordings.lines import Place, Taken, is_of, place_of, read_line, read_sound_line
from streams.recordings.replay import READ_BYTES, lines_in
from unship.budgets.table import DAMAGED_LINES
from unship.errors import RecordingError

INDEX_EVERY: Final = 256
DAMAGED_MAX: Final = DAMAGED_LINES.limit


class RecordedTopics:
    """The topics that a recording of a log holds: lines with a place in a log are its records.

    `damage` names the first line that was not written from a log; such lines are left out.
    """

    def __init__(self, stream: BinaryIO, progress: Callable[[int], None] | None = None) -> None:
        """Read a recording once, from its beginning, to index its records; the stream must be seekable."""
        self.damage: str | None = None
        self._damaged: set[int] = set()
        self._stream = stream
        self._ends: dict[Place, int] = {}
        self._firsts: dict[Place, int] = {}
        # For each partition the positions from which its records are found, with the first offset of each.
        self._index: dict[Place, list[tuple[int, int]]] = {}
        mark = position = reported = 0
        stream.seek(0)
        for number, line in enumerate(lines_in(stream)):
            if number % INDEX_EVERY == 0:
                mark = position
            try:
                self._add(read_line(line), mark)
            except RecordingError as error:
                self._note_damage(f"line {number + 1}: {error}", position)
            position += len(line)
            if progress is not None and position - reported > 1_000_000:
                progress(position - reported)
                reported = position

    def _note_damage(self, damage: str, position: int) -> None:
        self.damage = self.damage or damage
        self._damaged.add(position)
        if len(self._damaged) > DAMAGED_MAX:
            raise RecordingError(
                f"more than {DAMAGED_MAX} lines are damaged, or this is no recording of a log; {self.damage}"
            )

    def _add(self, taken: Taken, mark: int) -> None:
        place = (taken.topic, taken.partition)
        if taken.offset < self._ends.get(place, 0):
            raise RecordingError(
                f"{place_of(taken)} comes after {taken.topic}[{taken.partition}]@{self._ends[place] - 1}"
            )
        self._ends[place] = taken.offset + 1
        self._firsts.setdefault(place, taken.offset)
        index = self._index.setdefault(place, [])
        if not index or index[-1][1] != mark:
            index.append((taken.offset, mark))

    def partitions(self, topic: str) -> int:
        """Return how many partitions of a topic have a record."""
        return max((partition + 1 for name, partition in self._ends if name == topic), default=0)

    def first(self, topic: str, partition: int) -> int:
        """Return the smallest offset that was recorded, 0 if none was."""
        return self._firsts.get((topic, partition), 0)

    def ends(self) -> Mapping[Place, int]:
        """Return the offset after the last record of each partition."""
        return self._ends

    def read(self, topic: str, partition: int, offset: int) -> Sequence[Taken]:
        """Return some records from `offset` on."""
        place = (topic, partition)
        if offset >= self._ends.get(place, 0):
            return []
        marks = self._index[place]
        _, position = marks[max(bisect_right(marks, offset, key=lambda entry: entry[0]) - 1, 0)]
        page: list[Taken] = []
        size = 0
        self._stream.seek(position)
        for line in lines_in(self._stream):
            at, position = position, position + len(line)
            if not is_of(line, topic, partition) or at in self._damaged:
                continue
            taken = read_sound_line(line)
            if taken.offset >= offset:
                page.append(taken)
                size += len(line)
            if len(page) == INDEX_EVERY or size >= READ_BYTES or taken.offset + 1 == self._ends[place]:
                break
        return page
