"""Read an embedded log that must stay as it is: evidence, a copy on a read-only medium, the log of a stranger.

Nothing is written next to the file either. SQLite itself would make or change the shared-memory file of a log that a
killed process left behind, so how the file is opened depends on what is there:

| what there is | how it is read |
|---|---|
| no records outside it, and no process that has it open | as a file that never changes (`immutable`) |
| a process that has it open | with the locks of that process, read-only |
| records of a killed process, with the shared-memory file | read-only; SQLite makes its own table in memory |
| records of a killed process, without that file | a copy of both files in a temporary folder |

The file may be made to harm its reader. So before anything else is read, the tables must be exactly those of a log (no
view, no trigger, nothing besides); every row is checked for the types that a log writes; every call has a limit of
time; and values have a limit of size.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote
from weakref import WeakSet

import msgspec

from unship.events import TS_MS_MAX
from unship.log.embedded.blocks import Row, first_of, unpacked
from unship.log.embedded.file import (
    APPLICATION_ID,
    FILE_NAME,
    SCHEMA_OLDEST,
    SCHEMA_VERSION,
    EmbeddedLogError,
    explained,
)
from unship.log.embedded.log import is_open
from unship.log.embedded.table import (
    ADDED,
    CREATE_WRITERS,
    TABLES,
    EmbeddedLimits,
    compacted_table,
    end_of,
    record_of,
    row_at,
    table_of,
)
from unship.log.link import Record

CALL_S: Final = 60.0
"""Longest time of one call, in seconds: a page takes milliseconds, the newest record of each key a second a million."""

STEPS: Final = 20_000
"""After so many steps of SQLite the time is looked at: about a millisecond."""

OFFSETS: Final = 1 << 41
"""Offsets are below: what a place in the ledger can hold."""

_SHARED_LOCK: Final = 128
"""The byte of the shared-memory file on which each open connection holds a lock."""


class ReadOnlyLog:
    """Read the log in a folder without changing any file there; the calls are those of `EmbeddedLog`.

    Raises:
        EmbeddedLogError: The file cannot be read, is no log, or holds what no log holds.
    """

    def __init__(self, folder: str | os.PathLike[str], *, call_s: float = CALL_S) -> None:
        """Open the log of a folder; each call may take `call_s` seconds."""
        self.folder = Path(folder)
        self._path = self.folder / FILE_NAME
        self._call_s = call_s
        self._deadline = 0.0
        self._lock = threading.Lock()
        self._copies: tempfile.TemporaryDirectory[str] | None = None
        self._still: tuple[int, ...] | None = None
        self._db: sqlite3.Connection | None = None
        self._absent: frozenset[str] = frozenset()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def ends(self) -> dict[str, int]:
        """Return the offset after the last record of every topic, all of one instant."""
        with self._reading() as db:
            return {topic: 0 if topic in self._absent else end_of(db, table) for topic, table in TABLES.items()}

    def first(self, topic: str) -> int:
        """Return the smallest offset that a topic still holds, 0 if it holds nothing."""
        if topic in self._absent:
            return 0
        with self._reading() as db:
            row = row_at(db, table_of(topic), 0)
            return 0 if row is None else first_of(self._sound(topic, row))

    def read(self, topic: str, offset: int, *, limit: int = 1_000, max_bytes: int = 8 << 20) -> list[Record]:
        """Return some records from an offset on, in order; where some are gone, from the first one after them."""
        records: list[Record] = []
        if topic in self._absent:
            return records
        size = 0
        with self._reading() as db, closing(db.execute(table_of(topic).read, (offset, limit))) as rows:
            for row in unpacked((self._sound(topic, row) for row in rows), offset):
                record = self._checked(topic, row)
                if record.offset < (records[-1].offset + 1 if records else offset):
                    raise self._refused(f"'{topic}' has offset {record.offset} after a larger one")
                size += len(record.key or b"") + len(record.value or b"")
                if size > max_bytes and records:
                    break
                records.append(record)
                if len(records) == limit:
                    break
        return records

    def latest(self, topic: str) -> dict[bytes, Record]:
        """Return the newest record of each key of a compacted topic, in offset order."""
        table = compacted_table(topic)
        with self._reading() as db:
            records = [self._checked(topic, row) for row in db.execute(table.latest)]
        return {record.key: record for record in records if record.key is not None}

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None
            if self._copies is not None:
                self._copies.cleanup()
                self._copies = None

    def __enter__(self) -> ReadOnlyLog:
        """Return the log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log."""
        self.close()

    def _open(self) -> None:
        try:
            path, options = self._how()
            self._db = sqlite3.connect(
                f"file:{quote(str(path))}?mode=ro{options}", uri=True, isolation_level=None, check_same_thread=False
            )
        except (sqlite3.Error, OSError) as error:
            raise self._refused(f"cannot be opened for reading: {error}") from error
        self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * EmbeddedLimits().record_bytes)
        self._db.set_progress_handler(self._is_late, STEPS)
        with self._reading() as db:
            self._absent = _check_contents(db, self._refused)

    def _how(self) -> tuple[Path, str]:
        """Return which file is opened, and how."""
        path = self._path.absolute()
        written, shared = (path.with_name(f"{FILE_NAME}{end}") for end in ("-wal", "-shm"))
        if is_open(path.parent) or _is_read(path) or _is_locked(shared):
            _READ.add(self)
            return path, ""
        if not written.exists() or not written.stat().st_size:
            self._still = _identity(path)
            return path, "&immutable=1"
        if shared.exists():
            return path, "&readonly_shm=1"
        self._copies = tempfile.TemporaryDirectory(prefix="unship-log-")
        for each in (path, written):
            shutil.copyfile(each, Path(self._copies.name) / each.name)
        return Path(self._copies.name) / FILE_NAME, ""

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Hold one instant of the log, for as long as a call may take."""
        with self._lock:
            if self._db is None:
                raise self._refused("the log was closed; open it again")
            self._deadline = time.monotonic() + self._call_s  # noqa: TID251
            try:
                self._db.execute("BEGIN")
                yield self._db
            except sqlite3.Error as error:
                raise self._explained(error) from error
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            if self._still is not None and self._still != _identity(self._path):
                raise self._refused("a process began to write it while it was read; read it again")

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline  # noqa: TID251

    def _sound(self, topic: str, row: Sequence[Any]) -> Row:
        """Return a row that a log may have written."""
        offset, append_ts, *data = row
        sound = all(type(number) is int for number in (offset, append_ts))
        sound = sound and all(value is None or type(value) is bytes for value in data)
        if not sound or not 0 <= offset < OFFSETS or not 0 <= append_ts <= TS_MS_MAX:
            raise self._refused(
                f"'{topic}' has a row that no log writes: offset {_shown(offset)} (expected 0 to {OFFSETS - 1}), "
                f"append time {_shown(append_ts)} (expected 0 to {TS_MS_MAX}), and bytes"
            )
        return offset, append_ts, data[0], data[1], data[2]

    def _checked(self, topic: str, row: Sequence[Any]) -> Record:
        """Return the record of a row that a log may have written, or of one in a block."""
        offset, *_ = row = self._sound(topic, row)
        try:
            return record_of(row)
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._refused(f"the headers of '{topic}' offset {offset} cannot be read ({error})") from error

    def _refused(self, why: str) -> EmbeddedLogError:
        return EmbeddedLogError(f"{self._path}: {why}")

    def _explained(self, error: sqlite3.Error) -> EmbeddedLogError:
        if getattr(error, "sqlite_errorcode", -1) == sqlite3.SQLITE_INTERRUPT:
            return self._refused(f"one read took longer than {self._call_s:g} s, which no sound log of this size needs")
        limits = EmbeddedLimits()
        return explained(error, self._path, busy_timeout_s=5.0, log_bytes=limits.log_bytes)


def _check_contents(db: sqlite3.Connection, refused: Any) -> frozenset[str]:
    """Make sure that a file has the tables of a log and nothing else, before any of them is read.

    Returns:
        The topics that a file of its version does not have.
    """
    application, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
    if application != APPLICATION_ID or not SCHEMA_OLDEST <= version <= SCHEMA_VERSION:
        raise refused(
            f"not an embedded log of this program: expected application id {APPLICATION_ID:#x} and schema "
            f"{SCHEMA_OLDEST} to {SCHEMA_VERSION}, was {application:#x} and {version}; name another folder, or record "
            "it with the version of unship that wrote it"
        )
    absent = frozenset(topic for topic, since in ADDED.items() if version < since)
    with closing(sqlite3.connect(":memory:")) as model:
        for topic, table in TABLES.items():
            if topic not in absent:
                model.executescript(table.create)
        model.execute(CREATE_WRITERS)
        expected = set(model.execute(_CONTENTS))
    found = set(db.execute(_CONTENTS).fetchmany(len(expected) + 1))
    if found != expected:
        odd = sorted({_shown(row[1]) for row in found ^ expected})
        raise refused(
            f"it has not exactly the tables of a log: {', '.join(odd[:5])} are others, missing or too many; it was "
            "changed by another program"
        )
    for topic in TABLES.keys() - absent:
        table = TABLES[topic]
        (least,), newest = db.execute(table.oldest).fetchone(), db.execute(table.newest).fetchone() or (0, 0)
        if any(type(number) is not int for number in (least or 0, *newest)):
            raise refused(f"'{topic}' has offsets or times that are no numbers")
        if (least or 0) < 0 or newest[0] >= OFFSETS or not 0 <= newest[1] <= TS_MS_MAX:
            raise refused(
                f"'{topic}' has offsets {least} to {newest[0]} (expected 0 to {OFFSETS - 1}), the last one appended at "
                f"{newest[1]} (expected 0 to {TS_MS_MAX} ms)"
            )
    return absent


_CONTENTS: Final = "SELECT type, name, tbl_name, sql FROM sqlite_master"


def _shown(value: Any) -> str:
    return repr(value)[:40]


def _identity(path: Path) -> tuple[int, ...]:
    found = path.stat()
    written = path.with_name(f"{FILE_NAME}-wal")
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        written.stat().st_size if written.exists() else 0,
    )


_READ: Final[WeakSet[ReadOnlyLog]] = WeakSet()
"""Logs that this process reads with locks: like those of `is_open`, their files are not opened in another way."""


def _is_read(path: Path) -> bool:
    return any(log._db is not None and log._path.absolute() == path for log in list(_READ))


def _is_locked(shared: Path) -> bool:
    """Return whether another process has the log open, by the lock that it holds then; nothing is locked here."""
    try:
        file = os.open(shared, os.O_RDONLY)
    except OSError:
        return False
    try:
        # The order of the fields of `struct flock` differs by system.
        if sys.platform == "darwin":
            asked = struct.pack("qqihh4x", _SHARED_LOCK, 1, 0, fcntl.F_WRLCK, os.SEEK_SET)
            kind = struct.unpack("qqihh4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))[3]
        else:
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _SHARED_LOCK, 1, 0)
            kind = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))[0]
        return bool(kind != fcntl.F_UNLCK)
    finally:
        os.close(file)
