"""Shape the records of an embedded log: its topics, its limits, and the statements of the table behind each topic."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec import Struct

from unship.log.embedded.blocks import BLOCK_RECORDS, Row, block_of, first_of, is_block, within_limits
from unship.log.embedded.file import SCHEMA_VERSION, ClockAhead, EmbeddedLogError, WriterFenced
from unship.log.link import Headers, Message, Record
from unship.topics import COMPACTED, TOPICS

UNSYNCED: Final = ("predictions", "feedback", "rejected")
"""Topics whose commits do not wait for the disk: safe from kill -9, and lost only by a power failure."""


class Fence(Struct, frozen=True):
    """Prove who wrote last under a name: `acquire` gives a higher token each time, and only the highest may append."""

    name: str
    token: int


class EmbeddedLimits(Struct, frozen=True):
    """Bound what the log takes.

    Attributes:
        record_bytes: Key, value and headers of one record. An event is at most 64 KiB; a slot of a snapshot is more.
        batch_records: Records of one transaction: 100,000 at 8 us each hold the write lock for just under a second.
        batch_bytes: Bytes of one transaction; about as many are written to the write-ahead file at once.
        log_bytes: Size of the file: 16 GiB is 30 million predictions of 500 bytes, 8 hours at 1,000 a second.
    """

    record_bytes: int = 8 << 20
    batch_records: int = 100_000
    batch_bytes: int = 64 << 20
    log_bytes: int = 16 << 30


class Table(NamedTuple):
    """Hold the statements of one topic, which is one table: appending at the end of a table is SQLite's fast path."""

    create: str
    insert: str
    newest: str
    oldest: str
    before: str
    read: str
    latest: str
    newest_of: str
    set_back: str
    delete: str
    delete_one: str
    superseded: str
    compact: str


def _table(topic: str) -> Table:
    # The table's name is from the closed list above, never from outside.
    table, columns = f"topic_{topic}", "offset, append_ts, key, value, headers"
    by_key = f"; CREATE INDEX {table}_by_key ON {table} (key, offset)" if topic in COMPACTED else ""
    superseded = (
        f"SELECT offset FROM {table} AS older WHERE EXISTS "  # noqa: S608
        f"(SELECT 1 FROM {table} AS newer WHERE newer.key = older.key AND newer.offset > older.offset) "
        "AND older.offset < ? LIMIT ?"
    )
    return Table(
        create=f"CREATE TABLE {table} (offset INTEGER PRIMARY KEY, append_ts INTEGER NOT NULL, key BLOB, value BLOB, "
        f"headers BLOB) STRICT{by_key}",
        insert=f"INSERT INTO {table} ({columns}) VALUES (?, ?, ?, ?, ?)",  # noqa: S608
        newest=f"SELECT offset, append_ts FROM {table} ORDER BY offset DESC LIMIT 1",  # noqa: S608
        oldest=f"SELECT min(offset) FROM {table}",  # noqa: S608
        before=f"SELECT append_ts FROM {table} WHERE offset < ? ORDER BY offset DESC LIMIT 1",  # noqa: S608
        read=f"SELECT {columns} FROM {table} WHERE offset >= ? ORDER BY offset LIMIT ?",  # noqa: S608
        latest=f"SELECT {columns} FROM {table} "  # noqa: S608
        f"WHERE offset IN (SELECT max(offset) FROM {table} GROUP BY key) ORDER BY offset",
        newest_of=f"SELECT {columns} FROM {table} WHERE key = ? ORDER BY offset DESC LIMIT 1",  # noqa: S608
        set_back=f"UPDATE {table} SET append_ts = ? WHERE offset >= ? AND append_ts > ?",  # noqa: S608
        delete=f"DELETE FROM {table} WHERE offset < ?",  # noqa: S608
        delete_one=f"DELETE FROM {table} WHERE offset = ?",  # noqa: S608
        superseded=f"SELECT count(*) FROM ({superseded})",  # noqa: S608
        compact=f"DELETE FROM {table} WHERE offset IN ({superseded})",  # noqa: S608
    )


TABLES: Final = {topic: _table(topic) for topic in TOPICS}
CREATE_WRITERS: Final = "CREATE TABLE writers (name TEXT PRIMARY KEY, token INTEGER) STRICT"
CREATE: Final = "; ".join((*(table.create for table in TABLES.values()), CREATE_WRITERS))
ADDED: Final = {"alerts": 3}
"""Topics that files of earlier versions do not have, with the version that has them."""

CREATE_ADDED: Final = "; ".join(
    TABLES[topic].create.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS") for topic in ADDED
)
FENCE_NEWEST: Final = "SELECT token FROM writers WHERE name = ?"
FENCE_NEXT: Final = (
    "INSERT INTO writers (name, token) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET token = token + 1 RETURNING token"
)
CLOCK_NAMES: Final = ("clock", "clock since boot")
"""Rows of `writers` that are no writers: the monitor's clock, and the time since boot at which it had that time."""

CLOCK_READ: Final = "SELECT name, token FROM writers WHERE name IN (?, ?)"
CLOCK_WRITE: Final = (
    "INSERT INTO writers (name, token) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET token = excluded.token"
)
CLOCK_AHEAD_MS: Final = 600_000
"""An append that is further ahead of the monitor's clock is refused."""

CLOCK_FRESH_MS: Final = 60_000
"""A monitor that wrote its clock longer ago runs no more: nothing is compared with it."""

_DECODE_HEADERS: Final = msgspec.msgpack.Decoder(Headers)
_ENCODE: Final = msgspec.msgpack.Encoder()


def message_bytes(message: Message) -> int:
    """Return how many bytes of a transaction a record takes."""
    headers = sum(len(name) + len(value) for name, value in message.headers) if message.headers else 0
    return len(message.value or b"") + len(message.key or b"") + headers


def record_of(row: Row) -> Record:
    """Return the record that a row of a table is."""
    offset, append_ts, key, value, headers = row
    return Record(offset, append_ts, key, value, _DECODE_HEADERS.decode(headers) if headers else ())


def table_of(topic: str) -> Table:
    """Return the statements of a topic, or refuse a name that is none."""
    table = TABLES.get(topic)
    if table is None:
        raise EmbeddedLogError(f"unknown topic '{topic}': expected one of {', '.join(TOPICS)}")
    return table


def compacted_table(topic: str) -> Table:
    """Return the statements of a compacted topic, or refuse any other."""
    table = table_of(topic)
    if topic not in COMPACTED:
        raise EmbeddedLogError(f"'{topic}' is not compacted: expected one of {', '.join(COMPACTED)}")
    return table


def history_table(topic: str) -> Table:
    """Return the statements of a topic that keeps its history, or refuse a compacted one."""
    if topic in COMPACTED:
        raise EmbeddedLogError(f"'{topic}' is compacted: use compact('{topic}'), its newest records never lapse")
    return table_of(topic)


def end_of(db: sqlite3.Connection, table: Table) -> int:
    """Return the offset that the next record will get."""
    newest = db.execute(table.newest).fetchone()
    return 0 if newest is None else int(newest[0]) + 1


def row_at(db: sqlite3.Connection, table: Table, offset: int) -> Row | None:
    """Return the row that holds a record, or the next row after it; None at the end."""
    row: Row | None = db.execute(table.read, (offset, 1)).fetchone()
    return row


def first_offset(db: sqlite3.Connection, table: Table) -> int:
    """Return the smallest offset that is kept, 0 if there is no record."""
    row = row_at(db, table, 0)
    return 0 if row is None else first_of(row)


def first_since(db: sqlite3.Connection, table: Table, append_ts: int) -> int:
    """Return an offset below which every record was appended before a time: the first of the row that was not.

    The append time of a block is that of its newest record.
    """
    return _first_where(db, table, end_of(db, table), lambda row: row[1] >= append_ts)


def _first_where(db: sqlite3.Connection, table: Table, high: int, holds: Callable[[Row], bool]) -> int:
    """Return the first offset of the first row for which something holds, as it does for those after it.

    What is from `high` on is not looked at; if it holds for no row before, that is what is returned.
    """
    low = first_offset(db, table)
    while low < high:
        middle = (low + high) // 2
        row = row_at(db, table, middle)
        if row is None or holds(row):
            high = middle
        else:
            low = row[0] + 1
    return low


def pack_next(db: sqlite3.Connection, table: Table, before: int) -> int:
    """Replace the oldest records that are rows of their own, below an offset, with a block; return how many."""
    newest = end_of(db, table) - 1
    low = _first_where(db, table, newest, lambda row: not is_block(row))
    count = min(BLOCK_RECORDS, before - low, newest - low)
    if count < BLOCK_RECORDS:
        return 0
    rows = within_limits(db.execute(table.read, (low, count)))
    block = block_of(rows)
    # What is below is in blocks already, at smaller offsets than these.
    db.executemany(table.delete_one, [(row[0],) for row in rows])
    db.execute(table.insert, block)
    # What cannot read blocks is to refuse the file from now on.
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return len(rows)


def put(db: sqlite3.Connection, table: Table, messages: Sequence[Message], now_ms: int) -> list[int]:
    """Append messages under the write lock: offsets and append time go on from the newest record."""
    newest = db.execute(table.newest).fetchone()
    start, append_ts = (0, now_ms) if newest is None else (newest[0] + 1, max(now_ms, newest[1]))
    offsets = list(range(start, start + len(messages)))
    db.executemany(
        table.insert,
        (
            (offset, append_ts, each.key, each.value, _ENCODE.encode(each.headers) if each.headers else None)
            for offset, each in zip(offsets, messages, strict=True)
        ),
    )
    return offsets


def check_batch(batches: Mapping[str, Sequence[Message]], limits: EmbeddedLimits) -> None:
    """Refuse a batch that passes a limit, or a record that its topic cannot hold, before any lock is taken."""
    count = total = 0
    for topic, messages in batches.items():
        table_of(topic)
        count += len(messages)
        sizes = [message_bytes(message) for message in messages]
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


def check_clock(db: sqlite3.Connection, now_ms: int, since_boot_ms: int) -> None:
    """Refuse an append by a clock that is far ahead of that of a running monitor.

    Which of two clocks is right does not follow from these clocks: how long ago the monitor wrote its own follows from
    the time since boot, which all processes of a machine share.
    """
    found = dict(db.execute(CLOCK_READ, CLOCK_NAMES).fetchall())
    if len(found) < len(CLOCK_NAMES):
        return
    written_ms, written_since_boot_ms = (found[name] for name in CLOCK_NAMES)
    age_ms = since_boot_ms - written_since_boot_ms
    ahead_ms = now_ms - written_ms - age_ms
    if 0 <= age_ms < CLOCK_FRESH_MS and ahead_ms > CLOCK_AHEAD_MS:
        raise ClockAhead(
            f"the clock of this process is {ahead_ms // 1_000} s ahead of the monitor's, more than "
            f"{CLOCK_AHEAD_MS // 1_000} s; nothing was written, because append times never fall. Put the clock right, "
            "or where the monitor's is wrong, put that one right"
        )


def set_back(db: sqlite3.Connection, table: Table, begin: int, now_ms: int) -> tuple[int, int, int]:
    """Give records from an offset on that are far ahead of a clock its time; called under the write lock.

    Returns:
        The offset of the first of them, the time that it had, and how many they are.
    """
    before = db.execute(table.before, (begin,)).fetchone()
    now_ms = max(now_ms, 0 if before is None else before[0])
    first = max(begin, first_since(db, table, now_ms + CLOCK_AHEAD_MS + 1))
    row = row_at(db, table, first)
    if row is None:
        return first, now_ms, 0
    before = db.execute(table.before, (first,)).fetchone()
    now_ms = max(now_ms, 0 if before is None else before[0])
    return first, row[1], db.execute(table.set_back, (now_ms, first, now_ms)).rowcount


def check_fence(db: sqlite3.Connection, fence: Fence) -> None:
    """Refuse a fence that is not the newest of its name; called under the write lock, so that it stays so."""
    row = db.execute(FENCE_NEWEST, (fence.name,)).fetchone()
    newest = 0 if row is None else row[0]
    if fence.token != newest:
        raise WriterFenced(
            f"writer '{fence.name}' holds token {fence.token}, the newest is {newest}: another process took over; "
            "stop this one"
        )
