"""The window of a pair of source partitions on a worker's disk, so that a restart need not read weeks of log.

The folder of a pair has the rows (`streams.cache.row_files`) and a manifest: everything else of a reader that was saved
at one position, the checksums of the rows, and what they are the window of. The manifest takes its name only after
that position is committed. Whatever is missing, damaged or of another log, configuration or program is removed, and the
window is filled from the log.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from streams.cache.residency import Residency
from streams.cache.row_files import RowFiles
from streams.join.source_reader import Position, SavedReader, SourceReader, follows
from streams.ledger.encoding import pack, unpack
from streams.window.batch_window import BeyondMemory
from unship.system.files import replace_file

log = logging.getLogger("unship.ingest")

MANIFEST: Final = "manifest"
NEXT: Final = "manifest.next"
VERSION: Final = 2
SECRET_BYTES: Final = 32
_DIGEST_BYTES: Final = 32


class Manifest(msgspec.Struct, frozen=True):
    """What the folder is the window of, the secret of its fingerprints, and the reader that was saved."""

    version: int
    topics: tuple[str, ...]
    partition: int
    config: str
    secret: bytes
    reader: SavedReader


class WindowCaches:
    """What the caches of one worker share.

    Args:
        folder: Where windows are kept; None for nowhere.
        memory: Bytes of memory that all of them may take: half of it for what is in memory of files.
    """

    def __init__(self, folder: Path | None, memory: int) -> None:
        self._folder = folder
        self._memory = memory
        self._residency = Residency(memory // 2)

    def of(self, topics: tuple[str, ...], partition: int, config: str, pairs: int) -> WindowCache:
        """Return the cache of one of so many pairs, for one reader."""
        return WindowCache(self._folder, topics, partition, config, self._memory // 2 // pairs, self._residency)


class WindowCache:
    """The cache of one pair, for one reader; see the module.

    Args:
        folder: Where it is kept; None for nowhere, so that nothing is, and the memory is not limited.
        topics: The names of the two source topics.
        partition: Number of the partition.
        config: Digest of the configuration.
        memory: Bytes of memory that the window may take, not counting what is in memory of files.
        residency: Limits how much is in memory of the files of all windows.
    """

    def __init__(
        self,
        folder: Path | None,
        topics: tuple[str, ...],
        partition: int,
        config: str,
        memory: int,
        residency: Residency,
    ) -> None:
        self._wanted = (VERSION, topics, partition, config)
        self.closed = False
        self._found: Manifest | None = None
        self._prepared: Position | None = None
        self.secret = os.urandom(SECRET_BYTES)  # noqa: TID251
        self._names: set[str] = set()
        self._memory_max = memory
        self._files: RowFiles | None = None
        if folder is None:
            return
        place = folder / f"{topics[0]}-{partition}"
        self._files = RowFiles(place, self.secret, residency)
        if not self._files.claim(make=False):
            return
        self._found = self._read(place / MANIFEST)
        if self._found is None:
            self.discard()
        else:
            self.secret = self._found.secret
            self._files.use_secret(self.secret)

    @property
    def beyond(self) -> BeyondMemory | None:
        """Return where the reader's rows go that do not fit into memory."""
        return None if self._files is None else BeyondMemory(self._files, self._memory_max)

    def _read(self, path: Path) -> Manifest | None:
        try:
            data = path.read_bytes()
        except OSError:
            return None
        body = data[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != data[:_DIGEST_BYTES]:
            log.warning("%s is damaged; the window is filled from the log", path)
            return None
        try:
            found = unpack(body, Manifest)
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            log.info("%s is of another version: %s", path, error)
            return None
        mine = (found.version, found.topics, found.partition, found.config)
        return found if mine == self._wanted else None

    # Restart

    def saved(self, committed: Position) -> SavedReader | None:
        """Return the reader that was saved if the window at a committed position can be filled from it."""
        if self._found is None:
            return None
        if not follows(self._found.reader.position, committed):
            self.discard()
            return None
        assert self._files is not None, "it was found in a folder"
        self._files.remove_all_but({kept.name for kept in self._found.reader.join.window.kept})
        return self._found.reader

    def discard(self) -> None:
        """Remove everything; a reader that loaded some of it must be dropped."""
        self._found = self._prepared = None
        if self._files is not None and self._files.claim(make=False):
            for name in (MANIFEST, NEXT):
                with suppress(OSError):
                    (self._files.folder / name).unlink()
            self._files.remove_all_but((), used=True)

    # Saving

    def prepare(self, reader: SourceReader) -> None:
        """Save a reader, from which everything was taken, at its position; `publish` makes it the one to begin from."""
        if self._files is None or not self._files.claim():
            return
        saved = reader.save()
        if saved is None:
            return
        body = pack(Manifest(*self._wanted, self.secret, saved))
        try:
            replace_file(self._files.folder / NEXT, hashlib.sha256(body).digest() + body, mode=0o600)
        except OSError as error:
            log.warning("%s: the window is not saved: %s", self._files.folder, error)
        else:
            self._prepared = saved.position
            self._names = {kept.name for kept in saved.join.window.kept}

    def publish(self, committed: Position) -> None:
        """Let a restart begin from what was prepared, if its position is committed."""
        if self._prepared is None or not follows(self._prepared, committed):
            return
        if self._files is None or not self._files.claim():
            return
        folder, self._prepared = self._files.folder, None
        try:
            os.replace(folder / NEXT, folder / MANIFEST)
        except OSError as error:
            log.warning("%s: the window is not saved: %s", folder, error)
            return
        self._files.remove_all_but(self._names)

    def close(self) -> None:
        """Leave the folder to the next reader, who may be of another process; rows must not be written any more."""
        self.closed = True
        if self._files is not None:
            self._files.close()
