"""FIXME."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from streams.embedded.topics import EmbeddedTopics, open_log
from streams.recordings.lines import line_of
from streams.recordings.opening import LineStream
from streams.recordings.replay import open_recording
from streams.recordings.writing import taken_of
from unship.log.address import EMBEDDED


@contextmanager
def open_source(source: str) -> Iterator[BinaryIO]:
    """Open what can be replayed: a recording, `-` for standard input, or `embedded:DIR`, read as its own recording.

    Raises:
        RecordingError: if it cannot be opened.
    """
    if not source.startswith(EMBEDDED):
        with open_recording(source) as stream:
            yield stream
        return
    with open_log(source) as log:
        yield cast(BinaryIO, LineStream(line_of(taken) + b"\n" for taken in taken_of(EmbeddedTopics(log))))
