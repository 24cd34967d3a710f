"""Whether anything was taken out of a ledger partition: by its checkpoints, and by what its own records state."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from actions.checkpoints import Checkpoint
from actions.facts import FleetFact
from streams.audit import completeness
from streams.audit.commands import Commands
from streams.audit.differences import Found, difference
from streams.audit.extent import Extent
from streams.audit.journal import Journal
from streams.audit.result import AuditResult
from streams.fold.fold import Fold
from streams.ledger.coverage import Coverage
from streams.ledger.records import Configured, Record, Tick, Trusted
from streams.recordings.lines import Taken, place_of
from unship.topics import EVENT_TOPICS


class Proof:
    """Follows the fold of one ledger partition; `embedded` is true once a record shows that its log is embedded.

    `is_cut` is true once a record was not the next one.
    """

    def __init__(self, number: int, journal: Journal, result: AuditResult) -> None:
        self.embedded = self.is_cut = False
        self._number = number
        self._journal = journal
        self._result = result
        self._numbered = False
        self._positions: dict[str, int] = {}
        self._ends_round = True
        self._first_ts = -1
        self._last: Taken | None = None
        self._newest: tuple[Taken, Checkpoint] | None = None

    def follows(self, taken: Taken) -> bool:
        """Return whether a ledger record is the next one; if not, note which are absent."""
        expected = 0 if self._last is None else self._last.offset + 1
        if taken.offset == expected:
            self._last = msgspec.structs.replace(taken, value=None)
            # Nothing can be taken out before the second record, however long ago the configuration was written.
            self._first_ts = taken.append_ts if taken.offset < 2 else self._first_ts
            return True
        self.is_cut = True
        self._result.note_absent(f"ledger[{self._number}]", expected, taken.offset)
        return False

    def folded(self, record: Record, fold: Fold) -> None:
        """Compare the checkpoints of this offset, and what a record states with what was folded.

        Raises:
            Found: A checkpoint states something else than the ledger gives.
        """
        if isinstance(record, Configured):
            self._numbered = self._numbered or record.numbered
            self._ends_round = True
        elif isinstance(record, Tick) and record.positions:
            self.embedded, self._ends_round, self._positions = True, True, record.positions
            if not self._result.missing:
                for sentence in completeness.beyond(fold.coverage.get(0, Coverage()), record.positions):
                    self._result.note_missing(sentence)
        elif not isinstance(record, FleetFact | Trusted):
            self._ends_round = False
        for taken, checkpoint in self._journal.checkpoints_below(fold.offset):
            if checkpoint.ledger == fold.offset:
                self._compare(taken, checkpoint, fold)
            self._newest = taken, checkpoint

    def _compare(self, taken: Taken, checkpoint: Checkpoint, fold: Fold) -> None:
        computed = fold.checkpoint(checkpoint.audience, self._number, checkpoint.ts, checkpoint.ends)
        if computed != checkpoint:
            theirs, ours = (msgspec.to_builtins(each) for each in (checkpoint, computed))
            raise Found(difference(f"checkpoint {place_of(taken)}, of ledger record {fold.offset - 1}", theirs, ours))

    def cut(self, extent: Extent) -> None:
        """Note the partitions that end before a checkpoint or a record of the ledger states that they do."""
        for taken, checkpoint in self._journal.checkpoints_left():
            self._newest = taken, checkpoint
        stated = [({f"{topic}/0": end for topic, end in self._positions.items()}, "the ledger")]
        if self._newest is not None:
            taken, checkpoint = self._newest
            by = f"the checkpoint {place_of(taken)}"
            stated.insert(0, (checkpoint.ends | {f"ledger/{self._number}": checkpoint.ledger}, by))
        for ends, by in stated:
            for sentence in completeness.cut(extent, ends, by):
                self._result.note_missing(sentence)

    def end(self, fold: Fold, commands: Commands, extent: Extent, keys: bool) -> None:
        """Note what is absent at the end of a ledger that was folded whole."""
        if not self._numbered:
            for sentence in self._absent(fold, commands, extent, keys):
                self._result.note_missing(sentence)
            self._result.proof.append(self._proven())

    def _absent(self, fold: Fold, commands: Commands, extent: Extent, keys: bool) -> Iterator[str]:
        keys = keys or self._newest is not None or self._journal.signed or bool(commands.count)
        yield from completeness.gaps(fold, self._number)
        yield from completeness.unproven(self._number, self._newest, self._first_ts, self._last, keys=keys)
        if self.embedded and not (self._ends_round and not fold.fleet.owed):
            yield f"ledger[{self._number}]: its end is inside a round of the monitor: the records after it are absent"
        if extent.bare:
            return
        newest = max(extent.newest_ts(of=tuple(EVENT_TOPICS)), commands.newest_ts)
        newest = newest if self._last is None else max(newest, self._last.append_ts)
        behind = completeness.BEHIND_MS if self.embedded else completeness.BEHIND_KAFKA_MS
        yield from completeness.unread(extent, fold, self._number, newest - behind, contiguous=self.embedded)
        if self._is_commanding(commands):
            yield from commands.absent(newest - behind)

    def _is_commanding(self, commands: Commands) -> bool:
        """Return whether the monitor has appended commands, by what the log itself states."""
        if commands.count or self.embedded:
            return bool(commands.count) or self._positions.get("control", 0) > 0
        if self._newest is not None:
            return f"control/{self._number}" in self._newest[1].ends
        return self._journal.signed

    def _proven(self) -> str:
        end = 0 if self._last is None else self._last.offset + 1
        name = f"ledger[{self._number}]"
        if self._newest is None:
            return f"{name}: unsigned, no checkpoint; whether records were removed from its end is not proven"
        taken, checkpoint = self._newest
        left = end - checkpoint.ledger
        after = f"of the {left} after it that is not proven" if left > 0 else "it has no record after that"
        return (
            f"{name}: none of its first {checkpoint.ledger} records was removed, by the checkpoint {place_of(taken)}; "
            f"{after}"
        )
