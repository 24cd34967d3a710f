"""The audit of a live log, or of a recording of one: sources against the ledger as sets, the ledger against the rest.

Where a live monitor cut its batches depends on when it read its sources, so the ledger itself cannot be computed again.
Everything else can: the rows that it must hold (`streams.audit.rejoin`), every decision, byte for byte, and the content
of each command. Topics are read by pages; in memory are one fold, one window of the join, and the desired states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from actions.journal import Decision, decision_bytes, digest_of
from streams.audit import completeness
from streams.audit.commands import Commands
from streams.audit.copies import Copies
from streams.audit.decisions_audit import no_collector
from streams.audit.differences import Difference, Found, decision_difference, named, short
from streams.audit.extent import Extent
from streams.audit.journal import Journal
from streams.audit.proof import Proof
from streams.audit.rejoin import Rejoin
from streams.audit.result import AuditResult
from streams.config.resolved import Config
from streams.fold.fold import Fold, LedgerMismatch
from streams.ledger.coverage import Coverage
from streams.ledger.entries import EarlierLedger, Entry, entry_of, read_entry
from streams.ledger.records import Batch, Begun, Configured, Deployed, Operated, Record, ReplicaFacts, Tick
from streams.recordings.lines import Taken, Topics, place_of, records_of
from unship.errors import RecordingError
from unship.signing import Trust
from unship.topics import SOURCES

BLOCK_RECORDS: Final = 1_024
BLOCK_BYTES: Final = 4_194_304
"""How many ledger records, and bytes of them, are in memory to be compared at once."""


def audit_topics(
    topics: Topics, trust: Trust | None, damage: str | None = None, progress: Callable[[int], None] | None = None
) -> AuditResult:
    """Audit the ledger of these topics, partition by partition.

    Args:
        topics: A log, or a recording of one.
        trust: The keys by which signatures are checked; None to leave them unchecked.
        damage: What is wrong with the first damaged line of a recording.
        progress: Called with the number of ledger records after each page.

    Raises:
        RecordingError: There is no ledger, or its configuration is missing.
    """
    result = AuditResult()
    if damage is not None:
        result.first_difference = Difference(damage, "the line", "damaged", "as the log had it")
    with no_collector():
        _audit_ledger(topics, trust, damage, progress, result)
    result.settle()
    return result


def _audit_ledger(
    topics: Topics,
    trust: Trust | None,
    damage: str | None,
    progress: Callable[[int], None] | None,
    result: AuditResult,
) -> None:
    extent, embedded = Extent(topics), False
    if damage is None and not extent.places("ledger") and not extent.places("decisions"):
        raise RecordingError("there is no ledger and no decision; record the log that has them, or name another one")
    number, count = 0, max(topics.partitions("ledger"), topics.partitions("decisions"), 1)
    while number < count:
        audit = LedgerAudit(topics, number, trust, result, progress, extent)
        if extent.end(("ledger", number)) and topics.first("ledger", number) == 0:
            try:
                audit.run()
            except Found as found:
                result.note_difference(found.difference)
            result.note_remarks(audit.remarks())
            count = max(count, audit.ledger_partitions)
        else:
            _note_no_beginning(result, number, topics.first("ledger", number) if extent.places("ledger") else 0)
        audit.name_the_rest()
        audit.proof.cut(extent)
        embedded = embedded or audit.proof.embedded
        number += 1
    if not extent.bare:
        for sentence in completeness.holes(extent, embedded):
            result.note_missing(sentence)


def _note_no_beginning(result: AuditResult, number: int, first: int) -> None:
    if first:
        result.note_absent(f"ledger[{number}]", 0, first)
    result.note_missing(
        f"ledger[{number}]: its configuration, record 0, is absent, so nothing of it can be audited; record it from "
        "its first record on"
    )


class _Read(NamedTuple):
    """A ledger record with its offset and its append time."""

    offset: int
    append_ts: int
    entry: Entry


class LedgerAudit:
    """Audits one ledger partition with the journal and the commands that follow from it."""

    def __init__(
        self,
        topics: Topics,
        number: int,
        trust: Trust | None,
        result: AuditResult,
        progress: Callable[[int], None] | None = None,
        extent: Extent | None = None,
    ) -> None:
        self.topics = topics
        self.number = number
        self.trust = trust
        self.result = result
        self.extent = extent or Extent(topics)
        self.copies = Copies(topics, trust, self.extent)
        self.commands = Commands(trust)
        self.journal = Journal(records_of(topics, "decisions", number), number, trust, result)
        self.proof = Proof(number, self.journal, result)
        self._decisions = self.journal.decisions()
        self._progress = progress
        self._fold: Fold | None = None
        self._shape = (1, 1)
        self._rejoins: dict[int, Rejoin] = {}
        self._last: dict[int, int] | None = None
        self._unjoined = self._superseded = 0

    @property
    def ledger_partitions(self) -> int:
        """Return how many ledger partitions there are by the ledger's configuration."""
        return self._shape[1]

    def run(self) -> None:
        """Audit the ledger up to its end, or to the first difference, which is raised."""
        for block in self._blocks():
            agreeing = self._agreeing(block)
            for offset, append_ts, entry in block:
                if id(entry.record) not in agreeing:
                    self._check(entry.record, offset)
                self._step(entry, offset, append_ts)
                self.result.note_record()
                if self._progress is not None and self.result.ledger_records % 100 == 0:
                    self._progress(100)
        if self.proof.is_cut:
            # What follows a hole cannot be computed.
            return
        for taken in self._decisions:
            if not self.journal.is_foreign(taken):
                raise Found(Difference(f"decision {place_of(taken)}", "the decision", short(taken.value), "absent"))
            self.journal.leave_out()
        for taken in records_of(self.topics, "control", self.number):
            self.commands.check(taken)
        assert self._fold is not None
        self.proof.end(self._fold, self.commands, self.extent, self.trust is not None)

    def remarks(self) -> list[str]:
        """Return sentences on what was not checked."""
        remarks = []
        if self._unjoined:
            remarks.append(
                f"the rows of {self._unjoined} batches, because their sources are not there from the first "
                "record on; the digest of a batch was compared where all its source records are there"
            )
        if self._superseded:
            remarks.append(f"{self._superseded} batches of an earlier incarnation of their source topics")
        if self.copies.unseen:
            remarks.append(
                f"{self.copies.unseen} copies of deployments and acts, because their topics begin after them"
            )
        if foreign := self.journal.foreign + self.commands.foreign:
            remarks.append(f"{foreign} records of decisions and control that no trusted controller signed")
        if self.trust is None and (self.commands.count or self.copies.unsigned):
            remarks.append(
                f"the signatures of {self.commands.count} commands and {self.copies.unsigned} acts and deployments, "
                "because no trust.json is configured"
            )
        return remarks

    # The ledger

    def _blocks(self) -> Iterator[list[_Read]]:
        """Yield the records of the ledger with their offsets; one that changes how others are read ends a block."""
        block: list[_Read] = []
        size = 0
        for taken in records_of(self.topics, "ledger", self.number):
            if not self.proof.follows(taken):
                break
            try:
                entry = self._read(taken)
            except (Found, RecordingError):
                # What comes before it is audited first.
                yield block
                raise
            block.append(_Read(taken.offset, taken.append_ts, entry))
            size += len(entry.value)
            if len(block) == BLOCK_RECORDS or size >= BLOCK_BYTES or isinstance(entry.record, Configured | Begun):
                yield block
                block, size = [], 0
        yield block

    def _agreeing(self, block: Sequence[_Read]) -> set[int]:
        """Return the ids of the batches in a block that agree with the sources, compared all at once."""
        chains: dict[int, list[Batch]] = {}
        broken: set[int] = set()
        for read in block:
            batch = read.entry.record
            if not isinstance(batch, Batch) or batch.partition in broken:
                continue
            chain = chains.setdefault(batch.partition, [])
            if self._follows(batch, chain):
                chain.append(batch)
            else:
                broken.add(batch.partition)
        agreeing: set[int] = set()
        for chain in filter(None, chains.values()):
            assert self._fold is not None
            if self._rejoin_of(chain[0]).agrees(chain, self._fold.config):
                agreeing.update(map(id, chain))
        return agreeing

    def _follows(self, batch: Batch, chain: Sequence[Batch]) -> bool:
        """Return whether the fold applies all of a batch, as the first of its partition or after the last of these."""
        fold = self._fold
        if fold is None or self._last is not None or not 0 <= batch.partition < fold.partitions:
            return False
        coverage = fold.coverage.get(batch.partition, Coverage())
        corners = [chain[-1].end] if chain else coverage.corners
        known = batch.incarnation == coverage.incarnation and fold.config_digest.startswith(batch.config)
        return known and corners == [batch.base]

    def _read(self, taken: Taken) -> Entry:
        try:
            entry = read_entry(taken.value)
        except EarlierLedger:
            raise
        except RecordingError as error:
            raise Found(Difference(place_of(taken), "the record", short(error), "a ledger record")) from error
        if entry_of(entry.record).value != entry.value:
            # Other bytes of equal content: digests are of the bytes.
            found = Difference(place_of(taken), "its bytes", digest_of(entry.value), "those of the same record encoded")
            raise Found(found)
        if self._fold is None:
            self._configure(entry.record)
        return entry

    def _configure(self, record: Record) -> None:
        what = "ledger record 0"
        if not isinstance(record, Configured):
            raise Found(Difference(what, "its kind", type(record).__name__.lower(), "a configuration"))
        try:
            self._fold = Fold(msgspec.convert(record.config, Config))
        except msgspec.ValidationError as error:
            raise Found(Difference(f"{what} (configured)", "config", short(error), "a configuration")) from error
        self._shape = (record.partitions, record.ledger_partitions)

    def _check(self, record: Record, offset: int) -> None:
        """Compare a record with the sources before it is folded."""
        found = None
        if isinstance(record, Batch):
            found = self._check_batch(record)
        elif isinstance(record, Deployed | Operated):
            found = self.copies.check(record)
        elif isinstance(record, ReplicaFacts):
            found = self._check_facts(record)
        elif isinstance(record, Tick) and record.positions:
            found = self.copies.passed(record.positions)
        if found is not None:
            raise Found(msgspec.structs.replace(found, what=f"{_record_named(offset, record)}: {found.what}"))

    def _check_batch(self, batch: Batch) -> Difference | None:
        assert self._fold is not None
        fold = self._fold
        if not 0 <= batch.partition < fold.partitions:
            # No reader appends such a batch; the fold is not called with it.
            return Difference("its batch", "partition", str(batch.partition), f"one of {fold.partitions}")
        before = fold.coverage.get(batch.partition, Coverage())
        known = batch.incarnation == before.incarnation
        known = known and fold.config_digest.startswith(batch.config)
        if not known or not before.reaches(batch.base):
            # The fold refuses such a batch.
            return None
        if self._last is not None and batch.incarnation < self._last.get(batch.partition, 0):
            self._superseded += 1
            return None
        rejoin = self._rejoin_of(batch)
        after = msgspec.structs.replace(before)
        after.add(batch.end)
        found = rejoin.check(batch, before, after, fold.config)
        if found is not None and self._last is None:
            # The topics may have a new incarnation; only now the rest of the ledger is read to find out.
            self._last = self._last_incarnations()
            return self._check_batch(batch) if batch.incarnation < self._last.get(batch.partition, 0) else found
        self._unjoined += not rejoin.whole
        return found

    def _check_facts(self, record: ReplicaFacts) -> Difference | None:
        found = self.copies.check_facts(record)
        if found is None:
            return None
        if self._last is None:
            self._last = self._last_incarnations()
        kept = [change for change in record.changes if not self._is_gone(change.place)]
        return self.copies.check_facts(msgspec.structs.replace(record, changes=kept))

    def _is_gone(self, place: tuple[str, int, int]) -> bool:
        """Return whether the topic of a source record has a new incarnation since."""
        assert self._fold is not None
        assert self._last is not None
        topic, partition, _ = place
        now = self._fold.coverage.get(partition, Coverage()).incarnation
        return topic in SOURCES and now < self._last.get(partition, 0)

    def _rejoin_of(self, batch: Batch) -> Rejoin:
        rejoin = self._rejoins.get(batch.partition)
        if rejoin is None or rejoin.incarnation != batch.incarnation:
            partitions, ledger_partitions = self._shape
            ledger = self.number, ledger_partitions
            rejoin = Rejoin(self.topics, batch.partition, partitions, ledger, batch.incarnation)
            self._rejoins[batch.partition] = rejoin
        return rejoin

    def _step(self, entry: Entry, offset: int, append_ts: int) -> None:
        assert self._fold is not None
        fold = self._fold
        digest = fold.config_digest
        try:
            decisions = fold.step(entry)
        except LedgerMismatch as error:
            what = _record_named(offset, entry.record)
            raise Found(Difference(what, "its digest", short(error), "the configuration's own")) from error
        if fold.config_digest != digest:
            for rejoin in self._rejoins.values():
                if rejoin.whole:
                    # Under another configuration the join keeps other fields of an event.
                    rejoin.begin(fold.config)
        for decision in decisions:
            self._compare(decision)
        if decisions or not isinstance(entry.record, Tick):
            self.commands.note(fold, self._touched(entry.record, decisions), append_ts)
        self.proof.folded(entry.record, fold)

    def _touched(self, record: Record, decisions: Sequence[Decision]) -> set[str]:
        """Return the models of which a record may have changed what is desired."""
        assert self._fold is not None
        touched = {decision.model for decision in decisions}
        if isinstance(record, Batch):
            touched.update(part.model for part in record.parts)
        elif isinstance(record, Deployed | Operated):
            touched.add(record.event.model)
        elif isinstance(record, Configured):
            touched.update(self._fold.models)
        return touched

    def _last_incarnations(self) -> dict[int, int]:
        """Return the present incarnation of each source partition: the one that the recorded sources are of."""
        found: dict[int, int] = {}
        for taken in records_of(self.topics, "ledger", self.number):
            if b"incarnation" in (taken.value or b"")[:80]:
                record = read_entry(taken.value).record
                if isinstance(record, Begun):
                    found[record.partition] = max(found.get(record.partition, 0), record.incarnation)
        return found

    # The journal

    def name_the_rest(self) -> None:
        """Note the ids of the decisions that were not reached."""
        self.journal.name_the_rest()

    def _compare(self, decision: Decision) -> None:
        """Compare a decision with the next one of the journal that is not of a stranger."""
        result, passed = self.result, None
        result.known.add(decision.id)
        for taken in self._decisions:
            if taken.value == decision_bytes(decision):
                result.note_reproduced(decision.id)
                return
            passed = passed or taken
            if not self.journal.is_foreign(taken):
                break
            self.journal.leave_out()
        if passed is None:
            raise Found(Difference(named(decision), "the decision", "absent", "present"))
        found = decision_difference(passed.value or b"", decision)
        raise Found(msgspec.structs.replace(found, what=f"{found.what} at {place_of(passed)}"))


def _record_named(offset: int, record: Record) -> str:
    return f"ledger record {offset} ({type(record).__name__.lower()})"
