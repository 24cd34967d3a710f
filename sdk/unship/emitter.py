"""Send events without ever holding up the caller: a bounded queue, and a thread that writes it to the log.

A serving process must answer when the log is slow, full or gone. So the caller only puts a record into a queue
(about a microsecond); encoding, checking and writing happen on the thread. Where the queue is full the newest event
is dropped and counted: a monitor that misses some outcomes decides a little later, a service that waits for its
monitor is an outage.

The queue has a limit in events and one in bytes, because what waits while the log is away takes the memory of the
service. Bytes are a rough sum: common events count alike, longer ones by what they hold, until they are written. An
event that no log could take, because of its size, is dropped before it is queued.

The queue is `queue.SimpleQueue`, because its `put` neither waits nor deadlocks, even in a signal's or a finaliser's
code. What the thread took but could not write stays in its hands, in order, until the log is back.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias

from msgspec import Struct

from unship.budgets.table import FLEET_QUEUE
from unship.codec import LIMITS, decode_value, encode_line
from unship.events import EVENT_TYPES, Deployment
from unship.log.address import connector
from unship.log.link import RETRY_MAX_S, RETRY_MIN_S, Batches, Headers, Link, Message, Refusal
from unship.rejections import RejectCode, Rejection
from unship.sending.sendable import Sendable, changed_fields, reads_back, with_plain_fields
from unship.sending.weights import EVENT_BYTES, weighed
from unship.topics import TOPIC_OF, key_of

BATCH_EVENTS: Final = 500
"""Events per transaction: encoding them takes about 3 ms, in which other threads of the process get their turns."""

LINGER_S: Final = 0.01
"""How long the thread lets events gather after the first: at most a hundred transactions a second per process."""

PACKED_LINGERS: Final = 5
"""How many times that it lets events gather that share records: 50 ms, unless a batch is full or a flush waits."""

IDLE_LOOKS: Final = 100
"""Looks at an empty queue, one per linger, before the thread blocks until the next event."""

QUEUE_BYTES: Final = FLEET_QUEUE.limit
"""Most memory of what waits, by default."""

BATCH_HELD: Final = 4 << 20
"""Memory of longer events after which a batch is closed: their JSON is about as large once more."""

QUEUE_FULL: Final = "QUEUE_FULL"
CLOSED: Final = "CLOSED"
BAD_ARGUMENT: Final = "BAD_ARGUMENT"
NOT_SENT: Final = "NOT_SENT"
"""Reasons of drops, besides the codes of `unship.rejections`: no room; after `close`; arguments that make no event;
still unsent when the time for closing was up. A log of its own may refuse with more: `unship.log.link.Refusal`."""


class EmitterStats(Struct, frozen=True):
    """Count events: waiting in the queue, written to the log, and dropped by reason; `detail` explains the last one."""

    waiting: int
    sent: int
    dropped: dict[str, int]
    detail: str


class _Heavy(Struct, frozen=True, eq=False):
    """Carry an event that holds more memory than a common one; `held` is what was counted for it."""

    event: _Event
    held: int


class _Flush(Struct, frozen=True, eq=False):
    """Mark a place in the queue; `done` is set when everything before it was written or dropped."""

    done: threading.Event


class SignLater(Struct, frozen=True, eq=False):
    """Carry a deployment, and what returns the value and the headers of its record as late as possible."""

    event: Deployment
    sign: Callable[[Deployment], tuple[bytes, Headers]]


_Event: TypeAlias = Sendable | SignLater
_Item: TypeAlias = _Event | _Heavy | _Flush | None


class _Batch:
    """Hold what is written together, the marks in between, and the bytes that were counted for it."""

    def __init__(self) -> None:
        self.events: list[_Event] = []
        self.flushes: list[_Flush] = []
        self.held = 0

    def take(self, item: _Item) -> None:
        if isinstance(item, _Flush):
            self.flushes.append(item)
        elif isinstance(item, _Heavy):
            self.events.append(item.event)
            self.held += item.held
        elif item is not None:
            self.events.append(item)

    def is_full(self) -> bool:
        return len(self.events) >= BATCH_EVENTS or self.held >= BATCH_HELD


_KIND_OF: Final[dict[type, str]] = {event_type: kind for kind, event_type in EVENT_TYPES.items()}


class _Counts:
    """Count what was sent and dropped; every method may be called from any thread."""

    def __init__(self) -> None:
        self._sent = 0
        self._dropped: Counter[str] = Counter()
        self._detail = ""
        # Held for one addition, by callers only where they drop; reentrant, so that a signal's code cannot block on it.
        self._lock = threading.RLock()

    def drop(self, reason: str, detail: str, count: int) -> None:
        with self._lock:
            self._dropped[reason] += count
            if detail:
                self._detail = detail

    def send(self, count: int) -> None:
        with self._lock:
            self._sent += count

    def fail(self, detail: str) -> None:
        with self._lock:
            self._detail = detail

    def stats(self, waiting: int) -> EmitterStats:
        with self._lock:
            return EmitterStats(waiting, self._sent, dict(self._dropped), self._detail)


class _Room:
    """Bound what waits, in events and in bytes; every method may be called from any thread."""

    def __init__(self, events: int, size: int) -> None:
        self.freed = threading.Event()
        self._events = events
        self._bytes = size
        self._held = 0
        # Only for events that are not common, and for one addition: see the lock of the counts.
        self._lock = threading.RLock()

    def has(self, waiting: int, held: int, more: int = 1) -> bool:
        """Return whether there is room for `more` events, which hold so many bytes beyond common ones."""
        after = waiting + more
        return after <= self._events and after * EVENT_BYTES + self._held + held <= self._bytes

    def hold(self, held: int) -> None:
        """Count the bytes of an event, or discount them where they are negative."""
        with self._lock:
            self._held += held


class Emitter:
    """Queue events and write them to a log from a thread of its own.

    Every method may be called from any thread, and none raises. Events put before `start` wait in the queue.
    """

    def __init__(
        self,
        log: str,
        *,
        queue: int,
        queue_bytes: int | None = None,
        pack: bool = False,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        """Make an emitter that is not running yet.

        Args:
            log: The address of the log, which was checked.
            queue: Most events that wait.
            queue_bytes: Most memory that they hold, roughly, in bytes; by default `QUEUE_BYTES`, or more if so many
                common events need more.
            pack: Whether predictions and feedback of one partition share records.
            now_ms: The clock of append times in an embedded log, the machine's if None.
        """
        self._connector = partial(connector, log, now_ms, pack=pack)
        self._room = _Room(queue, max(QUEUE_BYTES, queue * EVENT_BYTES) if queue_bytes is None else queue_bytes)
        self._lingers = PACKED_LINGERS if pack else 1
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._closed = False
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._thread: threading.Thread | None = None
        self._counts = _Counts()
        # Used by the thread only: the newest event that was decoded and found equal.
        self._sent_before: Sendable | None = None

    def start(self) -> None:
        """Start the thread; starting twice is harmless."""
        if self._thread is None and not self._closed:
            connect = self._connector()
            self._thread = threading.Thread(target=self._run, args=(connect,), name="unship-emitter", daemon=True)
            self._thread.start()
            # The thread is a daemon, so that a service that forgets to close can end; what waits is still sent then.
            atexit.register(self.close)

    def put(self, event: _Event) -> None:
        """Queue an event, or drop it where there is no room, or where it is larger than any log takes.

        Raises:
            TypeError: It holds something that no event holds.
        """
        if self._closed:
            self.drop(CLOSED)
            return
        weight = weighed(event.event if event.__class__ is SignLater else event)
        if weight is None:
            if self._room.has(self._queue.qsize(), 0):
                self._queue.put(event)
            else:
                self.drop(QUEUE_FULL)
        elif weight.too_large:
            self.drop(RejectCode.TOO_LARGE.value, f"more than {weight.wire} bytes > limit {LIMITS.max_bytes} bytes")
        elif self._room.has(self._queue.qsize(), weight.held):
            self._room.hold(weight.held)
            self._queue.put(_Heavy(event, weight.held))
        else:
            self.drop(QUEUE_FULL)

    def has_room(self, events: Sequence[Sendable]) -> bool:
        """Return whether all these events would be queued now, were there no other thread."""
        weights = [weight.held for weight in map(weighed, events) if weight is not None]
        return self._room.has(self._queue.qsize(), sum(weights), len(events))

    def drop(self, reason: str, detail: str = "", count: int = 1) -> None:
        """Count events as dropped."""
        self._counts.drop(reason, detail, count)

    def wait_for_room(self, event: Sendable, timeout_s: float) -> None:
        """Wait until the queue has room for an event, for callers that would rather wait than drop."""
        weight = weighed(event)
        held = 0 if weight is None else weight.held
        deadline = time.monotonic() + timeout_s  # noqa: TID251
        while not self._closed and not self._room.has(self._queue.qsize(), held):
            self._room.freed.clear()
            left = deadline - time.monotonic()  # noqa: TID251
            if left <= 0:
                return
            # Looked at again now and then: the thread may have made room between the question and the clearing.
            self._room.freed.wait(min(left, 0.05))

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
        self._room.freed.set()
        thread = self._thread
        if thread is not None:
            atexit.unregister(self.close)
            self._queue.put(None)
            thread.join(timeout_s + 1.0)
        if thread is None or not thread.is_alive():
            self._drop_rest()

    def forget(self) -> None:
        """Do nothing at the end of a forked child: what waits here waits in the parent too, which sends it."""
        atexit.unregister(self.close)

    @property
    def stats(self) -> EmitterStats:
        """Return the counts of now."""
        return self._counts.stats(self._queue.qsize())

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
                self._room.hold(-item.held if isinstance(item, _Heavy) else 0)
                left += 1
        if left:
            self.drop(NOT_SENT, count=left)

    def _run(self, connect: Callable[[], Link]) -> None:
        link = connect()
        while not (self._closing.is_set() and self._queue.empty()):
            batch = self._gather()
            encoded = self._encoded(batch.events)
            # Only one of the two forms is kept while the log is away.
            batch.events.clear()
            self._append(link, encoded)
            self._room.hold(-batch.held)
            self._room.freed.set()
            for flush in batch.flushes:
                flush.done.set()
            if self._overdue():
                break
        link.close()

    def _gather(self) -> _Batch:
        """Wait for the first event, let others gather, and take at most a batch."""
        for _ in range(IDLE_LOOKS):
            if not self._queue.empty():
                break
            self._closing.wait(LINGER_S)
        # Waking this thread would cost the caller a call of the kernel, so it wakes by itself unless long idle.
        item = self._queue.get()
        batch = _Batch()
        self._take(item, batch)
        for _ in range(self._lingers):
            if batch.flushes or batch.is_full():
                break
            self._closing.wait(LINGER_S)
            self._take(None, batch)
        return batch

    def _take(self, item: _Item, batch: _Batch) -> None:
        """Sort an item and what is in the queue into a batch, until it is full."""
        while True:
            batch.take(item)
            if batch.is_full():
                break
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
        self._room.freed.set()

    def _encoded(self, events: list[_Event]) -> Batches:
        batches: Batches = {}
        for item in events:
            event = item.event if isinstance(item, SignLater) else item
            kind = _KIND_OF[event.__class__]
            message = self._checked(kind, event)
            if message is not None and isinstance(item, SignLater):
                message = self._signed(item, message)
            if message is not None:
                batches.setdefault(TOPIC_OF[kind], []).append(message)
        return batches

    def _checked(self, kind: str, event: Sendable) -> Message | None:
        """Return the message of an event if the monitor will read from it what was meant, else count the reason."""
        try:
            try:
                value = encode_line(event)
            except TypeError:
                event = with_plain_fields(event)
                value = encode_line(event)
            # Decoding costs six times as much as encoding, so it is left out where its result is certain.
            if reads_back(event, self._sent_before) and len(value) <= LIMITS.max_bytes:
                return Message(value, key_of(event))
            read = decode_value(kind, value)
            if read != event:
                event = with_plain_fields(event)
                value = encode_line(event)
                read = decode_value(kind, value)
            if read == event:
                self._sent_before = event
                return Message(value, key_of(event))
        except Exception as error:  # noqa: BLE001 (an application may hand over any object at all)
            self.drop(BAD_ARGUMENT, f"{kind}: {type(error).__name__}: {error}")
            return None
        if isinstance(read, Rejection):
            self.drop(read.code.value, f"{kind}: {read.detail}")
        else:
            why = "JSON cannot carry NaN, an infinity, or a value of a class of your own"
            self.drop(BAD_ARGUMENT, f"{kind}: {changed_fields(event, read)}: {why}")
        return None

    def _signed(self, item: SignLater, message: Message) -> Message | None:
        """Return the record of a deployment that was checked, signed."""
        try:
            event = decode_value("deployment", message.value)
            assert isinstance(event, Deployment), event
            value, headers = item.sign(event)
        except Exception as error:  # noqa: BLE001 (the thread lives on whatever a key is)
            self.drop(BAD_ARGUMENT, f"deployment: {type(error).__name__}: {error}")
            return None
        return Message(value, message.key, headers)

    def _append(self, link: Link, batches: Batches) -> None:
        """Append until all is written; stop earlier only when closing and the deadline passed."""
        pause = RETRY_MIN_S
        while left := _count(batches):
            refusals: list[Refusal] = []
            failed = False
            try:
                refusals = link.append(batches, self._overdue)
            except Exception as error:  # noqa: BLE001 (whatever the log does, the thread lives on)
                failed = True
                self._counts.fail(str(error))
            for refusal in refusals:
                self.drop(*refusal)
            self._counts.send(left - _count(batches) - sum(refusal.messages for refusal in refusals))
            if not failed:
                continue
            if self._closing.is_set():
                # A log that is merely locked gets another chance within the time.
                if time.monotonic() + RETRY_MIN_S > self._deadline:  # noqa: TID251
                    self.drop(NOT_SENT, count=_count(batches))
                    return
                time.sleep(RETRY_MIN_S)  # noqa: TID251
            else:
                self._closing.wait(pause)
                pause = min(2 * pause, RETRY_MAX_S)

    def _overdue(self) -> bool:
        return self._closing.is_set() and time.monotonic() > self._deadline  # noqa: TID251


def _count(batches: Batches) -> int:
    return sum(map(len, batches.values()))
