"""Keep one model of the fold: its configuration, what is known of it, and the detectors of its live period.

What arrives (`streams.fold.arrivals`), the passing of time (`streams.fold.judging`) and the policy
(`streams.fold.deciding`) are functions of it and of the ledger's records in their order. Nothing is read from outside.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from itertools import islice

import msgspec

from actions.fleet_limit import FleetState
from detectors.base import Ints
from detectors.rows.label_delays import interval_ms
from detectors.rows.types import Entries, Rules
from detectors.rows.watch import Health
from streams.config.resolved import ModelConfig, Places
from streams.evaluation.opinions import Opinions, SavedOpinion
from streams.evaluation.periods import ModelState, new_model_state, rules_for
from streams.fold.lookahead import RECORDS_AHEAD, RECORDS_AHEAD_MATURE, Ahead, look_ahead
from streams.ledger.records import Part
from unship.rejections import RejectCode

#: After so many records it is tried again to look ahead, which is in vain as long as there is something to see.
TRIED_EVERY = 8


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
        # Parts of the next records, as far as a driver knows them, and what some of them lead to.
        self._upcoming: deque[Part] = deque()
        self._upcoming_from = 0
        self._ahead: dict[str, Ahead] = {}

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

    def expect(self, parts: Iterable[Part], partition: int) -> None:
        """Expect that these are the parts of the next records, all of one source partition."""
        self._upcoming, self._upcoming_from = deque(parts), partition
        for ahead in self._ahead.values():
            ahead.leave()
        self._ahead = {}

    def reseat_sources(self) -> None:
        """Give the places of label sources again; what was foreseen did not know of that."""
        if self.state.reseat_sources():
            self._ahead = {}

    def arrive(self, part: Part) -> None:
        """Note that a part arrives, and look ahead where that pays."""
        upcoming = self._upcoming
        if not upcoming or part is not upcoming[0]:
            return
        if not self._ahead and not len(upcoming) % TRIED_EVERY:
            self._ahead = look_ahead(
                self.state,
                list(islice(upcoming, RECORDS_AHEAD_MATURE if self.width else RECORDS_AHEAD)),
                self._upcoming_from,
                self.width,
                self.rules(self.opinions.deciding is None),
                self.rules(True),
            )
        upcoming.popleft()

    def judge(self, health: Health, entries: Entries, rules: Rules, now: int) -> None:
        """Step the rows of a version with the outcomes of a cohort or of a record."""
        ahead = self._ahead.get(health.version)
        if ahead is not None:
            if ahead.judge(health, entries, rules):
                return
            ahead.leave()
            del self._ahead[health.version]
        health.judge(entries, rules, now)

    @property
    def asks_for_classes(self) -> bool:
        """Return whether the classes of outcomes are counted: until it is known what their kinds are."""
        live, config = self.state.live, self.config
        unknown = config.losses[0].partial and (live is None or not live.kinds.usable)
        return unknown or not (self.state.labels.classes.passed or config.negative)

    @property
    def commanded(self) -> bool:
        """Return whether replicas may be commanded what is desired.

        A version that merely began to answer is judged, and commanded to nobody: anybody who may write predictions can
        make one, and what serves already needs no order.
        """
        return self.config.mode != "observe" and self.state.desired.is_ordered

    def start_period(self, version: str, now: int) -> None:
        """Let a version be live from now on; what it replaces is remembered."""
        self.state.start_period(self.config, version, now)
        self.opinions = Opinions(self.config.detectors, len(self.config.losses))

    def take_over(self, version: str, since: int) -> None:
        """Let a version that answers live since `since` (ms) be the live one, without a deployment."""
        self.state.take_over(self.config, version, since)
        self.opinions = Opinions(self.config.detectors, len(self.config.losses))

    def leave_out(self, outcomes: Ints) -> None:
        """Count outcomes that were not judged; they are given by arm."""
        if not (outcomes > 0).any():
            return
        for number in (outcomes > 0).nonzero()[0].tolist():
            count = int(outcomes[number])
            self.counts[RejectCode.NOT_JUDGED] += count
            self.state.desired.versions.leave_out(self.state.layout.arms[number].version, count)

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


def counting_width_of(config: ModelConfig) -> int:
    """Return the width of the intervals by which a model's predictions are counted, in milliseconds."""
    return width_of(config) or interval_ms(config.horizon_ms)


def width_of(config: ModelConfig) -> int:
    """Return the width of a model's cohorts in milliseconds, 0 without a maturity."""
    return config.cohort_ms if config.mature_after_ms else 0
