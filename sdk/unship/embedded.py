"""Keep the topics of unship in one SQLite file that several processes write and read at once: no broker needed.

The promise is that of a log. Offsets of a topic are contiguous in commit order; an offset that `append` returned is
there for ever (until trimmed or superseded), whole, once; whoever has read up to an offset has missed nothing below
it. It holds when any process is killed at any instant.

How. Every append is one `BEGIN IMMEDIATE` transaction of a write-ahead-logged SQLite file, so the kernel's file lock
orders the writers and drops the lock of a killed one; a half-written transaction has no commit frame and is skipped
by the next reader. Offset and append time are taken from the topic's newest record under that lock, never from a
counter beside it that could disagree; hence the newest record of a topic is never trimmed. The append time is the
writer's clock, raised to that of the record before it: as in Kafka's LogAppendTime it never falls.

What a power failure may take. `synchronous = NORMAL` makes a commit without waiting for the disk; `FULL` waits. Events
from fleets (`UNSYNCED`) are many, and a few lost in a power failure are a few outcomes fewer: NORMAL. Everything else
is what decisions, signed orders and positions stand on; an epoch that a replica obeyed must not be given out twice:
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from unship.embedded_file import (
    FILE_NAME,
    EmbeddedLogError,
    OffsetTrimmed,
    WriterFenced,
    explained,
    open_file,
)

__all__ = [
    "COMPACTED",
    "TOPICS",
    "UNSYNCED",
    "EmbeddedLimits",
    "EmbeddedLog",
    "EmbeddedLogError",
    "Fence",
    "Message",
    "OffsetTrimmed",
    "Record",
    "WriterFenced",
]

COMPACTED: Final = ("control", "acks", "rewind", "snapshots")
"""Topics of which the newest record per key is what counts; `compact` deletes the others."""

TOPICS: Final = ("predictions", "feedback", "deployments", "operator", "ledger", "decisions", "rejected", *COMPACTED)

UNSYNCED: Final = ("predictions", "feedback", "rejected")
"""Topics whose commits do not wait for the disk: safe from kill -9, and lost only by a power failure."""

Headers = tuple[tuple[str, bytes], ...]

POLL_MIN_S: Final = 0.000_25
POLL_MAX_S: Final = 0.005
POLL_GROWTH: Final = 1.25
"""Pauses between looks at the file while waiting: short just after the call, 5 ms when nothing comes for a while."""

TRIM_RECORDS: Final = 10_000
COMPACT_RECORDS: Final = 256
"""Records that one transaction deletes, so that no writer waits long for the lock (snapshots are large: fewer)."""


class Message(Struct, frozen=True, gc=False):
    """Carry what a writer appends; a compacted topic needs the key."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()


class Record(Struct, frozen=True, gc=False):
    """Carry what the log holds: a message with its offset and its append time in milliseconds since the epoch."""

    offset: int
    append_ts: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Fence(Struct, frozen=True):
    """Prove who wrote last under a name: `acquire` gives a higher token each time, and only the highest may append."""

    name: str
    token: int


class EmbeddedLimits(Struct, frozen=True):
    """Bound what the log takes.

    Attributes:
        record_bytes: Key, value and headers of one record. An event is at most 64 KiB; a slot of a snapshot is more.
        batch_records: Records of one transaction: 100,000 at 5 us each hold the write lock for half a second.
        batch_bytes: Bytes of one transaction; about as many are written to the write-ahead file at once.
        log_bytes: Size of the file: 16 GiB is 30 million predictions of 500 bytes, 8 hours at 1,000 a second.
    """

    record_bytes: int = 8 << 20
    batch_records: int = 100_000
    batch_bytes: int = 64 << 20
    log_bytes: int = 16 << 30


class _Sql(NamedTuple):
    """Hold the statements of one topic, which is one table: appending at the end of a table is SQLite's fast path."""

    create: str
    insert: str
    newest: str
    oldest: str
    read: str
    latest: str
    trim: str
    compact: str


def _sql(topic: str) -> _Sql:
    # The table's name is from the closed list above, never from outside.
    table, columns = f"topic_{topic}", "offset, append_ts, key, value, headers"
    by_key = f"; CREATE INDEX {table}_by_key ON {table} (key, offset)" if topic in COMPACTED else ""
    superseded = (
        f"SELECT offset FROM {table} AS older WHERE EXISTS "  # noqa: S608
        f"(SELECT 1 FROM {table} AS newer WHERE newer.key = older.key AND newer.offset > older.offset) LIMIT ?"
    )
    return _Sql(
        create=f"CREATE TABLE {table} (offset INTEGER PRIMARY KEY, append_ts INTEGER NOT NULL, key BLOB, value BLOB, "
        f"headers BLOB) STRICT{by_key}",
        insert=f"INSERT INTO {table} ({columns}) VALUES (?, ?, ?, ?, ?)",  # noqa: S608
        newest=f"SELECT offset, append_ts FROM {table} ORDER BY offset DESC LIMIT 1",  # noqa: S608
        oldest=f"SELECT min(offset) FROM {table}",  # noqa: S608
        read=f"SELECT {columns} FROM {table} WHERE offset >= ? ORDER BY offset LIMIT ?",  # noqa: S608
        latest=f"SELECT {columns} FROM {table} "  # noqa: S608
        f"WHERE offset IN (SELECT max(offset) FROM {table} GROUP BY key) ORDER BY offset",
        trim=f"DELETE FROM {table} WHERE offset < ?",  # noqa: S608
        compact=f"DELETE FROM {table} WHERE offset IN ({superseded})",  # noqa: S608
    )


_SQL: Final = {topic: _sql(topic) for topic in TOPICS}
_CREATE: Final = "; ".join(
    (*(sql.create for sql in _SQL.values()), "CREATE TABLE writers (name TEXT PRIMARY KEY, token INTEGER) STRICT")
)
_FENCE_TOKEN: Final = "SELECT token FROM writers WHERE name = ?"
_FENCE_RAISE: Final = (
    "INSERT INTO writers (name, token) VALUES (?, 1) "
    "ON CONFLICT (name) DO UPDATE SET token = token + 1 RETURNING token"
)
_DECODE_HEADERS: Final = msgspec.msgpack.Decoder(Headers)
_ENCODE: Final = msgspec.msgpack.Encoder()

_Row = tuple[int, int, bytes | None, bytes | None, bytes | None]


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000  # noqa: TID251


def _size(message: Message) -> int:
    headers = sum(len(name) + len(value) for name, value in message.headers) if message.headers else 0
    return len(message.value or b"") + len(message.key or b"") + headers


def _record(row: _Row) -> Record:
    offset, append_ts, key, value, headers = row
    return Record(offset, append_ts, key, value, _DECODE_HEADERS.decode(headers) if headers else ())


class EmbeddedLog:
    """Append to and read from the log in a folder.

    One object may be used by several threads, one at a time: calls wait for each other, except that `wait` lets
    others in between its looks. After a fork, open the log again in the child.

    Every failure of operation is an `EmbeddedLogError`; an append that raised appended nothing.

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
        now_ms: Callable[[], int] = _wall_ms,
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
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        try:
            self._db = open_file(
                self.folder, busy_timeout_s=busy_timeout_s, log_bytes=limits.log_bytes, create=lambda: _CREATE
            )
        except sqlite3.Error as error:
            raise self._explained(error) from error

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
            EmbeddedLogError: A limit, the lock or the disk refused; nothing was appended.
        """
        self._check_batch(batches)
        synced = any(topic not in UNSYNCED for topic in batches)
        with self._writing(synced=synced) as db:
            if fence is not None:
                _check_fence(db, fence)
            # Read under the lock: a clock read before a long wait would only be raised to the record before.
            now = self._now_ms()
            return {topic: _put(db, _SQL[topic], messages, now) for topic, messages in batches.items()}

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
        sql = _sql_of(topic)
        records: list[Record] = []
        size = 0
        with self._reading() as db:
            end = _end(db, sql)
            with closing(db.execute(sql.read, (offset, limit))) as rows:
                for row in rows:
                    size += len(row[2] or b"") + len(row[3] or b"")
                    if size > max_bytes and records:
                        break
                    records.append(_record(row))
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
        sql = _sql_of(topic)
        with self._reading() as db:
            return _end(db, sql)

    def ends(self) -> dict[str, int]:
        """Return `end` of every topic, all of one instant."""
        with self._reading() as db:
            return {topic: _end(db, sql) for topic, sql in _SQL.items()}

    def first(self, topic: str) -> int:
        """Return the smallest offset that a topic still holds, or its end if it holds nothing."""
        sql = _sql_of(topic)
        with self._reading() as db:
            (offset,) = db.execute(sql.oldest).fetchone()
            return 0 if offset is None else int(offset)

    def latest(self, topic: str) -> dict[bytes, Record]:
        """Return the newest record of each key of a compacted topic, in offset order.

        A newcomer begins here and reads on from the largest offset returned + 1, which was the end at that instant.
        A record without a value is returned like any other: keys are never deleted.
        """
        sql = _compacted(topic)
        with self._reading() as db:
            records = [_record(row) for row in db.execute(sql.latest)]
        return {record.key: record for record in records if record.key is not None}

    def compact(self, topic: str) -> int:
        """Delete the records of a compacted topic that a newer one of the same key supersedes; return how many."""
        sql = _compacted(topic)
        deleted = 0
        while True:
            with self._writing(synced=False) as db:
                count = db.execute(sql.compact, (COMPACT_RECORDS,)).rowcount
            deleted += count
            if count < COMPACT_RECORDS:
                return deleted

    def trim(self, topic: str, before_offset: int) -> int:
        """Delete the records of a topic below an offset and return how many; compacted topics are refused.

        The newest record stays whatever the offset is, since the next offset and append time follow from it. Space is
        used again by later records; the file does not shrink.
        """
        sql = _sql_of(topic)
        if topic in COMPACTED:
            raise EmbeddedLogError(f"'{topic}' is compacted: use compact('{topic}'), its newest records never lapse")
        deleted = 0
        while True:
            with self._writing(synced=False) as db:
                (oldest,) = db.execute(sql.oldest).fetchone()
                bound = min(before_offset, _end(db, sql) - 1)
                if oldest is None or oldest >= bound:
                    return deleted
                deleted += db.execute(sql.trim, (min(bound, oldest + TRIM_RECORDS),)).rowcount

    def wait(
        self, positions: Mapping[str, int], timeout_s: float, *, stop: threading.Event | None = None
    ) -> tuple[str, ...]:
        """Wait until a topic holds a record at or after its position; return such topics, or () when time is up.

        The file is asked whether anybody committed (`PRAGMA data_version`, which reads a few bytes of shared memory)
        at growing intervals of up to 5 ms, so an idle waiter costs well under a hundredth of a processor.

        Args:
            positions: The offset to be read next, by topic.
            timeout_s: The longest wait, in seconds; 0 looks once.
            stop: Ends the wait within one interval when set.
        """
        wanted = {topic: (_sql_of(topic), position) for topic, position in positions.items()}
        deadline = time.monotonic() + timeout_s  # noqa: TID251
        pause = POLL_MIN_S
        seen: tuple[int, int] | None = None
        while True:
            # The version is read before the topics: a commit between the two is seen as a new version next time.
            with self._explaining() as db:
                version = (db.execute("PRAGMA data_version").fetchone()[0], self._commits)
                if version != seen:
                    seen = version
                    news = tuple(topic for topic, (sql, position) in wanted.items() if _end(db, sql) > position)
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

    def acquire(self, name: str) -> Fence:
        """Take over as the one writer of that name: appends with an older fence of it are refused from now on.

        What the older writer committed before this call returns is in the log; nothing of it follows.
        """
        with self._writing(synced=True) as db:
            (token,) = db.execute(_FENCE_RAISE, (name,)).fetchone()
        return Fence(name, token)

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        with self._lock:
            if self._db is not None and self._process == os.getpid():
                self._db.close()
            self._db = None

    def __enter__(self) -> EmbeddedLog:
        """Return the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log."""
        self.close()

    def _check_batch(self, batches: Mapping[str, Sequence[Message]]) -> None:
        limits = self.limits
        count = total = 0
        for topic, messages in batches.items():
            _sql_of(topic)
            count += len(messages)
            sizes = [_size(message) for message in messages]
            total += sum(sizes)
            if sizes and max(sizes) > limits.record_bytes:
                raise EmbeddedLogError(
                    f"a record of {max(sizes)} bytes for '{topic}' > limit {limits.record_bytes}; split it, or raise "
                    "limits.record_bytes"
                )
            if topic in COMPACTED and any(message.key is None for message in messages):
                raise EmbeddedLogError(f"a record without a key for '{topic}', which is compacted by key; give it one")
        if count > limits.batch_records or total > limits.batch_bytes:
            raise EmbeddedLogError(
                f"a batch of {count} records and {total} bytes > limits {limits.batch_records} records and "
                f"{limits.batch_bytes} bytes; append it in parts, or raise limits.batch_records or limits.batch_bytes"
            )

    @contextmanager
    def _explaining(self) -> Iterator[sqlite3.Connection]:
        """Hold the connection for this thread, and put into words what SQLite raises."""
        with self._lock:
            if self._db is None:
                raise EmbeddedLogError(f"{self._path}: the log was closed; open it again")
            if self._process != os.getpid():
                raise EmbeddedLogError(
                    f"{self._path}: opened by process {self._process}, used by its fork {os.getpid()}; open the log "
                    "again after the fork"
                )
            try:
                yield self._db
            except sqlite3.Error as error:
                raise self._explained(error) from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Hold one instant of the log, so that the statements of a call agree with each other."""
        with self._explaining() as db, _transaction(db, "BEGIN"):
            yield db

    @contextmanager
    def _writing(self, *, synced: bool) -> Iterator[sqlite3.Connection]:
        """Hold the write lock, and commit what the block did, or nothing of it."""
        synced = synced and self._fsync
        with self._explaining() as db:
            if synced is not self._synced:
                db.execute(f"PRAGMA synchronous = {'FULL' if synced else 'NORMAL'}")
                self._synced = synced
            with _transaction(db, "BEGIN IMMEDIATE"):
                yield db
            self._commits += 1

    def _explained(self, error: sqlite3.Error) -> EmbeddedLogError:
        return explained(
            error, self._path, busy_timeout_s=self._busy_timeout_s, log_bytes=self.limits.log_bytes
        )


@contextmanager
def _transaction(db: sqlite3.Connection, begin: str) -> Iterator[None]:
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors, such as a full disk.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _sql_of(topic: str) -> _Sql:
    sql = _SQL.get(topic)
    if sql is None:
        raise EmbeddedLogError(f"unknown topic '{topic}': expected one of {', '.join(TOPICS)}")
    return sql


def _compacted(topic: str) -> _Sql:
    sql = _sql_of(topic)
    if topic not in COMPACTED:
        raise EmbeddedLogError(f"'{topic}' is not compacted: expected one of {', '.join(COMPACTED)}")
    return sql


def _end(db: sqlite3.Connection, sql: _Sql) -> int:
    newest = db.execute(sql.newest).fetchone()
    return 0 if newest is None else int(newest[0]) + 1


def _put(db: sqlite3.Connection, sql: _Sql, messages: Sequence[Message], now_ms: int) -> list[int]:
    newest = db.execute(sql.newest).fetchone()
    start, append_ts = (0, now_ms) if newest is None else (newest[0] + 1, max(now_ms, newest[1]))
    offsets = list(range(start, start + len(messages)))
    db.executemany(
        sql.insert,
        (
            (offset, append_ts, message.key, message.value, _ENCODE.encode(message.headers) if message.headers else None)
            for offset, message in zip(offsets, messages, strict=True)
        ),
    )
    return offsets


def _check_fence(db: sqlite3.Connection, fence: Fence) -> None:
    row = db.execute(_FENCE_TOKEN, (fence.name,)).fetchone()
    newest = 0 if row is None else row[0]
    if fence.token != newest:
        raise WriterFenced(
            f"writer '{fence.name}' holds token {fence.token}, the newest is {newest}: another process took over; "
            "stop this one"
        )
