"""Write a monitor's records into its log, under its fence, and keep the log small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streams.config.resolved import Config
from streams.embedded.retention import Retention
from streams.embedded.snapshots import Head, save
from unship.errors import RecordingError
from unship.log.embedded.log import EmbeddedLog, Fence, Message


class Writer:
    """The one writer of a log's ledger.

    What a round leads to is kept until the log has taken it: the fold has stepped already, so nothing may come before.
    """

    def __init__(self, log: EmbeddedLog, config: Config) -> None:
        self._log = log
        self._fence: Fence = log.acquire("ledger")
        self._retention = Retention(log, config)
        self._uncommitted: Mapping[str, Sequence[Message]] = {}
        self._begin = 0

    def commit(self, batches: Mapping[str, Sequence[Message]], begin: int) -> None:
        """Append what a round led to, in one transaction; `begin` is the offset of its first ledger record.

        Raises:
            RecordingError: The ledger does not end there.
            WriterFenced: A newer monitor took over.
            EmbeddedLogError: The log takes nothing now; `flush` tries again.
        """
        assert not self._uncommitted, "the last round is not in the log"
        self._uncommitted, self._begin = batches, begin
        self.flush()

    def flush(self) -> None:
        """Append what the log did not take at the last commit. Raises what `commit` does."""
        if not self._uncommitted:
            return
        if (end := self._log.end("ledger")) != self._begin:
            raise RecordingError(f"the ledger ends at {end}, expected {self._begin}")
        self._log.append_many(self._uncommitted, fence=self._fence)
        self._uncommitted = {}

    def append(self, topic: str, messages: Sequence[Message]) -> None:
        """Append to one topic."""
        self._log.append(topic, messages, fence=self._fence)

    def save(self, data: bytes, offset: int, clock: int, positions: dict[str, int]) -> None:
        """Append a snapshot at a ledger offset and a source clock, with the positions in the topics of events."""
        save(self._log, self._fence, data, Head(0, "", offset, clock, self._retention.keep_ms, positions))
        # A snapshot is the largest of what goes through the write-ahead file.
        self._log.shrink()

    def keep_small(self, now_ms: int, positions: Mapping[str, int]) -> None:
        """Remove and compress a bounded part of what nobody needs any more; see `Retention.round`."""
        self._retention.round(now_ms, positions)
