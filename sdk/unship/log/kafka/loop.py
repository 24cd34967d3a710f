"""Run what aiokafka does on the thread that waits for it, and throw it away in bounded time.

aiokafka lives on an event loop, and the library on plain threads. A loop here runs only while a call waits, on the
caller's thread: no thread and no task is left over, and a fork finds nothing half done. Each wait looks around twenty
times a second, so that closing ends waits on a broker that never answers too.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias, TypeVar

from aiokafka.errors import KafkaError

from unship.errors import BrokerUnreachable
from unship.log.link import Overdue

# aiokafka logs each attempt to reach a broker. Services that set up logging get that; the others get no line on their
# standard error every other second: `Fleet.stats` holds the problem.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())

T = TypeVar("T")

Stop: TypeAlias = Callable[[], Coroutine[Any, Any, Any]]

LOOK_S: Final = 0.05
"""How often a wait looks whether it is overdue."""

CLOSE_S: Final = 0.15
"""Longest wait for each step of closing: what a healthy client needs a few milliseconds for."""


class _Loop(asyncio.SelectorEventLoop):
    """Resolve names on the thread of the loop, which has nothing else to do.

    asyncio would use a pool of threads, which takes no work any more when the process ends, just when what still waits
    has to be sent; and a name server that does not answer would hold up the end of the process.
    """

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        return socket.getaddrinfo(*args, **kwargs)


class KafkaLoop:
    """Run coroutines one at a time, each with an end."""

    def __init__(self, log: str) -> None:
        """Make a loop that is not running; `log` names the broker in messages."""
        self._log = log
        self._loop = _Loop()

    def run(self, work: Coroutine[Any, Any, T], overdue: Overdue, limit_s: float) -> T:
        """Return what the work returns; cancel it when it is overdue or took `limit_s` seconds.

        Raises:
            BrokerUnreachable: It was cancelled, or the broker could not be reached or refused.
        """
        try:
            return self._loop.run_until_complete(self._watched(work, overdue, limit_s))
        except (TimeoutError, asyncio.CancelledError):
            raise BrokerUnreachable(
                f"{self._log}: no answer in time; where the broker is up, look whether the topics are there and this "
                "user may use them"
            ) from None
        except (KafkaError, OSError) as error:
            raise BrokerUnreachable(f"{self._log}: {explained(error)}; it is tried again") from error

    async def _watched(self, work: Coroutine[Any, Any, T], overdue: Overdue, limit_s: float) -> T:
        task = asyncio.ensure_future(work)
        deadline = self._loop.time() + limit_s
        while True:
            done, _ = await asyncio.wait((task,), timeout=LOOK_S)
            if done:
                return task.result()
            if overdue() or self._loop.time() > deadline:
                task.cancel()
                await asyncio.wait((task,), timeout=CLOSE_S)
                raise TimeoutError

    def end(self, *stops: Stop) -> None:
        """Call what stops a client, end everything else on the loop, and close it, in whatever state they are."""
        self._loop.run_until_complete(self._ending(stops))
        self._loop.close()

    async def _ending(self, stops: tuple[Stop, ...]) -> None:
        for stop in stops:
            await ended(stop(), CLOSE_S)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=CLOSE_S)


async def ended(stopping: Coroutine[Any, Any, Any], limit_s: float) -> bool:
    """Return whether a client ended in order within `limit_s` seconds; nothing that it raises comes out of here.

    It is a task of its own, because a client may end as cancelled when it cancels its parts, and that would pass for
    the caller's own end.
    """
    task = asyncio.ensure_future(stopping)
    await asyncio.wait((task,), timeout=limit_s)
    if not task.done():
        task.cancel()
        return False
    return not task.cancelled() and task.exception() is None


def explained(error: BaseException) -> str:
    """Return the name and the message of an error, without its name twice.

    Example:
        >>> explained(KafkaError("no route"))
        'KafkaError: no route'
    """
    message = str(error)
    return message if message.startswith(type(error).__name__) else f"{type(error).__name__}: {message}"
