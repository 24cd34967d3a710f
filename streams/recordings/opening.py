"""Open recordings: files, compressed files, standard input."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from streams.recordings.file_formats import open_recording
from streams.recordings.replay import lines_in
from unship.budgets.table import RECORDING
from unship.errors import RecordingError

_PEEKED = 64
_COPIED = 1_048_576
_OF_A_LEDGER = (b',"at":["ledger",', b',"at":["decisions",')


class LineStream(io.RawIOBase):
    """A file of lines that are produced as they are read."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        super().__init__()
        self._lines = iter(lines)
        self._ahead: list[bytes] = []

    def peek(self, size: int = 0, /) -> bytes:
        """Return the next line without going on, ignoring `size`; empty at the end."""
        self._ahead = self._ahead or [next(self._lines, b"")]
        return self._ahead[0]

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line with its line feed, ignoring `size`; empty at the end."""
        return self._ahead.pop() if self._ahead else next(self._lines, b"")


def has_ledger(stream: BinaryIO) -> bool:
    """Return whether a recording has a ledger, or lacks one: decisions with a place in a log are of a ledger.

    A ledger is first in its recording, unless its beginning was removed or damaged.
    """
    found = any(any(place in line for place in _OF_A_LEDGER) for line in lines_in(stream))
    stream.seek(0)
    return found


def begins_with_ledger(stream: BinaryIO) -> bool:
    """Return whether a recording begins with a ledger record, without going on in it."""
    peek = getattr(stream, "peek", None)
    return peek is not None and peek(_PEEKED)[:_PEEKED].lstrip().startswith(b'{"type":"ledger"')


@contextmanager
def open_seekable(source: str, limit: int = RECORDING.limit) -> Iterator[BinaryIO]:
    """Open a recording for reading in any order; compressed files, pipes and standard input are copied to disk first.

    Args:
        source: The path, or `-`.
        limit: How many bytes are copied.

    Raises:
        RecordingError: It cannot be opened.
    """
    with open_recording(source, limit) as stream:
        if source != "-" and stream.seekable():
            yield stream
            return
        with tempfile.TemporaryFile() as file:
            left = limit
            while data := stream.read(min(_COPIED, left + 1)):
                if len(data) > left:
                    raise RecordingError(f"{source}: it holds more than {limit} bytes, the limit (limits.recording)")
                file.write(data)
                left -= len(data)
            file.seek(0)
            yield cast(BinaryIO, file)
