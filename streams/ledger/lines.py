"""Ledger records as lines of a recording: text, from which the bytes in the log follow."""

from __future__ import annotations

import msgspec

from streams.ledger.encoding import from_json, to_json
from streams.ledger.entries import Entry, checked, entry_of
from streams.ledger.records import Record
from unship.errors import RecordingError


class LedgerLine(msgspec.Struct, frozen=True, tag_field="type", tag="ledger"):
    """One ledger record; a recording adds its place in the log at the end."""

    record: Record


def ledger_line(record: Record) -> bytes:
    """Return a ledger record as one line, without a line feed."""
    return to_json(LedgerLine(record))


def read_ledger_line(line: bytes) -> Entry:
    """Read what `ledger_line` wrote, with or without a place.

    Raises:
        RecordingError: The line does not fit, or its columns contradict each other.
    """
    try:
        read: LedgerLine = from_json(line, LedgerLine)
        return entry_of(checked(read.record))
    except (msgspec.DecodeError, ValueError, RecursionError, OverflowError) as error:
        raise RecordingError(f"a ledger line cannot be read: {error}") from error
