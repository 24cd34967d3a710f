"""Reconcile: go from what is desired and what was last commanded to the commands that have to go out.

Level-triggered: a command that was lost is simply due again at the next round, and the same state asserted again is the
heartbeat by which replicas know that the monitor lives. Nothing here waits for an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import UNSET

from actions.desired import DesiredState
from unship.commands import Command
from unship.events import Epoch
from unship.signing import Trust

AHEAD_MAX_MS = 600_000
"""How far ahead of the wall clock the time of commands may go on from where an earlier monitor's was."""

QUARANTINE_MAX = 500
"""Replicas refuse a command with more entries than this; the newest stay."""


class Timing(msgspec.Struct, frozen=True):
    """Hold how often a state is asserted again, and how long an unseen command stays valid, in milliseconds."""

    beat_ms: int = 10_000
    valid_ms: int = 600_000


def command_of(model: str, desired: DesiredState, audience: str, now: int, timing: Timing) -> Command | None:
    """Return the command that states what is desired of a model, None while nothing is."""
    if desired.serve is None:
        return None
    holdback = desired.holdback
    quarantine = tuple(desired.quarantine[-QUARANTINE_MAX:])
    return Command(
        model=model,
        epoch=desired.epoch,
        serve=desired.serve,
        artifact=desired.artifact,
        quarantine=quarantine,
        action=desired.action,
        decision=desired.decision,
        issued_ts=now,
        not_after_ts=now + timing.valid_ms,
        audience=audience,
        shares=holdback.shares or UNSET,
        period_epoch=UNSET if holdback.version is None else holdback.period_epoch,
    )


def due_commands(
    desired: Mapping[str, DesiredState], published: Mapping[str, Command], audience: str, now: int, timing: Timing
) -> list[Command]:
    """Return the commands to publish now, in the order of the models' names.

    A model whose published epoch is higher than the one desired is left alone: a monitor with a longer ledger has
    written it, and a command with a lower epoch would be refused everywhere.

    Args:
        desired: what is desired of each model that may be commanded.
        published: the newest command of each model on the control topic.
        audience: for whom commands are meant.
        now: wall clock, in milliseconds.
        timing: heartbeat and validity.
    """
    due = []
    for model in sorted(desired):
        last = published.get(model)
        if last is not None and (last.epoch, last.issued_ts + timing.beat_ms) > (desired[model].epoch, now):
            # This is asked many times a second for every model, and mostly nothing is due.
            continue
        command = command_of(model, desired[model], audience, now, timing)
        if command is not None:
            due.append(command)
    return due


def conflicting(desired: Mapping[str, DesiredState], published: Mapping[str, Command]) -> list[str]:
    """Return the models whose published epoch is ahead of what this monitor's ledger can explain."""
    return sorted(model for model, last in published.items() if model in desired and last.epoch > desired[model].epoch)


def unexplained(model: str, known: Epoch | None, refused: bool, desired: DesiredState) -> str | None:
    """Return the message where a higher epoch is known than this ledger explains, with what to do; else None.

    Replicas obey nothing lower, whatever another ledger was that reached it. Only an operator can know that it is gone
    for good, and not the newer of the two.

    Args:
        model: its name.
        known: the epoch of the newest signed command.
        refused: whether replicas refuse the newest order of this ledger as older than what they know.
        desired: what this ledger desires of the model.

    >>> unexplained("m", (0, 9, 0), False, DesiredState(epoch=(0, 9, 0))) is None
    True
    """
    if known is not None and known > desired.epoch:
        found = f"a command of epoch {list(known)} is on the control topic"
    elif refused:
        found = "most replicas refuse its newest order as older than what they know"
    else:
        return None
    return (
        f"{model!r}: this ledger explains epoch {list(desired.epoch)} at most, and {found}; replicas obey nothing "
        f"lower; if no other ledger is in use: unship ctl renew {model!r} --reason TEXT"
    )


class SteadyClock:
    """Keep the clock of commands: the wall clock, which goes on from where it was when it is set back. It is fed
    readings.

    A command issued before the one that replicas read last would be no sign of life to them, and the next order would
    have expired before it was written.

    >>> clock = SteadyClock()
    >>> clock.at(5_000), clock.at(2_000), clock.at(2_500), clock.at(9_000)
    (5000, 5000, 5500, 12000)
    >>> clock.reached(20_000, reading_ms=9_050)
    >>> clock.at(9_100), clock.at(9_200)
    (20000, 20100)
    """

    def __init__(self) -> None:
        self._read_ms = self._ahead_ms = 0

    def at(self, reading_ms: int) -> int:
        """Return the time at a reading of the wall clock, in milliseconds."""
        self._ahead_ms += max(0, self._read_ms - reading_ms)
        self._read_ms = reading_ms
        return reading_ms + self._ahead_ms

    def reached(self, time_ms: int, reading_ms: int) -> None:
        """Advance to the issue time of a published command, but no further than `AHEAD_MAX_MS` from a reading of now.

        Further ahead it was issued by a monitor whose clock was wrong: whatever is issued by such a time is valid for
        too long, and near the end of the range of times it is valid nowhere.
        """
        time_ms = min(time_ms, reading_ms + AHEAD_MAX_MS)
        self._read_ms = max(self._read_ms, time_ms - self._ahead_ms)


class Signer(msgspec.Struct, frozen=True):
    """Who signs commands, and for whom they are meant; `sign` returns the headers of a command's record.

    `sign_decision` does the same for records of a journal that is read back. `trust` holds the keys of operators, and
    those of controllers whose commands and decisions are accepted. Without a key that is trusted itself, a monitor
    verifies and decides, and does not command (`may_command`).
    """

    audience: str
    sign: Callable[[bytes], list[tuple[str, bytes]]]
    trust: Trust
    sign_decision: Callable[[bytes], list[tuple[str, bytes]]] = lambda value: []
    may_command: bool = True
