"""Choose the version that answers a unit, out of what a replica has loaded; pure, and fast enough for each request."""

from __future__ import annotations

from msgspec import Struct

from unship.events import Epoch, Role
from unship.replica.fence import NO_EPOCH, Serving
from unship.shares import chosen, hash_of, unit_hash


class Choice(Serving, frozen=True, gc=True):
    """Name the version that answers, and how that answer is to be labelled; hand it to `Fleet.predicted` as `as_`.

    Attributes:
        role: `live` for the version that serves, `holdback` for one that answers its share.
        loaded: What `on_version` returned for the version; None for the one that the process started with.
        unit_hash: Represents the unit in the event; None where the choice went by an id.
        id: The id by which the version was chosen, which the prediction gets; None where a unit was given without one.
    """

    role: Role = "live"
    loaded: object = None
    unit_hash: int | None = None
    id: str | None = None


class Loaded(Struct, frozen=True, eq=False):
    """Hold what a replica has loaded; replaced as a whole, so that no request sees half a switch.

    Attributes:
        serving: What serves.
        result: What `on_version` returned for it.
        holdback: What answers a share of the units, if anything does.
        holdback_result: What `on_version` returned for that.
        share: The part of the units that it answers.
        period_epoch: The epoch by which units are dealt out.
    """

    serving: Serving
    result: object = None
    holdback: Serving | None = None
    holdback_result: object = None
    share: float = 0.0
    period_epoch: Epoch = NO_EPOCH


class Chooser:
    """Hold what a process has loaded, for any thread to choose from; replaced by one thread."""

    def __init__(self, model: str, loaded: Loaded) -> None:
        """Begin with what the process has loaded as it starts."""
        self._model = model
        self.loaded = loaded
        self.asked = False

    def swap(self, loaded: Loaded) -> None:
        """Choose from this from now on."""
        self.loaded = loaded

    def choose(self, unit: str | int | None, id: str | None) -> Choice:
        """Return the version for a unit, or for an id where there is none; raise for what is no text."""
        self.asked = True
        return choose(self.loaded, self._model, unit, id)

    def serving(self, id: str | None) -> Choice:
        """Return the version that serves, for a request of which nothing else is known."""
        now = self.loaded.serving
        return Choice(now.version, now.epoch, now.artifact, "live", self.loaded.result, None, id)


def choose(loaded: Loaded, model: str, unit: str | int | None, id: str | None) -> Choice:
    """Return the version for a unit, or for an id where there is none.

    Example:
        >>> loaded = Loaded(Serving("v2", (0, 7, 0)), None, Serving("v1", (0, 9, 0)), None, 0.5, (0, 7, 0))
        >>> [choose(loaded, "fraud", unit, None).version for unit in ("ann", "bob", "eve", 7)]
        ['v2', 'v1', 'v2', 'v1']
    """
    hashed = 0
    name = None if unit is None else str(unit)
    if name:
        hashed = hash_of(model, loaded.period_epoch, name)
    elif loaded.holdback is not None and id is not None:
        hashed = hash_of(model, loaded.period_epoch, id)
    marked = unit_hash(hashed) if name else None
    serving, holdback = loaded.serving, loaded.holdback
    if holdback is not None and chosen(hashed, serving.version, {holdback.version: loaded.share}) == holdback.version:
        return Choice(
            holdback.version, holdback.epoch, holdback.artifact, "holdback", loaded.holdback_result, marked, id
        )
    return Choice(serving.version, serving.epoch, serving.artifact, "live", loaded.result, marked, id)
