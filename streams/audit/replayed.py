"""The audit of a recording that a replay wrote: its sources are replayed again, and must give all other lines of it.

A replay cuts its batches at positions that depend on its source lines alone. So the ledger itself can be computed
again: each of its lines is compared byte for byte, as is each decision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import BinaryIO, Final

import msgspec

from actions.journal import Decision
from streams.audit.decisions_audit import no_collector
from streams.audit.differences import Difference, Found, decision_difference, difference, named, short
from streams.audit.result import AuditResult, decision_id_of
from streams.config.resolved import Config
from streams.ledger.entries import read_entry
from streams.ledger.lines import read_ledger_line
from streams.ledger.records import Batch, Configured, Deployed, Operated, Record, ReplicaFacts, Tick
from streams.pipeline import Pipeline, Step, configuration_of, configuration_record
from streams.recordings.arrivals import arrivals, line_decoder
from streams.recordings.lines import Taken, is_of, line_of, place_of, read_sound_line
from streams.recordings.replay import LINE_BYTES_MAX, READ_BYTES, lines_in, written_by
from unship.codec import OtherLine, decode_line
from unship.errors import RecordingError
from unship.topics import SOURCES

READ_LINES: Final = 4_096
_COMPUTED: Final = (b'{"type":"ledger"', b'{"type":"decision"')


def is_replayed(stream: BinaryIO) -> bool:
    """Return whether a recording was written by a replay, and has the source lines that were replayed."""
    stream.seek(0)
    try:
        record = read_ledger_line(stream.readline(LINE_BYTES_MAX)).record
    except RecordingError:
        return False
    if not isinstance(record, Configured) or not record.numbered:
        return False
    return any(_is_source(line) for line in lines_in(stream))


def audit_replayed(stream: BinaryIO, progress: Callable[[int], None] | None = None) -> AuditResult:
    """Replay the sources of a recording again, and compare each other line of it.

    Args:
        stream: A recording for which `is_replayed` is true; it must be seekable.
        progress: Called with the number of bytes of each line.

    Raises:
        RecordingError: Its configuration cannot be read.
    """
    stream.seek(0)
    config = configuration_of(read_ledger_line(stream.readline(LINE_BYTES_MAX)).record)
    result = AuditResult()
    try:
        with no_collector():
            ReplayAudit(config, stream, result, progress).run()
    except Found as found:
        result.first_difference = found.difference
    stream.seek(0)
    for line in lines_in(stream):
        name = decision_id_of(line) if is_of(line, "decisions", 0) else None
        if name is not None:
            result.known.add(name)
    result.decisions = len(result.known)
    return result


class ReplayAudit:
    """Audits one recording that a replay wrote."""

    def __init__(
        self, config: Config, stream: BinaryIO, result: AuditResult, progress: Callable[[int], None] | None = None
    ) -> None:
        self.result = result
        self.pipeline = Pipeline(config)
        self._stream = stream
        self._progress = progress
        self._decoder = line_decoder()
        # What was computed and is not compared yet.
        self._due: deque[tuple[Taken, Decision | None]] = deque()
        self._decided = 0
        self._acts = 0

    def run(self) -> None:
        """Audit the recording up to its end, or to the first difference, which is raised."""
        self._compute(self.pipeline.apply([configuration_record(self.pipeline.fold.config, numbered=True)]))
        self._stream.seek(0)
        position, sources, size = 0, list[bytes](), 0
        for line in lines_in(self._stream):
            computed = _is_computed(line)
            if not computed:
                sources.append(line)
                size += len(line)
            if sources and (computed or len(sources) == READ_LINES or size >= READ_BYTES):
                self._compute(self.pipeline.take(arrivals(sources, self._decoder)))
                sources.clear()
                size = 0
            if computed:
                if not self._due:
                    self._finish(position)
                    break
                self._compare(line)
            position += len(line)
            if self._progress is not None:
                self._progress(len(line))
        else:
            self._compute(self.pipeline.take(arrivals(sources, self._decoder)))
            if self.pipeline.cutter.is_open:
                self.result.remarks.append(
                    "the last source lines: the recording ends before they are in a batch, as it does where a replay "
                    "was stopped; lines that were removed from its end look the same"
                )
        if self._due:
            taken, decision = self._due[0]
            self._note(decision)
            raise Found(Difference(_name_of(taken, decision), "the line", "absent", "present"))
        if self._acts:
            self.result.remarks.append(
                f"the signatures of {self._acts} operators' acts, because the audit of a replay reads only their lines"
            )

    def _compute(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self._acts += isinstance(step.entry.record, Operated)
            self._due.extend(written_by(step, self.pipeline.fold.clock, self._decided))
            self._decided += len(step.decisions)

    def _finish(self, position: int) -> None:
        """Compare the lines from `position` on: those that a replay writes at the end of its sources."""
        clock = -1
        self._stream.seek(position)
        for line in lines_in(self._stream):
            if _is_source(line) and line.strip():
                raise Found(Difference("the end of the recording", "a source line", short(line), "absent"))
            if is_of(line, "ledger", 0):
                record = _record_of(line)
                clock = record.clock if isinstance(record, Tick) else -1
        self._compute(self.pipeline.rest())
        self._stream.seek(position)
        for line in filter(_is_computed, lines_in(self._stream)):
            if not self._due:
                # The replay went on up to a time without a line.
                self._compute(self.pipeline.advance(clock))
            self._compare(line)

    def _compare(self, line: bytes) -> None:
        if not self._due:
            raise Found(Difference(short(_place_of(line)), "the line", short(line), "absent"))
        expected, decision = self._due.popleft()
        self._note(decision)
        text = line_of(expected)
        if line.removesuffix(b"\n") != text:
            raise Found(_difference_of(line, text, expected, decision))
        if decision is None:
            self.result.note_record()
        else:
            self.result.note_reproduced(decision.id)

    def _note(self, decision: Decision | None) -> None:
        if decision is not None:
            self.result.known.add(decision.id)


def _difference_of(line: bytes, text: bytes, expected: Taken, decision: Decision | None) -> Difference:
    """Return the difference of a recorded line and the computed one."""
    what = _name_of(expected, decision)
    try:
        recorded, theirs = read_sound_line(line), msgspec.json.decode(line)
    except (RecordingError, ValueError, RecursionError):
        return Difference(what, "its line", short(line), short(text))
    if place_of(recorded) != place_of(expected):
        return Difference(what, "the line", f"that of {place_of(recorded)}", f"that of {place_of(expected)}")
    if decision is not None and recorded.value != expected.value:
        return decision_difference(recorded.value or b"", decision)
    return difference(what, theirs, msgspec.json.decode(text))


def _name_of(taken: Taken, decision: Decision | None) -> str:
    """Return the name of a computed line, with the sources that it follows from."""
    if decision is not None:
        return named(decision)
    record = read_entry(taken.value).record
    what = f"ledger record {taken.offset} ({type(record).__name__.lower()})"
    if isinstance(record, Batch):
        ranges = (f"{topic}[0]@{record.base[side]}..{record.end[side] - 1}" for side, topic in enumerate(SOURCES))
        return f"{what}: {', '.join(ranges)}"
    if isinstance(record, ReplicaFacts):
        first, last = (record.changes[i].place for i in (0, -1))
        return f"{what}: {first[0]}[{first[1]}]@{first[2]} to {last[0]}[{last[1]}]@{last[2]}"
    if isinstance(record, Deployed | Operated) and record.event.at is not None:
        topic, partition, offset, _ = record.event.at
        return f"{what}: {topic}[{partition}]@{offset}"
    return what


def _place_of(line: bytes) -> str:
    try:
        return place_of(read_sound_line(line))
    except RecordingError:
        return "a line"


def _record_of(line: bytes) -> Record | None:
    try:
        return read_entry(read_sound_line(line).value).record
    except RecordingError:
        return None


def _is_computed(line: bytes) -> bool:
    return line.startswith(_COMPUTED) and (is_of(line, "ledger", 0) or is_of(line, "decisions", 0))


def _is_source(line: bytes) -> bool:
    return not line.startswith(_COMPUTED) and not isinstance(decode_line(line), OtherLine)
