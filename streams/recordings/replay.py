"""The replay driver: a recording goes through the same steps as the live service, and can stop and go on anywhere."""

import gc
import gzip
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from actions.journal import Decision, decision_bytes
from streams.config.resolved import Config
from streams.fold.fold import Fold, LedgerMismatch, SavedFold
from streams.ledger.encoding import pack, unpack
from streams.ledger.lines import ledger_line, read_ledger_line
from streams.ledger.records import Configured, Record
from streams.pipeline import (
    Pipeline,
    SavedPipeline,
    configuration_of,
    configuration_record,
    fold_step,
    join_step,
    with_fleet_facts,
)
from unship.codec import OtherLine, decode_line
from unship.errors import RecordingError, SnapshotError

_MAGIC = b"unship-snapshot-1\n"
#: Longer lines are cut here and rejected in pieces, so that no input can fill the memory.
_LEDGER_PLACE = re.compile(rb',"at":\["ledger",(\d+),')
LINE_BYTES_MAX = 32 * 1_048_576


class SavedReplay(msgspec.Struct):
    """A stopped replay: how many lines of which bytes it has read, and the pipeline.

    `config` is the ledger's own where the recording has a ledger, else None: then the caller's is in force. `others`
    are the folds of further ledger partitions.
    """

    lines: int
    prefix: bytes
    config: Config | None
    pipeline: SavedPipeline
    others: dict[int, SavedFold] = {}


class Recorder:
    """Writes a complete recording while a replay goes on: sources as they were, the ledger, and the decisions."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def sources(self, lines: list[bytes]) -> None:
        """Write source lines, byte for byte."""
        for line in lines:
            self._stream.write(line if line.endswith(b"\n") else line + b"\n")

    def step(self, offset: int, record: Record, decisions: list[Decision]) -> None:
        """Write a ledger record and the decisions it led to."""
        self._stream.write(ledger_line(offset, record) + b"\n")
        for decision in decisions:
            self._stream.write(decision_bytes(decision) + b"\n")


@contextmanager
def open_recording(source: str) -> Iterator[BinaryIO]:
    """Open a recording for reading: a path, `.gz` included, or `-` for standard input.

    Raises:
        RecordingError: if it cannot be opened.
    """
    try:
        if source == "-":
            yield sys.stdin.buffer
            return
        path = Path(source)
        if path.suffix == ".zst":
            raise RecordingError(f"{source}: .zst is not read yet; unpack it first, or use .gz")
        with cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb") as stream:
            yield stream
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise RecordingError(f"{source}: cannot be read: {error}") from error


class Replay:
    """Replays one recording. `lines` counts the lines of the file that were read.

    A recording with ledger lines is replayed from these, under the ledger's own configuration; any other from its
    sources.
    """

    def __init__(self, config: Config, snapshot: bytes | None = None, recorder: Recorder | None = None) -> None:
        self.lines = 0
        self.from_ledger = False
        self._recorder = recorder
        # A ledger of several partitions is folded partition by partition; the first one is the pipeline's own.
        self._others: dict[int, Fold] = {}
        self._hash = hashlib.sha256()
        self._saved = None if snapshot is None else _read_snapshot(snapshot)
        self.pipeline = Pipeline(config if self._saved is None else self._saved.config or config)
        if self._saved is not None:
            self.from_ledger = self._saved.config is not None
            own, saved = self.pipeline.config.digest(), self._saved.pipeline.fold.config.digest()
            if not self.from_ledger and own != saved:
                raise SnapshotError(
                    f"the snapshot was saved under configuration {saved[:12]}, this is {own[:12]}; start without it, "
                    "or use the configuration it was saved with"
                )
            try:
                self.pipeline.load(self._saved.pipeline)
                for number, fold in self._saved.others.items():
                    self._others[number] = Fold(self.pipeline.config)
                    self._others[number].load(fold)
            except ValueError as error:
                raise SnapshotError(str(error)) from error

    def decisions(
        self,
        stream: BinaryIO,
        batch: int = 4_096,
        stop_after: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Decision]:
        """Yield the decisions of a recording; at its end what was joined last is folded as well.

        Args:
            stream: the recording.
            batch: lines read at once; it changes nothing but speed.
            stop_after: read up to this line of the file (counted from 1) and no further.
            progress: called with the number of bytes of each batch.
        """
        self._skip_read(stream)
        collecting = gc.isenabled()
        # The window holds many small objects without cycles; walking through them again and again costs a third of the
        # time.
        gc.disable()
        try:
            while True:
                wanted = batch if stop_after is None else min(batch, stop_after - self.lines)
                lines = list(islice(_lines(stream), max(wanted, 0)))
                if not lines:
                    break
                data = b"".join(lines)
                self._hash.update(data)
                yield from self._read(lines)
                self.lines += len(lines)
                if progress is not None:
                    progress(len(data))
        finally:
            if collecting:
                gc.enable()
        if (stop_after is None or self.lines < stop_after) and not self.from_ledger:
            yield from self._run(with_fleet_facts(self.pipeline, self.pipeline.sources.cut()))

    def _read(self, lines: list[bytes]) -> Iterator[Decision]:
        if not self.from_ledger and self.pipeline.fold.offset == 0:
            first = next((line for line in lines if line.strip()), b"")
            self.from_ledger = _is_ledger(first)
            if self.from_ledger:
                self._take_configuration(read_ledger_line(first).record)
            else:
                yield from self._run(iter((configuration_record(self.pipeline.config),)))
        if self._recorder is not None:
            self._recorder.sources(lines)
        if self.from_ledger:
            for line in lines:
                if _is_ledger(line):
                    yield from self._run(iter((read_ledger_line(line).record,)), self._fold_of(line))
        else:
            yield from self._run(join_step(self.pipeline, lines))

    def _take_configuration(self, record: Record) -> None:
        if not isinstance(record, Configured):
            raise RecordingError("the ledger does not begin with its configuration; record it from its first offset on")
        self.pipeline = Pipeline(configuration_of(record))

    def _fold_of(self, line: bytes) -> Fold | None:
        """Return the fold of the ledger partition that a line is from, None for the pipeline's own."""
        found = _LEDGER_PLACE.search(line, max(len(line) - 200, 0))
        number = 0 if found is None else int(found[1])
        if not number:
            return None
        if number not in self._others:
            self._others[number] = Fold(self.pipeline.config)
        return self._others[number]

    def _run(self, records: Iterator[Record], other: Fold | None = None) -> Iterator[Decision]:
        for record in records:
            offset = self.pipeline.fold.offset if other is None else other.offset
            try:
                decisions = fold_step(self.pipeline, record) if other is None else other.step(record)
            except LedgerMismatch as error:
                raise RecordingError(str(error)) from error
            if self._recorder is not None:
                self._recorder.step(offset, record, decisions)
            yield from decisions

    def advance(self, ts: int) -> Iterator[Decision]:
        """Let the clock go to `ts` (ms) without a line."""
        yield from self._run(with_fleet_facts(self.pipeline, self.pipeline.sources.advance(ts)))

    def _skip_read(self, stream: BinaryIO) -> None:
        """Pass over what a stopped replay has read, and make sure that it is the same."""
        if self._saved is None:
            return
        for line in islice(_lines(stream), self._saved.lines):
            self.lines += 1
            self._hash.update(line)
        if self.lines != self._saved.lines or self._hash.digest() != self._saved.prefix:
            raise SnapshotError(
                f"the snapshot was saved after {self._saved.lines} lines of another recording (this one differs in its "
                f"first {self.lines} lines); resume with the recording it was made from"
            )
        self._saved = None

    def save(self) -> bytes:
        """Return a snapshot from which the replay of the same recording can go on."""
        body = pack(
            SavedReplay(
                self.lines,
                self._hash.digest(),
                self.pipeline.config if self.from_ledger else None,
                self.pipeline.save(),
                {number: fold.save() for number, fold in self._others.items()},
            )
        )
        return _MAGIC + hashlib.sha256(body).digest() + body

    def counts(self) -> dict[str, int]:
        """Return what was rejected or set aside so far, by reason."""
        total = self.pipeline.sources.counts + self.pipeline.fold.counts()
        total = sum((fold.counts() for fold in self._others.values()), total)
        return dict(sorted((str(reason), count) for reason, count in total.items()))


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: stream.readline(LINE_BYTES_MAX), b"")


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
