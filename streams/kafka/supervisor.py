"""Run a crash-only service: one life after the other, until it is told to end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiokafka.errors import KafkaError

from streams.kafka.clients import Access, explained
from streams.kafka.control_service import LedgerConflict
from streams.kafka.ingest_service import SourceChanged
from unship.errors import BrokerUnreachable, UnshipError

log = logging.getLogger("unship")

#: Between two tries. Where brokers come back, this is time in which nothing is decided.
RETRY_MIN_S, RETRY_MAX_S = 0.5, 5.0
#: A life that lasted so long was a good one, and the first pause after it is the shortest again.
GOOD_LIFE_S = 15.0
#: How long the last life has to hand over what it has, when the process is told to end.
ORDER_S = 4.0
#: What takes a person: every life ends in it, until somebody has done what it says.
HALTS = (SourceChanged, LedgerConflict)
#: What ends one life of a service and begins another; anything else is a bug, and ends the process.
TROUBLE = (KafkaError, OSError, TimeoutError, UnshipError, *HALTS)
#: The part of it that the broker has to answer for.
NO_BROKER = (KafkaError, OSError, TimeoutError, BrokerUnreachable)


class Lives:
    """One service: whatever the broker does to it, it begins again after a growing pause, and says why once.

    Args:
        what: its name.
        access: the log, which explains what is wrong with its broker.
        run: one life; returns after `stop` was called, or raises.
        stop: tells it to end.
    """

    def __init__(self, what: str, access: Access, run: Callable[[], Awaitable[None]], stop: Callable[[], None]) -> None:
        self.what = what
        #: Why the last life that ended did not end in order.
        self.error: Exception | None = None
        self._access, self._run, self._stop = access, run, stop
        self._told, self._ended = asyncio.Event(), asyncio.Event()
        self._until = 0.0

    async def live(self) -> None:
        """Live until `finish` was called."""
        pause, said = RETRY_MIN_S, ""
        now = asyncio.get_running_loop().time
        while not self._told.is_set():
            began = now()
            try:
                await self._run()
                self.error, said = None, ""
            except (*TROUBLE, asyncio.CancelledError) as error:
                if isinstance(error, asyncio.CancelledError):
                    if _is_cancelled():
                        raise
                    # Somebody else gave up what it waited for.
                    error = BrokerUnreachable("what it waited for was given up")
                self.error, text = error, self.explained(error)
                if self._told.is_set():
                    break
                if text != said:
                    again = "it looks again" if isinstance(error, HALTS) else "it begins again by itself"
                    log.warning("%s stopped: %s; %s", self.what, text, again)
                    said = text
                pause = RETRY_MIN_S if now() - began > GOOD_LIFE_S else min(2 * pause, RETRY_MAX_S)
                await _within(self._told, pause)
        self._ended.set()

    def finish(self) -> None:
        """Let the last life end in order, or a pause at once; the time that it has for that begins now."""
        if not self._told.is_set():
            self._told.set()
            self._until = asyncio.get_running_loop().time() + ORDER_S
            self._stop()

    async def finished(self) -> None:
        """Return when the last life has ended, or its time is over."""
        self.finish()
        left_s = max(self._until - asyncio.get_running_loop().time(), 0.0)
        await _within(self._ended, left_s)

    @property
    def ended(self) -> bool:
        """Whether nothing is to be expected any more: it was told to finish, and did."""
        return self._ended.is_set()

    def explained(self, error: Exception) -> str:
        """Return in one line what is wrong."""
        return explained(error, self._access)


def _is_cancelled() -> bool:
    """Whether the task that runs is to end, and not only something that it waits for was cancelled."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def _within(event: asyncio.Event, limit_s: float) -> None:
    """Wait for an event, so many seconds at most; nothing waits on after that."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), limit_s)
