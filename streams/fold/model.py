"""Keep one model of the fold: its configuration, what is known of it, and the detectors of its live period.

What arrives (`streams.fold.arrivals`), the passing of time (`streams.fold.judging`) and the policy
(`streams.fold.deciding`) are functions of it and of the ledger's records in their order. Nothing is read from outside.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from actions.fleet_limit import FleetState
from detectors.rows.types import Rules
from streams.config.resolved import ModelConfig, Places
from streams.evaluation.opinions import Opinions, SavedOpinion
from streams.evaluation.periods import ModelState, new_model_state, rules_for


class SavedModel(msgspec.Struct):
    """A `ModelFold` at rest."""

    state: ModelState
    opinions: list[SavedOpinion]


class ModelFold:
    """Fold the ledger records of one model. `width` is that of its cohorts in milliseconds, 0 without a maturity."""

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        saved: SavedModel | None = None,
        fleet: FleetState | None = None,
        places: Places | None = None,
    ) -> None:
        self.name = name
        self.places = Places() if places is None else places
        self.fleet = FleetState(1) if fleet is None else fleet
        self.config = config
        self.width = width_of(config)
        self.state = new_model_state(config) if saved is None else saved.state
        self.opinions = Opinions(config.detectors, len(config.losses))
        if saved is not None:
            self.opinions.load(saved.opinions)
        self.counts: Counter[str] = Counter(self.state.counts)
        self._rules: dict[bool, Rules] = {}

    def save(self) -> SavedModel:
        """Return everything, to go on bit for bit."""
        return SavedModel(msgspec.structs.replace(self.state, counts=dict(self.counts)), self.opinions.save())

    @property
    def silence_ms(self) -> int:
        """Return after how many milliseconds without an answer a version may be forgotten: no label of it is due."""
        return self.config.horizon_ms + self.width

    def rules(self, alarming: bool) -> Rules:
        """Return what an alarm takes at present; it changes only with the configuration and with new slices."""
        rules = self._rules.get(alarming)
        if rules is None or rules.weights.size != len(self.state.layout.slices.streams):
            rules = self._rules[alarming] = rules_for(self.state, self.config, alarming)
        return rules

    @property
    def commanded(self) -> bool:
        """Return whether replicas may be commanded what is desired.

        Where deployments are signed, a version that merely began to answer is judged, and commanded to nobody: anybody
        who may write predictions can make one.
        """
        if self.config.mode == "observe":
            return False
        return self.config.deployments != "signed" or self.state.desired.is_ordered

    def start_period(self, version: str, now: int) -> None:
        """Let a version be live from now on; what it replaces is remembered."""
        self.state.start_period(self.config, version, now)
        self.opinions = Opinions(self.config.detectors, len(self.config.losses))

    def resume_period(self, version: str, now: int) -> bool:
        """Let a version be live again as it was, if that is known; return whether it is."""
        resumed = self.state.resume_period(version, now)
        if resumed:
            self.opinions = Opinions(self.config.detectors, len(self.config.losses))
        return resumed

    def judge_afresh(self, version: str, now: int) -> None:
        """Take the present label coverage as the normal one: from here on everything is learned again."""
        self.start_period(version, now)
        self.state.forget()

    def reconfigure(self, config: ModelConfig, places: Places, now: int) -> None:
        """Go on under another configuration: judged afresh if it changes what is seen; what is desired stays."""
        self.places = places
        if config == self.config:
            return
        old, self.config, self.width = self.config, config, width_of(config)
        self._rules.clear()
        if not config.judges_as(old):
            self.state.begin_again(config, now)
            self.opinions = Opinions(config.detectors, len(config.losses))


def width_of(config: ModelConfig) -> int:
    """Return the width of a model's cohorts in milliseconds, 0 without a maturity."""
    return config.cohort_ms if config.mature_after_ms else 0
