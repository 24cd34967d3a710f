"""What an operator reads when the embedded log cannot be used: the file, both numbers, the fix."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import unship
from unship.errors import UnshipError
from unship.log.embedded.log import EmbeddedLog, EmbeddedLogError, Message


def execute(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "log.sqlite3", isolation_level=None)) as db:
        db.execute(statement)


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Run as a user that file modes bind: they do not bind root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_error_is_one_of_unship() -> None:
    assert issubclass(EmbeddedLogError, UnshipError)


def test_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("")
    with pytest.raises(EmbeddedLogError, match="cannot be made a folder of the log"):
        EmbeddedLog(tmp_path / "log")


@pytest.mark.usefixtures("unprivileged")
def test_folder_that_may_not_be_written_is_refused_with_the_user() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        with pytest.raises(EmbeddedLogError, match=rf"needs write access.* as user {os.geteuid()}"):
            EmbeddedLog(folder)
        with pytest.raises(EmbeddedLogError, match=r"cannot be made a folder of the log \(Permission denied\)"):
            EmbeddedLog(folder / "log")
        folder.chmod(0o755)


@pytest.mark.usefixtures("unprivileged")
def test_file_that_may_not_be_written_is_refused_by_the_first_append() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        EmbeddedLog(folder).close()
        (folder / "log.sqlite3").chmod(0o444)
        with pytest.raises(EmbeddedLogError, match="needs write access"), EmbeddedLog(folder) as log:
            log.append("feedback", [Message(b"x")])


def test_file_of_a_newer_schema_is_refused_with_both_versions(tmp_path: Path) -> None:
    EmbeddedLog(tmp_path).close()
    execute(tmp_path, "PRAGMA user_version = 7")
    with pytest.raises(EmbeddedLogError, match="schema 7 > 3"):
        EmbeddedLog(tmp_path)


def test_sqlite_file_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    execute(tmp_path, "CREATE TABLE customers (name TEXT)")
    with pytest.raises(EmbeddedLogError, match="not an embedded log: expected application id 0x756e7368, was 0x0"):
        EmbeddedLog(tmp_path)
    with closing(sqlite3.connect(tmp_path / "log.sqlite3")) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("customers",)]


def test_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    garbage = bytes(range(256)) * 40
    (tmp_path / "log.sqlite3").write_bytes(garbage)
    with pytest.raises(EmbeddedLogError, match=r"damaged or not a SQLite file .*10240 bytes.*move the folder away"):
        EmbeddedLog(tmp_path)
    assert (tmp_path / "log.sqlite3").read_bytes() == garbage


def test_damaged_page_is_an_error_and_not_a_wrong_record(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path, fsync=False) as log:
        log.append("feedback", [Message(b"x" * 500)] * 200)
    data = bytearray((tmp_path / "log.sqlite3").read_bytes())
    half = len(data) // 2 // 4_096 * 4_096
    data[half:] = b"\xa5" * (len(data) - half)
    (tmp_path / "log.sqlite3").write_bytes(data)
    with pytest.raises(EmbeddedLogError, match="damaged or not a SQLite file"), EmbeddedLog(tmp_path) as log:
        log.read("feedback", 0)


def test_lock_held_too_long_is_an_error_that_names_the_time(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path, busy_timeout_s=0.05, fsync=False) as log:
        with closing(sqlite3.connect(tmp_path / "log.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(EmbeddedLogError, match=r"locked by another process for longer than 0\.05 s"):
                log.append("feedback", [Message(b"x")])
            assert log.end("feedback") == 0
            other.execute("ROLLBACK")
        assert log.append("feedback", [Message(b"x")]) == [0]


def test_folder_of_a_stopped_creation_is_finished_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite3").write_bytes(b"")
    with EmbeddedLog(tmp_path, fsync=False) as log:
        assert log.append("feedback", [Message(b"x")]) == [0]


# Runs in a mount of its own, which ends with it: a disk of 300 KiB that another file fills.
FULL_DISK = """
import pathlib, subprocess, sys
from unship.log.embedded.log import EmbeddedLog, EmbeddedLogError
from unship.log.link import Message
disk = pathlib.Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k,mode=0700", "tmpfs", disk], check=True)
with EmbeddedLog(disk) as log:
    log.append("ledger", [Message(b"x")])
try:
    (disk / "other").write_bytes(b"x" * 400_000)
except OSError:
    pass
try:
    EmbeddedLog(disk)
except EmbeddedLogError as error:
    print(error)
(disk / "other").write_bytes(b"x" * 100_000)
with EmbeddedLog(disk) as log:
    try:
        log.append("ledger", [Message(b"x" * 200_000)])
    except EmbeddedLogError as error:
        print(error)
    print(log.end("ledger"))
"""


def test_full_disk_is_named_by_an_opening_and_by_an_append_with_its_numbers(tmp_path: Path) -> None:
    alone = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        [*alone, sys.executable, "-c", FULL_DISK, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(unship.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    opened, appended, records = done.stdout.splitlines()
    for said in (opened, appended):
        assert re.search(r"log.sqlite3: the disk is full: the log holds \d+ bytes and \d+ bytes are free; ", said), said
    # What stands in the write-ahead file is counted too.
    assert int(appended.split()[8]) > 100_000
    assert records == "1"
