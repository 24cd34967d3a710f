"""The journal of an embedded log: who may append to it, its signatures, and its checkpoints (`actions.checkpoints`)."""

from __future__ import annotations

from actions.checkpoints import CHECKPOINT_KEY, CHECKPOINT_MS, checkpoint_bytes
from actions.journal import Decision, decision_bytes
from actions.reconcile import Signer
from streams.fold.fold import Fold
from streams.recordings.lines import KIND_OF
from unship.log.embedded.log import EmbeddedLog, Message


class Journal:
    """Makes the records of decisions, and appends checkpoints of a ledger that has grown.

    Without a signer there are no checkpoints, because anybody could write such a one. `fence` is that of the monitor.
    """

    def __init__(self, log: EmbeddedLog, signer: Signer | None) -> None:
        self.fence = log.acquire("ledger")
        self._log = log
        self._signer = signer
        self._offset = -1
        self._at: int | None = None

    def record_of(self, decision: Decision) -> Message:
        """Return the record of a decision."""
        value = decision_bytes(decision)
        headers = () if self._signer is None else tuple(self._signer.sign_decision(value))
        return Message(value, decision.model.encode(), headers)

    def append_checkpoint(self, fold: Fold, now: int) -> None:
        """Append a checkpoint of everything that is in the log, at the time `now` (ms)."""
        signer = self._signer
        if signer is None or fold.offset == self._offset:
            return
        ends = {f"{topic}/0": end for topic, end in self._log.ends().items() if topic in KIND_OF}
        value = checkpoint_bytes(fold.checkpoint(signer.audience, 0, now, ends))
        headers = tuple(signer.sign_decision(value))
        if headers:
            self._log.append("decisions", [Message(value, CHECKPOINT_KEY, headers)], fence=self.fence)
        self._offset, self._at = fold.offset, now

    def append_checkpoint_if_due(self, fold: Fold, now: int) -> None:
        """Append a checkpoint if the last one, or the beginning of the ledger, is half as old as it may become."""
        if self._at is None and self._signer is not None:
            first = self._log.first("ledger")
            self._at = self._log.read("ledger", first, limit=1)[0].append_ts
        if self._at is not None and now - self._at >= CHECKPOINT_MS // 2:
            self.append_checkpoint(fold, now)
