"""Open the file of a recording: plain, gzip or Zstandard, from a path or from standard input.

What a file is shows in its first bytes, because a pipe has no name and many a file has a wrong one. A file whose name
ends in `.gz` or `.zst` has to be that all the same, so that a damaged beginning is an error and no text. What is not
read is named, with the command that converts it.
"""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from unship.budgets.table import RECORDING
from unship.errors import RecordingError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

UNPACKED_BYTES: Final = 262_144

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_HEAD_BYTES: Final = 4
_UTF_16: Final = (b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{", b"[\0", b"\0[")
_OTHERS: Final = {
    b"PK\x03\x04": "a zip archive; unpack it: unzip -p FILE",
    b"BZh": "compressed by bzip2; unpack it: bzip2 -dc FILE",
    b"\xfd7zX": "compressed by xz; unpack it: xz -dc FILE",
    b"PAR1": "a Parquet file; write its rows as lines of JSON, one event each",
}

DAMAGED: Final = (OSError, EOFError, zlib.error, zstd.ZstdError)
"""What is raised where a file cannot be read or unpacked."""


class _Unpacked(io.RawIOBase):
    """A compressed file as its content, of which no more is unpacked than a limit."""

    def __init__(self, packed: BinaryIO, source: str, limit: int) -> None:
        super().__init__()
        self._packed, self._source = packed, source
        self._limit, self._left = limit, limit

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Unpack some bytes into a buffer; return how many."""
        data: bytes = self._packed.read(min(len(buffer), self._left + 1))
        if len(data) > self._left:
            raise RecordingError(
                f"{self._source}: it holds more than {self._limit} bytes when it is unpacked, which is the limit "
                "(limits.recording); unpack it yourself if you trust it, or raise the limit"
            )
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def open_recording(source: str, limit: int = RECORDING.limit) -> Iterator[BinaryIO]:
    """Open a recording for reading: a path, or `-` for standard input; gzip and Zstandard are unpacked.

    Args:
        source: The path.
        limit: How many bytes of a compressed recording are unpacked.

    Raises:
        RecordingError: It cannot be opened, or is in a format that is not read.
    """
    try:
        with ExitStack() as stack:
            stream = sys.stdin.buffer if source == "-" else stack.enter_context(Path(source).open("rb"))
            packed = _packed(stack, stream, source)
            if packed is not None:
                stream = cast(BinaryIO, io.BufferedReader(_Unpacked(packed, source, limit), UNPACKED_BYTES))
            _refuse_others(stream, source)
            yield stream
    except DAMAGED as error:
        raise RecordingError(f"{source}: cannot be read: {error}") from error


def _packed(stack: ExitStack, stream: BinaryIO, source: str) -> BinaryIO | None:
    """Return the reader of a compressed file, None if it is plain."""
    suffix, head = Path(source).suffix, _head(stream)
    if suffix == ".gz" or (head.startswith(_GZIP) and suffix != ".zst"):
        return cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=stream, mode="rb")))
    if suffix == ".zst" or head.startswith(_ZSTD):
        return cast(BinaryIO, stack.enter_context(zstd.ZstdFile(stream, "rb")))
    return None


def _refuse_others(stream: BinaryIO, source: str) -> None:
    head = _head(stream)
    if head.startswith(_UTF_16):
        raise RecordingError(
            f"{source}: it is UTF-16, and a recording is UTF-8; convert it: iconv -f UTF-16 -t UTF-8 {_named(source)}"
        )
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise RecordingError(f"{source}: it is {what.replace('FILE', _named(source))}")


def _named(source: str) -> str:
    return "FILE" if source == "-" else source


def _head(stream: BinaryIO) -> bytes:
    """Return the first bytes of a file, without reading on in it; some streams show none."""
    peek = getattr(stream, "peek", None)
    return b"" if peek is None else peek(_HEAD_BYTES)[:_HEAD_BYTES]
