"""The audit of a live log, or of a recording of one: sources against the ledger as sets, the ledger against the rest.

Where a live monitor cut its batches depends on when it read its sources, so the ledger itself cannot be computed again.
Everything else can: the rows that it must hold (`streams.audit.rejoin`), every decision, byte for byte, and the content
of each command. Topics are read by pages; in memory are one fold, one window of the join, and the desired states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from actions.journal import Decision, decision_bytes, digest_of
from actions.reconcile import Timing, command_of
from streams.audit.copies import Copies
from streams.audit.differences import Difference, Found, decision_difference, difference, named, short
from streams.audit.rejoin import Rejoin
from streams.audit.result import AuditResult, decision_id_of, no_collector
from streams.config.resolved import Config
from streams.fold.fold import Fold, LedgerMismatch
from streams.ledger.coverage import Coverage
from streams.ledger.entries import EarlierLedger, Entry, entry_of, read_entry
from streams.ledger.records import Batch, Begun, Configured, Deployed, Operated, Record, ReplicaFacts, Tick
from streams.recordings.lines import Taken, Topics, place_of, records_of
from unship.commands import Command, Malformed, decode_command
from unship.errors import RecordingError
from unship.events import Epoch
from unship.signing import COMMAND_TYPE, Trust, TrustedKey, verify
from unship.topics import SOURCES

_NO_TIME: Final = Timing(0, 0)

BLOCK_RECORDS: Final = 1_024
BLOCK_BYTES: Final = 4_194_304
"""How many ledger records, and bytes of them, are in memory to be compared at once."""


class _Decided(msgspec.Struct):
    """What identifies a decision in the journal."""

    model: str
    epoch: Epoch


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
    result.decisions = len(result.known)
    return result


def _audit_ledger(
    topics: Topics,
    trust: Trust | None,
    damage: str | None,
    progress: Callable[[int], None] | None,
    result: AuditResult,
) -> None:
    for number in range(max(topics.partitions("ledger"), 1)):
        audit = LedgerAudit(topics, number, trust, result, progress)
        if topics.ends().get(("ledger", number), 0) and topics.first("ledger", number) == 0:
            try:
                audit.run()
            except Found as found:
                result.note_difference(found.difference)
            result.note_remarks(audit.remarks())
        elif damage is None:
            raise RecordingError(
                f"ledger[{number}] does not begin with its configuration, so nothing can be audited; record it from "
                "its first record on"
            )
        audit.name_the_rest()


class LedgerAudit:
    """Audits one ledger partition with the journal and the commands that follow from it."""

    def __init__(
        self,
        topics: Topics,
        number: int,
        trust: Trust | None,
        result: AuditResult,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.topics = topics
        self.number = number
        self.trust = trust
        self.result = result
        self.copies = Copies(topics, trust)
        self.commands = 0
        self._progress = progress
        self._fold: Fold | None = None
        self._shape = (1, 1)
        self._rejoins: dict[int, Rejoin] = {}
        self._written = records_of(topics, "decisions", number)
        self._journal = self._decisions()
        self._last: dict[int, int] | None = None
        self._unjoined = self._superseded = 0
        # The desired state of each epoch as a command, and the newest epoch of each model.
        self._desired: dict[tuple[str, Epoch], Command] = {}
        self._epochs: dict[str, Epoch] = {}

    def run(self) -> None:
        """Audit the ledger up to its end, or to the first difference, which is raised."""
        for block in self._blocks():
            agreeing = self._agreeing(block)
            for offset, entry in block:
                if id(entry.record) not in agreeing:
                    self._check(entry.record, offset)
                self._step(entry, offset)
                self.result.note_record()
                if self._progress is not None and self.result.ledger_records % 100 == 0:
                    self._progress(100)
        for taken in self._journal:
            raise Found(Difference(f"decision {place_of(taken)}", "the decision", short(taken.value), "absent"))
        for taken in records_of(self.topics, "control", self.number):
            self._check_command(taken)

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
        if self.trust is None and (self.commands or self.copies.unsigned):
            remarks.append(
                f"the signatures of {self.commands} commands and {self.copies.unsigned} acts and "
                "deployments, because no trust.json is configured"
            )
        return remarks

    # The ledger

    def _blocks(self) -> Iterator[list[tuple[int, Entry]]]:
        """Yield the records of the ledger with their offsets; one that changes how others are read ends a block."""
        block: list[tuple[int, Entry]] = []
        size = 0
        for taken in records_of(self.topics, "ledger", self.number):
            try:
                entry = self._read(taken)
            except (Found, RecordingError):
                # What comes before it is audited first.
                yield block
                raise
            block.append((taken.offset, entry))
            size += len(entry.value)
            if len(block) == BLOCK_RECORDS or size >= BLOCK_BYTES or isinstance(entry.record, Configured | Begun):
                yield block
                block, size = [], 0
        yield block

    def _agreeing(self, block: Sequence[tuple[int, Entry]]) -> set[int]:
        """Return the ids of the batches in a block that agree with the sources, compared all at once."""
        chains: dict[int, list[Batch]] = {}
        broken: set[int] = set()
        for _, entry in block:
            batch = entry.record
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

    def _step(self, entry: Entry, offset: int) -> None:
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
            self._note_desired(entry.record, decisions)

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
        for taken in self._written:
            self._name(taken)

    def _name(self, taken: Taken) -> None:
        name = decision_id_of(taken.value or b"")
        if name is not None:
            self.result.known.add(name)

    def _decisions(self) -> Iterator[Taken]:
        """Yield the journal without repeats; two different decisions of one epoch are a difference."""
        known: dict[tuple[str, Epoch], str] = {}
        for taken in self._written:
            self._name(taken)
            try:
                decided = msgspec.json.decode(taken.value or b"", type=_Decided)
            except (ValueError, RecursionError):
                # No decision: `_compare` finds the difference.
                yield taken
                continue
            name, digest = (decided.model, decided.epoch), digest_of(taken.value or b"")
            if name in known and known[name] != digest:
                what = f"decision {place_of(taken)} ({decided.model}, EQUIVOCATION)"
                raise Found(Difference(what, f"the digest for epoch {list(decided.epoch)}", digest, known[name]))
            if name not in known:
                known[name] = digest
                yield taken

    def _compare(self, decision: Decision) -> None:
        result = self.result
        result.known.add(decision.id)
        taken = next(self._journal, None)
        if taken is None:
            raise Found(Difference(named(decision), "the decision", "absent", "present"))
        if taken.value != decision_bytes(decision):
            found = decision_difference(taken.value or b"", decision)
            raise Found(msgspec.structs.replace(found, what=f"{found.what} at {place_of(taken)}"))
        result.note_reproduced(decision.id)

    # Commands

    def _note_desired(self, record: Record, decisions: list[Decision]) -> None:
        """Note the desired states of the models that a record may have changed."""
        assert self._fold is not None
        models = self._fold.models
        touched = {decision.model for decision in decisions}
        if isinstance(record, Batch):
            touched.update(part.model for part in record.parts)
        elif isinstance(record, Deployed | Operated):
            touched.add(record.event.model)
        elif isinstance(record, Configured):
            touched.update(models)
        for name in touched & models.keys():
            desired = models[name].state.desired
            if models[name].config.mode == "observe" or self._epochs.get(name) == desired.epoch:
                continue
            command = command_of(name, desired, "", 0, _NO_TIME)
            if command is not None:
                self._epochs[name] = desired.epoch
                self._desired[name, desired.epoch] = command

    def _check_command(self, taken: Taken) -> None:
        self.commands += 1
        value = taken.value or b""
        what = f"command {place_of(taken)}"
        if self.trust is not None:
            headers = tuple((name, text or b"") for name, text in taken.headers)
            signer = verify(value, headers, self.trust, "controller", COMMAND_TYPE)
            if not isinstance(signer, TrustedKey):
                raise Found(Difference(what, "its signature", signer, "a controller's"))
        command = decode_command(value)
        if isinstance(command, Malformed):
            raise Found(Difference(what, "the command", command.detail, "a command"))
        what = f"{what} ({command.model})"
        desired = self._desired.get((command.model, command.epoch))
        if desired is None:
            known = self._epochs.get(command.model)
            computed = "nothing was desired then" if known is None else f"none such; the newest is {list(known)}"
            raise Found(Difference(what, "epoch", str(list(command.epoch)), computed))
        audience = command.audience if self.trust is None else self.trust.audience
        expected = msgspec.structs.replace(
            desired, audience=audience, issued_ts=command.issued_ts, not_after_ts=command.not_after_ts
        )
        if expected != command:
            raise Found(difference(what, _fields(command), _fields(expected)))


def _record_named(offset: int, record: Record) -> str:
    return f"ledger record {offset} ({type(record).__name__.lower()})"


def _fields(command: Command) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(command)
    return fields
