"""Send events without ever holding up the caller: a bounded queue, and a thread that writes it to the log.

A serving process must answer when the log is slow, full or gone. So the caller only puts a record into a queue
(about a microsecond); encoding, checking and writing happen on the thread. Where the queue is full the newest event
is dropped and counted: a monitor that misses some outcomes decides a little later, a service that waits for its
monitor is an outage.

The queue is `queue.SimpleQueue`, because its `put` neither waits nor deadlocks, even in a signal's or a finaliser's
code. What the thread took but could not write stays in its hands, in order, until the log is back.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import Counter
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from unship.codec import decode_value, encode_line
from unship.events import Deployment, Feedback, Prediction
from unship.log.address import connector
from unship.log.link import Batches, Link, Message, Refusal
from unship.rejections import Rejection

Emitted: TypeAlias = Prediction | Feedback | Deployment

BATCH_EVENTS: Final = 500
"""Events per transaction: encoding them takes about 3 ms, in which other threads of the process get their turns."""

LINGER_S: Final = 0.01
"""How long the thread lets events gather after the first: at most a hundred transactions a second per process."""

IDLE_LOOKS: Final = 100
"""Looks at an empty queue, one per linger, before the thread sleeps until somebody wakes it."""

RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 2.0

QUEUE_FULL: Final = "QUEUE_FULL"
CLOSED: Final = "CLOSED"
BAD_ARGUMENT: Final = "BAD_ARGUMENT"
NOT_SENT: Final = "NOT_SENT"
"""Reasons of drops beside the codes of `unship.rejections`: no room; after `close`; arguments that make no event; still
unsent when the time for closing was up. A log of its own may refuse with more: `unship.log.link.Refusal`."""


class EmitterStats(Struct, frozen=True):
    """Count events: waiting in the queue, written to the log, and dropped by reason; `detail` explains the last one."""

    waiting: int
    sent: int
    dropped: dict[str, int]
    detail: str


class _Flush(Struct, frozen=True, eq=False):
    """Mark a place in the queue; `done` is set when everything before it was written or dropped."""

    done: threading.Event


_Item: TypeAlias = Emitted | _Flush | None


PLAIN: Final = frozenset((bool, int, float, str))


def plain(value: Any) -> Any:
    """Return what JSON can carry: numpy's values as Python's own, sequences as new lists; the rest unchanged.

    Example:
        >>> plain(("a", "b")), plain(0.5)
        (['a', 'b'], 0.5)
    """
    if value.__class__ in PLAIN:
        return value
    convert = getattr(value, "tolist", None)
    if convert is not None:
        return convert()
    return list(value) if isinstance(value, list | tuple) else value


class Emitter:
    """Queue events and write them to a log from a thread of its own.

    Every method may be called from any thread, and none raises. Events put before `start` wait in the queue.
    """

    def __init__(
        self, log: str, *, queue: int, linger_s: float = LINGER_S, now_ms: Callable[[], int] | None = None
    ) -> None:
        """Make an emitter of at most `queue` waiting events that is not running yet; `log` was checked.

        `now_ms` is the clock of append times in an embedded log, the machine's if None.
        """
        self._log = log
        self._limit = queue
        self._linger_s = linger_s
        self._now_ms = now_ms
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._closed = False
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._room = threading.Event()
        self._thread: threading.Thread | None = None
        self._sent = 0
        self._dropped: Counter[str] = Counter()
        self._detail = ""
        # Held for one addition, by callers only where they drop; reentrant, so that a signal's code cannot block on it.
        self._counting = threading.RLock()

    def start(self) -> None:
        """Start the thread; starting twice is harmless."""
        if self._thread is None and not self._closed:
            connect = connector(self._log, self._now_ms)
            self._thread = threading.Thread(target=self._run, args=(connect,), name="unship-emitter", daemon=True)
            self._thread.start()
            # The thread is a daemon, so that a service that forgets to close can end; what waits is still sent then.
            atexit.register(self.close)

    def put(self, event: Emitted) -> None:
        """Queue an event, or drop it where there is no room."""
        if self._closed:
            self.drop(CLOSED)
        elif self._queue.qsize() >= self._limit:
            self.drop(QUEUE_FULL)
        else:
            self._queue.put(event)

    def drop(self, reason: str, detail: str = "", count: int = 1) -> None:
        """Count events as dropped."""
        with self._counting:
            self._dropped[reason] += count
            if detail:
                self._detail = detail

    def wait_for_room(self, timeout_s: float) -> None:
        """Wait until the queue has room, for callers that would rather wait than drop."""
        deadline = time.monotonic() + timeout_s  # noqa: TID251
        while not self._closed and self._queue.qsize() >= self._limit:
            self._room.clear()
            left = deadline - time.monotonic()  # noqa: TID251
            if left <= 0:
                return
            # Looked at again now and then: the thread may have made room between the question and the clearing.
            self._room.wait(min(left, 0.05))

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything put before this call was written or dropped; False when time is up first."""
        if self._thread is None:
            return self._queue.empty()
        marker = _Flush(threading.Event())
        self._queue.put(marker)
        return marker.done.wait(timeout_s)

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what waits, for at most `timeout_s` seconds, and count the rest as dropped; close twice if you like."""
        self._closed = True
        self._deadline = time.monotonic() + timeout_s  # noqa: TID251
        self._closing.set()
        self._room.set()
        thread = self._thread
        if thread is not None:
            atexit.unregister(self.close)
            self._queue.put(None)
            thread.join(timeout_s + 1.0)
        if thread is None or not thread.is_alive():
            self._drop_rest()

    def forget(self) -> None:
        """Leave everything to the parent, in a forked child: what waits here waits there too, and is sent once."""
        atexit.unregister(self.close)

    @property
    def stats(self) -> EmitterStats:
        """Return the counts of now."""
        with self._counting:
            return EmitterStats(self._queue.qsize(), self._sent, dict(self._dropped), self._detail)

    def _drop_rest(self) -> None:
        left = 0
        while True:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            if isinstance(item, _Flush):
                item.done.set()
            elif item is not None:
                left += 1
        if left:
            self.drop(NOT_SENT, count=left)

    def _run(self, connect: Callable[[], Link]) -> None:
        link = connect()
        while not (self._closing.is_set() and self._queue.empty()):
            events, flushes = self._gather()
            self._append(link, self._encoded(events))
            for flush in flushes:
                flush.done.set()
            if self._overdue():
                break
        link.close()

    def _gather(self) -> tuple[list[Emitted], list[_Flush]]:
        """Wait for the first event, let others gather, and take at most a batch."""
        for _ in range(IDLE_LOOKS):
            if not self._queue.empty():
                break
            self._closing.wait(self._linger_s)
        # Waking this thread would cost the caller a call of the kernel, so it wakes by itself unless long idle.
        item = self._queue.get()
        if self._queue.qsize() < BATCH_EVENTS:
            self._closing.wait(self._linger_s)
        events: list[Emitted] = []
        flushes: list[_Flush] = []
        while True:
            if isinstance(item, _Flush):
                flushes.append(item)
            elif item is not None:
                events.append(item)
            if len(events) >= BATCH_EVENTS:
                break
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
        self._room.set()
        return events, flushes

    def _encoded(self, events: list[Emitted]) -> Batches:
        batches: Batches = {}
        for event in events:
            topic, kind, key = _address(event)
            value = self._checked(kind, event)
            if value is not None:
                batches.setdefault(topic, []).append(Message(value, key))
        return batches

    def _checked(self, kind: str, event: Emitted) -> bytes | None:
        """Return the bytes of an event if the monitor will read from them what was meant, else count the reason."""
        try:
            try:
                value = encode_line(event)
            except TypeError:
                event = _plain_fields(event)
                value = encode_line(event)
            read = decode_value(kind, value)
            same = read == event
        except Exception as error:  # noqa: BLE001 (an application may hand over any object at all)
            self.drop(BAD_ARGUMENT, f"{kind}: {type(error).__name__}: {error}")
            return None
        if isinstance(read, Rejection):
            self.drop(read.code.value, f"{kind}: {read.detail}")
            return None
        if not same:
            self.drop(BAD_ARGUMENT, f"{kind}: JSON cannot carry NaN, an infinity, a tuple, or a key that is no text")
            return None
        return value

    def _append(self, link: Link, batches: Batches) -> None:
        """Append until all is written; give up only when closing and the time is up."""
        pause = RETRY_MIN_S
        while left := _count(batches):
            refusals: list[Refusal] = []
            failed = False
            try:
                refusals = link.append(batches, self._overdue)
            except Exception as error:  # noqa: BLE001 (whatever the log does, the thread lives on)
                failed = True
                with self._counting:
                    self._detail = str(error)
            for refusal in refusals:
                self.drop(*refusal)
            with self._counting:
                self._sent += left - _count(batches) - sum(refusal.messages for refusal in refusals)
            if not failed:
                continue
            if self._closing.is_set():
                # A log that is merely locked gets another chance within the time; a set event waits for nothing.
                if time.monotonic() + RETRY_MIN_S > self._deadline:  # noqa: TID251
                    self.drop(NOT_SENT, count=_count(batches))
                    return
                threading.Event().wait(RETRY_MIN_S)
            else:
                self._closing.wait(pause)
                pause = min(2 * pause, RETRY_MAX_S)

    def _overdue(self) -> bool:
        return self._closing.is_set() and time.monotonic() > self._deadline  # noqa: TID251


def _count(batches: Batches) -> int:
    return sum(map(len, batches.values()))


def _plain_fields(event: Emitted) -> Emitted:
    """Return the event with numpy's scalars replaced in its fields and in the objects among them."""
    fields = msgspec.structs.asdict(event)
    for name, value in fields.items():
        if isinstance(value, dict):
            fields[name] = {key: plain(each) for key, each in value.items()}
        elif name != "epoch":
            fields[name] = plain(value)
    return msgspec.structs.replace(event, **fields)


def _address(event: Emitted) -> tuple[str, str, bytes | None]:
    """Return topic, kind and key; a key that is no text gives None here and is refused by the check of the event."""
    if isinstance(event, Prediction):
        topic, kind, key = "predictions", "prediction", event.id
    elif isinstance(event, Feedback):
        topic, kind, key = "feedback", "feedback", event.id
    else:
        topic, kind, key = "deployments", "deployment", event.model
    return topic, kind, key.encode(errors="replace") if key.__class__ is str else None
