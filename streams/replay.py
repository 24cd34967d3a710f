"""The replay driver: a recording goes through the same steps as the live service, and can stop and go on anywhere."""

import gc
import gzip
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from actions.journal import Decision
from streams.arrays import pack, unpack
from streams.config import Config
from streams.pipeline import Pipeline, SavedPipeline, join_step, run
from unship.errors import RecordingError, SnapshotError

_MAGIC = b"unship-snapshot-1\n"
#: Longer lines are cut here and rejected in pieces, so that no input can fill the memory.
LINE_BYTES_MAX = 32 * 1_048_576


class SavedReplay(msgspec.Struct):
    """A stopped replay: how many lines of which bytes it has read, and the pipeline."""

    lines: int
    prefix: bytes
    pipeline: SavedPipeline


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
    """Replays one recording. `lines` counts the lines of the file that were read."""

    def __init__(self, config: Config, snapshot: bytes | None = None) -> None:
        self.pipeline = Pipeline(config)
        self.lines = 0
        self._hash = hashlib.sha256()
        self._skip: SavedReplay | None = None
        if snapshot is None:
            self.pipeline.start()
        else:
            self._skip = _read_snapshot(snapshot)
            try:
                self.pipeline.load(self._skip.pipeline)
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
        # The window holds many small objects without cycles; walking through them again and again costs a third of the time.
        gc.disable()
        try:
            while True:
                wanted = batch if stop_after is None else min(batch, stop_after - self.lines)
                lines = list(islice(iter(lambda: stream.readline(LINE_BYTES_MAX), b""), max(wanted, 0)))
                if not lines:
                    break
                self.lines += len(lines)
                data = b"".join(lines)
                self._hash.update(data)
                yield from run(self.pipeline, join_step(self.pipeline, lines))
                if progress is not None:
                    progress(len(data))
        finally:
            if collecting:
                gc.enable()
        if stop_after is None or self.lines < stop_after:
            yield from run(self.pipeline, self.pipeline.sources.cut())

    def advance(self, ts: int) -> Iterator[Decision]:
        """Let the clock go to `ts` (ms) without a line."""
        yield from run(self.pipeline, self.pipeline.sources.advance(ts))

    def _skip_read(self, stream: BinaryIO) -> None:
        """Pass over what a stopped replay has read, and make sure that it is the same."""
        if self._skip is None:
            return
        for line in islice(iter(lambda: stream.readline(LINE_BYTES_MAX), b""), self._skip.lines):
            self.lines += 1
            self._hash.update(line)
        if self.lines != self._skip.lines or self._hash.digest() != self._skip.prefix:
            raise SnapshotError(
                f"the snapshot was saved after {self._skip.lines} lines of another recording (this one differs in its first "
                f"{self.lines} lines); resume with the recording it was made from"
            )
        self._skip = None

    def save(self) -> bytes:
        """Return a snapshot from which the replay of the same recording can go on."""
        body = pack(SavedReplay(self.lines, self._hash.digest(), self.pipeline.save()))
        return _MAGIC + hashlib.sha256(body).digest() + body

    def counts(self) -> dict[str, int]:
        """Return what was rejected or set aside so far, by reason."""
        total = self.pipeline.sources.counts + self.pipeline.fold.counts()
        return dict(sorted((str(reason), count) for reason, count in total.items()))


def _read_snapshot(data: bytes) -> SavedReplay:
    head, digest, body = data[: len(_MAGIC)], data[len(_MAGIC) : len(_MAGIC) + 32], data[len(_MAGIC) + 32 :]
    if head != _MAGIC:
        raise SnapshotError("not a snapshot of a replay, or of another version; save one with --stop-after LINE --save FILE")
    if hashlib.sha256(body).digest() != digest:
        raise SnapshotError("the snapshot is damaged (its checksum differs); save it again")
    try:
        return unpack(body, SavedReplay)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        raise SnapshotError(f"the snapshot does not fit this version: {error}") from error
