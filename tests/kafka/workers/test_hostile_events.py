"""Whoever writes predictions and labels of one request cannot stop the counting of others on the same partition."""

import asyncio
from typing import Any

from streams.kafka.clients import read_all
from tests.kafka.inside import Inside, living
from tests.kafka.shared import SharedKafka
from tests.waiting import eventually
from unship.budgets.table import LEDGER_RECORD

VERSIONS = 2_000
NAMES = "abcdeghi"
CONFIG = f"defaults: {{slices: {{by: [{', '.join(NAMES)}]}}}}"


def test_thousands_of_versions_of_one_request_and_long_slices_leave_others_counted(kafka: SharedKafka) -> None:
    roles = ("live", "shadow")
    events: list[tuple[str, str, dict[str, Any]]] = []
    for number in range(VERSIONS):
        version, role = f"v{number}", roles[number % 2]
        event: dict[str, Any] = {"id": "x", "model": "m", "version": version, "role": role, "output": 1}
        event["slices"] = dict.fromkeys(NAMES, f"{chr(0x1F600) * 110}{number}")
        events.append(("predictions", "x", event))
    events.append(("feedback", "x", {"id": "x", "truth": 0}))
    events.append(("predictions", "h", {"id": "h", "model": "fraud", "version": "v1", "output": 1}))
    events.append(("feedback", "h", {"id": "h", "truth": 1}))

    async def run() -> None:
        site = Inside(kafka, CONFIG)
        await site.make_topics()
        async with living(site.ingest()):
            await site.send(events)

            async def counted() -> bool:
                outcomes, _ = await site.counted()
                return outcomes.get("fraud") == {"v1": 1}

            await eventually(counted)
        assert max(len(record.value) for record in await read_all(site.access, "ledger")) <= LEDGER_RECORD.limit

    asyncio.run(run())
