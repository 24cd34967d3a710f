"""Series, which are the predictions of one version in one role, and the rules by which the join keeps them."""

from __future__ import annotations

from typing import Final

import msgspec

from streams.config.resolved import ModelConfig

CROWDED_LEAST: Final = 4_096
"""So many series are no reason yet to look for those that are in use no more."""


INTERVALS: Final = 8
"""So many intervals of the join clock are as long as a horizon, or as an early time: each has limits of its own."""


class Series(msgspec.Struct, frozen=True):
    """Predictions of one version in one role."""

    model: str
    version: str
    role: str


NOBODY: Final = Series("", "", "")
"""Has the place of a code that is not in use; no event has a model without a name."""


class WindowRule(msgspec.Struct, frozen=True):
    """A model's limits of the window, the slices that are kept, and which feedback is a label.

    `unlabelled` is true where predictions are judged without a label too, and `latency` where their duration is kept.
    `losses` is how many losses each of them has, and `scores` is true where one needs the scores by class.
    `classes` is the kind of a target whose classes are compared. Up to `revised_ms` after a prediction its label may
    be replaced, by its own source or one of `revised_by`; never if -1.
    """

    horizon_ms: int
    early_ms: int
    slices_by: tuple[str, ...]
    truth: bool = True
    engagement: bool = False
    unlabelled: bool = False
    latency: bool = False
    losses: int = 1
    scores: bool = True
    classes: str = ""
    revised_ms: int = -1
    revised_by: tuple[str, ...] = ()

    @property
    def reach_ms(self) -> int:
        """How far two predictions may be apart that one label can belong to."""
        return self.horizon_ms + self.early_ms

    @property
    def interval_ms(self) -> int:
        """The width of the intervals in each of which the first prediction of a version is kept."""
        return max(max(self.horizon_ms, self.early_ms) // INTERVALS, 1)

    @property
    def row_bytes(self) -> int:
        """How many bytes the numbers of an outcome, or of a pair, take in a ledger record at most.

        That a loss cannot be computed is counted, with the places of both events.
        """
        return 8 * (8 + len(self.slices_by) + self.losses) + 18 * self.losses

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
        truth=model.needs_truth,
        engagement=any(spec.of_engagement for spec in model.losses),
        unlabelled=model.judges_unlabelled,
        latency=bool(model.latency_losses),
        losses=len(model.losses),
        scores=model.kind != "binary" and any(spec.of_scores for spec in model.losses),
        classes=model.kind if model.compares_classes else "",
        revised_ms=model.mature_after_ms if model.revises else -1,
        revised_by=tuple(model.sources),
    )


class SeriesTable:
    """Give codes to series, and numbers to models. `rules` has the rule of each code.

    No name is refused, and none has a place for ever: the codes of series that no row has any more are given again.
    They are looked for where the table has twice as many as were in use the last time, so a name costs the same at any
    time.
    """

    def __init__(self, rules: dict[str, WindowRule], default: WindowRule) -> None:
        self.rules: list[WindowRule] = []
        self._series: list[Series] = []
        self._codes: dict[tuple[str, str, str], int] = {}
        self._models: dict[str, int] = {}
        self._names: list[str] = []
        # Codes, and numbers of models, that were given and are in use no more.
        self._free: tuple[list[int], list[int]] = ([], [])
        self._crowded_from = CROWDED_LEAST
        self._rule_of = rules
        self._default = default

    def __len__(self) -> int:
        """Return how many series have a code."""
        return len(self._codes)

    def __getitem__(self, code: int) -> Series:
        """Return the series of a code."""
        return self._series[code]

    def model_number(self, model: str) -> int:
        """Return the number of a model, -1 if no series of it has a code."""
        return self._models.get(model, -1)

    def models(self) -> list[str]:
        """Return the models by their numbers; those of numbers that are not in use have no meaning."""
        return self._names

    def code(self, model: str, version: str, role: str) -> int:
        """Return the code of a series."""
        code = self._codes.get((model, version, role))
        return self._add(Series(model, version, role)) if code is None else code

    def _add(self, series: Series) -> int:
        codes, numbers = self._free
        rule = self._rule_of.get(series.model, self._default)
        if codes:
            code = codes.pop()
            self._series[code], self.rules[code] = series, rule
        else:
            code = len(self._series)
            self._series.append(series)
            self.rules.append(rule)
        self._codes[series.model, series.version, series.role] = code
        if series.model not in self._models:
            if numbers:
                number = numbers.pop()
                self._names[number] = series.model
            else:
                number = len(self._names)
                self._names.append(series.model)
            self._models[series.model] = number
        return code

    @property
    def crowded(self) -> bool:
        """Return whether it is time to look for codes that are in use no more."""
        return len(self._codes) >= self._crowded_from

    def keep(self, used: set[int]) -> None:
        """Let the codes of all other series be given again."""
        codes, numbers = self._free
        for name, code in [(name, code) for name, code in self._codes.items() if code not in used]:
            del self._codes[name]
            self._series[code] = NOBODY
            codes.append(code)
        models = {model for model, _, _ in self._codes}
        for model, number in [(model, number) for model, number in self._models.items() if model not in models]:
            del self._models[model]
            self._names[number] = ""
            numbers.append(number)
        self._crowded_from = max(CROWDED_LEAST, 2 * len(self._codes))

    def save(self) -> tuple[list[str], list[Series]]:
        """Return the models by their numbers, and the series by their codes."""
        return list(self._names), list(self._series)

    def load(self, saved: tuple[list[str], list[Series]]) -> None:
        """Load what `save` returned into a new table."""
        codes, numbers = self._free
        self._names, self._series = saved
        self.rules = [self._rule_of.get(series.model, self._default) for series in self._series]
        for code, series in enumerate(self._series):
            if series == NOBODY:
                codes.append(code)
            else:
                self._codes[series.model, series.version, series.role] = code
        for number, model in enumerate(self._names):
            if model:
                self._models[model] = number
            else:
                numbers.append(number)
