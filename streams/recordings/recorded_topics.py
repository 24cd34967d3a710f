"""Recordings of topics: written from whatever has topics, read back as if they were the topics."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO

from streams.recordings.lines import _END_OF_TIME, Place, Taken, is_of, place_of, read_line, read_sound_line
from streams.recordings.replay import LINE_BYTES_MAX
from unship.errors import RecordingError

INDEX_EVERY = 256
DAMAGED_MAX = 1_000


class RecordedTopics:
    """The topics that a recording holds: read by seeking, with a small index instead of the lines in memory.

    `damage` says of the first line that no log can have given, what is wrong; such lines are left out.
    """

    def __init__(self, stream: BinaryIO, progress: Callable[[int], None] | None = None) -> None:
        """Read a recording once, from its beginning, to know where its records are; the stream must be able to seek."""
        self.damage: str | None = None
        self._damaged: set[int] = set()
        self._stream = stream
        self._ends: dict[Place, int] = {}
        self._firsts: dict[Place, int] = {}
        # For each partition (offset, position in the stream) of one record in so many.
        self._index: dict[Place, list[tuple[int, int]]] = {}
        stream.seek(0)
        position = told = 0
        for number, line in enumerate(iter(lambda: stream.readline(LINE_BYTES_MAX), b""), start=1):
            try:
                self._add(read_line(line), position, number)
            except RecordingError as error:
                self.damage = self.damage or f"line {number}: {error}"
                self._damaged.add(position)
                if len(self._damaged) > DAMAGED_MAX:
                    raise RecordingError(
                        f"more than {DAMAGED_MAX} lines are damaged, or this is no recording of a log; {self.damage}"
                    ) from error
            position += len(line)
            if progress is not None and position - told > 1_000_000:
                progress(position - told)
                told = position

    def _add(self, taken: Taken, position: int, number: int) -> None:
        place = (taken.topic, taken.partition)
        if taken.offset < self._ends.get(place, 0):
            raise RecordingError(
                f"{place_of(taken)} comes after {taken.topic}[{taken.partition}]@{self._ends[place] - 1}"
            )
        self._ends[place] = taken.offset + 1
        self._firsts.setdefault(place, taken.offset)
        index = self._index.setdefault(place, [])
        if not index or taken.offset >= index[-1][0] + INDEX_EVERY:
            index.append((taken.offset, position))

    def partitions(self, topic: str) -> int:
        """Return how many partitions of a topic have a record."""
        return max((partition + 1 for name, partition in self._ends if name == topic), default=0)

    def first(self, topic: str, partition: int) -> int:
        """Return the smallest offset that was recorded, 0 if none was."""
        return self._firsts.get((topic, partition), 0)

    def ends(self) -> Mapping[Place, int]:
        """Return the offset after the last one that was recorded."""
        return self._ends

    def read(self, topic: str, partition: int, offset: int) -> Sequence[Taken]:
        """Return some records from `offset` on."""
        index = self._index.get((topic, partition), [])
        near = max(bisect_right(index, (offset, _END_OF_TIME)) - 1, 0)
        if offset >= self._ends.get((topic, partition), 0):
            return []
        position = index[near][1]
        self._stream.seek(position)
        page: list[Taken] = []
        for line in iter(lambda: self._stream.readline(LINE_BYTES_MAX), b""):
            at, position = position, position + len(line)
            if not is_of(line, topic, partition) or at in self._damaged:
                continue
            taken = read_sound_line(line)
            if taken.offset >= offset:
                page.append(taken)
            if len(page) == INDEX_EVERY or taken.offset + 1 == self._ends[topic, partition]:
                break
        return page
