"""A window on disk joins what one in memory joins, also where it was read back, and whatever is missing of it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.cache.residency import Residency
from streams.cache.window_cache import MANIFEST, NEXT, WindowCache
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.join.partition import FEEDBACK, PREDICTIONS
from streams.join.source_reader import Position, SourceReader
from streams.join.source_records import SourceRecords, source_records
from streams.ledger.entries import entry_of
from streams.window.stored_rows import DamagedRows

TOPICS = ("predictions", "feedback")
CONFIG = parse(
    """
defaults: {labels: {horizon: 3s, early: 500ms}, slices: {by: [country]}}
models: {text: {target: {kind: multiclass}, losses: [zero_one, brier], labels: {horizon: 2s, early: 200ms}}}
"""
)
STEPS = 12
BEGINNING = Position(1)
Feed = list[tuple[int, SourceRecords]]


def feed_of(seed: int) -> Feed:
    """Return blocks of both logs: most predictions get one label, some none, several, an early or a late one."""
    chance = random.Random(seed)
    predictions: list[tuple[int, dict[str, Any]]] = []
    feedback: list[tuple[int, dict[str, Any]]] = []
    for number in range(400):
        at, name = 10_000 + 25 * number, f"i{number}"
        model = chance.choice(["a", "text"])
        output: Any = chance.choice(["cat", "dog"]) if model == "text" else chance.choice([0, 1, 0.5])
        event: dict[str, Any] = {
            "id": name,
            "model": model,
            "version": "v1",
            "output": output,
            "slices": {"country": number % 3},
        }
        event |= {"scores": {"cat": 0.25, "dog": 0.75}} if chance.random() < 0.1 and model == "text" else {}
        predictions.append((at, event))
        if chance.random() < 0.1:
            again = {"role": "shadow", "version": "v2"} if chance.random() < 0.5 else {}
            predictions.append((at + chance.randrange(3_000), event | again))
        for _ in range(chance.choices([0, 1, 2], [2, 7, 1])[0]):
            since = chance.choices([chance.randrange(3_000), -chance.randrange(400), 4_000], [8, 1, 1])[0]
            truth = chance.choice(["cat", "dog"]) if model == "text" else chance.choice([0, 1])
            label = {"id": name, "truth": truth} | ({"source": "desk"} if chance.random() < 0.3 else {})
            feedback.append((at + since, label | ({"model": model} if chance.random() < 0.3 else {})))
    return [
        block
        for side, log in ((PREDICTIONS, predictions), (FEEDBACK, feedback))
        for block in _blocks(side, sorted(log, key=lambda each: each[0]))
    ]


def _blocks(side: int, log: list[tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, SourceRecords]]:
    # Of every three records one is packed.
    records: list[tuple[int, Any]] = []
    while log:
        count = 1 if len(records) % 3 else 2
        some, log = log[:count], log[count:]
        records.append((some[-1][0], [event for _, event in some] if count == 2 else some[0][1]))
    size = -(-len(records) // STEPS)
    for begin in range(0, len(records), size):
        block = records[begin : begin + size]
        offsets = range(begin, begin + len(block))
        yield side, source_records(offsets, [at for at, _ in block], [msgspec.json.encode(event) for _, event in block])


class Worker:
    """A reader and its cache, which keeps all generations but the newest on disk."""

    def __init__(self, folder: Path | None, committed: Position = BEGINNING, config: Config = CONFIG) -> None:
        self.cache = WindowCache(folder, TOPICS, 0, config.digest(), 0, Residency(0))
        self.reader = self.new_reader(committed, config)
        saved = self.cache.saved(committed)
        self.resumed = saved is not None
        if saved is not None:
            try:
                self.reader.resume(saved)
            except DamagedRows:
                self.resumed = False
                self.cache.discard()
                self.reader = self.new_reader(committed, config)

    def new_reader(self, committed: Position, config: Config) -> SourceReader:
        reader = SourceReader(config, 0, committed, secret=self.cache.secret, beyond=self.cache.beyond)
        reader._join.window.limit_generations(16)
        return reader

    def read(self, feed: Feed, step: int) -> list[bytes]:
        """Read a block of each log, and return what the ledger gets of them."""
        for side, records in (feed[step], feed[step + STEPS]):
            self.reader.give(side, records)
        self.reader.advance((True, True), 10_000)
        facts = [entry_of(batch).value for batch in self.reader.flush((-1, -1))]
        return [*facts, *(entry_of(fact).value for fact in self.reader.replica_facts())]

    def save(self) -> Position:
        committed = self.reader.position()
        self.cache.prepare(self.reader)
        self.cache.publish(committed)
        return committed


@pytest.fixture(scope="module")
def expected() -> Callable[[int], list[list[bytes]]]:
    """Return what a window in memory gives for a seed, by step."""
    known: dict[int, list[list[bytes]]] = {}

    def of(seed: int) -> list[list[bytes]]:
        if seed not in known:
            worker, feed = Worker(None), feed_of(seed)
            known[seed] = [worker.read(feed, step) for step in range(STEPS)]
        return known[seed]

    return of


@pytest.mark.parametrize("seed", range(12))
def test_window_on_disk_gives_the_batches_of_one_in_memory(seed: int, tmp_path: Path, expected: Any) -> None:
    worker, feed = Worker(tmp_path), feed_of(seed)
    assert [worker.read(feed, step) for step in range(STEPS)] == expected(seed)
    assert list(tmp_path.rglob("rows-*"))


@pytest.mark.parametrize("seed", range(12))
def test_window_that_was_read_back_gives_the_same_batches(seed: int, tmp_path: Path, expected: Any) -> None:
    worker, feed = Worker(tmp_path), feed_of(seed)
    for step in range(STEPS):
        assert worker.read(feed, step) == expected(seed)[step]
        if step % 3 == 1:
            committed = worker.save()
            worker.cache.close()
            worker = Worker(tmp_path, committed)
            assert worker.resumed
            assert not worker.reader.filling


def test_labels_behind_the_saved_position_are_joined_again(tmp_path: Path, expected: Any) -> None:
    worker, feed = Worker(tmp_path), feed_of(1)
    for step in range(6):
        worker.read(feed, step)
    committed = worker.save()
    # Killed after it joined more: the rows on disk have the labels of these.
    for step in range(6, 9):
        worker.read(feed, step)
    worker.cache.close()
    worker = Worker(tmp_path, committed)
    assert worker.resumed
    assert [worker.read(feed, step) for step in range(6, STEPS)] == expected(1)[6:]


def test_window_is_filled_from_where_it_was_saved_up_to_what_is_committed(tmp_path: Path, expected: Any) -> None:
    worker, feed = Worker(tmp_path), feed_of(2)
    for step in range(5):
        worker.read(feed, step)
    saved_at = worker.save()
    for step in range(5, 8):
        worker.read(feed, step)
    committed = worker.reader.position()
    worker.cache.close()
    worker = Worker(tmp_path, committed)
    assert worker.resumed
    assert [worker.reader.next_offset(side) for side in (PREDICTIONS, FEEDBACK)] == list(saved_at.end)
    for step in range(5, 8):
        for side, records in (feed[step], feed[step + STEPS]):
            worker.reader.give(side, records)
    worker.reader.advance((True, True), 10_000, fill_only=True)
    assert not worker.reader.filling
    assert [worker.read(feed, step) for step in range(8, STEPS)] == expected(2)[8:]


def test_whatever_a_killed_worker_left_is_read_back_or_ignored(tmp_path: Path, expected: Any) -> None:
    """Each prefix of the files that two saves write, in the order in which they were written."""
    worker, feed = Worker(tmp_path / "whole"), feed_of(3)
    left: list[tuple[Path, Position]] = []

    def killed(committed: Position) -> None:
        files = sorted((tmp_path / "whole").rglob("*"), key=lambda path: path.stat().st_mtime_ns)
        names = [path for path in files if path.is_file()]
        for count in range(len(names) + 1):
            folder = tmp_path / str(len(left))
            for path in names[:count]:
                there = folder / path.relative_to(tmp_path / "whole")
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, there)
            left.append((folder, committed))

    committed = Position(1)
    for step in range(6):
        worker.read(feed, step)
        if step in (3, 5):
            before, committed = committed, worker.reader.position()
            worker.cache.prepare(worker.reader)
            killed(before)
            killed(committed)
            worker.cache.publish(committed)
            killed(committed)
    resumed = 0
    for folder, position in left:
        again = Worker(folder, position)
        resumed += again.resumed
        batches = read_on(again.reader, feed, position)
        assert batches == read_on(Worker(None, position).reader, feed, position)
        again.cache.close()
    assert 0 < resumed < len(left)


def read_on(reader: SourceReader, feed: Feed, committed: Position) -> list[bytes]:
    """Return what the ledger gets of everything behind a committed position."""
    for side, records in feed:
        reader.give(side, records)
    reader.advance((True, True), 100_000, fill_only=True)
    assert not reader.filling, committed
    reader.advance((True, True), 100_000)
    return [entry_of(batch).value for batch in reader.flush()]


def saved_folder(folder: Path) -> Position:
    worker, feed = Worker(folder), feed_of(4)
    for step in range(6):
        worker.read(feed, step)
    committed = worker.save()
    worker.cache.close()
    return committed


@pytest.mark.parametrize("name", [MANIFEST, "rows-*"])
@pytest.mark.parametrize("damage", ["removed", "cut off", "changed", "empty"])
def test_damaged_file_is_ignored_and_everything_is_removed(name: str, damage: str, tmp_path: Path) -> None:
    committed = saved_folder(tmp_path)
    path = sorted(tmp_path.rglob(name))[0]
    data = bytearray(path.read_bytes())
    if damage == "removed":
        path.unlink()
    elif damage == "cut off":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "changed":
        data[len(data) * 9 // 10] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(b"")
    worker = Worker(tmp_path, committed)
    assert not worker.resumed
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]


@pytest.mark.parametrize("change", ["configuration", "incarnation", "partitions", "back", "other record"])
def test_window_of_something_else_is_not_read(change: str, tmp_path: Path) -> None:
    committed, config = saved_folder(tmp_path), CONFIG
    if change == "configuration":
        config = parse("defaults: {labels: {horizon: 4s}}")
    elif change == "other record":
        (one, other) = committed.last
        assert one is not None
        committed = msgspec.structs.replace(committed, last=(msgspec.structs.replace(one, digest="0" * 16), other))
    else:
        changed: dict[str, Any] = {"incarnation": 1} if change == "incarnation" else {"partitions": 2}
        changed = {"end": (5, 5), "low": (0, 0)} if change == "back" else changed
        committed = msgspec.structs.replace(committed, **changed)
    assert not Worker(tmp_path, committed, config).resumed
    assert not list(tmp_path.rglob("rows-*"))


def test_what_is_not_committed_is_not_begun_from(tmp_path: Path) -> None:
    worker, feed = Worker(tmp_path), feed_of(5)
    for step in range(4):
        worker.read(feed, step)
    before = worker.reader.position()
    worker.read(feed, 4)
    worker.cache.prepare(worker.reader)
    worker.cache.publish(before)
    assert not list(tmp_path.rglob(MANIFEST))
    worker.cache.publish(worker.reader.position())
    assert list(tmp_path.rglob(MANIFEST))
    assert not list(tmp_path.rglob(NEXT))


def test_second_reader_of_a_folder_keeps_its_window_in_memory(tmp_path: Path) -> None:
    committed = saved_folder(tmp_path)
    first = Worker(tmp_path, committed)
    second = Worker(tmp_path, committed)
    assert (first.resumed, second.resumed) == (True, False)
    files = sorted(tmp_path.rglob("*"))
    read_on(second.reader, feed_of(4), committed)
    second.save()
    assert sorted(tmp_path.rglob("*")) == files


def test_window_stays_in_memory_where_its_folder_cannot_be_made(tmp_path: Path, expected: Any) -> None:
    (tmp_path / "file").write_bytes(b"")
    worker, feed = Worker(tmp_path / "file" / "folder"), feed_of(7)
    assert [worker.read(feed, step) for step in range(STEPS)] == expected(7)
    worker.save()


def test_files_are_for_their_owner_alone_and_removed_when_they_are_not_needed(tmp_path: Path) -> None:
    worker, feed = Worker(tmp_path), feed_of(8)
    names = set()
    for step in range(STEPS):
        worker.read(feed, step)
        worker.save()
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert {os.stat(path).st_mode & 0o777 for path in files} == {0o600}
        names |= {path.name for path in files}
    assert len(names) > len(files)
