"""The audit: every decision is computed again and compared with the journal, bit for bit.

A recording may hold sources (events), the ledger, and the journal (decisions). From sources, both the ledger and the
decisions are computed again; from a ledger alone, the decisions. What differs first is named, because everything after
it follows.
"""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import BinaryIO

import msgspec

from actions.journal import Decision, decision_bytes
from streams.audit.differences import Difference, decision_difference, difference, named, short
from streams.config.resolved import Config
from streams.fold.fold import LedgerMismatch
from streams.ledger.lines import LedgerLine, ledger_line, read_ledger_line
from streams.ledger.records import Configured, Record, Tick
from streams.pipeline import Pipeline, configuration_of, configuration_record, fold_step, join_step, with_fleet_facts
from streams.recordings.replay import LINE_BYTES_MAX
from unship.codec import OtherLine, decode_line

_BATCH = 4_096


class AuditResult(msgspec.Struct):
    """What an audit found. `reproduced` counts the decisions that came out the same, up to the first difference.

    `ids` names these, and `known` everything that the journal holds, or should. `remarks` say what was not checked.
    """

    decisions: int = 0
    reproduced: int = 0
    ledger_records: int = 0
    first_difference: Difference | None = None
    ids: list[str] = []
    known: set[str] = set()
    remarks: list[str] = []


class Audit:
    """Audits one recording. Lines may come in any order that keeps each kind in its own."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.result = AuditResult()
        self._journal: deque[bytes] = deque()
        self._ledger: deque[LedgerLine] = deque()
        self._decisions: deque[Decision] = deque()
        self._records: deque[Record] = deque()
        self._pipeline: Pipeline | None = None
        self._has_ledger = False
        self._has_sources = False

    def read(self, stream: BinaryIO, progress: Callable[[int], None] | None = None) -> None:
        """Read a recording to its end, or to the first difference."""
        read = iter(lambda: stream.readline(LINE_BYTES_MAX), b"")
        while lines := list(islice(read, _BATCH)):
            if self.result.first_difference is not None:
                # What follows differs as well; only who asks for one of these decisions has to know that it exists.
                self.result.known.update(name for line in lines if (name := decision_id_of(line)) is not None)
                continue
            sources = []
            for line in lines:
                kind = _kind(line)
                if kind == "decision":
                    self._journal.append(line.rstrip(b"\r\n"))
                    if (name := decision_id_of(line)) is not None:
                        self.result.known.add(name)
                elif kind == "ledger":
                    self._take_ledger(read_ledger_line(line))
                elif kind is None:
                    sources.append(line)
            if sources:
                self._has_sources = True
                pipeline = self._from_sources()
                self._compute(pipeline, join_step(pipeline, sources))
            self._compare()
            if progress is not None:
                progress(sum(map(len, lines)))

    def finish(self) -> AuditResult:
        """Compare what is left and return the result."""
        result = self.result
        if self._has_sources and result.first_difference is None:
            pipeline = self._from_sources()
            self._compute(pipeline, with_fleet_facts(pipeline, pipeline.sources.cut()))
            if self._ledger and isinstance(self._ledger[-1].record, Tick):
                # The clock went on after the last line, as a replay may be told to.
                advanced = pipeline.sources.advance(self._ledger[-1].record.clock)
                self._compute(pipeline, with_fleet_facts(pipeline, advanced))
        elif self._has_ledger and result.first_difference is None:
            self._fold_ledger()
        self._compare()
        if result.first_difference is None:
            self._compare_ends()
        return result

    def _from_sources(self) -> Pipeline:
        """Return the pipeline that computes from sources."""
        if self._pipeline is None:
            self._pipeline = Pipeline(self.config)
            self._fold(self._pipeline, configuration_record(self.config))
        return self._pipeline

    def _fold_ledger(self) -> None:
        """Fold a ledger that has no sources beside it."""
        pipeline = Pipeline(self.config)
        for entry in self._ledger:
            self.result.ledger_records += 1
            try:
                self._fold(pipeline, entry.record)
            except LedgerMismatch as error:
                what = f"ledger record {entry.offset} (configuration)"
                self.result.first_difference = Difference(what, "its digest", str(error), "the configuration's own")
                return
        self._ledger.clear()

    def _take_ledger(self, entry: LedgerLine) -> None:
        if not self._has_ledger and isinstance(entry.record, Configured):
            # The ledger's configuration decides.
            self.config = configuration_of(entry.record)
        self._has_ledger = True
        self._ledger.append(entry)

    def _compute(self, pipeline: Pipeline, records: Iterable[Record]) -> None:
        for record in records:
            self._fold(pipeline, record)

    def _fold(self, pipeline: Pipeline, record: Record) -> None:
        if self._has_ledger and self._has_sources:
            self._records.append(record)
        self._decisions.extend(fold_step(pipeline, record))

    def _compare(self) -> None:
        result = self.result
        while self._records and self._ledger and result.first_difference is None:
            offset = result.ledger_records
            recorded, computed = self._ledger.popleft(), self._records.popleft()
            result.ledger_records += 1
            ours = ledger_line(offset, computed)
            if ledger_line(recorded.offset, recorded.record) != ours:
                what = f"ledger record {offset} ({_describe(computed)})"
                result.first_difference = difference(
                    what, msgspec.json.decode(_line(recorded)), msgspec.json.decode(ours)
                )
        while self._journal and self._decisions and result.first_difference is None:
            recorded_line, decision = self._journal.popleft(), self._decisions.popleft()
            result.decisions += 1
            ours = decision_bytes(decision)
            if recorded_line == ours:
                result.reproduced += 1
                result.ids.append(decision.id)
                continue
            result.known.add(decision.id)
            result.first_difference = decision_difference(recorded_line, decision)

    def _compare_ends(self) -> None:
        result = self.result
        result.decisions += len(self._journal) + len(self._decisions)
        if self._ledger and self._has_sources:
            entry = self._ledger[0]
            result.first_difference = Difference(f"ledger record {entry.offset}", "the record", "present", "absent")
        elif self._records:
            offset = result.ledger_records
            what = f"ledger record {offset} ({_describe(self._records[0])})"
            result.first_difference = Difference(what, "the record", "absent", "present")
        elif self._journal:
            result.first_difference = Difference("the journal", "a further decision", short(self._journal[0]), "absent")
        elif self._decisions:
            result.first_difference = Difference(named(self._decisions[0]), "the decision", "absent", "present")


def audit_recording(stream: BinaryIO, config: Config, progress: Callable[[int], None] | None = None) -> AuditResult:
    """Audit a recording under a configuration, which counts only where the recording has no ledger.

    Raises:
        RecordingError: if a ledger line cannot be read at all.
    """
    audit = Audit(config)
    audit.read(stream, progress)
    return audit.finish()


def _kind(line: bytes) -> str | None:
    """Return the kind of a line that is no event, None for events and everything that is rejected."""
    if b"ledger" not in line and b"decision" not in line and b"command" not in line:
        return None
    decoded = decode_line(line)
    return decoded.kind if isinstance(decoded, OtherLine) and decoded.kind != "raw" else None


def decision_id_of(line: bytes) -> str | None:
    """Return the id of a decision's line, None for every other line.

    >>> decision_id_of(b'{"type":"decision","id":"d-1"}'), decision_id_of(b'{"type":"ack","id":"d-1"}')
    ('d-1', None)
    """
    if b'"decision"' not in line:
        return None
    try:
        entry = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return None
    found = entry.get("id") if isinstance(entry, dict) and entry.get("type") == "decision" else None
    return found if isinstance(found, str) else None


def _line(entry: LedgerLine) -> bytes:
    return ledger_line(entry.offset, entry.record)


def _describe(record: Record) -> str:
    kind = type(record).__name__.lower()
    lines = getattr(record, "lines", None)
    model = getattr(record, "model", None) or getattr(getattr(record, "event", None), "model", None)
    return ", ".join(part for part in (kind, model, f"source lines {lines[0]}..{lines[1]}" if lines else None) if part)
