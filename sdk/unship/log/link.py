"""Define what fleets and label sources need of a log of either kind: append, and follow one key of `control`.

There are two kinds, `unship.log.embedded.link` and `unship.log.kafka.link`. Both stay connected through outages: each
call reconnects where it must, and raises where the log is away, so that the caller decides when to retry.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from unship.log.packed import pack_values

Headers = tuple[tuple[str, bytes], ...]


def wall_ms() -> int:
    """Return the machine's clock, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000  # noqa: TID251


def boot_ms() -> int:
    """Return the time since the machine was started, in milliseconds: nobody sets this clock."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000


RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 2.0
"""Pauses between tries of a thread whose log is away: from the first to the longest."""


class Message(Struct, frozen=True, gc=False):
    """Carry what a writer appends; a compacted topic needs the key."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()


class Record(Struct, frozen=True, gc=False):
    """Carry what the log holds: a message with its offset and its append time in milliseconds since the epoch."""

    offset: int
    append_ts: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Refusal(NamedTuple):
    """Report how many messages a log will never accept, and why: a code to count them by, and a detail."""

    reason: str
    detail: str
    messages: int


Batches: TypeAlias = dict[str, list[Message]]
"""Messages by topic."""

Overdue: TypeAlias = Callable[[], bool]
"""Returns whether the caller cannot wait any longer; called at least every tenth of a second."""


def records_of(messages: Sequence[Message], *, pack: bool) -> Iterator[tuple[Message, Sequence[Message]]]:
    """Yield what is appended for messages of one partition, in order, each with the messages that it carries.

    Args:
        messages: One event each, with a value and without headers.
        pack: Whether several of them may share a record, which then has the key of the first.

    Example:
        >>> first, second = Message(b'{"id":"p-1"}', b"p-1"), Message(b'{"id":"p-2"}', b"p-2")
        >>> [(record.value, record.key, len(carried)) for record, carried in records_of([first, second], pack=True)]
        [(b'[{"id":"p-1"},{"id":"p-2"}]', b'p-1', 2)]
        >>> [(record is first, len(carried)) for record, carried in records_of([first], pack=False)]
        [(True, 1)]
    """
    if not pack:
        yield from ((message, (message,)) for message in messages)
        return
    begin = 0
    for value, count in pack_values(message.value or b"" for message in messages):
        carried = messages[begin : begin + count]
        yield (carried[0] if count == 1 else Message(value, carried[0].key)), carried
        begin += count


class Link(Protocol):
    """Connect one thread with a log; only `Overdue` and the event of `next` come from other threads."""

    def append(self, batches: Batches, overdue: Overdue) -> list[Refusal]:
        """Append messages, in order within a key, and take out of `batches` what was appended or refused for good.

        Where it returns with messages left, another call goes on with them. What an earlier call left in doubt may be
        appended twice: every reader of these topics drops repeats.

        Raises:
            UnshipError: The log is away, or it took too long; what is left in `batches` may be tried again.
        """

    def begin(self, key: bytes, overdue: Overdue) -> Record | None:
        """Connect to `control`, note its end, and return the newest record of a key before it.

        Raises:
            UnshipError: It cannot be read, or it took too long.
        """

    def history(self, end: int, overdue: Overdue) -> Iterator[Record]:
        """Yield the records of the key below an offset, oldest first; to be called right after `begin`."""

    def next(self, wait_s: float, wake: threading.Event) -> list[Record]:
        """Return the next records of the key; none when `wait_s` seconds are up or `wake` is set.

        Raises:
            UnshipError: The log is away, or another one than `begin` connected to: begin again.
        """

    def newest_ack(self, key: bytes) -> Record | None:
        """Return the newest ack of a replica, None where there is none, or where replicas have no right to read acks.

        Raises:
            UnshipError: The log is away.
        """

    def close(self) -> None:
        """Close what is open, in bounded time; what was not appended by then is not."""
