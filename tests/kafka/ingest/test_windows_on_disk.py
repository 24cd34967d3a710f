"""A service on a real broker that keeps its windows on disk counts what one without them counts."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

import pytest

from streams.cache.window_cache import MANIFEST
from tests.kafka.inside import Inside, ended, expected, living, pairs, until_said
from tests.kafka.shared import SharedKafka

READ = "the window is read from the disk"
FILLED = "the window is filled from the log"


def test_labels_of_windows_on_disk_are_counted_whatever_is_left_of_them(
    kafka: SharedKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("streams.rounds.ingest.SAVE_RECORDS", 1)

    async def run() -> None:
        site = Inside(kafka, "limits: {window: 16MiB}")
        await site.make_topics()
        events = pairs(range(800))
        await site.send(events[::2])

        async def life(first: int, last: int, text: str | None) -> None:
            caplog.clear()
            service = site.ingest()
            service.keep_windows(tmp_path)
            await site.send(events[2 * first + 1 : 2 * last : 2])
            async with living(service) as tasks:
                if text is not None:
                    await until_said(caplog, text)
                assert await site.until_counted(expected(last)) == {}
                if last != 400:
                    await ended(service, tasks[0])

        await life(0, 200, None)
        assert list(tmp_path.rglob(MANIFEST))
        # This one is cut off; the next one reads what it committed, or not, behind what was saved before.
        await life(200, 400, READ)
        await life(400, 600, READ)
        path = next(tmp_path.rglob("rows-*"))
        path.write_bytes(path.read_bytes()[:-1])
        await life(600, 700, FILLED)
        shutil.rmtree(tmp_path)
        await life(700, 800, None)

    with caplog.at_level(logging.INFO, "unship"):
        asyncio.run(run())
