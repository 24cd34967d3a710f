"""Report the evidence of a decision: every number that was weighed, at 9 significant digits."""

from __future__ import annotations

from functools import partial

import numpy as np
from msgspec import UNSET, UnsetType

from actions.evidence_tree import (
    AlarmReport,
    ComparisonReport,
    DetectorReport,
    Detectors,
    Evidence,
    HoldbackReport,
    Lead,
    Mean,
    MeanIfAny,
    MixReport,
    RecordReport,
    RecordToday,
    SliceReport,
    SourceReport,
    TogetherReport,
    Without,
)
from detectors.base import Floats, rounded
from detectors.multiplicity import e_d_bh
from detectors.rows.types import BASES, Alarm, Rules
from detectors.rows.watch import Health
from streams.config.resolved import ModelConfig
from streams.config.units import span_text
from streams.evaluation.findings import (
    TargetVerdict,
    answering,
    ladder_of,
    recorded,
    since_change,
    why_no_record,
    why_unfit,
)
from streams.evaluation.mix import Z_95, is_worse_than_the_rest
from streams.evaluation.opinions import E_DETECTOR, Opinions
from streams.evaluation.outlook import holdback_of, learning_of, with_expectation
from streams.evaluation.periods import LivePeriod, ModelState
from streams.evaluation.quorum import (
    arms_since,
    lead_without,
    leeway_of,
    left_out,
    rest_without,
    rise_without,
    source_shares,
)
from streams.evaluation.sources import SourceTable
from streams.evaluation.track_records import RecordComparison

SLICES_SHOWN = 5
#: Share of false ones among the slices that are singled out.
ALPHA = 0.05


def evidence_of(
    state: ModelState,
    live: LivePeriod,
    config: ModelConfig,
    rules: Rules,
    opinions: Opinions,
    chosen: TargetVerdict | None,
    rise: float | None = None,
    proposed: bool = False,
) -> Evidence:
    """Return the evidence of a decision; `chosen` is the alarm it rests on, None while there is none.

    `rise` is the share that the version held back is to have from this decision on, or once an operator approves.
    """
    health, labels = live.health, live.labels
    learning = learning_of(live, state.clock) or UNSET
    detectors = _detectors(live, config, rules, opinions)
    maturity = span_text(config.mature_after_ms) if config.mature_after_ms else "none"
    coverage = UNSET if labels.share is None else rounded(labels.share)
    classes = state.labels.classes.implausible or UNSET
    outputs = state.labels.outputs.known
    lost = (live.coverage.lost(state.layout.slices.streams, outputs) if labels.shifted else None) or UNSET
    if chosen is None:
        table = state.layout.sources
        sources = table.listed or table.places or int(len(config.latency_losses) < len(config.losses))
        return Evidence(
            detectors=detectors,
            maturity=maturity,
            sources=sources,
            label_coverage=coverage,
            learning=learning,
            classes=classes,
            lost=lost,
            implied=_implied(state, live),
            holdback=_holdback(state, live, config, None, None) or UNSET,
        )
    alarm = chosen.alarm
    comparison = comparison_of(state, live, config, chosen)
    holdback = _holdback(state, live, config, alarm, comparison, rise, proposed)
    return Evidence(
        detectors=detectors,
        maturity=maturity,
        sources=_sources(state, live, config, chosen, rules),
        label_coverage=coverage,
        alarm=_alarm(state, health, alarm, config),
        slices=_worst_slices(state, health, alarm, config, rules),
        comparison=comparison,
        mix=_mix(state, health),
        unfit=_unfit(state, live, config),
        together=_together(state, health, alarm, rules),
        classes=classes,
        lost=lost,
        implied=_implied(state, live),
        holdback=holdback or UNSET,
    )


def _holdback(
    state: ModelState,
    live: LivePeriod,
    config: ModelConfig,
    alarm: Alarm | None,
    comparison: ComparisonReport | None,
    rise: float | None = None,
    proposed: bool = False,
) -> HoldbackReport | None:
    """Return the share of the version held back, in a decision on the version that serves."""
    if live.version != state.desired.serve:
        return None
    passed = 0 if alarm is None else state.clock - config.mature_after_ms - alarm.since
    return holdback_of(state.desired.holdback, comparison, passed, state.clock, rise, proposed)


def _implied(state: ModelState, live: LivePeriod) -> bool | UnsetType:
    """Return true where a version is live, or answers so, because of its answers alone."""
    desired = state.desired
    ordered = desired.is_ordered if live.version == desired.serve else not desired.is_implied(live.version)
    return UNSET if ordered else True


def _detectors(live: LivePeriod, config: ModelConfig, rules: Rules, opinions: Opinions) -> Detectors:
    health = live.health
    report: Detectors = {}
    if E_DETECTOR in config.detectors:
        rows: dict[str, DetectorReport | float] = {}
        for loss, spec in enumerate(config.losses):
            evidence = rounded(float(health.rows.banks[loss].totals[0]))
            rows[spec.name] = DetectorReport(
                evidence, *_baseline(health, loss, 0), ignored_reference=_ignored(health, loss)
            )
        rows["threshold"] = rounded(rules.promise)
        report[E_DETECTOR] = rows
    for opinion in opinions.overall():
        last_ts = max(opinion.last_at, 0) or None
        report[opinion.name] = {config.losses[0].name: DetectorReport(alarms=opinion.alarms, last_ts=last_ts)}
    decider, unit = config.detectors[0], "seconds" if config.promise_in_time else "outcomes"
    promised = f"one false alarm per {config.promise:.0f} {unit}"
    report["promise"] = promised if decider == E_DETECTOR else "not promised"
    report["decides"] = decider
    return report


def _baseline(health: Health, loss: int, row: int) -> tuple[Mean | None, str]:
    """Return a row's baseline, None while it learns, and where it comes from."""
    if health.rows.banks[loss].learning[row]:
        return None, BASES[0]
    return _mean_of(*health.rows.baseline(loss, row)), BASES[int(health.rows.basis[loss, row])]


def overall_baseline(health: Health) -> float | None:
    """Return the baseline of the primary loss on all requests, None while it is learned."""
    baseline, _ = _baseline(health, 0, 0)
    return None if baseline is None else baseline.mean


def overall_since_change(health: Health) -> float | None:
    """Return the mean of the primary loss on all requests since the first alarm's change point, None without one."""
    if not health.degraded:
        return None
    mean, n = _window_mean(health, health.alarms[0], 0)
    return rounded(mean) if n else None


def _mean_of(mean: float, n: float) -> Mean:
    return Mean(rounded(mean), rounded(n))


def _ignored(health: Health, loss: int) -> Mean | UnsetType:
    """Return the reference that is ignored, where there is one."""
    stated = health.rows.references.get(loss)
    return _mean_of(stated.mean, stated.size) if stated is not None and stated.ignored else UNSET


def _window_mean(health: Health, alarm: Alarm, stream: int) -> tuple[float, float]:
    """Return the mean loss of a stream since the alarm's change point, and its number of outcomes."""
    n = float(alarm.window[alarm.loss, stream].sum())
    k = float(alarm.window[len(health.rows.banks) + alarm.loss, stream].sum())
    return k / n if n else 0.0, n


def _alarm(state: ModelState, health: Health, alarm: Alarm, config: ModelConfig) -> AlarmReport:
    baseline, basis = _baseline(health, alarm.loss, health.rows.row(alarm.stream))
    return AlarmReport(
        detector=alarm.detector,
        loss=config.losses[alarm.loss].name,
        slice=state.layout.slices.streams[alarm.stream].describe(),
        ts=alarm.at,
        change_ts=alarm.since,
        evidence=rounded(alarm.evidence),
        threshold=rounded(alarm.threshold),
        since_change=_mean_of(*_window_mean(health, alarm, alarm.stream)),
        baseline=baseline,
        basis=basis,
    )


def _worst_slices(
    state: ModelState, health: Health, alarm: Alarm, config: ModelConfig, rules: Rules
) -> list[SliceReport]:
    """Return the slices with most evidence, and whether they are singled out.

    That are those which the whole family of slices allows to name, and which rose more than the rest of the version:
    where everything got worse, each large slice has evidence, and none is where the fault lies.
    """
    # A slice that appeared since the last judged cohort has no row yet.
    streams = state.layout.slices.streams[: health.rows.streams]
    if len(streams) < 2:
        return []
    totals = health.rows.banks[alarm.loss].totals[:: health.rows.variants].copy()
    for other in health.alarms:
        if other.loss == alarm.loss:
            # An alarmed row starts afresh; what it had reached is what counts here.
            totals[other.stream] = max(totals[other.stream], other.evidence)
    # `__other__` of each dimension comes on top of the cap.
    named = e_d_bh(totals[1:], max(config.slices_cap, totals.size - 1))
    named &= rules.weights[1 : totals.size] > 0
    significance = ALPHA / max(int(named.sum()), 1)
    order = sorted(range(1, len(streams)), key=lambda stream: (-totals[stream], stream))[:SLICES_SHOWN]
    shown = []
    for stream in order:
        baseline, basis = _baseline(health, alarm.loss, health.rows.row(stream))
        shown.append(
            SliceReport(
                slice=streams[stream].describe(),
                evidence=rounded(float(totals[stream])),
                singled_out=bool(named[stream - 1])
                and is_worse_than_the_rest(health, alarm, streams, stream, significance),
                since_change=_mean_of(*_window_mean(health, alarm, stream)),
                baseline=baseline,
                basis=basis,
            )
        )
    return shown


def comparison_of(
    state: ModelState, live: LivePeriod, config: ModelConfig, chosen: TargetVerdict
) -> ComparisonReport | None:
    """Return the comparison with the target, and when it is expected to show anything."""
    report = _comparison(state, live, config, chosen)
    if report is None:
        return None
    return with_expectation(report, state.clock - config.mature_after_ms - chosen.alarm.since, state.clock)


def _comparison(
    state: ModelState, live: LivePeriod, config: ModelConfig, chosen: TargetVerdict
) -> ComparisonReport | None:
    alarm = chosen.alarm
    if chosen.record is not None:
        return _with_record(live, alarm, chosen.record)
    target = _compared_with(state, live, config, chosen)
    if target is None:
        return None
    other = live.concurrent[target]
    n, k = since_change(other.health, alarm)
    mine, mine_n = _window_mean(live.health, alarm, alarm.stream)
    return ComparisonReport(
        basis="concurrent",
        target=target,
        role=other.role,
        evidence=rounded(other.comparison.value(alarm.loss, alarm.stream)),
        threshold=rounded(chosen.threshold),
        candidate=_mean_of(mine, mine_n),
        target_since_change=MeanIfAny(rounded(k / n) if n else None, rounded(n)),
        difference=rounded(mine - k / n) if n else None,
        target_degraded=other.health.degraded,
    )


def _with_record(live: LivePeriod, alarm: Alarm, record: RecordComparison) -> ComparisonReport:
    """Return the comparison with the past: nothing is known of the target today."""
    mean, n = _window_mean(live.health, alarm, alarm.stream)
    return ComparisonReport(
        basis="record",
        target=record.target,
        role="live",
        evidence=record.evidence,
        threshold=rounded(record.threshold),
        candidate=_mean_of(mean, n),
        target_since_change=MeanIfAny(None, 0.0),
        record=RecordReport(
            mean=rounded(record.mean),
            n=rounded(record.n),
            since_ts=record.since,
            label_coverage=None if record.coverage is None else rounded(record.coverage),
            today=RecordToday(rounded(record.today), rounded(record.worth), record.dimension),
        ),
        difference=rounded(mean - record.today),
        target_degraded=False,
    )


def _sources(
    state: ModelState, live: LivePeriod, config: ModelConfig, chosen: TargetVerdict, rules: Rules
) -> int | dict[str, SourceReport]:
    """Return what each label source reported since the change, and what shows without it."""
    health, alarm, table = live.health, chosen.alarm, state.layout.sources
    if alarm.loss in rules.unlabelled:
        return 0
    if table.places < 2:
        return 1
    counts = source_shares(health, alarm)
    compared = None if chosen.record is not None else _compared_with(state, live, config, chosen)
    other = None if compared is None else live.concurrent[compared].health
    arms = None if other is None else arms_since(health, other, alarm)
    own = None if other is None or not other.alarms else other.alarms[0]
    total, found = float(counts.sum()), {}
    for source in np.flatnonzero(counts[: table.places]).tolist():
        found[table.name(source)] = SourceReport(
            rounded(float(counts[source]) / total),
            rise_without(health, alarm, source, rules),
            UNSET if not table.listed else not table.is_pool(source),
            UNSET if arms is None else _lead(arms, source, table),
            UNSET if other is None or own is None else _of_target(other, own, source, table),
        )
    return found


def _lead(arms: Floats, source: int, table: SourceTable) -> Lead:
    """Return what shows of a target's lead with one label source left out."""
    return lead_without(arms, (source,), leeway_of(arms[0, :-1] + arms[2, :-1], (source,), table))


def _of_target(target: Health, alarm: Alarm, source: int, table: SourceTable) -> Without:
    """Return what shows of the rise of a version that could be gone back to with one label source left out."""
    leeway = leeway_of(source_shares(target, alarm), (source,), table)
    return rest_without(target, alarm, (source,), leeway)


def _together(state: ModelState, health: Health, alarm: Alarm, rules: Rules) -> list[TogetherReport] | UnsetType:
    """Return what shows without the sources that are left out together, where the configuration lists sources."""
    table = state.layout.sources
    if alarm.loss in rules.unlabelled:
        return UNSET
    several = [sources for sources in left_out(source_shares(health, alarm), table) if len(sources) > 1]
    return [
        TogetherReport([table.name(source) for source in sources], rest_without(health, alarm, sources, Z_95))
        for sources in several
    ] or UNSET


def _compared_with(state: ModelState, live: LivePeriod, config: ModelConfig, chosen: TargetVerdict) -> str | None:
    """Return the version that the live one is compared with, the chosen one or else the first."""
    return chosen.target or next(iter(answering(state, live, config)), None)


def _mix(state: ModelState, health: Health) -> MixReport | UnsetType:
    mix = next((entry.mix for entry in health.alarms if entry.mix is not None), None)
    if mix is None:
        return UNSET
    dimension, stream = mix
    return MixReport(dimension, state.layout.slices.streams[stream].value)


def _unfit(state: ModelState, live: LivePeriod, config: ModelConfig) -> dict[str, str] | UnsetType:
    """Return why versions that could be gone back to cannot be served, or not be compared with, where that is so."""
    ladder = ladder_of(state, live, config)
    unfit = {target: why for target in ladder if (why := why_unfit(state, target, config)) is not None}
    # What is on record is asked only where nothing answers next to it.
    why_not = why_unfit if len(unfit) < len(ladder) else partial(why_no_record, live=live)
    for target in recorded(state, live):
        if target not in ladder and (why := why_not(state, target, config)) is not None:
            unfit[target] = why
    return unfit or UNSET
