"""Compare the commands in `control` with what the ledger led to, and find those that are absent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from actions.reconcile import Timing, command_of
from streams.audit.differences import Difference, Found, difference
from streams.audit.signatures import signed_by_controller
from streams.fold.fold import Fold
from streams.recordings.lines import Taken, place_of
from unship.commands import Command, Malformed, decode_command
from unship.events import Epoch
from unship.signing import COMMAND_TYPE, Trust

_NO_TIME = Timing(0, 0)


class Commands:
    """What was desired at each epoch as a command, and which of these commands are in `control`."""

    def __init__(self, trust: Trust | None) -> None:
        self.count = 0
        self.foreign = 0
        self.newest_ts = -1
        self._trust = trust
        self._desired: dict[tuple[str, Epoch], Command] = {}
        # The epochs of each model in order, with the append time of the ledger record that began each.
        self._begun: dict[str, list[tuple[Epoch, int]]] = {}
        self._present: dict[str, set[Epoch]] = {}

    def note(self, fold: Fold, models: set[str], append_ts: int) -> None:
        """Note the desired states of the models that a ledger record may have changed."""
        for name in models & fold.models.keys():
            desired = fold.models[name].state.desired
            begun = self._begun.get(name)
            if not fold.models[name].commanded or (begun and begun[-1][0] == desired.epoch):
                continue
            command = command_of(name, desired, "", 0, _NO_TIME)
            if command is not None:
                self._begun.setdefault(name, []).append((desired.epoch, append_ts))
                self._desired[name, desired.epoch] = command

    def check(self, taken: Taken) -> None:
        """Compare a record of `control`; one that no trusted controller signed is counted only.

        Raises:
            Found: It differs from what was desired, or was changed after it was signed.
        """
        what = f"command {place_of(taken)}"
        if self._trust is not None:
            signed = signed_by_controller(taken, self._trust, COMMAND_TYPE)
            if signed == "foreign":
                self.foreign += 1
                return
            if signed == "altered":
                raise Found(Difference(what, "its signature", "BAD_SIGNATURE", "a controller's"))
        self.count += 1
        self.newest_ts = max(self.newest_ts, taken.append_ts)
        command = decode_command(taken.value or b"")
        if isinstance(command, Malformed):
            raise Found(Difference(what, "the command", command.detail, "a command"))
        what = f"{what} ({command.model})"
        desired = self._desired.get((command.model, command.epoch))
        if desired is None:
            begun = self._begun.get(command.model)
            computed = f"none such; the newest is {list(begun[-1][0])}" if begun else "nothing was desired then"
            raise Found(Difference(what, "epoch", str(list(command.epoch)), computed))
        audience = command.audience if self._trust is None else self._trust.audience
        expected = msgspec.structs.replace(
            desired, audience=audience, issued_ts=command.issued_ts, not_after_ts=command.not_after_ts
        )
        if expected != command:
            raise Found(difference(what, _fields(command), _fields(expected)))
        self._present.setdefault(command.model, set()).add(command.epoch)

    def absent(self, published_until: int) -> Iterator[str]:
        """Yield a sentence for each command that was published by a time (ms), as far as is known, and is absent.

        A state that lasted for a moment only may never have been published, and compaction takes all but the newest
        command of a model: an older one must be there only where one before it is.
        """
        for model, begun in sorted(self._begun.items()):
            present = self._present.get(model, set())
            ends = [ts for _, ts in begun[1:]]
            for place, (epoch, ts) in enumerate(begun):
                newest = place == len(begun) - 1
                lasted_until = published_until if newest else min(ends[place] - LASTING_MS, published_until)
                kept = newest or any(other < epoch for other in present)
                if epoch not in present and kept and ts <= lasted_until:
                    decision = self._desired[model, epoch].decision
                    why = f"decision {decision}" if decision else "a deployment or an operator's act"
                    yield f"the command of {model} for epoch {list(epoch)}, which {why} led to, is absent from control"


LASTING_MS = 10_000
"""How long a state must have been desired for its command to be published surely: a monitor takes a moment."""


def _fields(command: Command) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(command)
    return fields
