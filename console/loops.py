"""Run an event loop in a thread of its own, next to a monitor that must not wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable


class LoopThread:
    """Runs a coroutine in a thread until it is closed; what it does holds up no other thread."""

    def __init__(self, name: str, work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        """Start the thread.

        Args:
            name: That of the thread.
            work: Makes the coroutine, which is to end soon after the event is set.
        """
        self._work = work
        self._stop = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        await self._work(self._stop)

    def close(self, limit_s: float) -> None:
        """Let the coroutine end, and wait for it for at most so long."""
        try:
            self._loop.call_soon_threadsafe(self._stop.set)
        except RuntimeError:
            # The loop is closed: the coroutine has ended by itself.
            return
        self._thread.join(limit_s)
