"""Follow the topic `alerts` for one sink: read, send what is due, and store how far the sink has everything.

Each sink has a follower of its own, which runs in a loop that the monitor does not use: a sink that is away, slow or
broken holds up neither the monitor nor another sink. What was not sent before the end is sent after the next start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from aiokafka.errors import KafkaError

from actions.adapters.sink import Sink
from actions.incidents import read_alert
from streams.alerts.delivery import Delivery, Place
from unship.errors import UnshipError

POLL_S: Final = 0.25
"""How long a look at the topic waits for a record."""

AGAIN_S: Final = 2.0
"""Pause after a log that cannot be read."""


class Record(NamedTuple):
    """A record of `alerts`: its place, when it was appended (ms), and its value."""

    place: Place
    append_ts: int
    value: bytes | None


class Part(NamedTuple):
    """What a look at the topic found.

    `begun` is true where reading begins again from the first record, because other partitions are read from now on.
    `positions` has the first offset of each partition that the sink has not got; a new sink has none. `caught_up` is
    false while there are records that were appended before it began.
    """

    begun: bool
    records: Sequence[Record]
    positions: dict[int, int]
    caught_up: bool


class AlertTopic(Protocol):
    """The topic `alerts` for one sink, read from its first record on."""

    async def read(self, timeout_s: float) -> Part:
        """Return what is new; wait for it so long at most."""

    async def commit(self, positions: dict[int, int]) -> None:
        """Store the positions."""

    async def close(self) -> None:
        """Leave the topic; `read` may open it again."""


class Follower:
    """Follows the topic for one sink; `run` ends once it is stopped and nothing is due any more."""

    def __init__(self, topic: AlertTopic, sink: Sink, report: Callable[[str], None], now_ms: Callable[[], int]) -> None:
        self._topic, self._sink, self._report, self._now_ms = topic, sink, report, now_ms
        self._delivery = Delivery(sink.repeat_ms)
        self._committed: dict[int, int] = {}
        self._started = False
        self._stopping = asyncio.Event()
        self._unread = False

    def stop(self) -> None:
        """Let `run` end."""
        self._stopping.set()

    async def run(self) -> None:
        """Follow until stopped."""
        try:
            while True:
                busy = await self._round()
                if self._stopping.is_set() and not busy:
                    return
        finally:
            await self._sink.close()
            await self._topic.close()

    async def _round(self) -> bool:
        """Read, send one alert, and commit; return whether there is more to do at once."""
        try:
            part = await self._topic.read(0.0 if self._stopping.is_set() or self._is_due() else POLL_S)
            self._unread = False
            self._take(part)
            sent = self._started and await self._send()
            if (positions := self._delivery.positions()) != self._committed and self._started:
                await self._topic.commit(positions)
                self._committed = positions
        except (UnshipError, KafkaError, OSError) as error:
            if not self._unread:
                self._report(f"alerts for {self._sink.name} wait: {error}")
            self._unread = True
            await self._topic.close()
            await self._pause(AGAIN_S)
            return False
        return sent or not self._started

    def _is_due(self) -> bool:
        return self._started and self._delivery.due(self._now_ms()) is not None

    def _take(self, part: Part) -> None:
        if part.begun:
            self._delivery, self._committed, self._started = Delivery(self._sink.repeat_ms), {}, False
        for place, append_ts, value in part.records:
            dropped = self._delivery.take(place, read_alert(value), append_ts, part.positions.get(place[0]))
            if dropped is not None:
                self._report(f"{self._sink.name}: {dropped}")
        if part.caught_up and not self._started:
            self._started = True
            self._delivery.started(self._now_ms())

    async def _send(self) -> bool:
        """Send the alert that is due; return whether the sink has it."""
        alert = self._delivery.due(self._now_ms())
        if alert is None:
            return False
        problem, failures = await self._sink.send(alert, self._now_ms()), self._delivery.failures
        if problem is None:
            if failures:
                self._report(f"{self._sink.name} takes alerts again")
            self._delivery.sent(alert, self._now_ms())
            return True
        if self._delivery.failed(alert, self._now_ms(), refused=problem.refused):
            self._report(f"alert {alert.incident} was not sent: {self._sink.name} {problem.why}")
        elif not failures:
            self._report(f"{self._sink.name} {problem.why}; alert {alert.incident} is sent again until it is taken")
        return False

    async def _pause(self, pause_s: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), pause_s)
        except TimeoutError:
            return
