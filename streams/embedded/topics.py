"""The topics of an embedded log, as audits and recordings read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from streams.recordings.lines import KIND_OF, Place, Taken
from unship.errors import RecordingError
from unship.log.address import EMBEDDED
from unship.log.embedded.file import FILE_NAME
from unship.log.embedded.log import EmbeddedLog
from unship.log.embedded.read_only import ReadOnlyLog
from unship.log.link import Record


class EmbeddedTopics:
    """The topics of an embedded log, one partition each, up to their ends at the time of construction."""

    def __init__(self, log: ReadOnlyLog | EmbeddedLog) -> None:
        self.log = log
        self._ends = {(topic, 0): end for topic, end in log.ends().items() if topic in KIND_OF}

    def partitions(self, topic: str) -> int:
        """Return 1."""
        return 1

    def first(self, topic: str, partition: int) -> int:
        """Return the smallest offset that is kept."""
        return self.log.first(topic)

    def ends(self) -> Mapping[Place, int]:
        """Return the ends at the time of construction."""
        return self._ends

    def read(self, topic: str, partition: int, offset: int) -> Sequence[Taken]:
        """Return some records from `offset` on."""
        return [taken_of(topic, entry) for entry in self.log.read(topic, offset)]


@contextmanager
def open_log(source: str) -> Iterator[ReadOnlyLog]:
    """Open the log that `embedded:DIR` names, for reading only; no file there is made or changed.

    Raises:
        RecordingError: There is none.
        EmbeddedLogError: It cannot be read, or another program changed it.
    """
    folder = Path(source.removeprefix(EMBEDDED))
    if not (folder / FILE_NAME).is_file():
        raise RecordingError(f"{source}: there is no log in {folder}; name the folder that `unship run` writes to")
    with ReadOnlyLog(folder) as log:
        yield log


def taken_of(topic: str, record: Record) -> Taken:
    """Return a record of an embedded log, which has one partition of each topic."""
    return Taken(topic, 0, record.offset, record.append_ts, record.key, record.value, record.headers)
