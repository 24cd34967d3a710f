"""Say what a fleet and a source of labels need of a log, whichever kind it is: append, and follow one key of `control`.

There are two kinds, `unship.embedded_link` and `unship.kafka_link`. Both stay connected through outages: each call
connects anew where it must, and raises where the log is away, so that the caller tries again in its own time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from unship.errors import ConfigurationError
from unship.kafka_access import SCHEME

EMBEDDED: Final = "embedded:"

STATE_FOLDER: Final = Path("unship-state")
"""Where replicas on Kafka keep their highest epoch unless told otherwise: a folder of the current one."""

Headers = tuple[tuple[str, bytes], ...]


def wall_ms() -> int:
    """Return the machine's clock, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000  # noqa: TID251


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
    """Say how many messages a log will never take, and why: a reason to count them by, and words."""

    reason: str
    detail: str
    messages: int


Batches: TypeAlias = dict[str, list[Message]]
"""Messages by topic."""

Overdue: TypeAlias = Callable[[], bool]
"""Tells that the caller cannot wait any longer; asked at least every tenth of a second."""


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

    def close(self) -> None:
        """Close what is open, in bounded time; what was not appended by then is not."""


def checked_log(log: str | None) -> str:
    """Return the address of a log if it is one, before any thread needs it.

    Raises:
        ConfigurationError: None was given; it is none; what the environment says about the broker is wrong.
    """
    if log is None:
        raise ConfigurationError("log: none was given; pass log='embedded:DIR' or kafka://HOST:PORT, or set UNSHIP_LOG")
    if log.startswith(SCHEME):
        from unship.kafka_settings import client_options, topic_names

        client_options(log)
        topic_names()
    elif not log.startswith(EMBEDDED) or len(log) == len(EMBEDDED):
        raise ConfigurationError(f"log: expected embedded:DIR or kafka://HOST:PORT, was '{log}'; name one of them")
    return log


def connector(log: str, now_ms: Callable[[], int] | None = None) -> Callable[[], Link]:
    """Return what links a thread with the log of a checked address.

    `now_ms` is the clock of append times in an embedded log, the machine's if None; on Kafka the broker has its own.

    The modules of that kind of log are imported here, by the caller: an import that runs on another thread while this
    process forks would never end in the child.
    """
    if log.startswith(SCHEME):
        from unship.kafka_link import KafkaLink

        return partial(KafkaLink, log)
    from unship.embedded_link import EmbeddedLink

    return partial(EmbeddedLink, _folder(log), now_ms=now_ms)


def state_folder(log: str) -> Path:
    """Return where replicas keep their highest epoch by default: beside an embedded log, else `STATE_FOLDER`."""
    return STATE_FOLDER if log.startswith(SCHEME) else _folder(log) / "replicas"


def _folder(log: str) -> Path:
    return Path(log[len(EMBEDDED) :])
