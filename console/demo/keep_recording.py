"""Write the recording of a demo: the ledger, from which it can be replayed, and the decisions, to be audited."""

from __future__ import annotations

from pathlib import Path

from console.outputs import output_file
from streams.embedded.topics import EmbeddedTopics
from streams.recordings.lines import line_of, records_of
from unship.log.embedded.log import EmbeddedLog


def keep(log: EmbeddedLog, path: Path) -> None:
    """Write the ledger and then the journal of an embedded log into a file."""
    topics = EmbeddedTopics(log)
    with output_file("--record", path) as file:
        for topic in ("ledger", "decisions"):
            for taken in records_of(topics, topic, 0):
                file.write(line_of(taken) + b"\n")
