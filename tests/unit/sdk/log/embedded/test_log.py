"""The embedded log in one process: offsets, times, bounds of reads, compaction, retention, the fence, the wait."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import HANG_S
from unship.log.embedded.log import (
    COMPACTED,
    TOPICS,
    EmbeddedLimits,
    EmbeddedLog,
    EmbeddedLogError,
    Message,
    OffsetTrimmed,
    Record,
    WriterFenced,
)


class Clock:
    """A clock that stands where it is set."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[EmbeddedLog]:
    with EmbeddedLog(tmp_path / "log", now_ms=clock, fsync=False) as opened:
        yield opened


def values(records: list[Record]) -> list[bytes | None]:
    return [record.value for record in records]


def test_topics_are_those_of_the_contract() -> None:
    assert set(TOPICS) == {
        *("predictions", "feedback", "deployments", "operator", "ledger", "decisions", "alerts"),
        *("control", "acks", "rewind", "snapshots", "rejected"),
    }
    assert set(COMPACTED) == {"control", "acks", "rewind", "snapshots"}


def test_folder_is_made_for_its_owner_only(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path / "a" / "log"):
        assert stat.S_IMODE((tmp_path / "a" / "log").stat().st_mode) == 0o700


def test_offsets_begin_at_zero_and_go_on_per_topic(log: EmbeddedLog) -> None:
    assert log.append("predictions", [Message(b"a"), Message(b"b")]) == [0, 1]
    assert log.append("feedback", [Message(b"c")]) == [0]
    assert log.append("predictions", [Message(b"d")]) == [2]
    assert (log.end("predictions"), log.end("feedback"), log.end("ledger")) == (3, 1, 0)


def test_record_comes_back_as_it_was_appended(log: EmbeddedLog) -> None:
    headers = (("unship_sig", b"\x00\xff"), ("unship_sig", b""), ("ce_type", b"x"))
    log.append("decisions", [Message(b"\x00v\xff", b"k\x00", headers), Message(None), Message(b"", b"")])
    assert log.read("decisions", 0) == [
        Record(0, 1_000, b"k\x00", b"\x00v\xff", headers),
        Record(1, 1_000, None, None),
        Record(2, 1_000, b"", b""),
    ]


def test_append_time_never_falls_within_a_topic(log: EmbeddedLog, clock: Clock) -> None:
    for clock.now in (1_000, 3_000, 2_000, 4_000):
        log.append("feedback", [Message(b"x")])
    assert [record.append_ts for record in log.read("feedback", 0)] == [1_000, 3_000, 3_000, 4_000]


def test_append_times_of_topics_are_independent(log: EmbeddedLog, clock: Clock) -> None:
    clock.now = 9_000
    log.append("feedback", [Message(b"x")])
    clock.now = 2_000
    log.append("predictions", [Message(b"y")])
    assert log.read("predictions", 0)[0].append_ts == 2_000


def test_records_outlive_the_process_that_wrote_them(tmp_path: Path, clock: Clock) -> None:
    with EmbeddedLog(tmp_path, now_ms=clock) as log:
        log.append("ledger", [Message(b"a")])
        log.acquire("monitor")
    with EmbeddedLog(tmp_path, now_ms=clock) as log:
        assert log.append("ledger", [Message(b"b")]) == [1]
        assert values(log.read("ledger", 0)) == [b"a", b"b"]
        assert log.acquire("monitor").token == 2


def test_append_many_gives_offsets_of_every_topic(log: EmbeddedLog) -> None:
    log.append("decisions", [Message(b"0")])
    offsets = log.append_many({"decisions": [Message(b"1"), Message(b"2")], "control": [Message(b"c", b"m")]})
    assert offsets == {"decisions": [1, 2], "control": [0]}


def test_append_that_fails_midway_leaves_no_topic_changed(log: EmbeddedLog) -> None:
    text: bytes = "not bytes"  # type: ignore[assignment]
    with pytest.raises(EmbeddedLogError, match="its key and its value are bytes or None"):
        log.append_many({"decisions": [Message(b"1")], "control": [Message(text, b"m")]})
    assert (log.end("decisions"), log.end("control")) == (0, 0)
    assert log.append("decisions", [Message(b"1")]) == [0]


def test_append_of_nothing_is_nothing(log: EmbeddedLog) -> None:
    assert log.append("feedback", []) == []
    assert log.end("feedback") == 0


def test_clock_that_raises_leaves_the_log_usable(tmp_path: Path) -> None:
    def broken() -> int:
        raise ZeroDivisionError

    with EmbeddedLog(tmp_path, now_ms=broken) as log, EmbeddedLog(tmp_path) as other:
        with pytest.raises(ZeroDivisionError):
            log.append("feedback", [Message(b"x")])
        assert other.append("feedback", [Message(b"y")]) == [0]
        assert log.end("feedback") == 1


@pytest.mark.parametrize("topic", ["unship.feedback", "", "feedback; DROP TABLE topic_feedback"])
def test_unknown_topic_is_refused_by_name(log: EmbeddedLog, topic: str) -> None:
    for call in (
        lambda: log.append(topic, [Message(b"x")]),
        lambda: log.read(topic, 0),
        lambda: log.end(topic),
        lambda: log.wait({topic: 0}, 0),
        lambda: log.trim(topic, 1),
        lambda: log.latest(topic),
    ):
        with pytest.raises(EmbeddedLogError, match="unknown topic"):
            call()


# ------------------------------------------------------------------------------------------------ reads


def test_read_stops_at_the_limit(log: EmbeddedLog) -> None:
    log.append("feedback", [Message(b"%d" % number) for number in range(10)])
    assert values(log.read("feedback", 3, limit=4)) == [b"3", b"4", b"5", b"6"]


def test_read_stops_before_passing_the_bytes_asked_for(log: EmbeddedLog) -> None:
    log.append("feedback", [Message(b"x" * 10, b"k" * 5)] * 4)
    assert len(log.read("feedback", 0, max_bytes=30)) == 2
    assert len(log.read("feedback", 0, max_bytes=44)) == 2
    assert len(log.read("feedback", 0, max_bytes=45)) == 3


def test_read_returns_one_record_however_large(log: EmbeddedLog) -> None:
    log.append("feedback", [Message(b"x" * 1_000), Message(b"y")])
    assert len(log.read("feedback", 0, max_bytes=1)) == 1


def test_read_at_the_end_is_empty(log: EmbeddedLog) -> None:
    assert log.read("feedback", 0) == []
    log.append("feedback", [Message(b"x")])
    assert log.read("feedback", 1) == []


def test_read_beyond_the_end_is_refused_with_both_offsets(log: EmbeddedLog) -> None:
    log.append("feedback", [Message(b"x")])
    with pytest.raises(EmbeddedLogError, match="offset 5 of 'feedback' > its end 1"):
        log.read("feedback", 5)


def test_read_does_not_block_on_a_writer_in_mid_transaction(tmp_path: Path) -> None:
    reader = EmbeddedLog(tmp_path, fsync=False)
    seen: list[int] = []

    def clock() -> int:
        # Called while the write lock is held.
        seen.append(reader.end("feedback"))
        return 1

    with reader, EmbeddedLog(tmp_path, now_ms=clock, fsync=False) as writer:
        writer.append("feedback", [Message(b"x")])
        writer.append("feedback", [Message(b"y")])
    assert seen == [0, 1]


# ------------------------------------------------------------------------- retention and compaction


def test_trim_deletes_below_the_offset_and_keeps_offsets(log: EmbeddedLog) -> None:
    log.append("feedback", [Message(b"%d" % number) for number in range(6)])
    assert log.trim("feedback", 4) == 4
    assert (log.first("feedback"), log.end("feedback")) == (4, 6)
    assert values(log.read("feedback", 4)) == [b"4", b"5"]
    assert log.trim("feedback", 4) == 0


def test_trim_deletes_more_than_one_transaction_takes(log: EmbeddedLog) -> None:
    log.append("feedback", [Message(b"")] * 25_000)
    assert log.trim("feedback", 24_000) == 24_000
    assert (log.first("feedback"), log.end("feedback")) == (24_000, 25_000)


def test_newest_record_survives_a_trim_of_everything(log: EmbeddedLog, clock: Clock) -> None:
    clock.now = 5_000
    log.append("feedback", [Message(b"a"), Message(b"b")])
    assert log.trim("feedback", 99) == 1
    clock.now = 1_000
    assert log.append("feedback", [Message(b"c")]) == [2]
    assert [(record.offset, record.append_ts) for record in log.read("feedback", 1)] == [(1, 5_000), (2, 5_000)]


def test_read_of_a_trimmed_offset_says_where_to_go_on(log: EmbeddedLog) -> None:
    log.append("feedback", [Message(b"x")] * 5)
    log.trim("feedback", 3)
    with pytest.raises(OffsetTrimmed, match="offset 1 of 'feedback' < 3"):
        log.read("feedback", 1)


def test_trim_of_an_empty_topic_is_nothing(log: EmbeddedLog) -> None:
    assert log.trim("feedback", 3) == 0
    assert log.first("feedback") == 0


def test_latest_is_the_newest_record_of_each_key(log: EmbeddedLog) -> None:
    log.append("acks", [Message(b"1", b"m/a"), Message(b"2", b"m/b"), Message(b"3", b"m/a"), Message(None, b"m/b")])
    newest = log.latest("acks")
    assert [(key, record.offset, record.value) for key, record in newest.items()] == [
        (b"m/a", 2, b"3"),
        (b"m/b", 3, None),
    ]
    assert max(record.offset for record in newest.values()) + 1 == log.end("acks")


def test_compact_deletes_what_is_superseded_and_nothing_else(log: EmbeddedLog) -> None:
    log.append("control", [Message(b"%d" % number, b"m%d" % (number % 3)) for number in range(1_000)])
    before = log.latest("control")
    assert log.compact("control") == 997
    assert log.latest("control") == before
    assert [record.offset for record in log.read("control", 0)] == [997, 998, 999]
    assert (log.first("control"), log.end("control")) == (997, 1_000)
    assert log.compact("control") == 0


def test_read_passes_over_the_holes_of_compaction(log: EmbeddedLog) -> None:
    log.append("control", [Message(b"1", b"a"), Message(b"2", b"b"), Message(b"3", b"b")])
    log.compact("control")
    assert [record.offset for record in log.read("control", 1)] == [2]


def test_retention_and_compaction_are_refused_on_topics_of_the_other_kind(log: EmbeddedLog) -> None:
    with pytest.raises(EmbeddedLogError, match="'control' is compacted"):
        log.trim("control", 1)
    with pytest.raises(EmbeddedLogError, match="'ledger' is not compacted"):
        log.compact("ledger")
    with pytest.raises(EmbeddedLogError, match="'ledger' is not compacted"):
        log.latest("ledger")


def test_compacted_topic_refuses_a_record_without_a_key(log: EmbeddedLog) -> None:
    with pytest.raises(EmbeddedLogError, match="without a key for 'control'"):
        log.append("control", [Message(b"x", b"k"), Message(b"y")])
    assert log.end("control") == 0


# ------------------------------------------------------------------------------------------------ fence


def test_older_writer_is_fenced_once_a_newer_one_acquired(log: EmbeddedLog) -> None:
    old = log.acquire("monitor")
    assert log.append("control", [Message(b"1", b"m")], fence=old) == [0]
    new = log.acquire("monitor")
    with pytest.raises(WriterFenced, match="'monitor' holds token 1, the newest is 2"):
        log.append_many({"decisions": [Message(b"d")], "control": [Message(b"2", b"m")]}, fence=old)
    assert (log.end("decisions"), log.end("control")) == (0, 1)
    assert log.append("control", [Message(b"2", b"m")], fence=new) == [1]


def test_fences_of_other_names_do_not_touch_each_other(log: EmbeddedLog) -> None:
    monitor, other = log.acquire("monitor"), log.acquire("other")
    log.acquire("other")
    assert log.append("control", [Message(b"1", b"m")], fence=monitor) == [0]
    with pytest.raises(WriterFenced):
        log.append("control", [Message(b"1", b"m")], fence=other)


# ------------------------------------------------------------------------------------------------- wait


def test_wait_returns_at_once_what_is_already_there(log: EmbeddedLog) -> None:
    log.append_many({"feedback": [Message(b"x")], "control": [Message(b"y", b"k")]})
    assert log.wait({"feedback": 0, "control": 1, "acks": 0}, 0) == ("feedback",)
    assert log.wait({"control": 1, "feedback": 0}, HANG_S) == ("feedback",)


def test_wait_without_news_ends_with_its_time(log: EmbeddedLog) -> None:
    log.append("feedback", [Message(b"x")])
    assert log.wait({"feedback": 1, "control": 0}, 0.02) == ()


def test_wait_sees_an_append_of_another_thread_through_the_same_log(log: EmbeddedLog) -> None:
    got: list[tuple[str, ...]] = []
    waiter = threading.Thread(target=lambda: got.append(log.wait({"control": 0}, HANG_S)))
    waiter.start()
    log.append("feedback", [Message(b"unrelated")])
    log.append("control", [Message(b"x", b"k")])
    waiter.join(HANG_S)
    assert got == [("control",)]


def test_wait_sees_an_append_through_another_log(log: EmbeddedLog) -> None:
    got: list[tuple[str, ...]] = []
    waiter = threading.Thread(target=lambda: got.append(log.wait({"control": 0}, HANG_S)))
    waiter.start()
    with EmbeddedLog(log.folder, fsync=False) as other:
        other.append("control", [Message(b"x", b"k")])
    waiter.join(HANG_S)
    assert got == [("control",)]


def test_wait_ends_when_it_is_told_to_stop(log: EmbeddedLog) -> None:
    stop = threading.Event()
    got: list[tuple[str, ...]] = []
    waiter = threading.Thread(target=lambda: got.append(log.wait({"control": 0}, HANG_S, stop=stop)))
    waiter.start()
    stop.set()
    waiter.join(HANG_S)
    assert got == [()]


# ----------------------------------------------------------------------------------------------- limits


def test_limits_are_refused_with_both_numbers(tmp_path: Path) -> None:
    limits = EmbeddedLimits(record_bytes=10, batch_records=3, batch_bytes=25)
    with EmbeddedLog(tmp_path, limits=limits, fsync=False) as log:
        with pytest.raises(EmbeddedLogError, match="a record of 11 bytes for 'feedback' > limit 10"):
            log.append("feedback", [Message(b"12345", b"123", (("ab", b"c"),))])
        with pytest.raises(EmbeddedLogError, match="a batch of 4 records and 4 bytes > limits 3 records and 25 bytes"):
            log.append_many({"feedback": [Message(b"1")] * 2, "ledger": [Message(b"1")] * 2})
        with pytest.raises(EmbeddedLogError, match="a batch of 3 records and 30 bytes > limits 3 records and 25"):
            log.append("feedback", [Message(b"0123456789")] * 3)
        assert log.append("feedback", [Message(b"0123456789"), Message(b"0123456789"), Message(b"01234")]) == [0, 1, 2]


def test_full_log_refuses_and_takes_records_again_after_a_trim(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path, limits=EmbeddedLimits(log_bytes=1 << 20), fsync=False) as log:
        batch = [Message(b"x" * 1_000)] * 50
        appended = 0
        with pytest.raises(EmbeddedLogError, match=r"the log is full: it holds \d+ bytes and may not pass 1048576"):  # noqa: PT012
            while True:
                appended += len(log.append("feedback", batch))
        assert log.end("feedback") == appended > 500
        log.trim("feedback", appended // 2)
        assert log.append("feedback", batch)[0] == appended


def test_closed_log_says_so(log: EmbeddedLog) -> None:
    log.close()
    log.close()
    with pytest.raises(EmbeddedLogError, match="the log was closed"):
        log.end("feedback")
