"""What is followed of a log, of either kind, to see what became of an act: all of it by the rights of an operator.

The compacted topics are read whole once, and the others from their ends of that moment on. A call waits in the log
itself for new records, so nothing is asked again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streams.recordings.lines import Taken

COMPACTED = ("snapshots", "acks")
GROWING = ("ledger", "decisions")


class Tail(Protocol):
    """Topics that are followed for one model; `partition` is its ledger partition."""

    @property
    def partition(self) -> int:
        """Return the ledger partition of the model."""

    def next(self, topics: Sequence[str], timeout_s: float) -> list[Taken]:
        """Return new records of some topics; wait so long at most until there is one."""

    def rest(self, topic: str) -> list[Taken]:
        """Return the new records of a topic up to its end of now."""
