"""The same traffic in plain and in packed records, as fleets send it that let events gather."""

from __future__ import annotations

import json
from itertools import groupby

from streams.config.units import DAY_MS
from streams.recordings.lines import Taken, line_of
from unship.codec import decode_line
from unship.events import Deployment, Feedback, Prediction
from unship.log.packed import pack_values
from unship.topics import TOPIC_OF, key_of

GATHERED_LINES = 40


def gathered(lines: list[bytes]) -> list[tuple[str, list[bytes]]]:
    """Return the events of a recording as fleets append them that let some gather: (topic, values)."""
    appended: list[tuple[str, list[bytes]]] = []
    for begin in range(0, len(lines), GATHERED_LINES):
        some = sorted(lines[begin : begin + GATHERED_LINES], key=_topic_of)
        appended += [(topic, list(values)) for topic, values in groupby(some, _topic_of)]
    return appended


def appended_at(values: list[bytes], now: int) -> int:
    """Return the append time (ms) of events after `now`: the latest of their own times that is not far ahead."""
    times = [_event_of(value).ts or 0 for value in values]
    return max([now, *(ts for ts in times if not now or ts <= now + DAY_MS)])


def placed_lines(lines: list[bytes], *, pack: bool) -> list[bytes]:
    """Return the lines of a recording of a log to which these events were appended; with `pack` in packed records."""
    ends: dict[str, int] = {}
    found: list[bytes] = []
    now = 0
    for topic, values in gathered(lines):
        now = appended_at(values, now)
        records = list(pack_values(values)) if pack and topic != "deployments" else [(value, 1) for value in values]
        for value, count in records:
            offset = ends[topic] = ends.get(topic, -1) + 1
            found.append(line_of(Taken(topic, 0, offset, now, key_of(_event_of(values[0])), value)))
            del values[:count]
    return found


def _topic_of(line: bytes) -> str:
    return TOPIC_OF[json.loads(line)["type"]]


def _event_of(value: bytes) -> Prediction | Feedback | Deployment:
    event = decode_line(value)
    assert isinstance(event, Prediction | Feedback | Deployment)
    return event
