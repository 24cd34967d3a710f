"""Read the decisions of a log, a recording or a file of decisions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from actions.journal import Decision, decode_decision
from actions.reasons import Action
from console.logs import configured_log, is_log, open_topics, settings_for_reading
from console.settings import Settings
from streams.config.resolved import Config
from streams.recordings.file_formats import open_recording
from streams.recordings.lines import records_of
from streams.recordings.replay import lines_in
from unship.errors import RecordingError


class Head(msgspec.Struct):
    """What is read of a line to know whether it is a decision, and which one; the rest may be damaged."""

    type: str
    id: str
    ts: Any = None
    model: Any = None
    action: Any = None


class Found(NamedTuple):
    """A decision in its source: what it is about, and its line."""

    head: Head
    line: bytes


@contextmanager
def journal_of(settings: Settings, source: str | None) -> Iterator[tuple[str, Iterator[Found]]]:
    """Open what holds decisions, the configured log if `source` is None; yield its name and its decisions in order.

    Raises:
        ConfigurationError: No log is configured.
        RecordingError: The source cannot be read.
    """
    settings, config = settings_for_reading(settings, source)
    if source is None:
        source = configured_log(settings, config)
    with _lines_of(settings, config, source) as lines:
        yield source, decisions_among(lines)


@contextmanager
def _lines_of(settings: Settings, config: Config, source: str) -> Iterator[Iterable[bytes]]:
    """Open a source: of a log only its journal is read."""
    if is_log(source):
        with open_topics(settings, config, source) as topics:
            numbers = range(topics.partitions("decisions"))
            records = chain.from_iterable(records_of(topics, "decisions", number) for number in numbers)
            yield (taken.value or b"" for taken in sorted(records, key=lambda taken: taken.append_ts))
    else:
        with open_recording(source, config.recording_bytes) as stream:
            yield lines_in(stream)


def decisions_among(lines: Iterable[bytes]) -> Iterator[Found]:
    """Yield the decisions among lines or values, passing over everything else."""
    for line in lines:
        if b'"decision"' not in line:
            continue
        try:
            head = msgspec.json.decode(line, type=Head)
        except (ValueError, RecursionError):
            continue
        if head.type == "decision":
            yield Found(head, line)


def newest_act(found: Iterable[Found]) -> Found | None:
    """Return the newest decision that did or asked for something; if there is none, the newest of all."""
    newest = act = None
    for newest in found:
        if newest.head.action != Action.NONE:
            act = newest
    return act or newest


def read_whole(found: Found, source: str) -> Decision:
    """Return a decision with its evidence.

    Raises:
        RecordingError: It is damaged, or of another version.
    """
    try:
        return decode_decision(found.line)
    except ValueError as error:
        raise RecordingError(f"{source}: the decision is damaged, or written by another version: {error}") from error
