"""Link one thread of a fleet with a log on Kafka.

Writing and reading are apart, each with a connection and an event loop of its own: a topic that cannot be written is
no reason to stop obeying, and one that cannot be read no reason to stop sending.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from unship.log.kafka.control_reader import KafkaReader
from unship.log.kafka.writer import KafkaWriter
from unship.log.link import Batches, Overdue, Record, Refusal


class KafkaLink:
    """Link one thread with the topics of a broker: a `unship.log.link.Link`."""

    def __init__(self, log: str, *, pack: bool = False) -> None:
        """Name the broker, without calling it; the environment holds the credentials and the topics' prefix."""
        self._log = log
        self._writer = KafkaWriter(log, pack=pack)
        self._reader: KafkaReader | None = None

    def append(self, batches: Batches, overdue: Overdue) -> list[Refusal]:
        """Append messages; return when all replicas in sync acknowledged every one, or some were refused for good."""
        return self._writer.append(batches, overdue)

    def begin(self, key: bytes, overdue: Overdue) -> Record | None:
        """Read the key's partition of `control` from its beginning, and return the newest record of the key."""
        self._end_reading()
        self._reader = KafkaReader(self._log, key)
        return self._reader.newest(overdue)

    def history(self, end: int, overdue: Overdue) -> Iterator[Record]:
        """Yield the records of the key below an offset, oldest first."""
        assert self._reader is not None, "begin comes first"
        return self._reader.history(end, overdue)

    def next(self, wait_s: float, wake: threading.Event) -> list[Record]:
        """Return the next records of the key, none when time is up."""
        assert self._reader is not None, "begin comes first"
        return self._reader.next(wait_s, wake)

    def newest_ack(self, key: bytes) -> Record | None:
        """Return None: on a broker, replicas have the right to write acks and not to read them."""
        return None

    def close(self) -> None:
        """Close both connections."""
        self._end_reading()
        self._writer.end()

    def _end_reading(self) -> None:
        if self._reader is not None:
            self._reader.end()
            self._reader = None
