"""Read the topics of a recording by seeking; a small index is in memory instead of the lines."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import BinaryIO, Final, NamedTuple

from streams.join.numbering import Numbering
from streams.ledger.lines import read_ledger_line
from streams.ledger.records import Configured
from streams.recordings.lines import Place, Taken, is_of, place_of, read_line, read_sound_line
from streams.recordings.replay import LINE_BYTES_MAX, arrivals
from unship.codec import OtherLine, decode_line, decode_value
from unship.errors import RecordingError
from unship.events import Event
from unship.rejections import Rejection
from unship.topics import SOURCES

INDEX_EVERY: Final = 256
DAMAGED_MAX: Final = 1_000

_WRITTEN: Final = tuple(b'{"type":"%b"' % kind for kind in (b"ledger", b"decision", b"command", b"raw"))
_AT: Final = b',"at":['
_LEDGER: Final = b'{"type":"ledger"'


class _Mark(NamedTuple):
    """A position in the stream where reading can begin, and the numbering before the line there."""

    position: int
    numbering: Numbering


class RecordedTopics:
    """The topics that a recording holds.

    Lines with a place in a log are its records. Where the recording was written by a replay, its sources are numbered
    by their lines instead. `damage` names the first line that was not written from a log; such lines are left out.
    """

    def __init__(self, stream: BinaryIO, progress: Callable[[int], None] | None = None) -> None:
        """Read a recording once, from its beginning, to index its records; the stream must be seekable."""
        self.damage: str | None = None
        self._damaged: set[int] = set()
        self._stream = stream
        self._ends: dict[Place, int] = {}
        self._firsts: dict[Place, int] = {}
        # For each partition the marks from which its records are found, with the first offset of each.
        self._index: dict[Place, list[tuple[int, _Mark]]] = {}
        self._numbered = _is_numbered(stream)
        # The partitions that numbered lines were taken from.
        self._partitions: set[int] = set()
        numbering, position, reported = Numbering(), 0, 0
        mark = _Mark(0, Numbering())
        stream.seek(0)
        for number, line in enumerate(iter(lambda: stream.readline(LINE_BYTES_MAX), b"")):
            if number % INDEX_EVERY == 0:
                mark = _Mark(position, deepcopy(numbering))
            try:
                taken = self._record(line, numbering)
                if taken is not None:
                    self._add(taken, mark)
            except RecordingError as error:
                self._note_damage(f"line {number + 1}: {error}", position)
            position += len(line)
            if progress is not None and position - reported > 1_000_000:
                progress(position - reported)
                reported = position

    def _record(self, line: bytes, numbering: Numbering) -> Taken | None:
        """Return the record of a line, None for a line of a numbered recording without one."""
        if not self._numbered:
            return read_line(line)
        for event, value, _ in arrivals([line]):
            numbering.read_time(event, None)
            if not isinstance(event, Rejection) and event.at is not None:
                self._partitions.add(event.at[1])
            return Taken(*numbering.number(event), None, value)
        # The replay wrote no line that has no place, except those of its source: which the audit does not read.
        if _AT not in line and not line.startswith(_LEDGER):
            return None
        taken = read_line(line)
        return None if self._numbers(taken.topic) else taken

    def _note_damage(self, damage: str, position: int) -> None:
        self.damage = self.damage or damage
        self._damaged.add(position)
        if len(self._damaged) > DAMAGED_MAX:
            raise RecordingError(
                f"more than {DAMAGED_MAX} lines are damaged, or this is no recording of a log; {self.damage}"
            )

    def _add(self, taken: Taken, mark: _Mark) -> None:
        place = (taken.topic, taken.partition)
        if taken.offset < self._ends.get(place, 0):
            if self._numbers(taken.topic) and taken.topic not in SOURCES:
                # A line that a source has twice; the join has dropped the second one.
                return
            raise RecordingError(
                f"{place_of(taken)} comes after {taken.topic}[{taken.partition}]@{self._ends[place] - 1}"
            )
        self._ends[place] = taken.offset + 1
        self._firsts.setdefault(place, taken.offset)
        index = self._index.setdefault(place, [])
        if not index or index[-1][1] is not mark:
            index.append((taken.offset, mark))

    def partitions(self, topic: str) -> int:
        """Return how many partitions of a topic have a record."""
        return max((partition + 1 for name, partition in self._ends if name == topic), default=0)

    def first(self, topic: str, partition: int) -> int:
        """Return the smallest offset that was recorded, 0 if none was."""
        if self._numbered and topic in SOURCES:
            # The number of a line is its offset in both logs, so a log may begin with a line of the other one. Lines of
            # several partitions cannot be joined again as those of one: each partition has a clock of its own.
            return int(len(self._partitions) > 1)
        return self._firsts.get((topic, partition), 0)

    def ends(self) -> Mapping[Place, int]:
        """Return the offset after the last record of each partition."""
        return self._ends

    def decode(self, kind: str, value: bytes | None) -> Event | Rejection:
        """Decode a value of the topic of `kind`; numbered lines name their kind themselves."""
        if not self._numbered:
            return decode_value(kind, value)
        event = decode_line(value or b"")
        assert not isinstance(event, OtherLine), event
        return event

    def read(self, topic: str, partition: int, offset: int) -> Sequence[Taken]:
        """Return some records from `offset` on."""
        place = (topic, partition)
        if offset >= self._ends.get(place, 0):
            return []
        marks = self._index[place]
        _, near = marks[max(bisect_right(marks, offset, key=lambda entry: entry[0]) - 1, 0)]
        page: list[Taken] = []
        for taken in self._from(near, place):
            if taken.offset >= (page[-1].offset + 1 if page else offset):
                page.append(taken)
            if len(page) == INDEX_EVERY or taken.offset + 1 == self._ends[place]:
                break
        return page

    def _from(self, mark: _Mark, place: Place) -> Iterator[Taken]:
        """Yield the records of a partition from a mark on."""
        topic, partition = place
        position, numbering = mark.position, deepcopy(mark.numbering)
        self._stream.seek(position)
        for line in iter(lambda: self._stream.readline(LINE_BYTES_MAX), b""):
            at, position = position, position + len(line)
            if at in self._damaged:
                continue
            if is_of(line, topic, partition) and self._is_written(line, topic):
                yield read_sound_line(line)
            elif self._numbered:
                taken = self._record(line, numbering)
                if taken is not None and (taken.topic, taken.partition) == place:
                    yield taken

    def _is_written(self, line: bytes, topic: str) -> bool:
        """Return whether a line with a place of this topic is its record, and no source line that names the topic."""
        return not self._numbered or (not self._numbers(topic) and line.startswith(_WRITTEN))

    def _numbers(self, topic: str) -> bool:
        return self._numbered and topic not in ("ledger", "decisions", "control")


def _is_numbered(stream: BinaryIO) -> bool:
    """Return whether a recording was written by a replay, so that its sources are numbered by their lines."""
    stream.seek(0)
    first = stream.readline(LINE_BYTES_MAX)
    try:
        record = read_ledger_line(first).record
    except RecordingError:
        return False
    return isinstance(record, Configured) and record.numbered
