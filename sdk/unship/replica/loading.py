"""Load versions with a deadline, on a thread that may hang while the replica goes on.

A load is code of the service: it reads from networks and disks, and may never return. Nothing can end it from outside,
so it runs on a thread of its own. When its time is up it counts as failed, the next load gets another thread, and what
the first one returns late is no answer to anything. Threads that hang are few, because each holds what it was loading.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from unship.budgets.table import HANGING_LOADS

LOAD_S: Final = 60.0
"""Deadline of a load by default. The newest command waits no longer than that for the load before it."""

HANGING_MAX: Final = HANGING_LOADS.limit
"""Loads that may hang at a time; a process with so many of them has to be restarted."""

LOADS_HANG: Final = "LOADS_HANG"
"""What a load that is not started is counted by."""

SHOWN_S: Final = 10.0
"""A load that runs for this long, or past its deadline, is named among the problems."""


LOOK_S: Final = 0.1
"""How often the wait for a load looks whether the replica is closing."""


class LoadsHang(Exception):
    """Report that a load is not even started, because loads of before still hang."""


class _Load:
    """Hold one load: what it loads, since when, and how it ended."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.begun = time.monotonic()  # noqa: TID251
        self.ended = threading.Event()
        self.result: object = None
        self.error: BaseException | None = None

    def run(self, load: Callable[[str], object]) -> None:
        try:
            self.result = load(self.version)
        except BaseException as error:  # noqa: BLE001 (SystemExit too: it may end neither the thread nor the process)
            self.error = error
        self.ended.set()

    def outcome(self) -> object:
        if self.error is not None:
            raise self.error
        return self.result


class TimedLoads:
    """Run loads one after another; used by one thread, `running` is read by any."""

    def __init__(self, load: Callable[[str], object], timeout_s: float) -> None:
        """Make it without a thread; the first load starts one."""
        self.abandoned = False
        self._load = load
        self._timeout_s = timeout_s
        self._loads: tuple[_Load, ...] = ()
        self._queue: SimpleQueue[_Load | None] | None = None

    def run(self, version: str) -> object:
        """Return what the load returns, or raise what it raises.

        One that returned after its deadline is not repeated if it is asked for again before anything else.

        Raises:
            TimeoutError: The load did not return in time. It goes on, and is named until it ends.
            LoadsHang: This load hangs since before, or too many others do.
        """
        last = self._loads[-1] if self._loads else None
        if last is not None and last.version == version and last.ended.is_set() and last.error is None:
            self._loads = self._hanging()
            return last.result
        hanging = self._hanging()
        if len(hanging) >= HANGING_MAX or version in (each.version for each in hanging):
            raise LoadsHang(
                f"not started: {self.described()}; at most {HANGING_MAX} loads may hang, each of another version: "
                "restart this process, and look why on_version does not return"
            )
        load = _Load(version)
        self._loads = (*hanging, load)
        self._thread().put(load)
        if not self._awaited(load):
            self.end()
            raise TimeoutError(f"on_version has not returned for {self._timeout_s:g} s (load_timeout)")
        self._loads = hanging
        return load.outcome()

    def _awaited(self, load: _Load) -> bool:
        """Return whether a load ended in time, and before it was abandoned."""
        deadline = load.begun + self._timeout_s
        while not self.abandoned and (left := deadline - time.monotonic()) > 0:  # noqa: TID251
            if load.ended.wait(min(left, LOOK_S)):
                return True
        return load.ended.is_set()

    def abandon(self) -> None:
        """Wait for no load any more; may be called by any thread."""
        self.abandoned = True
        self.end()

    def end(self) -> None:
        """End the thread as soon as its load returns, if it ever does."""
        if self._queue is not None:
            self._queue.put(None)
            self._queue = None

    @property
    def running(self) -> dict[str, float]:
        """Return the versions whose loads have not returned, each with its seconds so far."""
        now = time.monotonic()  # noqa: TID251
        return {each.version: now - each.begun for each in self._hanging()}

    def described(self) -> str:
        """Describe the loads that take long, for people; empty if there is none."""
        shown = min(SHOWN_S, self._timeout_s)
        return ", ".join(f"loading {name} for {took:.0f} s" for name, took in self.running.items() if took >= shown)

    def _hanging(self) -> tuple[_Load, ...]:
        return tuple(each for each in self._loads if not each.ended.is_set())

    def _thread(self) -> SimpleQueue[_Load | None]:
        """Return the queue of the thread that loads: always the same one, as long as its loads return."""
        if self._queue is None:
            self._queue = queue = SimpleQueue[_Load | None]()
            threading.Thread(target=_serve, args=(queue, self._load), name="unship-load", daemon=True).start()
        return self._queue


def _serve(queue: SimpleQueue[_Load | None], load: Callable[[str], object]) -> None:
    while (each := queue.get()) is not None:
        each.run(load)
        # Else a version that was let go would stay in memory until the next load.
        del each
