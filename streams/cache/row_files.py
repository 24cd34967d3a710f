"""Rows of a window as files that are mapped into memory; `docs/reference/window-files.md` has their layout.

The folder belongs to one process at a time: rows are written where they are. Nothing is flushed, because what a killed
process wrote is in the files all the same, and what a power failure took is found by the checksums.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import mmap
import os
import struct
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final
from weakref import WeakKeyDictionary, finalize

import numpy as np

from streams.cache.residency import Residency
from streams.window.stored_rows import ROW, DamagedRows, Kept, Rows

log = logging.getLogger("unship.ingest")

PAGE: Final = 4_096
"""The rows begin on the second page, so that they lie on whole pages."""

MAGIC: Final = b"unshipro"
VERSION: Final = 1
_HEAD: Final = struct.Struct("<8sIIQ16s")
_DIGEST_BYTES: Final = 16
_PREFIX: Final = "rows-"

TOUCHED_BYTES: Final = 2 * PAGE
"""What a row that is found brings into memory at most: two pages, if it begins on one and ends on the next."""

_COPIED_ROWS: Final = 65_536


class RowFiles:
    """Keeps rows in the files of one folder.

    Args:
        folder: The folder; it is made when it is needed first.
        secret: The secret of the rows' fingerprints: files of another one are refused.
        residency: Limits how much of the files is in memory.
    """

    def __init__(self, folder: Path, secret: bytes, residency: Residency) -> None:
        self.folder = folder
        self.use_secret(secret)
        self._residency = residency
        # The names of the files that are mapped.
        self._maps: WeakKeyDictionary[mmap.mmap, str] = WeakKeyDictionary()
        # Closes the descriptor that has the lock.
        self._unlock: finalize[[int], RowFiles] | None = None
        self._number = 0
        self._closed = self._refused = False

    def use_secret(self, secret: bytes) -> None:
        """Take the secret of the rows that follow."""
        self._digest = hashlib.sha256(secret).digest()[:_DIGEST_BYTES]

    # The folder

    def claim(self, *, make: bool = True) -> bool:
        """Return whether this process has the folder for itself from now on.

        Args:
            make: Whether to make the folder if there is none.
        """
        if self._unlock is not None or self._closed:
            return not self._closed
        try:
            if make:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif not self.folder.is_dir():
                return False
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.warning("the window is kept in memory alone, and filled from the log after a restart: %s", error)
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            if not self._refused:
                log.warning("%s is used by another process: the window is kept in memory alone", self.folder)
            self._refused = True
            return False
        self._unlock = finalize(self, os.close, lock)
        self._number = max((int(path.name[len(_PREFIX) :]) for path in self._files()), default=0)
        return True

    def close(self) -> None:
        """Leave the folder to the next reader."""
        self._closed = True
        if self._unlock is not None:
            self._unlock()

    def _files(self) -> list[Path]:
        return [path for path in self.folder.glob(f"{_PREFIX}*") if path.name[len(_PREFIX) :].isdigit()]

    def remove_all_but(self, names: Collection[str], *, used: bool = False) -> None:
        """Remove the files of rows that are not named; those in use only if `used`, because they will not be."""
        assert self._unlock is not None, "the folder belongs to another process"
        in_use = () if used else tuple(self._maps.values())
        for path in self._files():
            if path.name not in names and path.name not in in_use:
                with suppress(OSError):
                    path.unlink()

    # Rows

    def keep(self, rows: Rows, used: int) -> Kept | None:
        """Return a copy of rows in a file, of which so many are used; None if the disk refuses."""
        if not self.claim():
            return None
        self._number += 1
        path = self.folder / f"{_PREFIX}{self._number:06d}"
        try:
            kept = self._made(path, rows.size)
        except OSError as error:
            log.warning("%s: rows of the window stay in memory: %s", path, error)
            with suppress(OSError):
                path.unlink()
            return None
        for begin in range(0, used, _COPIED_ROWS):
            some = slice(begin, min(begin + _COPIED_ROWS, used))
            kept.rows[some] = rows[some]
            self._residency.brought(_COPIED_ROWS * ROW.itemsize)
        return kept

    def _made(self, path: Path, rows: int) -> Kept:
        size = PAGE + rows * ROW.itemsize
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "r+b") as file:
            # All blocks now: a full disk is an error here, and would end the process where a mapped page is written.
            os.posix_fallocate(file.fileno(), 0, size)
            file.write(_HEAD.pack(MAGIC, VERSION, ROW.itemsize, rows, self._digest))
            file.flush()
            return self._mapped(path, file, rows)

    def kept(self, name: str) -> Kept:
        """Return the rows of a file of an earlier run.

        Raises:
            DamagedRows: It is gone, or another program's, or of another length.
        """
        path = self.folder / name
        try:
            with open(path, "r+b") as file:
                head = file.read(_HEAD.size)
                if len(head) < _HEAD.size:
                    raise DamagedRows(f"{path}: cut off in its header")
                magic, version, row_bytes, rows, digest = _HEAD.unpack(head)
                if (magic, version, row_bytes, digest) != (MAGIC, VERSION, ROW.itemsize, self._digest):
                    raise DamagedRows(f"{path}: not written by this version under this secret")
                expected, size = PAGE + rows * ROW.itemsize, os.fstat(file.fileno()).st_size
                if size != expected:
                    raise DamagedRows(f"{path}: expected {expected} bytes, was {size}")
                kept = self._mapped(path, file, rows)
                self._read_ahead(file, size)
                return kept
        except OSError as error:
            raise DamagedRows(f"{path}: {error}") from error

    @staticmethod
    def _read_ahead(file: BinaryIO, size: int) -> None:
        """Let the system read all of a file into its cache, where it can."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, size, os.POSIX_FADV_WILLNEED)

    def _mapped(self, path: Path, file: BinaryIO, rows: int) -> Kept:
        mapped = mmap.mmap(file.fileno(), PAGE + rows * ROW.itemsize)
        # Pages one by one: of larger pieces, all would be brought into memory with each row.
        mapped.madvise(mmap.MADV_RANDOM)
        self._maps[mapped] = path.name
        self._residency.add(mapped)
        return Kept(path.name, np.frombuffer(mapped, ROW, rows, PAGE))

    def touched(self, rows: int) -> None:
        """Note that so many rows, of any place, were read or written."""
        self._residency.brought(rows * TOUCHED_BYTES)
