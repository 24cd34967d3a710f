"""The audit of decisions without a ledger: their recording is replayed under a configuration that is given."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, zip_longest
from typing import BinaryIO, Final

from actions.journal import decision_bytes
from streams.audit.differences import Difference, decision_difference, named, short
from streams.audit.result import AuditResult, decision_id_of
from streams.config.resolved import Config
from streams.recordings.replay import Replay, lines_in
from unship.errors import RecordingError

JOURNAL_BYTES: Final = 256 * 1_048_576


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
    recorded = _decisions_in(chain(journal, lines_in(stream)))
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


def _decisions_in(lines: Iterable[bytes]) -> list[bytes]:
    found = []
    size = 0
    for line in lines:
        if decision_id_of(line) is not None:
            found.append(line.rstrip(b"\r\n"))
            size += len(line)
            if size > JOURNAL_BYTES:
                raise RecordingError(
                    f"its decisions have more than {JOURNAL_BYTES} bytes, and without a ledger they are in memory at "
                    "once; audit a recording that has its ledger"
                )
    return found


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
