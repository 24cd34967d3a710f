"""Name what can go wrong with the operation of unship, each with what the operator does next.

Bad input never raises: it becomes a `Rejection`. These are for operation: a wrong configuration, a file that is not a
recording, a snapshot of another build. Messages give the fact, both sides of it, and the next step.
"""

from __future__ import annotations


class UnshipError(Exception):
    """Report a failed operation; read the message, which names the fact and the next step, and run again.

    Catching this class catches every error that unship raises on purpose; anything else is a bug to report.
    """


class ConfigurationError(UnshipError):
    """Report a wrong setting; correct the key whose path the message begins with, then run `unship check`."""


class RecordingError(UnshipError):
    """Report a recording that cannot be read as one; check the path and its compression, or record it again."""


class SnapshotError(UnshipError):
    """Report a snapshot that does not belong to this build, configuration or source; replay from the beginning."""


class BrokerUnreachable(UnshipError):
    """Report that no broker answered, or none that lets us in; check the address, the network and the credentials."""


class TimedOut(UnshipError):
    """Report that something did not happen in time; it may happen yet, so look before trying again."""
