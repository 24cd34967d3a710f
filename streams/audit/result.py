"""The result of an audit, and the audit of decisions without a ledger."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import BinaryIO, Final

import msgspec

from actions.journal import decision_bytes
from streams.audit.differences import Difference, decision_difference, named, short
from streams.config.resolved import Config
from streams.recordings.replay import Replay, lines_in

MISSING_MAX: Final = 100


class AuditResult(msgspec.Struct):
    """The result of an audit. `reproduced` counts the equal decisions up to the first difference, `ids` has their ids.

    `known` has the ids of all decisions that are in the journal, or should be. `remarks` are sentences on what was not
    checked, `missing` on records that are absent, and `proof` on how far it is proven that none is.
    """

    decisions: int = 0
    reproduced: int = 0
    ledger_records: int = 0
    first_difference: Difference | None = None
    ids: list[str] = []
    known: set[str] = set()
    remarks: list[str] = []
    missing: list[str] = []
    proof: list[str] = []

    def note_missing(self, sentence: str) -> None:
        """Note what is absent, once."""
        if sentence not in self.missing and len(self.missing) < MISSING_MAX:
            self.missing.append(sentence)

    def settle(self) -> None:
        """Let what is absent be a difference, where nothing else differs."""
        if self.missing:
            self.note_difference(Difference(self.missing[0], "", "absent", "present"))
        self.decisions = len(self.known)

    def note_absent(self, place: str, begin: int, end: int) -> None:
        """Note that the records of a partition from one offset to before another are absent."""
        records = f"record {begin} is" if end - begin == 1 else f"records {begin} to {end - 1} are"
        self.note_missing(f"{place}: {records} absent")

    def note_record(self) -> None:
        """Count a ledger record that was folded."""
        self.ledger_records += 1

    def note_difference(self, difference: Difference) -> None:
        """Note a difference, unless there was one before it."""
        self.first_difference = self.first_difference or difference

    def note_remarks(self, remarks: Iterable[str]) -> None:
        """Note what was not checked."""
        self.remarks.extend(remarks)

    def note_reproduced(self, name: str) -> None:
        """Count a decision that came out the same."""
        self.reproduced += 1
        self.ids.append(name)


def audit_decisions(
    stream: BinaryIO,
    journal: Iterable[bytes],
    config: Config,
    progress: Callable[[int], None] | None = None,
) -> AuditResult:
    """Replay a recording that has no ledger, and compare its decisions with those of a journal, byte for byte.

    Args:
        stream: The recording; it must be seekable.
        journal: The lines of another file that has the decisions; where it has none, those of the recording itself.
        config: The configuration that was in force.
        progress: Called with the number of bytes of each batch.
    """
    result = AuditResult()
    stream.seek(0)
    recorded = [line.rstrip(b"\r\n") for line in [*journal, *lines_in(stream)] if decision_id_of(line) is not None]
    result.known.update(name for line in recorded if (name := decision_id_of(line)) is not None)
    result.decisions = len(recorded)
    stream.seek(0)
    replay = Replay(config)
    for line, decision in zip_longest(recorded, replay.decisions(stream, progress=progress)):
        if decision is None:
            result.first_difference = Difference("the journal", "a further decision", short(line), "absent")
        elif line is None:
            result.decisions += 1
            result.first_difference = Difference(named(decision), "the decision", "absent", "present")
        elif line != decision_bytes(decision):
            result.known.add(decision.id)
            result.first_difference = decision_difference(line, decision)
        else:
            result.note_reproduced(decision.id)
        if result.first_difference is not None:
            break
    return result


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep the collector of cycles off: windows and rows are millions of small objects without a cycle."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


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
