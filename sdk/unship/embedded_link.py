"""Stay connected to an embedded log through outages: notice that its file vanished, and come back when it does.

SQLite goes on reading and writing a file that was removed or replaced under it, without a word: what is appended then
is in no log at all. So whoever runs for months beside a log asks before each batch whether the file that it has open
is still the file of that name, which costs one system call.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from unship.embedded import EmbeddedLog, wall_ms
from unship.embedded_file import FILE_NAME, EmbeddedLogError


class EmbeddedLink:
    """Give the log of a folder, opened again when it must be; used by one thread.

    The log is made if it is missing at the first opening. Later it is not: an empty log in place of one that was
    moved away would look like a healthy one, and hide the loss.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     link = EmbeddedLink(Path(folder) / "log")
        ...     same = link.log() is link.log()
        ...     link.close()
        >>> same
        True
    """

    def __init__(self, folder: Path, *, busy_timeout_s: float = 1.0, now_ms: Callable[[], int] | None = None) -> None:
        """Name the log's folder, without touching it.

        `busy_timeout_s` bounds the wait for a lock, in seconds; `now_ms` is the clock of append times, the machine's
        if None.
        """
        self.folder = folder
        self._path = folder / FILE_NAME
        self._busy_timeout_s = busy_timeout_s
        self._now_ms = wall_ms if now_ms is None else now_ms
        self._log: EmbeddedLog | None = None
        self._identity: tuple[int, int] | None = None
        self._opened_before = False

    def log(self) -> EmbeddedLog:
        """Return the open log; another object than last time means another connection: positions start afresh.

        Raises:
            EmbeddedLogError: The log vanished or cannot be opened; ask again later.
        """
        found = self._found()
        if self._log is not None and found is not None and found == self._identity:
            return self._log
        self.close()
        if found is None and self._opened_before:
            raise EmbeddedLogError(f"{self._path}: the log vanished; bring it back, nothing else is needed")
        log = EmbeddedLog(self.folder, now_ms=self._now_ms, busy_timeout_s=self._busy_timeout_s)
        opened = self._found()
        # Replaced while it was being opened: which of the two files is open cannot be told.
        if opened is None or (found is not None and found != opened):
            log.close()
            raise EmbeddedLogError(f"{self._path}: the log was replaced while it was opened; it is tried again")
        self._log, self._identity, self._opened_before = log, opened, True
        return log

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._log is not None:
            self._log.close()
        self._log = self._identity = None

    def _found(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino
