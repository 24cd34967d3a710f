"""A ledger on Kafka that an earlier version wrote: a worker refuses it by one sentence and appends nothing."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from actions.reconcile import Timing
from streams.kafka.clients import read_all
from streams.kafka.control_service import ControlService
from tests.kafka.control.signer import SIGNER
from tests.kafka.inside import Inside, Retried, living
from tests.kafka.shared import SharedKafka
from unship.log.link import wall_ms

FIXTURE = Path(__file__).parents[2] / "fixtures" / "kafka-log-of-fold-3.jsonl.gz"
"""The topics of a site with decisions, a pin, a quarantine and an open proposal, written by version 3 of the fold."""


def records_of(topic: str) -> list[tuple[str, int, bytes]]:
    with gzip.open(FIXTURE, "rt", encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    kept = [entry for entry in entries if entry.get("topic") == topic and "offset" in entry]
    return [(topic, entry["partition"], base64.b64decode(entry["value"])) for entry in kept]


@pytest.mark.parametrize("service", ["ingest", "control"])
def test_ledger_of_an_earlier_version_is_refused_by_a_sentence_and_nothing_is_appended(
    kafka: SharedKafka, service: str
) -> None:
    async def job() -> None:
        site = Inside(kafka, "models: {auto: {policy: {mode: act, deployments: any}}}", sources=2, ledger=2)
        await site.make_topics()
        records = records_of("ledger")
        assert len(records) > 50
        await site.append(records)
        made: Any = (
            site.ingest()
            if service == "ingest"
            else ControlService(site.access, site.config, wall_ms, SIGNER, Timing())
        )
        retried = Retried(made)
        async with living(retried):
            await retried.until_error("written by an earlier version of this program")
        assert any("docs/how-to/upgrade.md" in error for error in retried.errors)
        assert len(await read_all(site.access, "ledger")) == len(records)
        assert await read_all(site.access, "control") == []

    asyncio.run(job())
