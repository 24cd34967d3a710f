"""Recordings of topics: written from whatever has topics, read back as if they were the topics."""

import heapq
import io
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from streams.recording import (
    KIND_OF,
    Place,
    Taken,
    Topics,
    is_of,
    line_of,
    order_of,
    place_of,
    read_line,
    read_sound_line,
)
from streams.replay import LINE_BYTES_MAX, open_recording
from unship.errors import RecordingError
from unship.log.address import EMBEDDED
from unship.log.embedded.file import FILE_NAME
from unship.log.embedded.log import EmbeddedLog

INDEX_EVERY = 256
DAMAGED_MAX = 1_000
_END_OF_TIME = 2**62


class Span(msgspec.Struct, frozen=True):
    """Append times that are recorded, in milliseconds, both ends included.

    The ledger and the decisions are recorded from their first record on whatever `since` says: they tell nothing
    without what came before.
    """

    since: int = 0
    until: int = _END_OF_TIME

    def takes(self, taken: Taken) -> bool:
        """Whether a record belongs into the recording."""
        whole = taken.topic in ("ledger", "decisions")
        return (whole or taken.append_ts >= self.since) and taken.append_ts <= self.until


EVERYTHING = Span()


class Written(msgspec.Struct):
    """What a recording holds: lines by topic, and in sentences what cannot be done with it."""

    lines: dict[str, int]
    bytes: int = 0
    limits: list[str] = []


class EmbeddedTopics:
    """The topics of an embedded log, which have one partition each, as they stand when this is made."""

    def __init__(self, log: EmbeddedLog) -> None:
        self.log = log
        self._ends = {(topic, 0): end for topic, end in log.ends().items() if topic in KIND_OF}

    def partitions(self, topic: str) -> int:
        """Return 1."""
        return 1

    def first(self, topic: str, partition: int) -> int:
        """Return the smallest offset that is kept."""
        return self.log.first(topic)

    def ends(self) -> Mapping[Place, int]:
        """Return the ends of one instant."""
        return self._ends

    def read(self, topic: str, partition: int, offset: int) -> Sequence[Taken]:
        """Return some records from `offset` on."""
        return [
            Taken(topic, 0, entry.offset, entry.append_ts, entry.key, entry.value, entry.headers)
            for entry in self.log.read(topic, offset)
        ]


def record_log(
    log: EmbeddedLog,
    stream: BinaryIO,
    span: Span = EVERYTHING,
    progress: Callable[[int], None] | None = None,
) -> Written:
    """Write a recording of an embedded log; return what it holds. See `record_topics`."""
    return record_topics(EmbeddedTopics(log), stream, span, progress)


def record_topics(
    topics: Topics,
    stream: BinaryIO,
    span: Span = EVERYTHING,
    progress: Callable[[int], None] | None = None,
) -> Written:
    """Write a recording of topics as they stand now; return what it holds.

    Args:
        topics: what to record; one page of each partition is in memory at once.
        stream: where to.
        span: which append times.
        progress: called with the number of records written since the last call.
    """
    written = Written(dict.fromkeys(KIND_OF, 0))
    since_told = 0
    for taken in taken_of(topics, span):
        line = line_of(taken)
        stream.write(line + b"\n")
        written.lines[taken.topic] += 1
        written.bytes += len(line) + 1
        since_told += 1
        if progress is not None and since_told == 1_000:
            progress(since_told)
            since_told = 0
    if progress is not None:
        progress(since_told)
    written.limits = limits_of(topics, span)
    return written


def taken_of(topics: Topics, span: Span = EVERYTHING) -> Iterator[Taken]:
    """Yield the records of a recording in its order: by append time, but each ledger's configuration first of all.

    A reader that meets the configuration first knows at once that it need not join the events that follow.
    """
    ends = topics.ends()
    heads: list[Taken] = []
    begins: dict[Place, int] = {}
    for topic, partition in ends:
        first = begins[topic, partition] = topics.first(topic, partition)
        if topic == "ledger" and first < ends[topic, partition]:
            heads += topics.read(topic, partition, first)[:1]
            begins[topic, partition] = first + 1
    yield from (head for head in heads if span.takes(head))
    yield from heapq.merge(*(_records(topics, place, begins[place], ends[place], span) for place in ends), key=order_of)


def _records(topics: Topics, place: Place, begin: int, end: int, span: Span) -> Iterator[Taken]:
    while begin < end and (page := topics.read(*place, begin)):
        for taken in page:
            if taken.offset >= end or taken.append_ts > span.until:
                return
            if span.takes(taken):
                yield taken
        begin = page[-1].offset + 1


def limits_of(topics: Topics, span: Span = EVERYTHING) -> list[str]:
    """Return in sentences what cannot be done with a recording of these topics."""
    limits = []
    for topic, partition in topics.ends():
        first = topics.first(topic, partition)
        if topic == "ledger" and first > 0:
            limits.append(
                f"ledger[{partition}] begins at offset {first}, its configuration is gone: nothing can be audited"
            )
        elif topic == "decisions" and first > 0:
            limits.append(f"decisions[{partition}] begins at offset {first}: what was decided before is not there")
        elif topic in ("predictions", "feedback") and (first > 0 or span.since > 0):
            why = f"begins at offset {first}" if first > 0 else "was not recorded from its first record on"
            limits.append(f"{topic}[{partition}] {why}: the ledger cannot be compared with it")
    return limits


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


class LineStream(io.RawIOBase):
    """Lines that are made as they are read, for readers of files."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        super().__init__()
        self._lines = iter(lines)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line whole, whatever `size` says, with its line feed; nothing at the end."""
        return next(self._lines, b"")


@contextmanager
def open_log(source: str) -> Iterator[EmbeddedLog]:
    """Open the log that `embedded:DIR` names; unlike a writer, make none.

    Raises:
        RecordingError: if there is none.
    """
    folder = Path(source.removeprefix(EMBEDDED))
    if not (folder / FILE_NAME).is_file():
        raise RecordingError(f"{source}: there is no log in {folder}; name the folder that `unship run` writes to")
    with EmbeddedLog(folder) as log:
        yield log


@contextmanager
def open_source(source: str) -> Iterator[BinaryIO]:
    """Open what can be replayed: a recording, `-` for standard input, or `embedded:DIR`, read as its own recording.

    Raises:
        RecordingError: if it cannot be opened.
    """
    if not source.startswith(EMBEDDED):
        with open_recording(source) as stream:
            yield stream
        return
    with open_log(source) as log:
        yield cast(BinaryIO, LineStream(line_of(taken) + b"\n" for taken in taken_of(EmbeddedTopics(log))))


def is_taken(stream: BinaryIO) -> bool:
    """Whether a recording was taken from a log: then it begins with a ledger's configuration and its place there."""
    first = stream.readline(LINE_BYTES_MAX)
    stream.seek(0)
    return b',"at":["ledger",' in first


@contextmanager
def open_seekable(source: str) -> Iterator[BinaryIO]:
    """Open a recording so that its parts can be read in any order; what is packed or comes in is put on disk first.

    Raises:
        RecordingError: if it cannot be opened.
    """
    with open_recording(source) as stream:
        if source != "-" and not source.endswith(".gz"):
            yield stream
            return
        with tempfile.TemporaryFile() as file:
            shutil.copyfileobj(stream, file)
            file.seek(0)
            yield cast(BinaryIO, file)
