"""Write a file that a command was asked for: whole or not at all, and never over what the command reads.

A new file takes the name at the end, so that a full disk or a signal leaves what was there. It would also take the name
of a device, a pipe or a link, so these are refused, and so is every input, under whatever name.
"""

from __future__ import annotations

import gzip
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from console.settings import StandardOutputRefused
from unship.errors import ConfigurationError, RecordingError, UnshipError
from unship.log.address import EMBEDDED
from unship.log.embedded.file import FILE_NAME
from unship.log.kafka.access import SCHEME

STANDARD = "-"
"""Names standard input where a source is expected, and standard output where a target is."""


class _Output:
    """Writes to a file, and raises what is no `OSError`: those are taken for errors of what is read meanwhile."""

    def __init__(self, file: BinaryIO, refused: Callable[[OSError], UnshipError]) -> None:
        self._file = file
        self._refused = refused

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            raise self._refused(error) from error

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise self._refused(error) from error


def standard_output() -> BinaryIO:
    """Return standard output for bytes; it raises `StandardOutputRefused` where it takes nothing more."""
    refused = lambda error: StandardOutputRefused(f"standard output: {error.strerror}")  # noqa: E731
    return cast(BinaryIO, _Output(sys.stdout.buffer, refused))


def files_of(source: str) -> list[Path]:
    """Return the files that are read of a source: a recording, a log, or standard input.

    Example:
        >>> [path.name for path in files_of("embedded:data")]
        ['log.sqlite3', 'log.sqlite3-wal', 'log.sqlite3-shm']
    """
    if source.startswith(SCHEME):
        return []
    if source.startswith(EMBEDDED):
        folder = Path(source.removeprefix(EMBEDDED))
        return [folder / f"{FILE_NAME}{end}" for end in ("", "-wal", "-shm")]
    return [Path("/dev/stdin" if source == STANDARD else source)]


def check_output(option: str, path: Path, inputs: Iterable[Path | None] = ()) -> None:
    """Refuse an output that would replace an input, or anything but a file.

    Args:
        option: What names the output, for the message.
        path: The output.
        inputs: What the command reads.

    Raises:
        ConfigurationError: It is one of these, or its folder cannot be written to.
    """
    try:
        found: os.stat_result | None = path.lstat()
    except FileNotFoundError:
        found = None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{option}: {path} cannot be written: {error}") from error
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise ConfigurationError(
            f"{option}: {path} is {_kind(found.st_mode)}, which a new file would replace; name a file"
        )
    for each in inputs:
        if each is not None and _is_same(path, found, each):
            raise ConfigurationError(f"{option}: {path} is what is read ({each}); name another file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"{option}: {path} cannot be written: {path.parent} is no folder that one can write to"
        )


@contextmanager
def output_file(option: str, path: Path, inputs: Iterable[Path | None] = ()) -> Iterator[BinaryIO]:
    """Open an output, compressed where its name ends in `.gz`; it gets its name when the block has ended without error.

    Raises:
        ConfigurationError: As `check_output`.
        RecordingError: The disk refused; what was there before is still there.
    """
    if path.suffix == ".zst":
        raise RecordingError(f"{option}: {path}: .zst is not written yet; name it .gz, or compress it afterwards")
    check_output(option, path, inputs)
    part = None

    def refused(error: OSError) -> RecordingError:
        return RecordingError(f"{option}: {path} cannot be written: {error.strerror}")

    try:
        # Readable by its owner only: a recording holds ids and truths.
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
        part = Path(name)
        with open(descriptor, "wb") as file:
            checked = _Output(file, refused)
            if path.suffix == ".gz":
                # Without a time and a name in it, the same lines give the same file.
                with gzip.GzipFile("", "wb", fileobj=cast(BinaryIO, checked), mtime=0) as packed:
                    yield cast(BinaryIO, packed)
            else:
                yield cast(BinaryIO, checked)
            file.flush()
            os.fsync(file.fileno())
        check_output(option, path, inputs)
        os.replace(part, path)
    except OSError as error:
        if isinstance(error, BrokenPipeError) or error.filename not in (None, str(part), str(path)):
            raise
        raise refused(error) from error
    finally:
        if part is not None:
            with suppress(OSError):
                part.unlink()


def check_standard_output(inputs: Iterable[Path | None]) -> None:
    """Refuse an output that is appended to an input, which would be read without an end.

    Raises:
        ConfigurationError: Standard output is a file that is read.
    """
    try:
        found = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return
    for each in inputs:
        if each is not None and stat.S_ISREG(found.st_mode) and _is_same(Path(STANDARD), found, each):
            raise ConfigurationError(f"standard output is what is read ({each}); write to another file")


def _is_same(path: Path, found: os.stat_result | None, other: Path) -> bool:
    try:
        there = other.stat()
    except (OSError, ValueError):
        return path.parent.resolve() / path.name == other.parent.resolve() / other.name
    return found is not None and (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
