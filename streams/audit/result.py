"""The result of an audit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from streams.audit.differences import Difference

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
        self.note_missing(f"{place}: {records_are(begin, end)} absent")

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


def records_are(begin: int, end: int) -> str:
    """Return the subject and the verb of a sentence on the records from one offset to before another."""
    return f"record {begin} is" if end - begin == 1 else f"records {begin} to {end - 1} are"


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
