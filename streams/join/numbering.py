"""Places of records: those in their log, or for the lines of a recording their numbers in the file."""

from __future__ import annotations

from typing import Final

import msgspec

from streams.join.clock import SourceClock
from unship.events import Ack, At, Deployment, Event, Feedback, OperatorAct, Prediction
from unship.rejections import Rejection
from unship.topics import SOURCES

TOPIC_OF: Final = {
    Prediction: SOURCES[0],
    Feedback: SOURCES[1],
    Deployment: "deployments",
    OperatorAct: "operator",
    Ack: "acks",
    # The kind of a rejected line is unknown; it is counted as one of these.
    Rejection: SOURCES[0],
}


class Numbering(msgspec.Struct):
    """The clock of a recording or of an embedded log, and the number of the next line.

    A prediction or a label of a recording gets the number of its line as its offset, in both logs alike, even where
    the line has a place: its places may be of several partitions, and a recording is read as one. For each record
    `read_time` is called first.
    """

    clock: SourceClock = msgspec.field(default_factory=SourceClock)
    line: int = 0

    def read_time(self, event: Event | Rejection, place: At | None) -> int:
        """Read the time of the next record; return the source clock in milliseconds."""
        clock = self.clock
        ts = None if isinstance(event, Rejection) else event.ts
        where = place or (None if isinstance(event, Rejection) else event.at)
        if where is not None:
            clock.read_appended(where[0], where[1], where[3], ts)
        elif isinstance(event, Rejection):
            clock.stay()
        else:
            clock.read(ts)
        return clock.now

    def take(self, count: int) -> int:
        """Return the number of the next of so many records, whose times were read."""
        first, self.line = self.line, self.line + count
        return first

    def number(self, event: Event | Rejection, place: At | None = None) -> At:
        """Return the place of the record whose time was read: (topic, partition, offset, append time)."""
        line, self.line = self.line, self.line + 1
        if place is not None:
            return place
        topic = TOPIC_OF[type(event)]
        if isinstance(event, Rejection):
            # It has no time, so it does not advance the clock of the log that it is counted in.
            return (topic, 0, line, 0)
        at = event.at
        if at is None:
            return (topic, 0, line, self.clock.at)
        return (topic, 0, line, at[3]) if topic in SOURCES else (topic, *at[1:])
