"""Exchange messages between the demo's processes: one line of JSON each, down standard input and up standard output.

Every message down carries the time. Only the course of the demo advances it, so a slow machine makes the demo longer
and changes no decision. When the pipe ends, the process that wrote to it is gone, and this process ends too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TypeVar

import msgspec
from msgspec import Struct


class Begin(Struct, frozen=True):
    """Start a process: the time (ms since the epoch), the log, and for replicas the trust file and the name."""

    now: int
    log: str
    trust: str = ""
    replica: str = ""


class Round(Struct, frozen=True):
    """Send requests to a replica: row numbers, times (ms), and features as they arrive (16 each)."""

    now: int
    row: list[int]
    ts: list[int]
    features: list[list[int]]


class Answers(Struct, frozen=True):
    """Return what was answered, one entry per request, and what the replica serves now; `held` marks the holdback's.

    `dropped` and `detail` report events that did not reach the log; both are empty if there are none.
    """

    version: str
    epoch: tuple[int, int, int] | None
    by: list[str]
    held: list[bool]
    score: list[float]
    output: list[int]
    dropped: dict[str, int]
    detail: str


class Truths(Struct, frozen=True):
    """Send the truths that became known until `now`."""

    now: int
    id: list[str]
    truth: list[int]
    source: list[str]
    ts: list[int]


class Reported(Struct, frozen=True):
    """Confirm that the truths are in the log; the fields are those of `Answers`."""

    dropped: dict[str, int]
    detail: str


class Time(Struct, frozen=True):
    """Set the time: everything up to it is in the log."""

    now: int


T = TypeVar("T")


class DemoClock:
    """Return the time that was set last, in milliseconds since the epoch.

    Example:
        >>> clock = DemoClock(1_000)
        >>> clock.set(2_000)
        >>> clock()
        2000
    """

    def __init__(self, now: int) -> None:
        """Start at a time."""
        self._now = now

    def set(self, now: int) -> None:
        """Set the time."""
        self._now = now

    def __call__(self) -> int:
        """Return the time."""
        return self._now


def read_begin() -> Begin:
    """Return the first message; end the process if there is none."""
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit(0)
    return msgspec.json.decode(line, type=Begin)


def messages(kind: type[T]) -> Iterator[T]:
    """Yield messages until the pipe ends."""
    decoder = msgspec.json.Decoder(kind)
    for line in iter(sys.stdin.buffer.readline, b""):
        yield decoder.decode(line)


def send(message: Struct) -> None:
    """Write a message to standard output."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()
