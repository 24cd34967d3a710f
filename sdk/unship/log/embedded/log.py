"""Keep the topics of unship in one SQLite file that several processes write and read at once: no broker needed.

The promise is that of a log. Offsets of a topic are contiguous in commit order; an offset that `append` returned is
there for ever (until trimmed or superseded), whole, once; a reader at an offset has missed nothing below
it. It holds when any process is killed at any instant.

How. Every append is one `BEGIN IMMEDIATE` transaction of a write-ahead-logged SQLite file, so the kernel's file lock
orders the writers and drops the lock of a killed one; a half-written transaction has no commit frame and is skipped
by the next reader. Offset and append time are taken from the topic's newest record under that lock, never from a
second counter that could disagree; hence the newest record of a topic is never trimmed. The append time is the
writer's clock, raised to that of the record before it: as in Kafka's LogAppendTime it never falls.

What a power failure may take. `synchronous = NORMAL` makes a commit without waiting for the disk; `FULL` waits. Events
from fleets (`UNSYNCED`) are many, and a few lost in a power failure are a few outcomes fewer: NORMAL. Everything else
is what decisions, signed acts and positions depend on; an epoch that a replica obeyed must not be given out twice:
FULL. Since there is one write-ahead file, a FULL commit takes all earlier NORMAL ones to disk with it, so that what is
lost is always a tail of the whole log, never a cause whose effect remains.

Where it ends. One machine, a local disk (SQLite's locks do not hold on network file systems), one partition per topic,
tens of processes. Beyond that, use Kafka.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final
from weakref import WeakSet

from unship.log.embedded.blocks import unpacked
from unship.log.embedded.file import (
    FILE_NAME,
    ClockAhead,
    EmbeddedLogError,
    LogUnavailable,
    OffsetTrimmed,
    WriterFenced,
    explained,
    open_file,
    take_write_lock,
)
from unship.log.embedded.space import can_shrink, cut_ahead_file, excess_pages, return_pages, write_again
from unship.log.embedded.table import (
    CLOCK_NAMES,
    CLOCK_WRITE,
    CREATE,
    CREATE_ADDED,
    FENCE_NEXT,
    TABLES,
    UNSYNCED,
    EmbeddedLimits,
    Fence,
    check_batch,
    check_clock,
    check_fence,
    compacted_table,
    end_of,
    first_offset,
    first_since,
    history_table,
    pack_next,
    put,
    record_of,
    set_back,
    table_of,
)
from unship.log.link import Message, Record, boot_ms, wall_ms
from unship.topics import COMPACTED, EVENT_TOPICS, TOPICS

__all__ = [
    "COMPACTED",
    "TOPICS",
    "UNSYNCED",
    "ClockAhead",
    "EmbeddedLimits",
    "EmbeddedLog",
    "EmbeddedLogError",
    "Fence",
    "LogUnavailable",
    "Message",
    "OffsetTrimmed",
    "Record",
    "WriterFenced",
]

POLL_MIN_S: Final = 0.000_25
POLL_MAX_S: Final = 0.010
POLL_GROWTH: Final = 1.25
"""Pauses between looks at the file while waiting: short just after the call, 10 ms when nothing comes for a while: a
hundred looks a second at 10 to 100 us each, so an idle waiter costs at most a hundredth of a processor."""

TRIM_RECORDS: Final = 10_000
COMPACT_RECORDS: Final = 256
"""Records that one transaction deletes, so that no writer waits long for the lock (snapshots are large: fewer)."""

OFFSET_MAX: Final = 2**62


class EmbeddedLog:
    """Append to and read from the log in a folder.

    One object may be used by several threads, one at a time: calls wait for each other, except that `wait` lets
    others in between its looks. A fork is safe: parent and child open the file afresh when they next use the log.

    Every failure of operation is an `EmbeddedLogError`; an append that raised appended nothing (if the disk itself
    reported an error at the commit, a restart may find the whole batch).

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder, EmbeddedLog(folder, now_ms=lambda: 1_700_000_000_000) as log:
        ...     log.append("feedback", [Message(b'{"id": "p-1", "truth": 1}', key=b"p-1")])
        ...     log.wait({"feedback": 0}, timeout_s=1.0)
        ...     [(record.offset, record.key, record.append_ts) for record in log.read("feedback", 0)]
        [0]
        ('feedback',)
        [(0, b'p-1', 1700000000000)]
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        now_ms: Callable[[], int] = wall_ms,
        busy_timeout_s: float = 5.0,
        fsync: bool = True,
        limits: EmbeddedLimits = EmbeddedLimits(),  # noqa: B008 (frozen)
    ) -> None:
        """Open the log, made if missing.

        Args:
            folder: Holds `log.sqlite3`; on a local disk; made with mode 0700 if missing.
            now_ms: The clock of append times, in milliseconds since the epoch.
            busy_timeout_s: How long a call waits for the lock of another process, in seconds.
            fsync: False lets a power failure take the newest commits of every topic; kill -9 takes none either way.
            limits: The largest sizes taken.

        Raises:
            EmbeddedLogError: The folder or file cannot be used, is damaged, or is of another schema.
        """
        self.folder = Path(folder)
        self.limits = limits
        self._path = self.folder / FILE_NAME
        self._now_ms = now_ms
        self._busy_timeout_s = busy_timeout_s
        self._fsync = fsync
        self._synced: bool | None = None
        self._commits = 0
        self._closed = False
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        with _FORKING:
            _OPEN.add(self)
        with self._explaining():
            # Connected now, so that a log that cannot be used is found out here and not by the first append.
            pass

    def append(self, topic: str, messages: Sequence[Message], *, fence: Fence | None = None) -> list[int]:
        """Append messages to one topic, all or none, and return their offsets.

        Raises:
            WriterFenced: A newer fence of that name was acquired.
            EmbeddedLogError: A limit, the lock or the disk refused; nothing was appended.
        """
        return self.append_many({topic: messages}, fence=fence)[topic]

    def append_many(
        self, batches: Mapping[str, Sequence[Message]], *, fence: Fence | None = None
    ) -> dict[str, list[int]]:
        """Append to several topics in one transaction, all or none, and return the offsets of each topic.

        Raises:
            WriterFenced: A newer fence of that name was acquired.
            ClockAhead: This log's clock is far ahead of that of a running monitor, and the batch has events.
            EmbeddedLogError: A limit, the lock or the disk refused; nothing was appended.
        """
        check_batch(batches, self.limits)
        synced = any(topic not in UNSYNCED for topic in batches)
        with self._writing(synced=synced) as db:
            if fence is not None:
                check_fence(db, fence)
            # Read under the lock: a clock read before a long wait would only be raised to the record before.
            now = self._now_ms()
            if fence is None and not EVENT_TOPICS.keys().isdisjoint(batches):
                check_clock(db, now, boot_ms())
            return {topic: put(db, TABLES[topic], messages, now) for topic, messages in batches.items()}

    def read(self, topic: str, offset: int, *, limit: int = 1_000, max_bytes: int = 8 << 20) -> list[Record]:
        """Read records in offset order from an offset on; an empty list means nothing is there yet.

        Args:
            topic: One of `TOPICS`.
            offset: The first offset wanted; at most `end(topic)`.
            limit: The most records returned.
            max_bytes: Keys and values returned stay within this many bytes, save that one record always comes.

        Raises:
            OffsetTrimmed: Retention deleted the record of that offset (not in compacted topics, which have holes).
            EmbeddedLogError: The offset lies beyond the end: this is not the log that the offset is from.
        """
        table = table_of(topic)
        records: list[Record] = []
        size = 0
        with self._reading() as db:
            end = end_of(db, table)
            with closing(db.execute(table.read, (offset, limit))) as rows:
                for row in unpacked(rows, offset):
                    size += len(row[2] or b"") + len(row[3] or b"")
                    if size > max_bytes and records:
                        break
                    records.append(record_of(row))
                    if len(records) == limit:
                        break
        if offset > end:
            raise EmbeddedLogError(
                f"{self._path}: offset {offset} of '{topic}' > its end {end}: the position is from another log, or a "
                f"power failure took the newest records; go on from {end} and record the hole"
            )
        if records and records[0].offset != offset and topic not in COMPACTED:
            raise OffsetTrimmed(
                f"{self._path}: offset {offset} of '{topic}' < {records[0].offset}, the first that retention kept; "
                f"go on from {records[0].offset} and record the hole"
            )
        return records

    def end(self, topic: str) -> int:
        """Return the offset that the next record of a topic will get."""
        table = table_of(topic)
        with self._reading() as db:
            return end_of(db, table)

    def ends(self) -> dict[str, int]:
        """Return `end` of every topic, all of one instant."""
        with self._reading() as db:
            return {topic: end_of(db, table) for topic, table in TABLES.items()}

    def newest_times(self, topics: Iterable[str]) -> dict[str, int]:
        """Return the append time of the newest record of each topic that has one, in milliseconds."""
        with self._reading() as db:
            newest = {topic: db.execute(table_of(topic).newest).fetchone() for topic in topics}
        return {topic: int(row[1]) for topic, row in newest.items() if row is not None}

    def first(self, topic: str) -> int:
        """Return the smallest offset that a topic still holds, or its end if it holds nothing."""
        table = table_of(topic)
        with self._reading() as db:
            return first_offset(db, table)

    def first_since(self, topic: str, append_ts: int) -> int:
        """Return an offset below which every record of a topic was appended before a time (ms)."""
        table = table_of(topic)
        with self._reading() as db:
            return first_since(db, table, append_ts)

    def latest(self, topic: str) -> dict[bytes, Record]:
        """Return the newest record of each key of a compacted topic, in offset order.

        A newcomer begins here and reads on from the largest offset returned + 1, which was the end at that instant.
        A record without a value is returned like any other: keys are never deleted.
        """
        table = compacted_table(topic)
        with self._reading() as db:
            records = [record_of(row) for row in db.execute(table.latest)]
        return {record.key: record for record in records if record.key is not None}

    def newest(self, topic: str, key: bytes) -> Record | None:
        """Return the newest record of one key of a compacted topic."""
        table = compacted_table(topic)
        with self._reading() as db:
            row = db.execute(table.newest_of, (key,)).fetchone()
        return None if row is None else record_of(row)

    def superseded(self, topic: str, at_most: int) -> int:
        """Return how many records of a compacted topic a newer one of the same key supersedes, up to a number."""
        table = compacted_table(topic)
        with self._reading() as db:
            return int(db.execute(table.superseded, (OFFSET_MAX, at_most)).fetchone()[0])

    def compact(self, topic: str, before_offset: int = OFFSET_MAX, *, at_most: int = OFFSET_MAX) -> int:
        """Delete the records of a compacted topic that a newer one of the same key supersedes; return how many.

        Args:
            topic: One of `COMPACTED`.
            before_offset: Records from here on stay; a reader that wants every record has not come further.
            at_most: Ends the call after so many records, or a few more.
        """
        table = compacted_table(topic)
        deleted = 0
        while True:
            with self._writing(synced=False) as db:
                count = db.execute(table.compact, (before_offset, COMPACT_RECORDS)).rowcount
            deleted += count
            if count < COMPACT_RECORDS or deleted >= at_most:
                return deleted

    def trim(self, topic: str, before_offset: int, *, at_most: int = OFFSET_MAX) -> int:
        """Delete the records of a topic below an offset and return how many; compacted topics are refused.

        The newest record stays whatever the offset is, since the next offset and append time follow from it, and so
        does a block that holds a record from the offset on. Space is used again by later records, or returned to the
        disk by `shrink`.

        Args:
            topic: None of `COMPACTED`.
            before_offset: Records from here on stay.
            at_most: Ends the call after so many records, or a few more.
        """
        table = history_table(topic)
        deleted = 0
        while True:
            with self._writing(synced=False) as db:
                first = first_offset(db, table)
                bound = min(before_offset, end_of(db, table) - 1, first + TRIM_RECORDS)
                db.execute(table.delete, (bound,))
                count = first_offset(db, table) - first
            deleted += count
            if not count or deleted >= at_most:
                return deleted

    def pack(self, topic: str, before_offset: int, *, at_most: int = OFFSET_MAX) -> int:
        """Compress the records of a topic below an offset and return how many; they are read as before.

        Args:
            topic: None of `COMPACTED`.
            before_offset: Records from here on stay rows of their own, as do the last that fill no block.
            at_most: Ends the call after so many records, or a few more.
        """
        table = history_table(topic)
        packed = 0
        while True:
            with self._writing(synced=False) as db:
                count = pack_next(db, table, before_offset)
            packed += count
            if not count or packed >= at_most:
                return packed

    def shrink(self) -> int:
        """Return some of the space that nothing uses to the disk, and return how many bytes; none if little is free.

        A file that an earlier version made keeps its size until `rewrite`.
        """
        with self._explaining() as db:
            excess = excess_pages(db)
        returned = 0
        if excess:
            with self._writing(synced=False) as db:
                returned = return_pages(db, excess)
        with self._explaining() as db:
            cut_ahead_file(db, self._busy_timeout_s)
        return returned

    def rewrite(self) -> None:
        """Write the file again without the space that nothing uses; needed once for a file that cannot `shrink`.

        Raises:
            EmbeddedLogError: Another process holds the lock, or the disk has no room for the file a second time.
        """
        with self._explaining() as db:
            if not can_shrink(db):
                write_again(db)
            cut_ahead_file(db, self._busy_timeout_s)

    def wait(
        self, positions: Mapping[str, int], timeout_s: float, *, stop: threading.Event | None = None
    ) -> tuple[str, ...]:
        """Wait until a topic holds a record at or after its position; return such topics, or () when time is up.

        The file is asked whether anybody committed (`PRAGMA data_version`, which reads a few bytes of shared memory)
        at growing intervals of up to 10 ms.

        Args:
            positions: The offset to be read next, by topic.
            timeout_s: The longest wait, in seconds; 0 looks once.
            stop: Ends the wait within one interval when set.
        """
        wanted = {topic: (table_of(topic), position) for topic, position in positions.items()}
        deadline = time.monotonic() + timeout_s  # noqa: TID251
        pause = POLL_MIN_S
        seen: tuple[int, int] | None = None
        while True:
            # The version is read before the topics: a commit between the two is seen as a new version next time.
            with self._explaining() as db:
                version = (db.execute("PRAGMA data_version").fetchone()[0], self._commits)
                if version != seen:
                    seen = version
                    news = tuple(topic for topic, (table, position) in wanted.items() if end_of(db, table) > position)
                    if news:
                        return news
            left = deadline - time.monotonic()  # noqa: TID251
            if left <= 0 or (stop is not None and stop.is_set()):
                return ()
            if stop is None:
                time.sleep(min(pause, left))  # noqa: TID251
            else:
                stop.wait(min(pause, left))
            pause = min(pause * POLL_GROWTH, POLL_MAX_S)

    def tick(self, now_ms: int) -> None:
        """Write the monitor's clock: for a minute, appends of events by a clock far ahead of it are refused."""
        with self._writing(synced=False) as db:
            db.executemany(CLOCK_WRITE, list(zip(CLOCK_NAMES, (now_ms, boot_ms()), strict=True)))

    def set_back(self, topic: str, begin: int, now_ms: int, *, fence: Fence) -> tuple[int, int, int]:
        """Give records that are far ahead of a clock its time, for the monitor, before it reads them.

        Args:
            topic: One of the topics of events.
            begin: The first offset that was not read.
            now_ms: The monitor's clock.
            fence: That of the monitor.

        Returns:
            The offset of the first of them, the time that it had, and how many they are.
        """
        table = table_of(topic)
        with self._writing(synced=True) as db:
            check_fence(db, fence)
            return set_back(db, table, begin, now_ms)

    def acquire(self, name: str) -> Fence:
        """Take over as the one writer of that name: appends with an older fence of it are refused from now on.

        What the older writer committed before this call returns is in the log; nothing of it follows.
        """
        with self._writing(synced=True) as db:
            (token,) = db.execute(FENCE_NEXT, (name,)).fetchone()
        return Fence(name, token)

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def __enter__(self) -> EmbeddedLog:
        """Return the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log."""
        self.close()

    @contextmanager
    def _explaining(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection for this thread, and explain what SQLite raises."""
        with self._lock:
            if self._closed:
                raise EmbeddedLogError(f"{self._path}: the log was closed; open it again")
            try:
                if self._db is None:
                    self._db = open_file(
                        self.folder,
                        busy_timeout_s=self._busy_timeout_s,
                        log_bytes=self.limits.log_bytes,
                        create=CREATE,
                        added=CREATE_ADDED,
                    )
                yield self._db
            except sqlite3.Error as error:
                raise self._explained(error) from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Hold one instant of the log, so that the statements of a call agree with each other."""
        with self._explaining() as db:
            db.execute("BEGIN")
            with _transaction(db):
                yield db

    @contextmanager
    def _writing(self, *, synced: bool) -> Iterator[sqlite3.Connection]:
        """Hold the write lock, and commit what the block did, or nothing of it."""
        synced = synced and self._fsync
        with self._explaining() as db:
            if synced is not self._synced:
                db.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
                self._synced = synced
            take_write_lock(db, self._busy_timeout_s)
            with _transaction(db):
                yield db
            self._commits += 1

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
            self._synced = None
            # The next connection restarts its data_version, so what a waiter saw before must not equal it.
            self._commits += 1

    def _explained(self, error: sqlite3.Error) -> EmbeddedLogError:
        return explained(error, self._path, busy_timeout_s=self._busy_timeout_s, log_bytes=self.limits.log_bytes)


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """End the transaction that the caller began: with COMMIT, or with ROLLBACK if the block raised."""
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors, such as a full disk.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


# SQLite forgets its locks in a forked child but keeps treating them as held, in new connections too: a child could then
# lose the write-ahead file under its hands. Servers that load the application before they fork are common, so every
# log of the process is disconnected before a fork, between two calls, and connects again on its next call.
_OPEN: Final[WeakSet[EmbeddedLog]] = WeakSet()
_HELD: Final[list[EmbeddedLog]] = []
_FORKING: Final = threading.Lock()


def is_open(folder: Path) -> bool:
    """Return whether this process has the log of a folder open.

    The locks of its file are then those of this process, which loses them if it opens the file in another way and
    closes it.
    """
    return any(log._db is not None and log.folder.absolute() == folder for log in list(_OPEN))


def _before_fork() -> None:
    _FORKING.acquire()
    for log in _OPEN:
        log._lock.acquire()
        _HELD.append(log)
        log._disconnect()


def _after_fork() -> None:
    for log in _HELD:
        log._lock.release()
    _HELD.clear()
    _FORKING.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
