"""Read `alerts` of an embedded log for one sink; its position is a record of the topic `snapshots`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from streams.alerts.follower import Part, Record
from unship.log.embedded.log import EmbeddedLog, Message, OffsetTrimmed

TOPIC = "alerts"
KEY = b"alerts/"
"""Begins the keys of the positions of sinks in `snapshots`."""

READ_MAX = 500


class EmbeddedAlertTopic:
    """The topic for one sink. SQLite's calls run in a thread, because one may wait for the lock of a writer."""

    def __init__(self, folder: Path, sink: str) -> None:
        self._folder, self._key = folder, KEY + sink.encode()
        self._log: EmbeddedLog | None = None
        self._offset = 0
        self._position: int | None = None
        self._goal = 0

    async def read(self, timeout_s: float) -> Part:
        """Return what is new; the first time from the topic's beginning on."""
        part = await asyncio.to_thread(self._read)
        if not part.begun and not part.records and timeout_s:
            await asyncio.sleep(timeout_s)
            part = await asyncio.to_thread(self._read)
        return part

    def _read(self) -> Part:
        begun = self._log is None
        if self._log is None:
            self._log = EmbeddedLog(self._folder)
            self._offset, self._goal = self._log.first(TOPIC), self._log.end(TOPIC)
            known = self._log.newest("snapshots", self._key)
            value = b"" if known is None else known.value or b""
            self._position = int(value) if value.isdigit() else None
        try:
            found = self._log.read(TOPIC, self._offset, limit=READ_MAX)
        except OffsetTrimmed:
            self._offset = self._log.first(TOPIC)
            found = self._log.read(TOPIC, self._offset, limit=READ_MAX)
        if found:
            self._offset = found[-1].offset + 1
        records = [Record((0, each.offset), each.append_ts, each.value) for each in found]
        positions = {} if self._position is None else {0: self._position}
        return Part(begun, records, positions, self._offset >= self._goal)

    async def commit(self, positions: dict[int, int]) -> None:
        """Append the position."""
        await asyncio.to_thread(self._commit, positions[0])

    def _commit(self, position: int) -> None:
        if self._log is not None:
            self._log.append("snapshots", [Message(b"%d" % position, self._key)])
            self._position = position

    async def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            await asyncio.to_thread(self._log.close)
            self._log = None
