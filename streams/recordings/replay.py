"""The replay driver: a recording passes the same stages as in the live service; it can stop and continue anywhere."""

from __future__ import annotations

import gc
import hashlib
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import BinaryIO, Final, NamedTuple

import msgspec

from actions.journal import Decision, decision_bytes
from streams.config.resolved import Config
from streams.fold.fold import Fold, LedgerMismatch, SavedFold
from streams.ledger.encoding import pack, unpack
from streams.ledger.entries import entry_of, read_entry
from streams.ledger.lines import read_ledger_line
from streams.ledger.records import Tick
from streams.pipeline import Pipeline, SavedPipeline, Step, configuration_of, configuration_record
from streams.recordings.arrivals import arrivals, line_decoder
from streams.recordings.lines import Taken, line_of, read_sound_line
from unship.budgets.table import LINE
from unship.codec import OtherLine, decode_line
from unship.errors import RecordingError, SnapshotError
from unship.rejections import Rejection

_MAGIC: Final = b"unship-snapshot-2\n"
_LEDGER_PLACE: Final = re.compile(rb',"at":\["ledger",(\d+),')

READ_BYTES: Final = 8 * 1_048_576
"""So many bytes of lines are in memory at once, however few lines that are."""

LINE_BYTES_MAX: Final = LINE.limit
"""Longer lines are split here and rejected in pieces, so that no input can fill the memory."""


REFUSED_SHOWN: Final = 5
"""So many refused lines of each code are kept, because a message about a file names lines."""


BEGIN_BYTES: Final = 64
"""So much is kept of the first line, because a message about a file in another format names the format."""


class SavedReplay(msgspec.Struct, frozen=True):
    """A stopped replay: how many lines it has read, with their digest, and what it needs to continue.

    That is a pipeline where the recording is of sources, and otherwise the folds of its ledger partitions.
    """

    lines: int
    decided: int
    prefix: bytes
    pipeline: SavedPipeline | None
    folds: dict[int, SavedFold]


class RefusedLine(NamedTuple):
    """A line of a file that is no event: its number, counted from 1, and why."""

    line: int
    rejection: Rejection


class Refusals:
    """The lines of a file that are no events: the first ones of each code, and how many there are.

    `begin` is how the first line of the file begins.
    """

    def __init__(self) -> None:
        self.first: list[RefusedLine] = []
        self.count = 0
        self.begin = b""

    def add(self, line: int, rejection: Rejection) -> None:
        """Note a line by its number."""
        self.count += 1
        if sum(known.rejection.code == rejection.code for known in self.first) < REFUSED_SHOWN:
            self.first.append(RefusedLine(line, rejection))


class Recorder:
    """Writes a complete recording during a replay: sources as they were, the ledger, and the decisions."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def sources(self, lines: list[bytes]) -> None:
        """Write source lines, byte for byte."""
        for line in lines:
            self._stream.write(line if line.endswith(b"\n") else line + b"\n")

    def step(self, step: Step, clock: int, decided: int) -> None:
        """Write a ledger record and its decisions, as if they were appended to a log at `clock` (ms).

        `decided` is how many decisions there were before.
        """
        for taken, _ in written_by(step, clock, decided):
            self._stream.write(line_of(taken) + b"\n")


def written_by(step: Step, clock: int, decided: int) -> Iterator[tuple[Taken, Decision | None]]:
    """Yield the ledger record and the decisions of a step as they are appended to a log; arguments as above."""
    at = max(clock, 0)
    yield Taken("ledger", 0, step.offset, at, None, step.entry.value), None
    for offset, decision in enumerate(step.decisions, decided):
        yield Taken("decisions", 0, offset, at, decision.model.encode(), decision_bytes(decision)), decision


class Replay:
    """Replays one recording. `lines` counts the lines of the file that were read.

    A recording with ledger lines is replayed from these, under the ledger's own configuration; any other from its
    sources. `folds` are those of the ledger partitions, by number. `refusals` are of lines that are no
    events.
    """

    def __init__(self, config: Config, snapshot: bytes | None = None, recorder: Recorder | None = None) -> None:
        self.config = config
        self.lines = 0
        self.decided = 0
        self.folds: dict[int, Fold] = {}
        self.refusals = Refusals()
        self.pipeline: Pipeline | None = None
        # True if an earlier version wrote the ledger; then the sources are replayed instead.
        self.unread_ledger = False
        self._recorder = recorder
        self._decoder = line_decoder()
        self._hash = hashlib.sha256()
        self._saved = None if snapshot is None else _read_snapshot(snapshot)
        if self._saved is not None:
            self._load(self._saved)

    def _load(self, saved: SavedReplay) -> None:
        self.decided = saved.decided
        try:
            if saved.pipeline is not None:
                own, theirs = self.config.digest(), saved.pipeline.fold.config.digest()
                if own != theirs:
                    raise SnapshotError(
                        f"the snapshot was saved under configuration {theirs[:12]}, this is {own[:12]}; start without "
                        "it, or use the configuration it was saved with"
                    )
                pipeline = self._begin_sources()
                pipeline.load(saved.pipeline)
                # They wait again, so nothing comes of them here.
                for _ in pipeline.take(arrivals(saved.pipeline.waiting, self._decoder)):
                    raise ValueError("the lines that waited for their times to be confirmed do not wait again")
            for number, fold in saved.folds.items():
                self.config = fold.config
                self.folds[number] = Fold(self.config)
                self.folds[number].load(fold)
        except ValueError as error:
            raise SnapshotError(str(error)) from error

    @property
    def from_ledger(self) -> bool:
        """Return whether the recording is replayed from its ledger."""
        return bool(self.folds) and self.pipeline is None

    @property
    def ledger_records(self) -> int:
        """Return how many ledger records were folded."""
        return sum(fold.offset for fold in self.folds.values())

    def _begin_sources(self) -> Pipeline:
        self.pipeline = Pipeline(self.config)
        self.folds[0] = self.pipeline.fold
        return self.pipeline

    def decisions(
        self,
        stream: BinaryIO,
        batch: int = 4_096,
        stop_after: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Decision]:
        """Yield the decisions of a recording; at its end the last batch is folded as well.

        Args:
            stream: The recording.
            batch: How many lines are read at once; it changes only the speed.
            stop_after: The last line to read, counted from 1.
            progress: Called with the number of bytes of each batch.
        """
        self._skip_read(stream)
        collecting = gc.isenabled()
        # The window holds many small objects without cycles; traversing them in each collection costs a third of the
        # time.
        gc.disable()
        try:
            while True:
                wanted = batch if stop_after is None else min(batch, stop_after - self.lines)
                lines = some_lines(lines_in(stream), max(wanted, 0))
                if not lines:
                    break
                data = b"".join(lines)
                self._hash.update(data)
                if not self.lines:
                    # Some editors begin a file with a byte order mark, which is no part of its first line.
                    lines[0] = lines[0].removeprefix(BOM_UTF8)
                yield from self._read(lines)
                self.lines += len(lines)
                if progress is not None:
                    progress(len(data))
        finally:
            if collecting:
                gc.enable()
        if (stop_after is None or self.lines < stop_after) and self.pipeline is not None:
            yield from self._run(self.pipeline.rest())

    def _read(self, lines: list[bytes]) -> Iterator[Decision]:
        if not self.folds:
            first = next((line for line in lines if line.strip()), b"")
            self.refusals.begin = first[:BEGIN_BYTES]
            if _is_ledger(first):
                if self._recorder is not None:
                    raise RecordingError(
                        "the recording has a ledger, so replaying it with --record would write no line; leave --record "
                        "out, or replay the source lines alone"
                    )
                self.config = configuration_of(read_ledger_line(first).record)
            else:
                self.unread_ledger = _LEDGER_PLACE.search(first) is not None
                pipeline = self._begin_sources()
                yield from self._run(pipeline.apply([configuration_record(self.config, numbered=True)]))
        if self.pipeline is None:
            yield from self._fold(lines)
            return
        if self._recorder is not None:
            self._recorder.sources(lines)
        yield from self._run(self.pipeline.take(arrivals(lines, self._decoder, self._refuse)))

    def _refuse(self, place: int, rejection: Rejection) -> None:
        self.refusals.add(self.lines + place + 1, rejection)

    def _fold(self, lines: list[bytes]) -> Iterator[Decision]:
        """Fold the ledger lines among these, each in the fold of its partition."""
        for line in lines:
            found = _LEDGER_PLACE.search(line, max(len(line) - 200, 0))
            if found is None and not _is_ledger(line):
                continue
            entry = read_ledger_line(line) if _is_ledger(line) else read_entry(read_sound_line(line).value)
            number = 0 if found is None else int(found[1])
            fold = self.folds.setdefault(number, Fold(self.config))
            try:
                yield from fold.step(entry)
            except LedgerMismatch as error:
                raise RecordingError(str(error)) from error

    def _run(self, steps: Iterable[Step]) -> Iterator[Decision]:
        for step in steps:
            if self._recorder is not None:
                self._recorder.step(step, self.folds[0].clock, self.decided)
            self.decided += len(step.decisions)
            yield from step.decisions

    def advance(self, ts: int) -> Iterator[Decision]:
        """Advance the clock to `ts` (ms) without a line."""
        if self.pipeline is not None:
            yield from self._run(self.pipeline.advance(ts))
            return
        for fold in self.folds.values():
            while (due := fold.due()) <= ts:
                yield from fold.step(entry_of(Tick(due)))

    def _skip_read(self, stream: BinaryIO) -> None:
        """Skip what a stopped replay has read, and check that it is the same."""
        if self._saved is None:
            return
        for line in islice(lines_in(stream), self._saved.lines):
            self.lines += 1
            self._hash.update(line)
        if self.lines != self._saved.lines or self._hash.digest() != self._saved.prefix:
            raise SnapshotError(
                f"the snapshot was saved after {self._saved.lines} lines of another recording (this one differs in its "
                f"first {self.lines} lines); resume with the recording it was made from"
            )
        self._saved = None

    def save(self) -> bytes:
        """Return a snapshot from which the replay of the same recording can continue."""
        pipeline = None if self.pipeline is None else self.pipeline.save()
        folds = {} if pipeline is not None else {number: fold.save() for number, fold in self.folds.items()}
        body = pack(SavedReplay(self.lines, self.decided, self._hash.digest(), pipeline, folds))
        return _MAGIC + hashlib.sha256(body).digest() + body

    def counts(self) -> dict[str, int]:
        """Return the counts of what was not used so far, by reason."""
        total = sum((fold.counts() for fold in self.folds.values()), Counter())
        if self.pipeline is not None:
            total.update(self.pipeline.cutter.join.counts())
        return dict(sorted((str(reason), count) for reason, count in total.items()))


def some_lines(lines: Iterator[bytes], count: int, most_bytes: int = READ_BYTES) -> list[bytes]:
    """Return the next lines: at most so many, and no more once they have so many bytes.

    >>> some_lines(iter([b"a", b"bc", b"d"]), 3, 2)
    [b'a', b'bc']
    """
    some: list[bytes] = []
    size = 0
    while len(some) < count and size < most_bytes and (line := next(lines, b"")):
        some.append(line)
        size += len(line)
    return some


def lines_in(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a recording from its present position on, none longer than `LINE_BYTES_MAX`."""
    return iter(partial(stream.readline, LINE_BYTES_MAX), b"")


def _is_ledger(line: bytes) -> bool:
    return b"ledger" in line and decode_line(line) == OtherLine("ledger")


def _read_snapshot(data: bytes) -> SavedReplay:
    head, digest, body = data[: len(_MAGIC)], data[len(_MAGIC) : len(_MAGIC) + 32], data[len(_MAGIC) + 32 :]
    if head != _MAGIC:
        raise SnapshotError(
            "not a snapshot of a replay, or of another version; save one with --stop-after LINE --save FILE"
        )
    if hashlib.sha256(body).digest() != digest:
        raise SnapshotError("the snapshot is damaged (its checksum differs); save it again")
    try:
        return unpack(body, SavedReplay)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise SnapshotError(f"the snapshot does not fit this version: {error}") from error
