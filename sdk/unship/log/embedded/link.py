"""Stay connected to an embedded log through outages: notice that its file vanished, and reconnect when it is back.

SQLite goes on reading and writing a file that was removed or replaced under it, without an error: what is appended then
is in no log at all. So a process that runs for months checks before each batch whether its open file is still the file
of that name, which costs one system call.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from unship.log.embedded.file import FILE_NAME, EmbeddedLogError
from unship.log.embedded.log import EmbeddedLog
from unship.log.link import Batches, Message, Overdue, Record, Refusal, records_of, wall_ms
from unship.topics import SOURCES

READ_RECORDS: Final = 500


class EmbeddedLink:
    """Link one thread with the log of a folder, opened again when it must be: a `unship.log.link.Link`.

    Nothing here asks whether it is overdue: no call takes longer than the wait for a lock.

    The log is made if it is missing at the first opening. Later it is not: an empty log in place of one that was
    moved away would look like a healthy one, and hide the loss.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from unship.log.link import Message
        >>> with TemporaryDirectory() as folder:
        ...     link = EmbeddedLink(Path(folder) / "log")
        ...     link.append({"control": [Message(b"{}", b"fraud")]}, lambda: False)
        ...     newest = link.begin(b"fraud", lambda: False)
        ...     link.close()
        []
        >>> newest.value
        b'{}'
    """

    def __init__(
        self,
        folder: Path,
        *,
        busy_timeout_s: float = 1.0,
        now_ms: Callable[[], int] | None = None,
        pack: bool = False,
    ) -> None:
        """Name the log's folder, without touching it.

        Args:
            folder: Where the log is.
            busy_timeout_s: Bounds the wait for a lock, in seconds.
            now_ms: The clock of append times, the machine's if None.
            pack: Whether predictions and feedback that are appended together share records.
        """
        self.folder = folder
        self._path = folder / FILE_NAME
        self._busy_timeout_s = busy_timeout_s
        self._now_ms = wall_ms if now_ms is None else now_ms
        self._pack = pack
        self._log: EmbeddedLog | None = None
        self._identity: tuple[int, int] | None = None
        self._opened_before = False
        self._followed: EmbeddedLog | None = None
        self._key = b""
        self._position = 0

    def append(self, batches: Batches, overdue: Overdue) -> list[Refusal]:
        """Append all messages or none, in one transaction."""
        self.log().append_many({topic: self._records(topic, messages) for topic, messages in batches.items()})
        batches.clear()
        return []

    def _records(self, topic: str, messages: list[Message]) -> list[Message]:
        return [record for record, _ in records_of(messages, pack=self._pack and topic in SOURCES)]

    def begin(self, key: bytes, overdue: Overdue) -> Record | None:
        """Return the newest record of a key in `control`, and follow from there."""
        log = self.log()
        # The end first: what is appended in between is read twice, which means nothing, and not missed.
        self._followed, self._key, self._position = log, key, log.end("control")
        return log.newest("control", key)

    def history(self, end: int, overdue: Overdue) -> Iterator[Record]:
        """Yield the records of the key below an offset, oldest first."""
        log = self.log()
        position = log.first("control")
        while position < end and not overdue():
            records = log.read("control", position, limit=min(READ_RECORDS, end - position))
            if not records:
                return
            position = records[-1].offset + 1
            yield from (record for record in records if record.key == self._key and record.offset < end)

    def next(self, wait_s: float, wake: threading.Event) -> list[Record]:
        """Return the next records of the key, none when time is up."""
        log = self.log()
        if log is not self._followed:
            raise EmbeddedLogError(f"{self._path}: another log than before; it is read from its beginning")
        if not log.wait({"control": self._position}, wait_s, stop=wake):
            return []
        records = log.read("control", self._position, limit=READ_RECORDS)
        # Compaction may delete what was announced before it is read; its successor comes next.
        self._position = records[-1].offset + 1 if records else self._position
        return [record for record in records if record.key == self._key]

    def newest_ack(self, key: bytes) -> Record | None:
        """Return the newest ack of a replica."""
        return self.log().newest("acks", key)

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
            raise EmbeddedLogError(f"{self._path}: the log vanished; bring it back")
        log = EmbeddedLog(self.folder, now_ms=self._now_ms, busy_timeout_s=self._busy_timeout_s)
        opened = self._found()
        # Replaced while it was being opened: which of the two files is open is unknown.
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
