"""Return the space of an embedded log that nothing uses to the disk."""

from __future__ import annotations

import sqlite3
from typing import Final

SHRINK_PAGES: Final = 1_024
"""Pages that one transaction returns to the disk: 4 MiB, moved from the end of the file."""

FREE_PAGES_SHARE: Final = 8
"""One page in so many may be free: a log that loses as much as it gains uses its pages again, without moving any."""

INCREMENTAL: Final = 2
"""SQLite's number for files that can be cut off without being written again."""


def excess_pages(db: sqlite3.Connection) -> int:
    """Return how many pages one transaction should return to the disk; none in a file that has to be written again."""
    if not can_shrink(db):
        return 0
    pages, free = (_number(db, name) for name in ("page_count", "freelist_count"))
    return max(0, min(free - pages // FREE_PAGES_SHARE, SHRINK_PAGES))


def can_shrink(db: sqlite3.Connection) -> bool:
    """Return whether the file can be cut off without being written again: earlier versions made others."""
    return _number(db, "auto_vacuum") == INCREMENTAL


def return_pages(db: sqlite3.Connection, pages: int) -> int:
    """Return free pages to the disk, in a transaction; return how many bytes that is."""
    # It returns pages only as far as its rows are fetched.
    db.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
    return pages * _number(db, "page_size")


def cut_ahead_file(db: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Move the write-ahead file into the log and cut it off, unless another process reads from it or writes now."""
    db.execute("PRAGMA busy_timeout = 0")
    try:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise
    finally:
        db.execute(f"PRAGMA busy_timeout = {round(busy_timeout_s * 1_000)}")


def write_again(db: sqlite3.Connection) -> None:
    """Write the whole file again, without free pages, as one that can shrink; it takes its size twice until then."""
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("VACUUM")


def _number(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
