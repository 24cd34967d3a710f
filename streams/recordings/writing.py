"""Write a recording of topics."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

import msgspec

from streams.config.units import NEVER
from streams.recordings.lines import KIND_OF, Place, Taken, Topics, line_of, order_of


class Span(msgspec.Struct, frozen=True):
    """Append times that are recorded, in milliseconds, both ends included.

    The ledger and the decisions are recorded from their first record on, for any `since`: they cannot be read without
    what came before.
    """

    since: int = 0
    until: int = NEVER

    def takes(self, taken: Taken) -> bool:
        """Return whether a record is in the recording."""
        whole = taken.topic in ("ledger", "decisions")
        return (whole or taken.append_ts >= self.since) and taken.append_ts <= self.until


EVERYTHING: Final = Span()


class Written(msgspec.Struct):
    """The number of lines in a recording, by topic, and sentences on what cannot be done with it."""

    lines: dict[str, int]
    bytes: int = 0
    limits: list[str] = []


def record_topics(
    topics: Topics,
    stream: BinaryIO,
    span: Span = EVERYTHING,
    progress: Callable[[int], None] | None = None,
) -> Written:
    """Write a recording of topics up to their present ends; return what it holds.

    Args:
        topics: The topics; one page of each partition is in memory at once.
        stream: The recording.
        span: The append times that are recorded.
        progress: Called with the number of records written since the last call.
    """
    written = Written(dict.fromkeys(KIND_OF, 0))
    unreported = 0
    for taken in taken_of(topics, span):
        line = line_of(taken)
        stream.write(line + b"\n")
        written.lines[taken.topic] += 1
        written.bytes += len(line) + 1
        unreported += 1
        if progress is not None and unreported == 1_000:
            progress(unreported)
            unreported = 0
    if progress is not None:
        progress(unreported)
    written.limits = limits_of(topics, span)
    return written


def taken_of(topics: Topics, span: Span = EVERYTHING) -> Iterator[Taken]:
    """Yield the records of a recording in its order: by append time, but each ledger's configuration before all others.

    A reader that finds the configuration first does not join the events that follow.
    """
    ends = topics.ends()
    heads: list[Taken] = []
    begins: dict[Place, int] = {}
    for topic, partition in ends:
        first = begins[topic, partition] = topics.first(topic, partition)
        if topic == "ledger" and first < ends[topic, partition]:
            heads += topics.read(topic, partition, first)[:1]
            begins[topic, partition] = first + 1
    yield from (head for head in heads if span.takes(head))
    yield from heapq.merge(*(_records(topics, place, begins[place], ends[place], span) for place in ends), key=order_of)


def _records(topics: Topics, place: Place, begin: int, end: int, span: Span) -> Iterator[Taken]:
    while begin < end and (page := topics.read(*place, begin)):
        for taken in page:
            if taken.offset >= end or taken.append_ts > span.until:
                return
            if span.takes(taken):
                yield taken
        begin = page[-1].offset + 1


def limits_of(topics: Topics, span: Span = EVERYTHING) -> list[str]:
    """Return sentences on what cannot be done with a recording of these topics."""
    limits = []
    for topic, partition in topics.ends():
        first = topics.first(topic, partition)
        if topic == "ledger" and first > 0:
            limits.append(
                f"ledger[{partition}] begins at offset {first}, its configuration is gone: nothing can be audited"
            )
        elif topic == "decisions" and first > 0:
            limits.append(f"decisions[{partition}] begins at offset {first}: what was decided before is not there")
        elif topic in ("predictions", "feedback") and (first > 0 or span.since > 0):
            why = f"begins at offset {first}" if first > 0 else "was not recorded from its first record on"
            limits.append(f"{topic}[{partition}] {why}: the ledger cannot be compared with it")
    return limits
