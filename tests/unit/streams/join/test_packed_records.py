"""Readers of packed records: the outcomes are those of plain ones, an event has its place, a record is read whole."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest

from streams.config.parse import parse
from streams.fold.fold import Fold
from streams.join import source_reader
from streams.join.partition import FEEDBACK, PREDICTIONS, Raw
from streams.join.source_reader import Position, SourceReader
from streams.ledger.entries import entry_of
from streams.ledger.places import OFFSET_BITS, place
from streams.ledger.records import Batch, Record
from streams.pipeline import configuration_record
from streams.topics.partitioner import partition_of
from tests.packing import appended_at, gathered
from tests.pipelines import source_records_of
from tests.worlds.busy import CONFIG, busy_lines, untidy_lines
from unship.codec import decode_line, encode_line
from unship.events import Feedback, Prediction
from unship.log.packed import pack_values, unpack_value
from unship.topics import SOURCES

COUNT = 2
Logs = tuple[list[Raw], list[Raw]]


def logs_of(lines: list[bytes], *, pack: bool) -> list[Logs]:
    """Return both logs of each partition with this traffic; the append times are those of plain and packed alike."""
    logs: list[Logs] = [([], []) for _ in range(COUNT)]
    now = 0
    for topic, values in gathered(lines):
        if topic not in SOURCES:
            continue
        parts: list[list[bytes]] = [[] for _ in range(COUNT)]
        now = appended_at(values, now)
        for value in values:
            event = decode_line(value)
            assert isinstance(event, Prediction | Feedback)
            parts[partition_of(event.id.encode(), COUNT)].append(value)
        for log, part in zip(logs, parts, strict=True):
            side = log[SOURCES.index(topic)]
            records = [value for value, _ in pack_values(part)] if pack else part
            side += [Raw(len(side) + number, now, value) for number, value in enumerate(records)]
    return logs


def read(reader: SourceReader, logs: Logs, records: int, events: int = 4_096) -> list[Record]:
    """Give a reader so many records of each log, join so many events, and return the ledger records."""
    for side, log in enumerate(logs):
        begin = reader.next_offset(side)
        reader.give(side, source_records_of(log[begin : begin + records]))
    ends = (reader.next_offset(PREDICTIONS) == len(logs[0]), reader.next_offset(FEEDBACK) == len(logs[1]))
    reader.advance(ends, events)
    return [*reader.flush(), *reader.replica_facts()] if not reader.filling and reader.moved else []


def folded(ledger: list[Record]) -> tuple[list[Any], Counter[str]]:
    fold = Fold(parse(CONFIG))
    first = msgspec.structs.replace(configuration_record(parse(CONFIG)), partitions=COUNT)
    decisions = [decision for record in (first, *ledger) for decision in fold.step(entry_of(record))]
    fields = [msgspec.to_builtins(decision) for decision in decisions]
    names = ("model", "version", "action", "to", "verdict", "reason", "outcomes")
    return [{name: each[name] for name in names} for each in fields], fold.counts()


def event_at(log: list[Raw], number: int) -> Any:
    raw = log[number & (1 << OFFSET_BITS) - 1]
    values = unpack_value(raw.value)
    return decode_line(values[number >> OFFSET_BITS] if isinstance(values, list) else raw.value or b"")


def outcomes(ledger: list[Record], logs: list[Logs]) -> Counter[tuple[Any, ...]]:
    """Return what was joined, by the events themselves instead of their places."""
    found: Counter[tuple[Any, ...]] = Counter()
    for batch in ledger:
        for part in batch.parts if isinstance(batch, Batch) else []:
            rows, (predictions, feedback) = part.outcomes, logs[batch.partition]  # type: ignore[union-attr]
            for i, (p, f) in enumerate(zip(rows.position.tolist(), rows.labelled_by.tolist(), strict=True)):
                prediction, label = event_at(predictions, p), event_at(feedback, f)
                arm = part.arms[rows.arm[i]]
                assert (prediction.id, prediction.version, prediction.role) == (label.id, arm.version, arm.role)
                found[
                    encode_line(prediction), encode_line(label), int(rows.labelled_at[i]), str(rows.losses[0, i])
                ] += 1
    return found


@pytest.mark.parametrize("lines", [busy_lines(1), untidy_lines(2)], ids=["busy", "untidy"])
def test_packed_records_are_joined_and_counted_as_plain_ones(lines: list[bytes]) -> None:
    found = []
    for pack in (True, False):
        logs, ledger = logs_of(lines, pack=pack), list[Record]()
        readers = [SourceReader(parse(CONFIG), number, Position(COUNT)) for number in range(COUNT)]
        for reader, log in zip(readers, logs, strict=True):
            while part := read(reader, log, 20 if pack else 100):
                ledger += part
        found.append((outcomes(ledger, logs), folded(ledger)[1]))
    assert found[0] == found[1]
    assert found[0][0].total() > 300


@pytest.mark.parametrize("seed", range(5))
def test_readers_of_packed_records_that_overlap_count_every_event_once(seed: int) -> None:
    logs = logs_of(untidy_lines(seed), pack=True)
    rng, config = np.random.default_rng(seed), parse(CONFIG)
    once: list[Record] = []
    for number, log in enumerate(logs):
        reader = SourceReader(config, number, Position(COUNT))
        while part := read(reader, log, 1_000, 100_000):
            once += part
    positions = [[Position(COUNT)] for _ in logs]
    readers: list[SourceReader] = []
    twice: list[Record] = []
    for _ in range(200):
        if len(readers) < 6 or rng.random() < 0.1:
            number = int(rng.integers(COUNT))
            start = positions[number][int(rng.integers(len(positions[number])))]
            readers = [*readers[-5:], SourceReader(config, number, start)]
        reader = readers[int(rng.integers(len(readers)))]
        part = read(reader, logs[reader.partition], int(rng.integers(1, 10)), int(rng.integers(1, 100)))
        twice += part
        if part:
            positions[reader.partition].append(reader.position())
    for number, log in enumerate(logs):
        reader = SourceReader(config, number, positions[number][-1])
        while reader.filling or any(map(reader.queued, (0, 1))) or reader.next_offset(0) < len(log[0]):
            twice += read(reader, log, 1_000, 100_000)
    assert sum(isinstance(record, Batch) for record in twice) > COUNT
    assert folded(twice)[1] == folded(once)[1]


def test_batches_begin_and_end_between_records() -> None:
    logs = logs_of(busy_lines(1), pack=True)
    reader = SourceReader(parse(CONFIG), 0, Position(COUNT))
    ends = []
    while part := read(reader, logs[0], 10, events=1):
        ends.append(part[0].end)  # type: ignore[union-attr]
    assert ends[-1] == (len(logs[0][0]), len(logs[0][1]))
    steps = {(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(ends)}
    assert steps == {(1, 0), (0, 1)}, "one record at a time, however few events are wanted"


def test_event_of_another_partition_is_misrouted_alone() -> None:
    ids = [f"p{number}" for number in range(40)]
    values = [b'{"id":"%b","model":"m","version":"v1","output":1}' % each.encode() for each in ids]
    strangers = [index for index, each in enumerate(ids) if partition_of(each.encode(), COUNT) != 0]
    reader = SourceReader(parse(CONFIG), 0, Position(COUNT))
    reader.give(PREDICTIONS, source_records_of([Raw(0, 1_000, b"[%b]" % b",".join(values))]))
    assert reader.advance((True, True)) == 1
    assert [(letter.code, letter.offset, letter.index) for letter in reader.dead] == [
        ("MISROUTED", 0, index) for index in strangers
    ]
    (batch,) = reader.flush()
    assert batch.counted.prediction.tolist() == [place(0, index) for index in strangers]
    seen = batch.parts[0].seen.position.tolist()
    assert seen == [place(0, index) for index in range(len(ids)) if index not in strangers]


def test_room_is_counted_by_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_reader, "WAITING_BYTES_MAX", 5_000)
    logs = logs_of(busy_lines(1), pack=True)
    reader = SourceReader(parse(CONFIG), 0, Position(COUNT))
    given = 0
    while reader.has_room(PREDICTIONS):
        reader.give(PREDICTIONS, source_records_of([logs[0][PREDICTIONS][given]]))
        given += 1
    assert reader.queued(PREDICTIONS) == given < 50
    reader.advance((False, True))
    assert reader.has_room(PREDICTIONS)
