"""Keep the recording of a demo: the ledger, from which it can be replayed, and the decisions, to be audited."""

from pathlib import Path

from streams.live import ledger_of
from unship.embedded import EmbeddedLog


def keep(log: EmbeddedLog, path: Path) -> None:
    """Write the ledger and then the journal of an embedded log into a file."""
    with path.open("wb") as file:
        for line in ledger_of(log):
            file.write(line + b"\n")
        for value in values_of(log, "decisions"):
            file.write(value + b"\n")


def values_of(log: EmbeddedLog, topic: str) -> list[bytes]:
    """Return the values of all records of a topic."""
    values: list[bytes] = []
    while records := log.read(topic, len(values)):
        values += [record.value or b"" for record in records]
    return values
