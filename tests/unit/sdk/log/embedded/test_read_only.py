"""A log that is only read: no file changes, nothing is missed, and what a stranger made ends in a sentence."""

import hashlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from unship.errors import UnshipError
from unship.log.embedded.file import FILE_NAME, EmbeddedLogError
from unship.log.embedded.log import EmbeddedLog, Message
from unship.log.embedded.read_only import ReadOnlyLog

TIME = 1_767_600_000_000


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def append(log: EmbeddedLog, count: int = 5) -> None:
    log.append("predictions", [Message(b"{}", b"p-%d" % i) for i in range(count)])
    log.append("acks", [Message(b"{}", b"m/r-%d" % i, (("name", b"value"),)) for i in range(count)])


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """Return the folder of a log that no process has open."""
    with EmbeddedLog(tmp_path / "log", now_ms=lambda: TIME) as log:
        append(log)
    return tmp_path / "log"


@pytest.fixture(params=["with its shared memory", "without it"])
def killed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder of a log as a killed process leaves it: its newest records are in the write-ahead file."""
    with EmbeddedLog(tmp_path / "log", now_ms=lambda: TIME) as log:
        append(log)
        shutil.copytree(tmp_path / "log", tmp_path / "killed")
    if request.param == "without it":
        (tmp_path / "killed" / f"{FILE_NAME}-shm").unlink()
    assert (tmp_path / "killed" / f"{FILE_NAME}-wal").stat().st_size
    return tmp_path / "killed"


def read_all(folder: Path) -> None:
    with ReadOnlyLog(folder) as log:
        assert log.ends()["predictions"] == 5
        assert [(entry.offset, entry.append_ts, entry.key) for entry in log.read("predictions", 2)] == [
            (offset, TIME, b"p-%d" % offset) for offset in range(2, 5)
        ]
        assert list(log.latest("acks")) == [b"m/r-%d" % i for i in range(5)]
        assert log.latest("acks")[b"m/r-1"].headers == (("name", b"value"),)
        assert (log.first("predictions"), log.first("ledger"), log.read("predictions", 5)) == (0, 0, [])


def test_reading_a_closed_log_changes_no_file_and_makes_none(closed: Path) -> None:
    before = digests(closed)
    read_all(closed)
    assert digests(closed) == before
    assert list(before) == [FILE_NAME]


def test_log_of_a_killed_process_is_read_whole_and_no_file_of_it_changes(killed: Path) -> None:
    before = digests(killed)
    read_all(killed)
    assert digests(killed) == before


def test_records_that_another_connection_appends_are_seen(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path, now_ms=lambda: TIME) as writer:
        append(writer)
        with ReadOnlyLog(tmp_path) as log, ReadOnlyLog(tmp_path) as another:
            append(writer)
            assert log.ends()["predictions"] == another.ends()["predictions"] == 10
        append(writer)
        assert writer.end("predictions") == 15


def test_log_that_a_process_begins_to_write_is_read_again(closed: Path) -> None:
    with ReadOnlyLog(closed) as log, EmbeddedLog(closed) as writer:
        append(writer)
        with pytest.raises(EmbeddedLogError, match="began to write"):
            log.read("predictions", 0)


def test_folder_and_files_that_may_not_be_written_are_enough(killed: Path) -> None:
    for path in killed.iterdir():
        path.chmod(0o400)
    killed.chmod(0o500)
    read_all(killed)
    killed.chmod(0o700)


ENDLESS = (
    "CREATE VIEW topic_ledger AS WITH RECURSIVE r(offset) AS (SELECT 0 UNION ALL SELECT offset + 1 FROM r) "
    "SELECT offset, 0 AS append_ts, NULL AS key, x'00' AS value, NULL AS headers FROM r;"
)
LOOSE = "CREATE TABLE topic_ledger (offset, append_ts, key, value, headers);"
FORGED = (
    "PRAGMA writable_schema = on; UPDATE sqlite_master SET sql = 'CREATE TABLE topic_predictions (offset INTEGER "
    "PRIMARY KEY, append_ts INTEGER NOT NULL, key BLOB, value BLOB, headers BLOB)' WHERE name = 'topic_predictions';"
)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("DROP TABLE topic_ledger; " + ENDLESS, "not exactly the tables"),
        ("DROP TABLE topic_ledger; " + LOOSE, "not exactly the tables"),
        ("DROP TABLE topic_control;", "not exactly the tables"),
        ("CREATE TABLE more (x);", "not exactly the tables"),
        ("CREATE TRIGGER t AFTER INSERT ON writers BEGIN DELETE FROM topic_ledger; END;", "not exactly the tables"),
        ("CREATE INDEX i ON topic_predictions (value);", "not exactly the tables"),
        ("UPDATE topic_predictions SET offset = -5 WHERE offset = 0;", "offsets -5 to 4"),
        ("UPDATE topic_predictions SET offset = 9223372036854775807 WHERE offset = 4;", "to 9223372036854775807"),
        ("UPDATE topic_predictions SET append_ts = 9223372036854775807 WHERE offset = 4;", "9223372036854775807"),
        ("UPDATE topic_predictions SET append_ts = 9223372036854775807 WHERE offset = 1;", "a row that no log writes"),
        ("UPDATE topic_predictions SET append_ts = -1 WHERE offset = 1;", "a row that no log writes"),
        ("UPDATE topic_predictions SET headers = x'c1ff' WHERE offset = 1;", "headers of 'predictions' offset 1"),
        ("UPDATE topic_predictions SET value = zeroblob(40000000) WHERE offset = 1;", "too big"),
        ("PRAGMA user_version = 7;", "not an embedded log of this program"),
        ("PRAGMA application_id = 7;", "not an embedded log of this program"),
    ],
)
def test_file_that_a_stranger_changed_ends_in_a_sentence(closed: Path, change: str, sentence: str) -> None:
    with sqlite3.connect(closed / FILE_NAME) as db:
        db.executescript(change)
    db.close()
    with pytest.raises(UnshipError, match=sentence), ReadOnlyLog(closed) as log:
        log.read("predictions", 0)


def test_column_types_that_were_taken_off_are_checked_by_row(closed: Path) -> None:
    db = sqlite3.connect(closed / FILE_NAME)
    (own,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'topic_predictions'").fetchone()
    db.executescript(FORGED)
    db.close()
    db = sqlite3.connect(closed / FILE_NAME)
    db.execute("UPDATE topic_predictions SET value = 'text', append_ts = 'soon' WHERE offset = 2")
    db.execute("PRAGMA writable_schema = on")
    db.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'topic_predictions'", (own,))
    db.commit()
    db.close()
    with pytest.raises(EmbeddedLogError, match="a row that no log writes"), ReadOnlyLog(closed) as log:
        log.read("predictions", 0)


@pytest.mark.parametrize("data", [b"", b"no database", b"SQLite format 3\x00" + b"\xff" * 5_000])
def test_file_that_is_no_database_ends_in_a_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(data)
    with pytest.raises(EmbeddedLogError, match=FILE_NAME):
        ReadOnlyLog(tmp_path)


def test_call_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path, now_ms=lambda: TIME) as log:
        append(log, 20_000)
    with ReadOnlyLog(tmp_path) as patient:
        assert len(patient.latest("acks")) == 20_000
    with pytest.raises(EmbeddedLogError, match="took longer than 0 s"):
        ReadOnlyLog(tmp_path, call_s=0).latest("acks")
