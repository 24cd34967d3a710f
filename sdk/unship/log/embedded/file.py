"""Open the SQLite file of an embedded log, and explain its errors to operators."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from unship.errors import UnshipError
from unship.system.modes import changed_by_all

FILE_NAME: Final = "log.sqlite3"
SCHEMA_VERSION: Final = 3
"""Version 2 has blocks of compressed records; a file of version 1 is one without any. Version 3 has the topic `alerts`:
a file of an earlier version gets it when a program that writes opens it."""

SCHEMA_OLDEST: Final = 1
APPLICATION_ID: Final = 0x756E7368
"""The letters `unsh`, in the header of the file: distinguishes an embedded log from other SQLite files."""

SQLITE_MIN: Final = (3, 37, 0)
"""STRICT tables came with this version; they refuse text where bytes belong without a check per record."""

WAL_BYTES_KEPT: Final = 64 << 20
"""A write-ahead file that one large batch blew up is cut back to this size when it is next reused."""

SHARED_BYTES: Final = 32_768
"""What SQLite allocates at once for the shared-memory file next to the log."""

LOCK_PAUSE_MIN_S: Final = 0.000_2
LOCK_PAUSE_MAX_S: Final = 0.002
"""Pauses between tries for a lock. SQLite's own grow to 100 ms: with four writers whose commits wait for the disk, the
slowest of a hundred appends took up to 0.36 s with them, and 0.04 s with these."""


class EmbeddedLogError(UnshipError):
    """Report an embedded log that cannot be used; the message names the file, both numbers and the fix."""


class LogUnavailable(EmbeddedLogError):
    """Report a log that takes nothing now, because it is full or locked; nothing was written, so try it again."""


class ClockAhead(EmbeddedLogError):
    """Report an append by a clock that is far ahead of the monitor's; put the clock right, then it is taken."""


class WriterFenced(EmbeddedLogError):
    """Report that a newer writer took over; stop writing and exit, the newer one carries on."""


class OffsetTrimmed(EmbeddedLogError):
    """Report a read of records that retention deleted; record the hole, then read on from `first(topic)`."""


def open_file(folder: Path, *, busy_timeout_s: float, log_bytes: int, create: str, added: str) -> sqlite3.Connection:
    """Open the log's file in a folder, both made if missing, and return the connection in autocommit mode.

    Args:
        folder: Where `log.sqlite3` lies. It is made with mode 0700 and the file with 0600, because events may hold
            personal data. One that everybody may write is refused, because with it everybody could write every topic.
        busy_timeout_s: How long to wait for a lock of another process, in seconds.
        log_bytes: The largest size of the file that this connection lets it grow to, in bytes.
        create: The statements that make the tables of an empty file, separated by semicolons.
        added: Those of them that make the tables that a file of an earlier version has not.

    Raises:
        EmbeddedLogError: The folder or the file cannot be used, or the file is not a log of this schema.
        sqlite3.Error: SQLite refused; `explained` turns it into a message.
    """
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        raise EmbeddedLogError(
            f"SQLite {sqlite3.sqlite_version} < {'.'.join(map(str, SQLITE_MIN))}, which the embedded log needs: "
            "use a Python built with a newer SQLite, or a Kafka log"
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedLogError(
            f"{folder}: cannot be made a folder of the log ({error.strerror}); "
            "name a folder on a local disk that this user may write"
        ) from error
    _make_private(folder)
    db = sqlite3.connect(
        folder / FILE_NAME,
        timeout=busy_timeout_s,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        # Before anything else, since a file with a page in it keeps its kind.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # SQLite does not wait for this lock as it does for others: of two processes that start at once one would fail.
        (mode,) = _retried(db, "PRAGMA journal_mode = wal", busy_timeout_s).fetchone()
        if mode != "wal":
            raise EmbeddedLogError(
                f"{folder}: expected journal mode wal, was {mode}: the file system shares no memory between processes; "
                "name a folder on a local disk"
            )
        page_bytes = int(_one(db, "PRAGMA page_size"))
        db.execute(f"PRAGMA max_page_count = {max(1, log_bytes // page_bytes)}")
        db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
        _check_schema(db, folder / FILE_NAME, create, added, busy_timeout_s)
    except BaseException:
        db.close()
        raise
    return db


def _make_private(folder: Path) -> None:
    """Make the file of a log if it is missing, closed to others; SQLite gives its other files the same mode."""
    path = folder / FILE_NAME
    # What else the system refuses, SQLite runs into too, and it is explained there.
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with suppress(PermissionError):
        for each in (folder, path):
            found = changed_by_all(each)
            if found is not None:
                raise EmbeddedLogError(
                    f"a log that everybody may change is not opened: {found}, or name a folder of its own inside it"
                )


def _one(db: sqlite3.Connection, statement: str) -> Any:
    row = db.execute(statement).fetchone()
    return row[0]


def take_write_lock(db: sqlite3.Connection, timeout_s: float) -> None:
    """Begin a transaction that holds the write lock, or raise SQLITE_BUSY when that takes longer than the timeout."""
    db.execute("PRAGMA busy_timeout = 0")
    try:
        _retried(db, "BEGIN IMMEDIATE", timeout_s)
    finally:
        db.execute(f"PRAGMA busy_timeout = {round(timeout_s * 1_000)}")


def _retried(db: sqlite3.Connection, statement: str, timeout_s: float) -> sqlite3.Cursor:
    deadline = time.monotonic() + timeout_s  # noqa: TID251
    pause = LOCK_PAUSE_MIN_S
    while True:
        try:
            return db.execute(statement)
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() >= deadline:  # noqa: TID251
                raise
        time.sleep(pause)  # noqa: TID251
        pause = min(pause * 1.5, LOCK_PAUSE_MAX_S)


def _check_schema(db: sqlite3.Connection, path: Path, create: str, added: str, busy_timeout_s: float) -> None:
    found = int(_one(db, "PRAGMA user_version"))
    ours = int(_one(db, "PRAGMA application_id")) == APPLICATION_ID
    if found == 0 or (ours and SCHEMA_OLDEST <= found < SCHEMA_VERSION):
        # Asked again under the write lock: of several processes that find an empty file, one makes the tables.
        take_write_lock(db, busy_timeout_s)
        try:
            found = int(_one(db, "PRAGMA user_version"))
            if found == 0 and _one(db, "SELECT count(*) FROM sqlite_master") == 0:
                for statement in create.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                found = SCHEMA_VERSION
            elif ours and SCHEMA_OLDEST <= found < SCHEMA_VERSION:
                for statement in added.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                found = SCHEMA_VERSION
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    application = int(_one(db, "PRAGMA application_id"))
    if application != APPLICATION_ID:
        raise EmbeddedLogError(
            f"{path}: not an embedded log: expected application id {APPLICATION_ID:#x}, was {application:#x}; "
            "name another folder"
        )
    if found > SCHEMA_VERSION:
        raise EmbeddedLogError(
            f"{path}: schema {found} > {SCHEMA_VERSION}, the newest that this program knows; install the version of "
            "unship that wrote it, or name another folder"
        )
    if found < SCHEMA_OLDEST:
        raise EmbeddedLogError(
            f"{path}: schema {found} < {SCHEMA_OLDEST}, the oldest that this program reads; record it with the "
            "version of unship that wrote it, or name another folder"
        )


def explained(error: sqlite3.Error, path: Path, *, busy_timeout_s: float, log_bytes: int) -> EmbeddedLogError:
    """Return the error with the cause that SQLite reports, both numbers and the fix.

    Args:
        error: What SQLite raised.
        path: The file of the log.
        busy_timeout_s: How long the caller waited for a lock, in seconds.
        log_bytes: The configured largest size of the file, in bytes.
    """
    # Absent on errors of the module itself, such as a value of a type that it cannot bind: no code of SQLite is -1.
    code = getattr(error, "sqlite_errorcode", -1) & 0xFF
    kind: type[EmbeddedLogError] = EmbeddedLogError
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}:
        text = (
            f"locked by another process for longer than {busy_timeout_s:g} s; nothing was written. Look for a stopped "
            "process that has the file open, or raise busy_timeout_s"
        )
        kind = LogUnavailable
    elif code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_disk_full(path)):
        text = _no_space(path, log_bytes)
        kind = LogUnavailable
    elif code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
        text = (
            f"cannot be opened for writing ({error}); every process that reads or writes the log needs write access to "
            f"the folder and the file, as user {os.geteuid()}: correct their owner or mode, or name another folder"
        )
    elif code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}:
        size = path.stat().st_size if path.exists() else 0
        text = (
            f"damaged or not a SQLite file ({error}; {size} bytes); stop every process that uses it, move the folder "
            "away and start with a new one, or bring the folder back from a copy"
        )
    elif code == sqlite3.SQLITE_CONSTRAINT or isinstance(error, sqlite3.InterfaceError):
        text = f"refused a record ({error}); its key and its value are bytes or None"
    else:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        text = f"{name}: {error}; look at the disk and its messages in the system's log, then open it again"
    return kind(f"{path}: {text}")


def _is_disk_full(path: Path) -> bool:
    """Return whether the disk has no room for the shared-memory file, which SQLite reports as an I/O error."""
    return path.exists() and shutil.disk_usage(path.parent).free < SHARED_BYTES


def _no_space(path: Path, log_bytes: int) -> str:
    used, free = path.stat().st_size, shutil.disk_usage(path.parent).free
    # The file may stay a little below the limit: one batch needs several pages at once.
    if free > log_bytes - used:
        return (
            f"the log is full: it holds {used} bytes and may not pass {log_bytes}; nothing was written. Remove "
            "what nobody needs any more: unship trim"
        )
    # Much of the log may be in the write-ahead file still, and the memory that processes share is a file too.
    used = sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
    return (
        f"the disk is full: the log holds {used} bytes and {free} bytes are free; nothing was written. Free space on "
        "the disk, or remove what nobody needs any more: unship trim"
    )
