"""Ledger records as lines of a recording: text that people read, and from which the log's bytes follow."""

from __future__ import annotations

import msgspec

from streams.ledger.encoding import from_json, to_json
from streams.ledger.entries import Entry, checked, entry_of
from streams.ledger.records import Record
from unship.errors import RecordingError


class LedgerLine(msgspec.Struct, frozen=True, tag_field="type", tag="ledger"):
    """One ledger record; its place in the log is put behind it like that of any line."""

    record: Record


def ledger_line(record: Record) -> bytes:
    """Return a ledger record as one line, without a line feed."""
    return to_json(LedgerLine(record))


def read_ledger_line(line: bytes) -> Entry:
    """Read what `ledger_line` wrote, whatever place was put behind it.

    Raises:
        RecordingError: The line does not fit, or its columns contradict each other.
    """
    try:
        read: LedgerLine = from_json(line, LedgerLine)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RecordingError(f"a ledger line cannot be read: {error}") from error
    return entry_of(checked(read.record))
