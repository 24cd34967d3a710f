"""Places for models: those of the configuration always have one, and all others share a limited number.

A model that only appears in events is a stranger. Once another one finds no place, those are forgotten that had no
prediction for a label horizon. One that was deployed, or that an operator acted upon, is kept as long as there is room.
Everything is in the order of the ledger, so that each fold of it gives the same places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from actions.desired import Locks
from streams.fold.model import ModelFold
from unship.budgets.table import FORGOTTEN_MODELS

FORGOTTEN_MAX = FORGOTTEN_MODELS.limit


class ModelPlaces(msgspec.Struct):
    """Hold when each model without a place in the configuration was last predicted with, the newest at the end.

    `digests` has the digest of the last decision of models that are forgotten, which their next one continues.
    """

    strangers: dict[str, int] = {}
    deployed: dict[str, int] = {}
    digests: dict[str, str] = {}

    def admit(self, name: str, now: int, limit: int) -> bool:
        """Give a model that appears in an event a place, if one of the `limit` places of strangers is free."""
        if len(self.strangers) >= limit:
            return False
        self.strangers[name] = now
        return True

    def predicted(self, name: str, now: int) -> None:
        """Note a prediction of a model."""
        for table in (self.strangers, self.deployed):
            if table.pop(name, None) is not None:
                table[name] = now

    def deploy(self, name: str, now: int) -> None:
        """Note that a model was deployed, or that an operator acted upon it."""
        self.deployed[name] = max(now, self.deployed.pop(name, -1), self.strangers.pop(name, -1))

    def silent(self, before: int) -> list[str]:
        """Return the strangers without a prediction since a time, the longest silent one first."""
        found = []
        for name, at in self.strangers.items():
            if at >= before:
                break
            found.append(name)
        return found

    def dispensable(self, models: Mapping[str, ModelFold], before: int) -> Iterator[str]:
        """Yield the deployed models that may be forgotten, the longest silent one first."""
        for name, at in self.deployed.items():
            if at >= before:
                return
            if not is_kept(models[name]):
                yield name

    def shed_replicas(self, models: Mapping[str, ModelFold], limit: int) -> None:
        """Forget replicas beyond the limit of all models: first those of models that are silent for longest."""
        excess = sum(len(model.state.replicas.known) for model in models.values()) - limit
        if excess <= 0:
            return
        named = (name for name in models if name not in self.strangers and name not in self.deployed)
        for name in (*self.strangers, *self.deployed, *named):
            model = models[name]
            while excess > 0 and model.state.replicas.known:
                model.state.replicas.make_room(model.counts)
                excess -= 1

    def configure(self, models: Mapping[str, ModelFold], named: Mapping[str, object], now: int) -> None:
        """Take another configuration: the models that it names need no place here, and others do."""
        for name, model in models.items():
            if name in named:
                self.strangers.pop(name, None)
                self.deployed.pop(name, None)
            elif name not in self.strangers and name not in self.deployed:
                (self.deployed if model.state.desired.versions.were_deployed() else self.strangers)[name] = now

    def forget(self, name: str, digest: str) -> None:
        """Forget a model; the digest of its last decision is remembered."""
        self.strangers.pop(name, None)
        self.deployed.pop(name, None)
        if digest:
            self.digests[name] = digest
            if len(self.digests) > FORGOTTEN_MAX:
                del self.digests[next(iter(self.digests))]


def is_kept(model: ModelFold) -> bool:
    """Return whether a decision or an operator made something of a model that must not be forgotten."""
    desired = model.state.desired
    return bool(desired.quarantine) or desired.locks != Locks() or desired.incarnation > 0
