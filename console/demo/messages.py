"""What the demo's processes say to each other: one line of JSON each, down standard input and up standard output.

Every message down carries the time. Nobody but the course of the demo decides how late it is, so a machine that is slow
for a while makes the demo longer and changes nothing that is decided. When the pipe ends, whoever wrote to it is gone,
and the process ends too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TypeVar

import msgspec
from msgspec import Struct


class Begin(Struct, frozen=True):
    """Say what a process needs to begin: the time (ms since the epoch), the log, and to replicas who they are."""

    now: int
    log: str
    trust: str = ""
    replica: str = ""


class Round(Struct, frozen=True):
    """Hand requests to a replica: numbers of rows, times (ms), features as they arrive (16 each), the router's choice.

    `held` are the requests that the router gives to the holdback.
    """

    now: int
    row: list[int]
    ts: list[int]
    features: list[list[int]]
    held: list[bool]


class Answers(Struct, frozen=True):
    """Say what was answered, one entry per request, and what the replica serves now.

    `dropped` and `detail` tell of events that did not reach the log; both are empty as long as all is well.
    """

    version: str
    epoch: tuple[int, int, int] | None
    by: list[str]
    score: list[float]
    output: list[int]
    dropped: dict[str, int]
    detail: str


class Truths(Struct, frozen=True):
    """Hand over what became known until `now`: one entry per truth."""

    now: int
    id: list[str]
    truth: list[int]
    source: list[str]
    ts: list[int]


class Told(Struct, frozen=True):
    """Say that the truths are in the log; the fields are those of `Answers`."""

    dropped: dict[str, int]
    detail: str


class Time(Struct, frozen=True):
    """Say what time it is: everything up to then is in the log."""

    now: int


T = TypeVar("T")


class ToldClock:
    """Show the time that this process was told last, in milliseconds since the epoch.

    Example:
        >>> clock = ToldClock(1_000)
        >>> clock.now = 2_000
        >>> clock()
        2000
    """

    def __init__(self, now: int) -> None:
        """Begin at a time."""
        self.now = now

    def __call__(self) -> int:
        """Return the time."""
        return self.now


def read_begin() -> Begin:
    """Read the first message; ends the process if there is none."""
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit(0)
    return msgspec.json.decode(line, type=Begin)


def messages(kind: type[T]) -> Iterator[T]:
    """Yield messages until the pipe ends."""
    decoder = msgspec.json.Decoder(kind)
    for line in iter(sys.stdin.buffer.readline, b""):
        yield decoder.decode(line)


def say(message: Struct) -> None:
    """Write a message to standard output."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()
