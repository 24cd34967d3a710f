"""Compressed records are read as others are, and a damaged block is an error that costs no memory."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from unship.log.embedded.blocks import BLOCK_BYTES, BLOCK_RECORDS, MARK, Row, block_of, first_of, unpacked
from unship.log.embedded.file import FILE_NAME
from unship.log.embedded.log import EmbeddedLog, EmbeddedLogError, Message
from unship.log.embedded.read_only import ReadOnlyLog


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    with EmbeddedLog(tmp_path, fsync=False) as log:
        log.append("ledger", [Message(b"%d" % number, b"k", (("h", b"x"),)) for number in range(700)])
        assert log.pack("ledger", 700) == 2 * BLOCK_RECORDS
    return tmp_path


def test_compressed_records_are_read_as_they_were_appended(packed: Path) -> None:
    with EmbeddedLog(packed) as log, ReadOnlyLog(packed) as still:
        for reader in (log, still):
            records = reader.read("ledger", 100, limit=300)
            assert [record.offset for record in records] == list(range(100, 400))
            assert {(record.key, record.headers, record.value == b"%d" % record.offset) for record in records} == {
                (b"k", (("h", b"x"),), True)
            }
            assert reader.first("ledger") == 0
            assert len(reader.read("ledger", 0, limit=50, max_bytes=20)) < 20
        log.trim("ledger", 300)
        assert (log.first("ledger"), log.end("ledger")) == (BLOCK_RECORDS, 700)
        assert log.append("ledger", [Message(b"next")]) == [700]


def test_large_records_fill_smaller_blocks(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path, fsync=False) as log:
        log.append("ledger", [Message(bytes([number % 7]) * (BLOCK_BYTES // 2 + 1)) for number in range(20)])
        log.append("ledger", [Message(b"x") for _ in range(BLOCK_RECORDS)])
        assert log.pack("ledger", 276) > 0
        assert [len(record.value or b"") for record in log.read("ledger", 0, limit=2)] == [BLOCK_BYTES // 2 + 1] * 2


@pytest.mark.parametrize("version", [1, 2])
def test_file_of_an_earlier_schema_gets_what_it_has_not_and_programs_of_then_refuse_it(
    tmp_path: Path, version: int
) -> None:
    with EmbeddedLog(tmp_path, fsync=False) as log:
        log.append("ledger", [Message(b"x")] * 300)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.execute("DROP TABLE topic_alerts")
        db.execute(f"PRAGMA user_version = {version}")
    with ReadOnlyLog(tmp_path) as seen:
        assert (seen.ends()["alerts"], seen.first("alerts"), seen.read("alerts", 0)) == (0, 0, [])
        assert seen.ends()["ledger"] == 300
    with EmbeddedLog(tmp_path) as log:
        assert log.append("alerts", [Message(b"a")]) == [0]
        assert log.end("ledger") == 300
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == 3
    with ReadOnlyLog(tmp_path) as seen:
        assert seen.ends()["alerts"] == 1


ROWS: list[Row] = [(offset, 5, b"k", b"v" * 50, None) for offset in range(7, 17)]
BLOCK = block_of(ROWS)


def _with(first: int, value: bytes) -> Row:
    return BLOCK[0], BLOCK[1], first.to_bytes(8, "big"), value, MARK


DAMAGED = {
    "cut": _with(7, (BLOCK[3] or b"")[:-3]),
    "empty": _with(7, b""),
    "no value": (BLOCK[0], BLOCK[1], BLOCK[2], None, MARK),
    "no key": (BLOCK[0], BLOCK[1], None, BLOCK[3], MARK),
    "another first offset": _with(8, BLOCK[3] or b""),
    "first offset after the last": _with(90, BLOCK[3] or b""),
    "another last offset": (99, *BLOCK[1:]),
    "millions of records": (2**40, *BLOCK[1:]),
    "zeros without end": _with(7, zlib.compress(bytes(200 << 20))),
    "millions of empty records": _with(
        7, zlib.compress(b"\xdd\x00\x10\x00\x00" + b"\x95\x00\x00\xc0\xc0\xc0" * (1 << 20))
    ),
    "no records": _with(7, zlib.compress(msgspec.msgpack.encode(["x"] * 10))),
    "wrong types": _with(7, zlib.compress(msgspec.msgpack.encode([(n, "t", 1, 2, 3) for n in range(7, 17)]))),
}


def test_block_holds_what_it_was_made_of() -> None:
    assert list(unpacked([BLOCK])) == ROWS
    assert list(unpacked([BLOCK], 12)) == ROWS[5:]
    assert first_of(BLOCK) == 7


@pytest.mark.parametrize("row", DAMAGED.values(), ids=list(DAMAGED))
def test_damaged_block_is_an_error(row: Row) -> None:
    with pytest.raises(EmbeddedLogError, match="damaged"):
        list(unpacked([row]))


@pytest.mark.parametrize("open_log", [EmbeddedLog, ReadOnlyLog])
def test_damaged_block_in_a_file_is_an_error_with_its_offsets(
    packed: Path, open_log: Callable[[Path], EmbeddedLog | ReadOnlyLog]
) -> None:
    with sqlite3.connect(packed / FILE_NAME) as db:
        db.execute("UPDATE topic_ledger SET value = x'00' WHERE offset = 511")
    with open_log(packed) as log:
        assert len(log.read("ledger", 0, limit=BLOCK_RECORDS)) == BLOCK_RECORDS
        with pytest.raises(EmbeddedLogError, match="records 256 to 511 of a topic are damaged"):
            log.read("ledger", 256)
