"""Open recordings: files, packed files, standard input."""

import io
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from streams.recordings.replay import LINE_BYTES_MAX, open_recording


class LineStream(io.RawIOBase):
    """Lines that are made as they are read, for readers of files."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        super().__init__()
        self._lines = iter(lines)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line whole, whatever `size` says, with its line feed; nothing at the end."""
        return next(self._lines, b"")


def has_ledger(stream: BinaryIO) -> bool:
    """Return whether a recording has a ledger: then it begins with the ledger's configuration and its place there."""
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
