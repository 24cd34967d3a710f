"""One road: a worker on Kafka, the embedded monitor and a replay take the same events to the same ledger content."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actions.checkpoints import CHECKPOINT_KEY
from actions.journal import Decision
from actions.reconcile import Timing
from streams.config.parse import parse
from streams.kafka import ledger_topic
from streams.kafka.clients import read_all
from streams.kafka.control_service import ControlService
from streams.kafka.ledger_topic import open_ledger
from streams.ledger.entries import entry_of, read_entry
from streams.ledger.records import Deployed, Part, Record
from streams.topics.partitioner import partition_of
from tests.kafka.control.signer import SIGNER
from tests.kafka.inside import Inside, living
from tests.kafka.shared import SharedKafka
from tests.pipelines import parts_of, run
from tests.sites import Site
from tests.waiting import eventually
from tests.worlds.busy import busy_lines
from unship.codec import decode_line
from unship.events import Deployment, Event, Feedback, Prediction

MATURING = """
defaults:
  losses: [zero_one]
  labels: {mature_after: 1s}
  one_false_alarm_per: 2000
  slices: {by: [country]}
  policy: {mode: act, deployments: any}
"""
REST_MS = 5_000
"""How long after the last event time goes on, so that all cohorts close."""

Row = tuple[Any, ...]
Outline = tuple[Any, ...]


@pytest.mark.parametrize("seed", [3, 8])
def test_same_events_give_the_same_outcomes_and_decisions_on_kafka_embedded_and_in_a_replay(
    seed: int, kafka: SharedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The sources have the times of their events here, which a worker refuses.
    monkeypatch.delitem(ledger_topic._BAD, "message.timestamp.type")
    lines = busy_lines(seed, 2_500)
    events = [event for event in map(decode_line, lines) if isinstance(event, Prediction | Feedback | Deployment)]
    end = max(event.ts or 0 for event in events) + REST_MS
    replay = run(parse(MATURING), lines, until=end)
    expected = rows_of(replay.records), outlines(replay.decisions)
    assert sum(expected[0].values()) > 500
    assert "rollback" in [action for _, _, action, *_ in expected[1]]

    site = Site(tmp_path, lines, parse(MATURING))
    monitor = site.monitor()
    while site.sent < len(lines):
        site.send(173)
        monitor.step()
    site.clock.now = end
    monitor.step()
    embedded = [read_entry(value).record for value in site.ledger()]
    journal = [msgspec.json.decode(line, type=Decision) for line in site.journal()]
    assert (rows_of(embedded), outlines(journal)) == expected

    records, decisions = asyncio.run(worked(Inside(kafka, MATURING, sources=2), events, end))
    assert (rows_of(records), outlines(decisions)) == expected


async def worked(site: Inside, events: list[Any], end: int) -> tuple[list[Record], list[Decision]]:
    """Let the services of a worker take the events; return the ledger and the journal."""
    await site.make_topics()
    for topic in ("predictions", "feedback"):
        # Append times are those of the events, as the other two logs have them.
        await site.set_topic(topic, message_timestamp_type="CreateTime", retention_ms="-1")
    async with site.access.producer() as producer:
        await open_ledger(site.access, producer, site.config)
    now = [0]
    services = (
        site.ingest(clock_ms=lambda: now[0]),
        ControlService(site.access, site.config, lambda: now[0], SIGNER, Timing()),
    )
    sent = Counter[tuple[str, int]]()
    async with living(*services):
        for part in in_parts(events):
            if isinstance(part[0], Deployment):
                await copy(site, part[0])
                continue
            sent.update(await send(site, part))
            await eventually(partial(covered, site, sent))
            # No sooner: a reader that has read everything states this time.
            now[0] = part[-1].ts
        now[0] = end + 1_000

        async def closed() -> bool:
            return all(fold.due() > end for fold in await site.folds())

        await eventually(closed)
        decided = sum([fold.offset for fold in await site.folds()])

        async def journalled() -> bool:
            return len(await decisions_of(site)) >= len({d.id for d in await folded(site)}) and decided > 0

        await eventually(journalled)
    return await site.records(), await decisions_of(site)


def in_parts(events: Iterable[Event]) -> list[list[Any]]:
    """Return events in their order, each deployment alone: its copy comes when what was before it is counted."""
    parts: list[list[Any]] = []
    for event in events:
        if not parts or isinstance(event, Deployment) or isinstance(parts[-1][0], Deployment):
            parts.append([])
        parts[-1].append(event)
    return parts


async def send(site: Inside, events: list[Any]) -> Counter[tuple[str, int]]:
    ends = Counter[tuple[str, int]]()
    async with site.access.producer() as producer:
        for event in events:
            topic = "predictions" if isinstance(event, Prediction) else "feedback"
            number = partition_of(event.id.encode(), site.sources)
            value, key = msgspec.json.encode(event), event.id.encode()
            name = site.access.names.of(topic)
            await producer.send(name, value, key, partition=number, timestamp_ms=event.ts)
            ends[topic, number] += 1
        await producer.flush()
    return ends


async def copy(site: Inside, event: Deployment) -> None:
    """Copy a deployment as the worker's copier does, whose topic is stamped by the broker's own clock."""
    count = sum(isinstance(record, Deployed) for record in await site.records())
    record = Deployed(-1, msgspec.structs.replace(event, at=("deployments", 0, count, event.ts or 0)))
    async with site.access.producer() as producer:
        await producer.send_and_wait(site.access.names.of("ledger"), entry_of(record).value, partition=0)


async def covered(site: Inside, sent: Counter[tuple[str, int]]) -> bool:
    (fold,) = await site.folds()
    reached = {number: (each.predictions, each.feedback) for number, each in fold.coverage.items()}
    wanted = {n: (sent["predictions", n], sent["feedback", n]) for n in range(site.sources)}
    return all(reached.get(n, (0, 0)) == ends for n, ends in wanted.items() if any(ends))


async def folded(site: Inside) -> list[Decision]:
    fold = site.new_fold()
    return [d for record in await read_all(site.access, "ledger") for d in fold.step(read_entry(record.value))]


async def decisions_of(site: Inside) -> list[Decision]:
    records = await read_all(site.access, "decisions")
    values = {record.value: None for record in records if record.key != CHECKPOINT_KEY}
    return [msgspec.json.decode(value, type=Decision) for value in values]


def rows_of(records: Iterable[Record]) -> Counter[Row]:
    """Return the outcomes of a ledger with what they hold, without where they are from."""
    return Counter(row for part in parts_of(list(records)) for row in outcomes_in(part))


def outcomes_in(part: Part) -> Iterable[Row]:
    rows = part.outcomes
    columns = [(column.values, column.codes.tolist()) for column in rows.slices]
    times = zip(rows.arm.tolist(), rows.predicted_at.tolist(), rows.labelled_at.tolist(), strict=True)
    for i, (arm, predicted_at, labelled_at) in enumerate(times):
        slices = tuple(None if codes[i] < 0 else values[codes[i]] for values, codes in columns)
        source = rows.source.values[rows.source.codes[i]]
        losses = tuple(rows.losses[:, i].tolist())
        who = (part.model, part.arms[arm].version, part.arms[arm].role)
        yield (*who, predicted_at, labelled_at, losses, slices, source)


def outlines(decisions: Iterable[Decision]) -> list[Outline]:
    return [(d.model, d.version, d.action, d.to, d.verdict, d.reason, d.slice) for d in decisions]
