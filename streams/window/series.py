"""Series, which are the predictions of one version in one role, and the rules by which the join keeps them."""

from __future__ import annotations

from typing import Final

import msgspec

from streams.config.resolved import ModelConfig
from streams.window.tally import Tally
from unship.events import Prediction
from unship.rejections import RejectCode

MODELS_MAX: Final = 1_000
SERIES_MAX: Final = 100_000
"""More models or versions than this are a mistake or an attack: they are counted and left out."""


INTERVALS: Final = 8
"""So many intervals of the join clock are as long as a horizon, or as an early time: each has limits of its own."""


class Series(msgspec.Struct, frozen=True):
    """Predictions of one version in one role."""

    model: str
    version: str
    role: str


class WindowRule(msgspec.Struct, frozen=True):
    """A model's limits of the window, the slices that are kept, and which feedback is a label.

    `unlabelled` is true where predictions are judged without a label too, and `latency` where their duration is kept.
    """

    horizon_ms: int
    early_ms: int
    slices_by: tuple[str, ...]
    truth: bool = True
    engagement: bool = False
    unlabelled: bool = False
    latency: bool = False

    @property
    def reach_ms(self) -> int:
        """How far two predictions may be apart that one label can belong to."""
        return self.horizon_ms + self.early_ms

    @property
    def interval_ms(self) -> int:
        """The width of the intervals in each of which the first prediction of a version is kept."""
        return max(max(self.horizon_ms, self.early_ms) // INTERVALS, 1)

    @property
    def usual(self) -> bool:
        """Return whether a truth is all that a prediction waits for."""
        return self.truth and not (self.engagement or self.unlabelled or self.latency)

    def takes(self, truth: object, engagement: float | None) -> bool:
        """Return whether feedback carries something that the model's losses need.

        >>> WindowRule(0, 0, ()).takes(None, 0.5), WindowRule(0, 0, ()).takes(1, None)
        (False, True)
        """
        return (self.truth and truth is not None) or (self.engagement and engagement is not None)


def window_rule(model: ModelConfig) -> WindowRule:
    """Return how long the join keeps what belongs to a model, and which feedback it takes."""
    return WindowRule(
        model.horizon_ms,
        model.early_ms,
        tuple(model.slices_by),
        truth=not all(spec.of_engagement or spec.of_latency for spec in model.losses),
        engagement=any(spec.of_engagement for spec in model.losses),
        unlabelled=model.judges_unlabelled,
        latency=bool(model.latency_losses),
    )


class SeriesTable:
    """Give codes to series, and count the models. `rules` has the rule of each code."""

    def __init__(self, rules: dict[str, WindowRule], default: WindowRule) -> None:
        self.rules: list[WindowRule] = []
        self._series: list[Series] = []
        self._codes: dict[tuple[str, str, str], int] = {}
        self._models: dict[str, int] = {}
        self._rule_of = rules
        self._default = default

    def __getitem__(self, code: int) -> Series:
        """Return the series of a code."""
        return self._series[code]

    def model_number(self, model: str) -> int:
        """Return the number of a model, -1 if nothing of it was admitted."""
        return self._models.get(model, -1)

    def models(self) -> list[str]:
        """Return the models in the order of their numbers."""
        return list(self._models)

    def known(self, model: str, version: str, role: str) -> int:
        """Return the code of a series, adding it if the limits allow; -1 if not, and nothing is counted."""
        code = self._codes.get((model, version, role))
        if code is not None:
            return code
        if (model not in self._models and len(self._models) >= MODELS_MAX) or len(self._series) >= SERIES_MAX:
            return -1
        return self._add(Series(model, version, role))

    def code_of(self, event: Prediction, position: int, tally: Tally) -> int:
        """Return the code of an event's series; if a limit is reached, count it and return -1."""
        code = self._codes.get((event.model, event.version, event.role))
        if code is not None:
            return code
        if not self.admit(event.model, (position, -1), tally):
            return -1
        if len(self._series) >= SERIES_MAX:
            tally.add(RejectCode.VERSION_LIMIT, (position, -1))
            return -1
        return self._add(Series(event.model, event.version, event.role))

    def admit(self, model: str, at: tuple[int, int], tally: Tally) -> bool:
        """Return whether a model is below the limit of models; if not, count it at the place `at` of its event."""
        if model not in self._models:
            if len(self._models) >= MODELS_MAX:
                tally.add(RejectCode.MODEL_LIMIT, at)
                return False
            self._models[model] = len(self._models)
        return True

    def _add(self, series: Series) -> int:
        code = self._codes[series.model, series.version, series.role] = len(self._series)
        self._models.setdefault(series.model, len(self._models))
        self._series.append(series)
        self.rules.append(self._rule_of.get(series.model, self._default))
        return code

    def save(self) -> tuple[list[str], list[Series]]:
        """Return the models and the series, in the order of their codes."""
        return list(self._models), list(self._series)

    def load(self, saved: tuple[list[str], list[Series]]) -> None:
        """Load what `save` returned into a new table."""
        self._models = {model: number for number, model in enumerate(saved[0])}
        for series in saved[1]:
            self._add(series)
