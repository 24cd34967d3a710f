"""Remember a model: its live period, what came before, and what still waits for time to pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

import msgspec
import numpy as np

from actions.desired import DesiredState
from actions.replicas import Replicas
from detectors.base import Ints
from detectors.multiplicity import stream_weights
from detectors.rows.concurrent import Comparison, new_comparison
from detectors.rows.label_delays import Waiting, interval_ms
from detectors.rows.label_share import LabelHealth, Silence, new_label_health
from detectors.rows.types import Baselines, Rules
from detectors.rows.watch import Health, new_health
from streams.config.resolved import OTHER, ModelConfig
from streams.evaluation.cohorts import Layout, OpenCohort
from streams.evaluation.label_parts import Coverage, Outputs
from streams.evaluation.pace import Pace
from streams.evaluation.plausibility import PairCount, Plausibility
from streams.evaluation.slices import slice_table
from streams.evaluation.sources import source_table
from streams.evaluation.track_records import TrackRecord, track_record
from streams.ledger.encoding import pack, unpack
from streams.ledger.records import Arm
from unship.budgets.table import EARLIER

#: Versions whose baselines and records are remembered; the oldest are forgotten first.
BASELINES_MAX = EARLIER.limit
#: Live deployments of versions that were live just before: from this one on they go on with the period they had.
CHURN_RETURNS = 4
#: Live periods of versions that may come back.
PARKED_MAX = 4
T = TypeVar("T")


class Standing(msgspec.Struct, frozen=True):
    """Hold what the last decision was: another one is written only if one of these differs."""

    verdict: str
    reason: str
    action: str
    version: str
    to: str | None
    slice: dict[str, bool | int | float | str] | None


class Beside(msgspec.Struct):
    """Hold what a version that answers live next to the live one has besides its health: the comparison that shows
    whether it is the worse of the two, and what was decided on it."""

    comparison: Comparison
    standing: Standing | None = None
    written_once: list[str] = []
    observed: str | None = None

    def settle(self, standing: Standing | None) -> None:
        """Take the last decision on it; None lets the same one be written again."""
        self.standing = standing

    def observe(self, target: str | None) -> None:
        """Note the target that was named."""
        self.observed = target


class Concurrent(msgspec.Struct):
    """Hold a version that answers during the live period of another one: its own health, its labels, the comparison
    that shows whether it is the better of the two. The last field is there only where its role is live as well."""

    role: str
    health: Health
    labels: LabelHealth
    comparison: Comparison
    beside: Beside | None = None

    def anew(self, version: str) -> Concurrent:
        """Return the same next to another live version."""
        losses, streams = self.comparison.waited.shape
        comparison = new_comparison(version, self.role, losses, streams)
        beside = self.beside
        if beside is not None:
            reverse = new_comparison(version, self.role, losses, streams)
            beside = Beside(reverse, beside.standing, beside.written_once, beside.observed)
        return Concurrent(self.role, self.health, self.labels, comparison, beside)


class YesOrNo(msgspec.Struct):
    """Count the outcomes of which a loss about yes and no can be computed, and those of which it cannot."""

    usable: int = 0
    unfit: int = 0

    def count(self, counts: list[PairCount]) -> None:
        """Count outcomes by whether answer and truth are yes or no."""
        for each in counts:
            if each.yes_or_no:
                self.usable += each.count
            else:
                self.unfit += each.count


class LivePeriod(msgspec.Struct):
    """Hold the time one version is live, from its deployment or a change of the desired state to the next.

    `observed` is the target that mode `observe`, or a page about a record, has named already. `newest` has the newest
    outcomes of the other versions as runs (version, count), where outcomes count on arrival. `pace` has how
    many outcomes were judged lately.
    """

    version: str
    since: int
    health: Health
    labels: LabelHealth
    concurrent: dict[str, Concurrent]
    written_once: list[str]
    observed: str | None = None
    newest: list[tuple[str, int]] = []
    pace: Pace = msgspec.field(default_factory=Pace)
    kinds: YesOrNo = msgspec.field(default_factory=YesOrNo)
    coverage: Coverage = msgspec.field(default_factory=Coverage)

    def add_newest(self, outcomes: Mapping[str, int], limit: int) -> None:
        """Add outcomes of a record by version; the newest `limit` are kept."""
        for version, count in outcomes.items():
            if count and self.newest and self.newest[-1][0] == version:
                # A single version is a single run, however many records it answers in.
                self.newest[-1] = (version, self.newest[-1][1] + count)
            elif count:
                self.newest.append((version, count))
        beyond = sum(count for _, count in self.newest) - limit
        while beyond > 0:
            version, count = self.newest.pop(0)
            if count > beyond:
                self.newest.insert(0, (version, count - beyond))
            beyond -= count

    def newest_outcomes(self) -> Counter[str]:
        """Return how many of the newest outcomes each version has."""
        found = Counter[str]()
        for version, count in self.newest:
            found[version] += count
        return found

    def observe(self, target: str | None) -> None:
        """Note the target that was named."""
        self.observed = target


class LastAct(msgspec.Struct, frozen=True):
    """Hold the newest decision that did something or asked for something: its id, its time (ms), and what it was."""

    decision: str
    ts: int
    version: str
    action: str
    to: str | None
    reason: str


class Written(msgspec.Struct):
    """Hold what was written of a model: its last decision and that one's digest, its last act, and the last deployment
    that was refused."""

    standing: Standing | None = None
    refused: Standing | None = None
    digest: str = ""
    last_act: LastAct | None = None

    def settle(self, standing: Standing) -> None:
        """Take the last decision; another one is written only if it differs."""
        self.standing = standing

    def reopen(self) -> None:
        """Forget the last decision, so that the same one is written again."""
        self.standing = None

    def refuse(self, deployment: Standing | None) -> None:
        """Remember the deployment that was refused last; None once one is taken."""
        self.refused = deployment

    def chain(self, digest: str, act: LastAct | None = None) -> None:
        """Take the digest of the decision written last, and what it did, if anything."""
        self.digest = digest
        self.last_act = act or self.last_act


class Parked(msgspec.Struct):
    """Hold the live period of a version that does not serve at present; its outcomes are still judged, silently."""

    period: LivePeriod
    left_at: int


class Churn(msgspec.Struct):
    """Hold how often versions come back that were live just before, so that none hides its decay by that.

    A new live period begins with each change of what is live, and a version that is never live for long is never
    judged. So from the fourth return within a window on, a version goes on with the period it had. `left` has when each
    version was live last, `returns` the times of the returns; periods are kept from the first return on.
    """

    left: dict[str, int] = {}
    returns: list[int] = []
    parked: dict[str, Parked] = {}
    paged: bool = False

    def leave(self, period: LivePeriod, now: int) -> None:
        """Note that a version stops being live; keep a copy of its period where versions come back."""
        self.left.pop(period.version, None)
        self.left[period.version] = now
        while len(self.left) > BASELINES_MAX:
            del self.left[next(iter(self.left))]
        if self.returns:
            # A copy, because the rest of its outcomes also goes to what the version leaves behind.
            self.park(unpack(pack(period), LivePeriod), now)

    def park(self, period: LivePeriod, now: int) -> None:
        """Keep a period; the oldest is dropped beyond `PARKED_MAX`."""
        self.parked.pop(period.version, None)
        self.parked[period.version] = Parked(period, now)
        if len(self.parked) > PARKED_MAX:
            del self.parked[next(iter(self.parked))]

    def count(self, version: str, now: int, window_ms: int) -> int:
        """Note that a version is deployed as live; return how often one came back within the window, 0 if not now."""
        self.returns = [at for at in self.returns if at > now - window_ms]
        if self.left.get(version, -1) < max(now - window_ms, 0):
            return 0
        self.returns.append(now)
        self.paged = self.paged and len(self.returns) >= CHURN_RETURNS
        return len(self.returns)

    def page(self) -> bool:
        """Return whether a person is to be paged: once, until versions stop coming back."""
        was, self.paged = self.paged, True
        return not was

    def take(self, version: str) -> LivePeriod | None:
        """Return the period that a version had, to go on with."""
        parked = self.parked.pop(version, None)
        return None if parked is None else parked.period

    def periods(self, since: int) -> list[LivePeriod]:
        """Return the periods that are kept; those that ended before `since` (ms) are dropped."""
        if self.parked:
            self.parked = {name: each for name, each in self.parked.items() if each.left_at >= since}
        return [each.period for each in self.parked.values()]


class RecordSoFar(msgspec.Struct, frozen=True):
    """Hold the record of a version that still answers, as it was after so many outcomes."""

    since: int
    outcomes: int
    coverage: float | None
    record: TrackRecord


class Past(msgspec.Struct):
    """Hold what versions left behind; the oldest are forgotten first. The last field is of those that still answer.

    `replaced` is the version that was live before, as long as its last outcomes are still to be counted, and
    `replaced_coverage` the labelled share of its newest cohorts.
    """

    replaced: Health | None = None
    replaced_coverage: float | None = None
    left: dict[str, Baselines] = {}
    left_healthy: dict[str, Baselines] = {}
    records: dict[str, TrackRecord] = {}
    churn: Churn = msgspec.field(default_factory=Churn)
    beside: dict[str, RecordSoFar] = {}

    def record_so_far(self, health: Health, coverage: float | None) -> TrackRecord | None:
        """Return what is on record of a version that was live, with what it answers since; what ended badly stays so.

        It is asked of every record of the ledger while something is wrong, and mostly nothing came since.
        """
        record = self.records.get(health.version)
        if record is not None and record.degraded:
            return record
        known = self.beside.get(health.version)
        at = (health.since, health.outcomes, coverage)
        if known is None or (known.since, known.outcomes, known.coverage) != at:
            known = RecordSoFar(*at, track_record(health, coverage, record))
            _remember(self.beside, health.version, known)
        return known.record

    def leave(self, health: Health, coverage: float | None = None) -> None:
        """Remember what a version leaves behind, with the labelled share of its newest cohorts."""
        baselines = health.leave()
        _remember(self.left, health.version, baselines)
        if baselines.healthy:
            _remember(self.left_healthy, health.version, baselines)
        record = track_record(health, coverage, self.records.get(health.version))
        _remember(self.records, health.version, record)
        self.beside.pop(health.version, None)

    def leave_replaced(self) -> Baselines | None:
        """Remember what the replaced version leaves behind, and return it; None if none was replaced."""
        health, self.replaced = self.replaced, None
        if health is None:
            return None
        self.leave(health, self.replaced_coverage)
        return self.left[health.version]

    def hand_over(self, live: LivePeriod | None) -> None:
        """Let the live version be the replaced one; what was replaced before it is remembered."""
        self.leave_replaced()
        self.replaced = live.health if live is not None else None
        self.replaced_coverage = live.labels.share if live is not None else None

    def forget(self) -> None:
        """Forget everything: what was usual among other labels does not hold for those of now."""
        self.replaced = None
        self.left.clear()
        self.left_healthy.clear()
        self.records.clear()
        self.beside.clear()
        self.churn.parked.clear()


def _remember(table: dict[str, T], version: str, what: T) -> None:
    table.pop(version, None)
    table[version] = what
    while len(table) > BASELINES_MAX:
        del table[next(iter(table))]


class Labels(msgspec.Struct):
    """Hold what is known of a model's labels, whatever version answered: whether they still come, and can be right.

    `waiting` are predictions whose labels may still come, where there is no maturity.
    """

    waiting: Waiting
    silence: Silence = msgspec.field(default_factory=Silence)
    classes: Plausibility = msgspec.field(default_factory=Plausibility)
    outputs: Outputs = msgspec.field(default_factory=Outputs)

    def forget(self, arm: int) -> None:
        """Forget an arm."""
        self.silence.forget(arm)
        self.waiting.forget(arm)


class ModelState(msgspec.Struct):
    """Hold everything the fold knows of a model; outcomes of cohorts before `closed_until` come too late."""

    desired: DesiredState
    layout: Layout
    open_cohorts: dict[int, OpenCohort]
    closed_until: int
    live: LivePeriod | None
    counts: dict[str, int]
    labels: Labels
    past: Past = msgspec.field(default_factory=Past)
    written: Written = msgspec.field(default_factory=Written)
    clock: int = -1
    outcomes: dict[str, int] = {}
    replicas: Replicas = msgspec.field(default_factory=Replicas)

    def reach(self, now: int) -> None:
        """Let the clock reach `now`."""
        self.clock = max(self.clock, now)

    def close_until(self, cohort: int) -> None:
        """Take no more outcomes of cohorts before this one."""
        self.closed_until = max(self.closed_until, cohort)

    def admit(self, version: str, now: int, silence_ms: int, limit: int) -> bool:
        """Give a version that answers at `now` (ms) a place; those that did not for `silence_ms` lose theirs.

        A version that is judged, or of which a cohort is open, keeps its place.
        """
        for silent in self.desired.versions.silent(now - silence_ms):
            if not self._is_used(silent):
                self.forget_version(silent)
        return self.desired.versions.admit(version, now, limit)

    def make_room(self, version: str, limit: int) -> bool:
        """Return whether a version that is deployed has a place; the oldest deployment that plays no part loses its."""
        if version in self.desired.versions.deployed or len(self.desired.versions.deployed) < limit:
            return True
        oldest = next((other for other in self.desired.dispensable() if not self._is_used(other)), None)
        if oldest is not None:
            self.forget_version(oldest)
        return oldest is not None

    def _is_used(self, version: str) -> bool:
        if self.live is not None and (version == self.live.version or version in self.live.concurrent):
            return True
        numbers = self.layout.numbers_of(version)
        return any(number in cohort.predictions for cohort in self.open_cohorts.values() for number in numbers)

    def forget_version(self, version: str) -> None:
        """Forget a version, with what was counted of it."""
        for number in self.layout.numbers_of(version):
            self.labels.forget(number)
        self.layout.forget(version)
        self.desired.versions.forget(version)
        self.outcomes.pop(version, None)

    def count_outcomes(self, arms: list[Arm], arm: Ints) -> None:
        """Count outcomes for the versions that gave them; `arm` indexes `arms`."""
        for number, count in enumerate(np.bincount(arm, minlength=len(arms)).tolist()):
            version = arms[number].version
            if count or self.desired.versions.is_known(version):
                self.outcomes[version] = self.outcomes.get(version, 0) + count

    def reseat_sources(self) -> bool:
        """Give places to label sources that had more of the newest outcomes than those that have them; return if any.

        Where an alarm was raised no place changes hands: it counts by place what each source reported since.
        """
        sources = self.layout.sources
        live = self.live
        alarmed = live is not None and (
            live.health.degraded or any(each.beside and each.health.degraded for each in live.concurrent.values())
        )
        taken = sources.reseat(alarmed)
        for place in taken:
            healths = [] if self.past.replaced is None else [self.past.replaced]
            if self.live is not None:
                healths += [self.live.health, *(other.health for other in self.live.concurrent.values())]
            for health in healths:
                health.move_source(place, sources.other)
            for baselines in (*self.past.left.values(), *self.past.left_healthy.values()):
                baselines.move_source(place, sources.other)
            for cohort in self.open_cohorts.values():
                cohort.move_source(place, sources.other)
        return bool(taken)

    def start_period(self, config: ModelConfig, version: str, now: int) -> None:
        """Let a version be live from now on; what it replaces is remembered."""
        self.written.refuse(None)
        if self.live is not None and self.live.version != version:
            self.past.churn.leave(self.live, now)
        self.past.churn.take(version)
        self._hand_over()
        self.live = new_period(self, config, version, now)

    def _hand_over(self) -> None:
        for version, other in self.live.concurrent.items() if self.live is not None else ():
            self._leave_beside(version, other)
        self.past.hand_over(self.live)

    def take_over(self, config: ModelConfig, version: str, since: int) -> None:
        """Let a version that answers live since `since` (ms) be the live one: no deployment shows when that began.

        If it was judged next to the live one, it goes on with its rows, and the two change places. Comparisons with
        other versions begin from the start, for they are about another version now.
        """
        old = self.live
        assert old is not None
        other = old.concurrent.get(version)
        self.written.refuse(None)
        if other is None or other.beside is None:
            self._hand_over()
            self.live = new_period(self, config, version, since)
            return
        self.past.leave_replaced()
        self.past.leave(old.health, old.labels.share)
        mine, standing = other.beside, self.written.standing
        left = Beside(other.comparison, None, old.written_once, old.observed)
        if standing is not None and standing.version == old.version:
            left.settle(standing)
        if mine.standing is not None:
            self.written.settle(mine.standing)
        concurrent = {old.version: Concurrent("live", old.health, old.labels, mine.comparison, left)}
        for name, each in old.concurrent.items():
            if name != version:
                concurrent[name] = each.anew(name)
        self.live = LivePeriod(
            version, old.since, other.health, other.labels, concurrent, mine.written_once, mine.observed, old.newest
        )

    def reopen(self, version: str) -> None:
        """Let the last decision on a version be written again if it still holds."""
        other = None if self.live is None else self.live.concurrent.get(version)
        if other is not None and other.beside is not None:
            other.beside.settle(None)
        else:
            self.written.reopen()

    def drop_concurrent(self, version: str) -> None:
        """Judge a version next to the live one no more; if it was live earlier, its record is kept."""
        assert self.live is not None
        self._leave_beside(version, self.live.concurrent.pop(version))

    def _leave_beside(self, version: str, other: Concurrent) -> None:
        known = self.past.records.get(version)
        # What ended badly is not made good by what a few stragglers answered later.
        ended_well = known is None or not known.degraded
        if other.beside is not None and version in self.desired.changes.earlier and ended_well:
            self.past.leave(other.health, other.labels.share)

    def resume_period(self, version: str, now: int) -> bool:
        """Let a version be live again with the rows, baselines and outcomes it had; False if they are not known."""
        churn = self.past.churn
        period = churn.take(version)
        if period is None or self.live is None:
            return False
        self.written.refuse(None)
        self.past.leave_replaced()
        churn.leave(self.live, now)
        churn.park(self.live, now)
        self.live = period
        return True

    def forget(self) -> None:
        """Forget what was usual: labels are others from now on."""
        self.past.forget()
        self.labels.silence = Silence()

    def begin_again(self, config: ModelConfig, now: int) -> None:
        """Judge afresh under another configuration; what is desired stays.

        Outcomes under the old one were computed from other losses or slices, or counted by another rule.
        """
        fresh = new_model_state(config)
        self.layout, self.labels, self.open_cohorts, self.closed_until = fresh.layout, fresh.labels, {}, -1
        self.forget()
        if self.live is not None:
            self.live = new_period(self, config, self.live.version, now)
        self.desired.close_proposal()


def new_model_state(config: ModelConfig) -> ModelState:
    """Return a model nothing is known of yet."""
    layout = Layout([], slice_table(config.slices_by, config.slices_cap), source_table(config.sources))
    return ModelState(DesiredState(), layout, {}, -1, None, {}, Labels(Waiting(interval_ms(config.horizon_ms))))


def new_period(state: ModelState, config: ModelConfig, version: str, now: int) -> LivePeriod:
    """Return the live period that starts now."""
    binary = [spec.binary for spec in config.losses]
    health = new_health(version, "live", now, binary, len(state.layout.slices.streams), config.outcomes_labelled)
    return LivePeriod(version, now, health, new_label_health(), {}, [])


def rules_for(state: ModelState, config: ModelConfig, alarming: bool) -> Rules:
    """Return what an alarm takes, for the streams known at present."""
    streams = state.layout.slices.streams
    overall, slice_weight = stream_weights(len(config.losses), config.slices_cap if config.slices_by else 0)
    weights = np.array([0.0 if stream.value == OTHER and stream.dimension else slice_weight for stream in streams])
    weights[0] = overall
    unlabelled = tuple(config.latency_losses)
    return Rules(config.promise, weights, config.worse_by, config.promise_in_time, alarming, unlabelled)
