"""The journal of an embedded log: its signatures, and its checkpoints (`actions.checkpoints`)."""

from __future__ import annotations

from actions.checkpoints import CHECKPOINT_KEY, CHECKPOINT_MS, checkpoint_bytes
from actions.journal import Decision, decision_bytes
from actions.reconcile import Signer
from streams.fold.fold import Fold
from streams.recordings.lines import KIND_OF
from unship.log.embedded.log import EmbeddedLog, Message


def record_of(decision: Decision, signer: Signer | None) -> Message:
    """Return the record of a decision."""
    value = decision_bytes(decision)
    headers = () if signer is None else tuple(signer.sign_decision(value))
    return Message(value, decision.model.encode(), headers)


class Checkpoints:
    """Makes the checkpoints of a ledger that grows; without a signer none, because anybody could write such a one."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self._offset = -1
        self._at: int | None = None

    def of(self, fold: Fold, signer: Signer | None, now: int) -> list[Message]:
        """Return the record of a checkpoint of everything that is in the log at the time `now` (ms), if any is new."""
        if signer is None or not signer.may_command or fold.offset == self._offset:
            return []
        ends = {f"{topic}/0": end for topic, end in self._log.ends().items() if topic in KIND_OF}
        value = checkpoint_bytes(fold.checkpoint(signer.audience, 0, now, ends))
        headers = tuple(signer.sign_decision(value))
        self._offset, self._at = fold.offset, now
        return [Message(value, CHECKPOINT_KEY, headers)] if headers else []

    def is_due(self, now: int) -> bool:
        """Return whether the last one, or the beginning of the ledger, is half as old as it may become."""
        if self._at is None:
            first = self._log.first("ledger")
            self._at = self._log.read("ledger", first, limit=1)[0].append_ts
        return now - self._at >= CHECKPOINT_MS // 2
