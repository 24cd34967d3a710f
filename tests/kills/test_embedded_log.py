"""Several processes on one embedded log, any of them killed at any instant: nothing acknowledged is lost or torn."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

import unship
from tests.waiting import HANG_S
from unship.log.embedded.log import EmbeddedLog, Message, Record

SEED = 20_261
KILLS = 50
WRITERS, READERS = 3, 2

HEAD = """
import hashlib, os, random, sys
from unship.log.embedded.log import EmbeddedLog, WriterFenced
from unship.log.link import Message

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""

# A value names its writer, the number of its transaction, its index in it, the size and the topics of it, so that the
# log alone shows whether a transaction is whole.
WRITER = """
_, folder, name, seed = sys.argv
chance = random.Random(seed)
with EmbeddedLog(folder) as log:
    number = 0
    while True:
        topics = chance.choice((("predictions",), ("predictions",), ("ledger",), ("predictions", "ledger")))
        size = chance.choice((1, 1, 2, 7, 60))
        words = f"{name} {number}", f"{size} {'+'.join(topics)} {'x' * chance.randrange(300)}"
        batch = [Message(f"{words[0]} {index} {words[1]}".encode(), b"k") for index in range(size)]
        batches = {topic: batch for topic in topics}
        if number % 8 == 0:
            batches["control"] = [Message(str(number).encode(), name.encode())]
        offsets = log.append_many(batches)
        say(number, *(f"{topic}:{offsets[topic][0]}" for topic in batches))
        if chance.random() < 0.05:
            log.compact("control")
        number += 1
"""

READER = """
_, folder = sys.argv
with EmbeddedLog(folder) as log:
    positions = {"predictions": 0, "ledger": 0}
    times = {"predictions": 0, "ledger": 0}
    digests = {topic: hashlib.blake2b() for topic in positions}
    while True:
        log.wait({**positions, "deployments": 0}, 60)
        last = log.end("deployments") > 0
        for topic in positions:
            while records := log.read(topic, positions[topic], limit=500):
                for record in records:
                    if record.offset != positions[topic]:
                        sys.exit(f"{topic}: expected offset {positions[topic]}, was {record.offset}")
                    if record.append_ts < times[topic]:
                        sys.exit(f"{topic}: append time {record.append_ts} < {times[topic]}")
                    positions[topic] += 1
                    times[topic] = record.append_ts
                    digests[topic].update(record.value)
                if len(records) < 500:
                    # All that there is has been read, so what is at the end is the end of a transaction.
                    name, number, index, size, *_ = records[-1].value.split()
                    if int(index) + 1 != int(size):
                        sys.exit(f"{topic}: saw {int(index) + 1} of {int(size)} records of a transaction")
        if last:
            say(*(f"{topic}:{positions[topic]}:{digests[topic].hexdigest()}" for topic in positions))
            break
"""

FENCED = """
_, folder = sys.argv
with EmbeddedLog(folder, fsync=False) as log:
    fence = log.acquire("monitor")
    say("acquired", fence.token, log.end("control"))
    try:
        for _ in range(20_000):
            say("offset", log.append("control", [Message(str(fence.token).encode(), b"m")], fence=fence)[0])
    except WriterFenced as error:
        say("fenced", error)
"""

OPENER = """
say("ready")
for folder in sys.stdin:
    for _ in range(3):
        with EmbeddedLog(folder.strip(), fsync=False) as log:
            say(log.append("ledger", [Message(b"x")])[0])
"""

FORKER = """
_, folder = sys.argv
log = EmbeddedLog(folder, fsync=False)
log.append("ledger", [Message(b"parent")])
to_child, to_parent = os.pipe(), os.pipe()
if os.fork() == 0:
    log.append("ledger", [Message(b"child")])
    os.write(to_parent[1], b"1")
    os.read(to_child[0], 1)
    log.append("ledger", [Message(b"child after the parent closed")])
    os._exit(0)
os.read(to_parent[0], 1)
log.append("ledger", [Message(b"parent")])
log.close()
os.write(to_child[1], b"1")
os.wait()
with EmbeddedLog(folder, fsync=False) as log:
    say(*(record.value.decode() for record in log.read("ledger", 0)))
"""


class Worker:
    """A process whose lines are read when asked for: a small pipe holds it back, so that the log stays small."""

    def __init__(self, program: str, *arguments: str, errors: Path) -> None:
        self.lines: list[str] = []
        self.errors = errors
        self._rest = b""
        with errors.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HEAD + program, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "PYTHONPATH": str(Path(unship.__file__).parents[1])},
            )
        assert self.process.stdout is not None
        self._pipe = self.process.stdout.fileno()
        if sys.platform == "linux":
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, 4_096)

    def pull(self, timeout_s: float = 0.0) -> bool:
        """Take what the process wrote; return whether it may write more."""
        if not select.select([self._pipe], [], [], timeout_s)[0]:
            assert timeout_s == 0.0, f"no line within {timeout_s} s; {self.errors.read_text()}"
            return True
        data = os.read(self._pipe, 65_536)
        *whole, self._rest = (self._rest + data).split(b"\n")
        self.lines += [line.decode() for line in whole]
        return data != b""

    def until(self, count: int) -> None:
        """Wait for that many lines in all."""
        while len(self.lines) < count:
            assert self.pull(HANG_S), f"ended after {len(self.lines)} of {count} lines; {self.errors.read_text()}"

    def finish(self) -> int:
        """Read to the end of the output and return the exit code."""
        while self.pull(HANG_S):
            pass
        code = self.process.wait(HANG_S)
        self.release()
        return code

    def kill(self) -> None:
        """End the process at once (SIGKILL), and take the lines that it had written."""
        self.process.kill()
        assert self.finish() == -signal.SIGKILL, self.errors.read_text()

    def release(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    """Workers that a failing test leaves behind are killed."""
    started: list[Worker] = []
    yield started
    for worker in started:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()
        worker.release()


def everything(log: EmbeddedLog, topic: str) -> list[Record]:
    records: list[Record] = []
    while batch := log.read(topic, len(records), limit=10_000):
        records += batch
    return records


def check_topic(records: list[Record], topic: str) -> dict[tuple[str, int], tuple[int, str]]:
    """Check that offsets and transactions are whole; return each transaction's first offset and topics."""
    assert [record.offset for record in records] == list(range(len(records)))
    assert all(before.append_ts <= after.append_ts for before, after in pairwise(records))
    found: dict[tuple[str, int], tuple[int, str]] = {}
    at = 0
    while at < len(records):
        name, number, index, size, topics, *_ = (records[at].value or b"").decode().split(" ")
        assert index == "0", f"{topic} {at}: begins with record {index} of transaction {number} of {name}"
        assert (name, int(number)) not in found, f"{topic} {at}: transaction {number} of {name} a second time"
        found[name, int(number)] = (at, topics)
        for each in range(int(size)):
            value = (records[at + each].value or b"").decode()
            assert value.startswith(f"{name} {number} {each} {size} {topics} "), f"{topic} {at + each}: {value}"
        at += int(size)
    return found


def check_acknowledged(writers: dict[str, Worker], found: dict[str, dict[tuple[str, int], tuple[int, str]]]) -> int:
    """Check that each acknowledged transaction is where it was said to be, and that nothing else is there."""
    acknowledged = 0
    for name, worker in writers.items():
        for number, line in enumerate(worker.lines):
            said, *places = line.split()
            assert int(said) == number
            for topic, offset in (place.split(":") for place in places):
                if topic != "control":
                    assert found[topic][name, number][0] == int(offset), f"{name} {line}"
        acknowledged += len(worker.lines)
        # A writer killed between its commit and its line leaves one transaction more than it said, never two.
        numbers = {number for topic in found for who, number in found[topic] if who == name}
        assert numbers <= set(range(len(worker.lines) + 1))
    for topic, transactions in found.items():
        for key, (at, topics) in transactions.items():
            assert all(key in found[other] for other in topics.split("+")), f"{topic} {at}: {key} is not in {topics}"
    return acknowledged


def test_no_acknowledged_record_is_lost_torn_or_doubled_by_fifty_kills(tmp_path: Path, workers: list[Worker]) -> None:
    chance = random.Random(SEED)
    folder, errors = tmp_path / "log", tmp_path / "errors"
    writers: dict[str, Worker] = {}
    alive: list[str | None] = []
    running: list[Worker] = []

    def start(place: int) -> None:
        name = f"w{len(writers)}" if place < WRITERS else None
        worker = (
            Worker(READER, str(folder), errors=errors)
            if name is None
            else Worker(WRITER, str(folder), name, str(SEED + len(writers)), errors=errors)
        )
        workers.append(worker)
        if name is not None:
            writers[name] = worker
        alive[place : place + 1] = [name]
        running[place : place + 1] = [worker]

    for place in range(WRITERS + READERS):
        start(place)
    for _ in range(KILLS):
        # Paced by the lines of some writer, not by time: on a slow machine the kills fall at the same stages.
        pace = running[chance.randrange(WRITERS)]
        pace.until(len(pace.lines) + chance.choice((0, 1, 5, 25)))
        for worker in running:
            assert worker.pull(), f"a process ended by itself: {errors.read_text()}"
        for _ in range(chance.randrange(20_000)):
            pass
        place = chance.randrange(WRITERS + READERS)
        running[place].kill()
        start(place)
    for place in range(WRITERS):
        running[place].until(1)
        running[place].kill()

    with EmbeddedLog(folder) as log:
        log.append("deployments", [Message(b"the end")])
        records = {topic: everything(log, topic) for topic in ("predictions", "ledger")}
        latest = log.latest("control")
    found = {topic: check_topic(records[topic], topic) for topic in records}
    assert check_acknowledged(writers, found) > KILLS

    for name, worker in writers.items():
        said = [number for number, line in enumerate(worker.lines) if "control:" in line]
        assert not said or int(latest[name.encode()].value or b"-1") >= said[-1]
    expected = []
    for topic, each in records.items():
        digest = hashlib.blake2b(b"".join(record.value or b"" for record in each)).hexdigest()
        expected.append(f"{topic}:{len(each)}:{digest}")
    for reader in running[WRITERS:]:
        assert reader.finish() == 0, errors.read_text()
        assert reader.lines == [" ".join(expected)]
    with closing(sqlite3.connect(folder / "log.sqlite3")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert errors.read_text() == ""


def test_older_writer_in_another_process_writes_nothing_after_a_newer_one_acquired(
    tmp_path: Path, workers: list[Worker]
) -> None:
    for turn in range(4):
        workers.append(Worker(FENCED, str(tmp_path / "log"), errors=tmp_path / "errors"))
        workers[turn].until(5)
        if turn:
            assert workers[turn - 1].finish() == 0
    workers[-1].kill()
    for turn, worker in enumerate(workers):
        acquired, *rest = (line.split() for line in worker.lines)
        assert acquired[:2] == ["acquired", str(turn + 1)]
        offsets = [int(words[1]) for words in rest if words[0] == "offset"]
        assert min(offsets) >= int(acquired[2])
        if turn + 1 < len(workers):
            assert rest[-1][0] == "fenced"
            assert max(offsets) < int(workers[turn + 1].lines[0].split()[2])
    with EmbeddedLog(tmp_path / "log") as log:
        tokens = [int(record.value or b"0") for record in everything(log, "control")]
    assert tokens == sorted(tokens)
    assert set(tokens) == {1, 2, 3, 4}


def test_processes_that_create_the_log_at_the_same_time_share_one(tmp_path: Path, workers: list[Worker]) -> None:
    workers += [Worker(OPENER, errors=tmp_path / "errors") for _ in range(6)]
    for worker in workers:
        worker.until(1)
    for turn in range(40):
        for worker in workers:
            assert worker.process.stdin is not None
            worker.process.stdin.write(f"{tmp_path / str(turn)}\n".encode())
            worker.process.stdin.flush()
        for worker in workers:
            worker.until(1 + 3 * (turn + 1))
        offsets = [int(line) for worker in workers for line in worker.lines[-3:]]
        assert sorted(offsets) == list(range(18))


def test_forked_child_keeps_its_records_when_the_parent_closes_the_log(tmp_path: Path, workers: list[Worker]) -> None:
    workers.append(Worker(FORKER, str(tmp_path / "log"), errors=tmp_path / "errors"))
    assert workers[0].finish() == 0, (tmp_path / "errors").read_text()
    assert workers[0].lines == ["parent child parent child after the parent closed"]
