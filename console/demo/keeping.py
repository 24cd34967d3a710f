"""Keep the recording of a demo: the ledger, from which it can be replayed, and the decisions, to be audited."""

from pathlib import Path

from streams.embedded.monitor import ledger_of
from streams.embedded.topics import EmbeddedTopics
from streams.recordings.lines import records_of
from unship.log.embedded.log import EmbeddedLog


def keep(log: EmbeddedLog, path: Path) -> None:
    """Write the ledger and then the journal of an embedded log into a file."""
    with path.open("wb") as file:
        for line in ledger_of(log):
            file.write(line + b"\n")
        for taken in records_of(EmbeddedTopics(log), "decisions", 0):
            file.write((taken.value or b"") + b"\n")
