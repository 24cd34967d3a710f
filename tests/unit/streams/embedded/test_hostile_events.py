"""Whoever writes predictions and labels cannot end the monitor of an embedded log, nor make its ledger large."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams.audit.ledger_audit import audit_topics
from streams.config.parse import parse
from streams.embedded.monitor import EmbeddedMonitor
from streams.embedded.topics import EmbeddedTopics
from unship.budgets.table import LEDGER_RECORD
from unship.log.embedded.log import EmbeddedLog, Message

NAMES = "abcdeghi"
LONG = "\N{GRINNING FACE}" * 110
CONFIG = parse(f"defaults: {{slices: {{by: [{', '.join(NAMES)}]}}}}\nmodels: {{fraud: {{}}}}")
Event = dict[str, Any]
Logs = tuple[list[Event], list[Event]]


def of_versions_of_one_request(count: int) -> Logs:
    """Live and shadow in turn, and one label for all of them."""
    roles = ("shadow", "live")
    return [
        {"id": "x", "model": "m", "version": f"v{number}", "output": 1, "role": roles[number % 2]}
        for number in range(count)
    ], [{"id": "x", "truth": 0}]


def of_long_slices(count: int) -> Logs:
    asked: list[Event] = [{"id": f"p{number}", "model": "m", "version": "v", "output": 1} for number in range(count)]
    for number, event in enumerate(asked):
        event["slices"] = dict.fromkeys(NAMES, f"{LONG}{number}")
    return asked, [{"id": f"p{number}", "truth": 0} for number in range(count)]


def of_invented_models(count: int) -> Logs:
    return [{"id": f"p{number}", "model": f"m{number}", "version": "v", "output": 1} for number in range(count)], []


HOSTILE = [
    pytest.param(of_versions_of_one_request(2_000), id="one request"),
    pytest.param(of_long_slices(4_000), id="long slices"),
    pytest.param(of_invented_models(1_500), id="models"),
]


class Clock:
    def __init__(self) -> None:
        self.now = 1_772_409_600_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[EmbeddedLog, Clock]]:
    clock = Clock()
    log = EmbeddedLog(tmp_path / "log", now_ms=clock, fsync=False)
    yield log, clock
    log.close()


def append(log: EmbeddedLog, logs: Logs) -> None:
    for topic, events in zip(("predictions", "feedback"), logs, strict=True):
        if events:
            log.append(topic, [Message(msgspec.json.encode(event), event["id"].encode()) for event in events])


def sizes(log: EmbeddedLog) -> list[int]:
    found: list[int] = []
    while records := log.read("ledger", len(found)):
        found += [len(record.value or b"") for record in records]
    return found


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_events_cost_no_more_than_themselves_and_the_honest_model_is_watched(
    site: tuple[EmbeddedLog, Clock], hostile: Logs, restart: bool
) -> None:
    log, clock = site
    monitor = EmbeddedMonitor(log, CONFIG, clock)
    append(log, hostile)
    append(log, ([{"id": "honest", "model": "fraud", "version": "v1", "output": 1}], [{"id": "honest", "truth": 1}]))
    if restart:
        monitor = EmbeddedMonitor(log, CONFIG, clock)
    monitor.step()
    clock.now += 5_000
    append(log, ([{"id": "later", "model": "fraud", "version": "v1", "output": 1}], [{"id": "later", "truth": 1}]))
    if restart:
        monitor = EmbeddedMonitor(log, CONFIG, clock)
    monitor.step()
    assert monitor.status().models["fraud"].outcomes == {"v1": 2}
    assert max(sizes(log)) <= LEDGER_RECORD.limit
    result = audit_topics(EmbeddedTopics(log), None)
    assert result.first_difference is None
