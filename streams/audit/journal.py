"""Read the journal of a ledger partition: its decisions in order, and the checkpoints among them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

from actions.checkpoints import CHECKPOINT_KEY, Checkpoint, read_checkpoint
from actions.journal import digest_of
from streams.audit.differences import Difference, Found
from streams.audit.result import AuditResult, decision_id_of
from streams.audit.signatures import Signed, signed_by_controller
from streams.recordings.lines import Taken, place_of
from unship.events import Epoch
from unship.signing import DECISION_TYPE, SIGNATURE_HEADER, Trust

AHEAD_BYTES: Final = 32 * 1_048_576
"""How much is read ahead to find the next checkpoint, before the fold comes to it."""


class _Decided(msgspec.Struct):
    """What identifies a decision in the journal."""

    model: str
    epoch: Epoch


class Journal:
    """Reads the records of `decisions` once. Those that no trusted controller signed are counted, and prove nothing."""

    def __init__(self, records: Iterator[Taken], number: int, trust: Trust | None, result: AuditResult) -> None:
        self.foreign = 0
        self.signed = False
        self._records = records
        self._number = number
        self._trust = trust
        self._result = result
        self._ahead: deque[Taken] = deque()
        self._ahead_bytes = 0
        self._checkpoints: deque[tuple[Taken, Checkpoint]] = deque()
        # The digest of the record of each epoch, and whether that record is foreign.
        self._known: dict[tuple[str, Epoch], tuple[str, bool]] = {}
        self._expected = 0

    def checkpoints_below(self, offset: int) -> Iterator[tuple[Taken, Checkpoint]]:
        """Yield the checkpoints of ledger offsets up to this one that were not yielded before."""
        while True:
            while not self._checkpoints and self._ahead_bytes < AHEAD_BYTES and self._read():
                pass
            if not self._checkpoints or self._checkpoints[0][1].ledger > offset:
                return
            yield self._checkpoints.popleft()

    def checkpoints_left(self) -> Iterator[tuple[Taken, Checkpoint]]:
        """Yield all that were not yielded before; the fold is at the end of the ledger."""
        while self._read():
            pass
        yield from self._checkpoints

    def decisions(self) -> Iterator[Taken]:
        """Yield the decisions without repeats; two different ones of one epoch are a difference."""
        while self._ahead or self._read():
            if not self._ahead:
                continue
            taken = self._ahead.popleft()
            self._ahead_bytes -= len(taken.value or b"")
            if self._is_new(taken):
                yield taken

    def is_foreign(self, taken: Taken) -> bool:
        """Return whether no trusted controller signed a record."""
        return self._trust is not None and signed_by_controller(taken, self._trust, DECISION_TYPE) == "foreign"

    def leave_out(self) -> None:
        """Count a record that is foreign, and no decision of the ledger."""
        self.foreign += 1

    def name_the_rest(self) -> None:
        """Note the ids of the decisions that were not reached."""
        while self._read():
            self._ahead.clear()

    def _is_new(self, taken: Taken) -> bool:
        try:
            decided = msgspec.json.decode(taken.value or b"", type=_Decided)
        except (ValueError, RecursionError):
            # No decision: the comparison finds the difference.
            return True
        name, digest = (decided.model, decided.epoch), digest_of(taken.value or b"")
        known = self._known.get(name)
        if known is not None and known[0] == digest:
            return False
        foreign = self.is_foreign(taken)
        if known is not None and not known[1] and not foreign:
            what = f"decision {place_of(taken)} ({decided.model}, EQUIVOCATION)"
            raise Found(Difference(what, f"the digest for epoch {list(decided.epoch)}", digest, known[0]))
        if known is None or known[1]:
            self._known[name] = digest, foreign
        return True

    def _read(self) -> bool:
        """Read one record; return whether there was one."""
        taken = next(self._records, None)
        if taken is None:
            return False
        if taken.offset > self._expected:
            self._result.note_absent(f"decisions[{self._number}]", self._expected, taken.offset)
        self._expected = taken.offset + 1
        name = decision_id_of(taken.value or b"")
        if name is not None:
            self._result.known.add(name)
        self.signed = self.signed or any(header == SIGNATURE_HEADER for header, _ in taken.headers)
        checkpoint = read_checkpoint(taken.value) if taken.key == CHECKPOINT_KEY else None
        if checkpoint is None:
            self._ahead.append(taken)
            self._ahead_bytes += len(taken.value or b"")
        elif (signed := self._signed(taken, checkpoint)) == "signed":
            self._checkpoints.append((taken, checkpoint))
        elif signed == "altered":
            self._result.note_missing(f"checkpoint {place_of(taken)}: it was changed after it was signed")
        else:
            self.foreign += 1
        return True

    def _signed(self, taken: Taken, checkpoint: Checkpoint) -> Signed:
        if checkpoint.partition != self._number:
            return "foreign"
        if self._trust is None:
            # It cannot be verified; one without any signature is of nobody.
            return "signed" if any(header == SIGNATURE_HEADER for header, _ in taken.headers) else "foreign"
        signed = signed_by_controller(taken, self._trust, DECISION_TYPE)
        return "foreign" if signed == "signed" and checkpoint.audience != self._trust.audience else signed
