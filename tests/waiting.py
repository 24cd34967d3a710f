"""Wait for what has to come. The one limit here ends a run that hangs; it does not measure how fast anything is."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

HANG_S = 900.0
"""How long a test waits for a condition, a process or an answer: far more than the slowest loaded machine needs."""


def until(met: Callable[[], Any], shown: Callable[[], object] = lambda: "", pause_s: float = 0.02) -> None:
    """Wait until something holds; `shown` is what the message of a failure adds."""
    deadline = time.monotonic() + HANG_S
    while not met():
        assert time.monotonic() < deadline, f"not met within {HANG_S:g} s: {shown()}"
        time.sleep(pause_s)


async def eventually(
    met: Callable[[], Awaitable[Any]], shown: Callable[[], object] = lambda: "", pause_s: float = 0.1
) -> Any:
    """Wait until something holds, and return what it gave; `shown` is what the message of a failure adds."""
    deadline = time.monotonic() + HANG_S
    while not (found := await met()):
        assert time.monotonic() < deadline, f"not met within {HANG_S:g} s: {shown()}"
        await asyncio.sleep(pause_s)
    return found
