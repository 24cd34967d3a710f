"""Write a monitor's records into its log, under its fence, and keep the log small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from actions.reconcile import Signer
from streams.config.resolved import Config
from streams.embedded.journal import Checkpoints
from streams.embedded.retention import Retention
from streams.embedded.snapshots import Head, save
from streams.fold.fold import Fold
from streams.fold.status import Status
from streams.fold.status_records import StatusReport
from unship.errors import RecordingError
from unship.log.embedded.log import EmbeddedLimits, EmbeddedLog, Fence, Message
from unship.log.embedded.table import message_bytes

STATUS_RECORDS: Final = 64
"""Status records of one transaction: of 64 KiB each at most, they are 4 MiB."""


class Piece(NamedTuple):
    """A ledger record, and the records of the journal and of alerts that follow from it."""

    ledger: Message
    decisions: list[Message]
    alerts: list[Message]


class Writer:
    """The one writer of a log's ledger.

    What a round leads to is kept until the log has taken it: the fold has stepped already, so nothing may come before.
    """

    def __init__(self, log: EmbeddedLog, config: Config) -> None:
        self._log = log
        self._fence: Fence = log.acquire("ledger")
        self._retention = Retention(log, config)
        self._uncommitted: list[tuple[int, Mapping[str, Sequence[Message]]]] = []
        self._statuses = StatusReport(0)
        self._checkpoints = Checkpoints(log)

    def commit(self, pieces: Iterable[Piece], dead: Sequence[Message], begin: int) -> None:
        """Append what a round led to; `begin` is the offset of its first ledger record.

        It is one transaction, unless that would pass the log's limits: packed records hold many events. Of several, a
        crash may leave the first ones: what is read again then is covered by them.

        Args:
            pieces: Each ledger record, with the decisions and alerts that follow from it.
            dead: The dead letters.
            begin: The offset of the first of these ledger records.

        Raises:
            RecordingError: The ledger does not end there.
            WriterFenced: A newer monitor took over.
            EmbeddedLogError: The log takes nothing now; `flush` tries again.
        """
        for batches in _transactions(pieces, dead, self._log.limits):
            self._uncommitted.append((begin, batches))
            begin += len(batches["ledger"])
        self.flush()

    def flush(self) -> None:
        """Append what the log did not take at earlier commits. Raises what `commit` does."""
        while self._uncommitted:
            begin, batches = self._uncommitted[0]
            if (end := self._log.end("ledger")) != begin:
                raise RecordingError(f"the ledger ends at {end}, expected {begin}")
            self._log.append_many(batches, fence=self._fence)
            del self._uncommitted[0]

    def set_back(self, topic: str, begin: int, now_ms: int) -> tuple[int, int, int]:
        """Give the records of a topic that are far ahead of a clock its time; see `EmbeddedLog.set_back`."""
        return self._log.set_back(topic, begin, now_ms, fence=self._fence)

    def append(self, topic: str, messages: Sequence[Message]) -> None:
        """Append to one topic."""
        self._log.append(topic, messages, fence=self._fence)

    def checkpoint(self, fold: Fold, signer: Signer | None, now: int, *, if_due: bool = False) -> None:
        """Append a checkpoint of the ledger at the time `now` (ms), if it has grown; with `if_due` not too often."""
        if signer is not None and not self._uncommitted and (not if_due or self._checkpoints.is_due(now)):
            records = self._checkpoints.of(fold, signer, now)
            if records:
                self.append("decisions", records)

    def is_status_due(self, now_ms: int) -> bool:
        """Return whether the status was appended last a while ago."""
        return self._statuses.is_due(now_ms)

    def report(self, fold: Fold, head: Status, now_ms: int) -> None:
        """Append the status records that have changed; they are no part of what a round commits.

        Args:
            fold: What the status is of.
            head: The clock and the counts.
            now_ms: The wall clock.
        """
        found = self._statuses.records(fold, head, now_ms)
        messages = [Message(record.value, record.key) for record in found if record is not None]
        for begin in range(0, len(messages), STATUS_RECORDS):
            self.append("snapshots", messages[begin : begin + STATUS_RECORDS])

    def save(self, data: bytes, offset: int, clock: int, positions: dict[str, int]) -> None:
        """Append a snapshot at a ledger offset and a source clock, with the positions in the topics of events."""
        save(self._log, self._fence, data, Head(0, "", offset, clock, self._retention.keep_ms, positions))
        # A snapshot is the largest of what goes through the write-ahead file.
        self._log.shrink()

    def keep_small(self, now_ms: int, positions: Mapping[str, int]) -> None:
        """Remove and compress a bounded part of what nobody needs any more; see `Retention.round`."""
        self._retention.round(now_ms, positions)


def _transactions(
    pieces: Iterable[Piece], dead: Sequence[Message], limits: EmbeddedLimits
) -> Iterator[dict[str, list[Message]]]:
    """Yield what is appended together: one, or as many as the limits of a log need; dead letters come first."""
    found, count, size = _nothing(), 0, 0
    items = [{"rejected": [letter]} for letter in dead]
    items += [{"ledger": [each.ledger], "decisions": each.decisions, "alerts": each.alerts} for each in pieces]
    for item in items:
        more = sum(map(len, item.values()))
        added = sum(message_bytes(record) for records in item.values() for record in records)
        if count and (count + more > limits.batch_records or size + added > limits.batch_bytes):
            yield found
            found, count, size = _nothing(), 0, 0
        for topic, records in item.items():
            found[topic] += records
        count, size = count + more, size + added
    yield found


def _nothing() -> dict[str, list[Message]]:
    return {"ledger": [], "decisions": [], "alerts": [], "rejected": []}
