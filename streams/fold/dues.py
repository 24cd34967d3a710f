"""When something is due in the models of a fold by the passing of time alone, and which models were touched."""

from __future__ import annotations

from streams.config.units import NEVER
from streams.fold.judging import due_at
from streams.fold.model import ModelFold


class Dues:
    """Hold the next instant of each model. `touched` are those that were asked for it since that was taken."""

    def __init__(self) -> None:
        self._at: dict[str, int] = {}
        self._touched: dict[str, None] = {}

    def note(self, model: ModelFold) -> None:
        """Note that a model was touched, and when it is due next."""
        self._at[model.name] = due_at(model)
        self._touched[model.name] = None

    def forget(self, name: str) -> None:
        """Note that a model is not known any more."""
        del self._at[name]
        self._touched[name] = None

    def next(self) -> int:
        """Return the next instant of all."""
        return min(self._at.values(), default=NEVER)

    def at(self, name: str) -> int:
        """Return the next instant of a model."""
        return self._at[name]

    def until(self, now: int) -> list[str]:
        """Return the models that are due."""
        return [name for name, at in self._at.items() if at <= now]

    def take_touched(self) -> list[str]:
        """Return the models that were touched since the last call, in the order of their names."""
        touched, self._touched = sorted(self._touched), {}
        return touched
