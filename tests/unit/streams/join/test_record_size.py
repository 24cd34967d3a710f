"""No ledger record is larger than its limit, whoever writes predictions, labels and acks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import pytest

from streams.config.parse import parse
from streams.join import record_size
from streams.join.partition import FEEDBACK, PREDICTIONS, Raw
from streams.join.source_reader import Position, SourceReader
from streams.ledger.entries import entry_of
from streams.ledger.records import Batch, ReplicaFacts
from tests.pipelines import Run, source_records_of
from unship.budgets.table import LABEL_JOINS, LEDGER_RECORD
from unship.log.packed import pack_values

START = 1_772_409_600_000
NAMES = "abcdeghi"
CONFIG = parse(f"defaults: {{losses: [zero_one, brier], slices: {{by: [{', '.join(NAMES)}]}}}}")
LONG = "\N{GRINNING FACE}" * 110
NAME = "\N{GRINNING FACE}" * 100
Event = dict[str, Any]
Logs = tuple[list[Event], list[Event]]


def prediction(id: str, **fields: Any) -> Event:
    return {"id": id, "model": "m", "version": "v", "output": 1, "score": 0.7, **fields}


def long_slices(what: Any) -> dict[str, str]:
    return dict.fromkeys(NAMES, f"{LONG}{what}")


def of_long_slices() -> Logs:
    return (
        [prediction(f"p{n}", slices=long_slices(n)) for n in range(4_000)],
        [{"id": f"p{n}", "truth": 0} for n in range(4_000)],
    )


def of_unusable_truths_and_long_sources() -> Logs:
    return (
        [prediction(f"p{n}", score=None, slices=dict.fromkeys(NAMES, n)) for n in range(4_000)],
        [{"id": f"p{n}", "truth": "no", "source": f"{NAME}{n}"} for n in range(4_000)],
    )


def of_many_models_and_versions() -> Logs:
    return (
        [prediction(f"p{n}", model=f"{NAME}{n}", version=f"{NAME}{n}") for n in range(3_000)],
        [{"id": f"p{n}", "truth": 0} for n in range(3_000)],
    )


def of_versions_of_few_requests() -> Logs:
    """Live and shadow in turn, so that a label would be joined with all of them, and each pair be a row."""
    roles = ("live", "shadow")
    return (
        [
            prediction(f"p{n % 64}", version=f"v{n // 64}", role=roles[n // 64 % 2], slices=long_slices(n))
            for n in range(64 * 20)
        ],
        [{"id": f"p{n}", "truth": 0} for n in range(64)] * 3,
    )


def of_repeats() -> Logs:
    return [prediction("p")] * 20_000, [{"id": "p", "truth": 0}] * 20_000


HOSTILE: list[Callable[[], Logs]] = [
    of_long_slices,
    of_unusable_truths_and_long_sources,
    of_many_models_and_versions,
    of_versions_of_few_requests,
    of_repeats,
]


def encoded(logs: Logs, *, packed: bool) -> tuple[list[bytes], list[bytes]]:
    plain = [[msgspec.json.encode(event) for event in log] for log in logs]
    if packed:
        plain = [[value for value, _ in pack_values(log)] for log in plain]
    return plain[0], plain[1]


def read_from_logs(logs: Logs, *, packed: bool, labels_first: bool) -> Iterator[Batch]:
    reader = SourceReader(CONFIG, 0, Position(1), in_pieces=True)
    for side in (FEEDBACK, PREDICTIONS) if labels_first else (PREDICTIONS, FEEDBACK):
        records = [Raw(offset, START, value) for offset, value in enumerate(encoded(logs, packed=packed)[side])]
        reader.give(side, source_records_of(records))
        reader.advance((True, True), 100_000)
        while reader.queued(side):
            reader.advance((True, True), 100_000)
    for batches in reader.flush_in_pieces():
        yield from batches


def read_as_lines(logs: Logs) -> Iterator[Any]:
    lines = [msgspec.json.encode({"type": "prediction", "ts": START, **event}) for event in logs[0]]
    lines += [msgspec.json.encode({"type": "feedback", "ts": START, **event}) for event in logs[1]]
    run = Run(CONFIG)
    yield from run.take(lines)
    yield from run.rest()


def largest(records: Iterable[Any]) -> int:
    return max(len(entry_of(record).value) for record in records)


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda make: make.__name__)
def test_records_cut_by_lines_are_within_the_limit(hostile: Callable[[], Logs]) -> None:
    assert largest(read_as_lines(hostile())) <= LEDGER_RECORD.limit


@pytest.mark.parametrize("labels_first", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda make: make.__name__)
def test_records_of_a_reader_are_within_the_limit_and_follow_one_another(
    hostile: Callable[[], Logs], packed: bool, labels_first: bool
) -> None:
    logs = hostile()
    batches = list(read_from_logs(logs, packed=packed, labels_first=labels_first))
    assert largest(batches) <= LEDGER_RECORD.limit
    assert [batch.base for batch in batches] == [(0, 0), *(batch.end for batch in batches[:-1])]
    assert [batch.clock for batch in batches] == sorted(batch.clock for batch in batches)
    assert batches[-1].end == tuple(map(len, encoded(logs, packed=packed)))


def outcomes_of(batches: Iterable[Any]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for batch in batches:
        for part in getattr(batch, "parts", ()):
            found.update(
                (part.model, *row)
                for row in zip(part.outcomes.position.tolist(), part.outcomes.labelled_by.tolist(), strict=True)
            )
    return found


def test_what_a_label_is_joined_with_does_not_depend_on_which_log_is_read_first() -> None:
    logs = of_versions_of_few_requests()
    first, second = (list(read_from_logs(logs, packed=True, labels_first=first)) for first in (False, True))
    assert outcomes_of(first) == outcomes_of(second)
    joined = Counter(labelled_by for _, _, labelled_by in outcomes_of(first).elements())
    # The first one always; of the others as many as there are bytes for.
    assert set(joined.values()) == {1 + LABEL_JOINS.limit // (2 * (8 * 17 + 36 + 8 * 259))}


@pytest.mark.parametrize("seed", range(5))
def test_a_row_counts_as_no_less_than_what_is_encoded(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Records that are cut by a smaller limit are within that one."""
    rng = random.Random(seed)
    limit = rng.choice([20_000, 60_000])
    monkeypatch.setattr(record_size, "ROOM", limit - record_size.HEAD_BYTES)
    texts = ["a", "b" * 50, "\N{GRINNING FACE}" * 80]
    predictions, labels = [], []
    for n in range(3_000):
        fields = {
            "model": rng.choice("mn"),
            "version": rng.choice(texts),
            "score": rng.choice([0.5, rng.random(), None]),
        }
        slices = {name: rng.choice([n, rng.choice(texts), True, None]) for name in NAMES}
        predictions.append(prediction(f"p{n}", role=rng.choice(["live", "holdback"]), slices=slices, **fields))
        labels.append({"id": f"p{rng.randrange(3_000)}", "truth": rng.choice([0, 1, "x"]), "source": rng.choice(texts)})
    assert largest(read_as_lines((predictions, labels))) <= limit
    assert largest(read_from_logs((predictions, labels), packed=False, labels_first=True)) <= limit


def test_changes_at_thousands_of_replicas_are_in_several_records() -> None:
    acks = [
        {"type": "ack", "model": "m", "replica": f"{NAME}{n}", "boot": "b", "stage": "serving", "epoch": [0, 1, 0],
         "serving": NAME, "ts": START}
        for n in range(900)
    ]  # fmt: skip
    run = Run(CONFIG)
    records = [*run.take(map(msgspec.json.encode, [prediction("p", type="prediction", ts=START), *acks])), *run.rest()]
    facts = [record for record in records if isinstance(record, ReplicaFacts)]
    assert sum(len(record.changes) for record in facts) == 900
    assert largest(records) <= LEDGER_RECORD.limit
