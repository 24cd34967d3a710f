"""Replace files as a whole: readers see the old content or the new one, never a part, whenever the writer is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the content of a file, or make it; when this returns, the content survives a power failure.

    Args:
        path: The file; its folder must exist.
        data: The whole content.
        mode: The permissions of the new file: closed to others, because most files here hold events.

    Raises:
        OSError: The disk refused; the old content stays.
    """
    with replacing_file(path, mode) as file:
        file.write(data)


@contextmanager
def replacing_file(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends, and is removed if the block raises.

    For one writer at a time: the new file has a fixed name, so that a killed writer leaves at most one behind.

    Args:
        path: The file to replace; its folder must exist.
        mode: The permissions of the new file.

    Raises:
        OSError: The disk refused; the old content stays.
    """
    part = path.with_name(f"{path.name}.part")
    with suppress(FileNotFoundError):
        part.unlink()
    try:
        # Exclusive, so that a link planted there is not followed.
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    _sync_folder(path.parent)


def open_private(path: Path) -> BinaryIO:
    """Open a file to be written from its beginning; one that is made now is closed to others.

    Raises:
        OSError: It cannot be written.
    """
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def create_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not exist yet, to the disk; no link is followed.

    Raises:
        FileExistsError: There is something of that name.
        OSError: The disk refused.
    """
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
