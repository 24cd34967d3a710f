"""Supervise a crash-only service: run it again and again, until it is stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiokafka.errors import KafkaError

from streams.kafka.clients import Access, explained
from streams.kafka.source_partition import SourceChanged
from streams.rounds.control import LedgerConflict
from unship.errors import BrokerUnreachable, TimedOut, UnshipError

log = logging.getLogger("unship")

RETRY_MIN_S, RETRY_MAX_S = 0.5, 5.0
"""Between two runs. Where brokers come back, this is time in which nothing is decided."""

HEALTHY_RUN_S = 15.0
"""After a run that lasted so long, the first pause is the shortest again."""

SHUTDOWN_S = 4.0
"""How long the last run may take to commit what it has, when the process is stopped."""

HALTS = (SourceChanged, LedgerConflict)
"""Errors that need an operator; retried until resolved."""

RETRYABLE = (KafkaError, OSError, TimeoutError, UnshipError, *HALTS)
"""Errors after which a service is run again; any other is a bug, and ends the process."""

NO_BROKER = (KafkaError, OSError, TimeoutError, BrokerUnreachable, TimedOut)
"""Those of them that the broker causes."""


class Supervisor:
    """Runs one service: whatever the broker does to it, it is run again after a growing pause, and each error is logged
    once.

    Args:
        what: its name.
        access: the log, which explains what is wrong with its broker.
        service: one run; returns after `stop` was called, or raises.
        stop: lets that run end.
    """

    def __init__(
        self, what: str, access: Access, service: Callable[[], Awaitable[None]], stop: Callable[[], None]
    ) -> None:
        self.what = what
        # The error of the last run that ended, None if it ended in order.
        self.error: Exception | None = None
        self._access, self._service, self._stop_service = access, service, stop
        self._stopping, self._ended = asyncio.Event(), asyncio.Event()
        self._until = 0.0

    async def run(self) -> None:
        """Run the service until `stop` was called."""
        pause, logged = RETRY_MIN_S, ""
        now = asyncio.get_running_loop().time
        while not self._stopping.is_set():
            began = now()
            try:
                await self._service()
                self.error, logged = None, ""
            except (*RETRYABLE, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError):
                    if _is_cancelled():
                        raise
                    error = BrokerUnreachable("what it waited for was cancelled")
                self.error, text = error, self.explained(error)
                if self._stopping.is_set():
                    break
                if text != logged:
                    again = "it is retried until that is resolved" if isinstance(error, HALTS) else "it is retried"
                    log.warning("%s stopped: %s; %s", self.what, text, again)
                    logged = text
                pause = RETRY_MIN_S if now() - began > HEALTHY_RUN_S else min(2 * pause, RETRY_MAX_S)
                await _within(self._stopping, pause)
        self._ended.set()

    def stop(self) -> None:
        """Let the last run end in order, or a pause at once; the time for that begins now."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._until = asyncio.get_running_loop().time() + SHUTDOWN_S
            self._stop_service()

    async def join(self) -> None:
        """Stop, and return when the last run has ended, or its time is over."""
        self.stop()
        left_s = max(self._until - asyncio.get_running_loop().time(), 0.0)
        await _within(self._ended, left_s)

    @property
    def ended(self) -> bool:
        """Return whether it was stopped, and the last run has ended."""
        return self._ended.is_set()

    def explained(self, error: Exception) -> str:
        """Return in one line what is wrong."""
        return explained(error, self._access)


def _is_cancelled() -> bool:
    """Return whether the running task is to end, and not only something that it waits for was cancelled."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def _within(event: asyncio.Event, limit_s: float) -> None:
    """Wait for an event, so many seconds at most."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), limit_s)
