"""Judge what each living replica does about a command, in one word and one sentence."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from actions.replicas import SETTLE_MS, Fault, Replica, fault_of
from unship.events import Epoch

OBEYS = "obeys"
SILENT = "silent"
KINDS = (OBEYS, "loading", "other", "refused", "lying", "forked", SILENT)
"""What a replica does: obey, what a `Fault` has, or nothing at all."""


SEEN_MS = 3_000
"""How long an answer takes into the status: a round of the monitor, and a status twice a second."""


_UNDER_WAY = ("other", "loading", "refused")
"""What an answer that is still to come may end; what contradicts itself is a fault however long ago it was."""


class Conduct(msgspec.Struct, frozen=True):
    """Hold what a replica does: `kind` is one of `KINDS`, `why` is how it does not obey, `code` why it refused."""

    kind: str
    why: str = ""
    code: str | None = None


def conduct_of(replica: Replica, serve: str, epoch: Epoch | None, since: int, now: int) -> Conduct:
    """Return what a replica does.

    Args:
        replica: of which something was written lately.
        serve: the version that should serve.
        epoch: that of the command; None where nothing is commanded.
        since: when the command was given, in milliseconds: of a silent replica nothing was written since.
        now: the clock of the same times.

    >>> from actions.replicas import Acked
    >>> replica = Replica(Acked("v41", "serving", (0, 3, 0), 50, 90), None, None, [], [], 90)
    >>> conduct_of(replica, "v41", (0, 9, 0), since=1_090, now=61_090)
    Conduct(kind='silent', why='nothing was received of it for 61 s; v41 by its last record', code=None)
    """
    fault = fault_of(replica, serve, epoch)
    if fault is None:
        return Conduct(OBEYS)
    if replica.heard <= since and fault.kind in _UNDER_WAY and not _of_command(fault, replica, epoch):
        version, _ = replica.serves()
        last = "" if version is None else f"; {version} by its last record"
        return Conduct(SILENT, f"nothing was received of it for {(now - replica.heard) // 1_000} s{last}")
    return Conduct(fault.kind, fault.why, fault.code)


def _of_command(fault: Fault, replica: Replica, epoch: Epoch | None) -> bool:
    """Return whether a fault is the replica's answer to this command, whose time then was before its record."""
    refused, acked = replica.refused, replica.acked
    if fault.kind == "refused":
        return refused is not None and refused.epoch == epoch
    return epoch is not None and acked is not None and acked.epoch == epoch


def is_settling(replica: Replica, epoch: Epoch | None, now: int) -> bool:
    """Return whether a replica that answers acknowledged a command just now, so that its answers prove nothing yet.

    Only from then on do answers of another version show that it lies, or that two processes have its name.
    """
    acked, shown = replica.acked, replica.shown
    if acked is None or shown is None or shown.epoch is None or epoch is None or acked.epoch != epoch:
        return False
    return now < acked.since + SETTLE_MS + SEEN_MS


def conducts_of(
    replicas: Mapping[str, Replica], serve: str | None, epoch: Epoch | None, since: int, now: int
) -> dict[str, Conduct]:
    """Return what each replica does, by name; while nothing is desired, each one obeys."""
    if serve is None:
        return dict.fromkeys(replicas, Conduct(OBEYS))
    return {name: conduct_of(replica, serve, epoch, since, now) for name, replica in replicas.items()}
