"""Turn rows of detectors into the findings that the policy reads."""

from __future__ import annotations

import msgspec

from actions.evidence import Findings, Quorum
from actions.replicas import unfit
from detectors.base import rounded
from detectors.rows.types import Alarm, Rules
from detectors.rows.units import UNITS_LEAST
from detectors.rows.watch import Health
from streams.config.resolved import ModelConfig
from streams.evaluation.mix import explain_by_mix, is_genuine
from streams.evaluation.outlook import missing_outcomes
from streams.evaluation.periods import LivePeriod, ModelState
from streams.evaluation.quorum import quorum_of, quorum_of_lead, quorum_of_target, threshold_of, worst
from streams.evaluation.slices import Stream
from streams.evaluation.sources import SourceTable
from streams.evaluation.track_records import (
    Known,
    RecordComparison,
    TrackRecord,
    weigh,
    why_unknown,
    young_part,
)
from streams.ledger.records import Arm

UNUSABLE_LEAST = 1_000


class TargetVerdict(msgspec.Struct, frozen=True):
    """Hold the verdict on one alarm: which target is better, what that takes, and whether the sources agree.

    `target` is None where none is known to be better. With `record`, there is no concurrent holdback or shadow, and
    the live version was compared with what the target was.
    """

    alarm: Alarm
    target: str | None
    evidence: float
    threshold: float
    quorum: Quorum
    record: RecordComparison | None = None


def since_change(health: Health, alarm: Alarm) -> tuple[float, float]:
    """Return outcomes and losses of another version in an alarm's stream since the alarm's change point."""
    health.settle()
    n, k = health.history.stream(alarm.stream, alarm.loss, len(health.rows.banks))
    first = health.history.first_from(alarm.since)
    return float(n[first:].sum()), float(k[first:].sum())


def answers_since(health: Health, alarm: Alarm) -> bool:
    """Return whether another version has outcomes in an alarm's stream since the alarm's change point."""
    health.settle()
    return health.history.has_any_since(alarm.since, alarm.stream, alarm.loss)


def confirm(live: LivePeriod, alarm: Alarm, targets: list[str], rules: Rules, sources: SourceTable) -> TargetVerdict:
    """Return which of the fit targets, in the order of the ladder, is better now where the alarm was."""
    threshold = threshold_of(alarm.stream, rules)
    best: tuple[str | None, float] = (None, 0.0)
    better: list[TargetVerdict] = []
    for target in targets:
        other = live.concurrent.get(target)
        if other is None or not answers_since(other.health, alarm):
            # A version that has stopped answering cannot be better now.
            continue
        value = rounded(other.comparison.value(alarm.loss, alarm.stream))
        if value >= rounded(threshold):
            quorum = worst(
                [
                    quorum_of(live.health, alarm, rules, sources),
                    quorum_of_lead(live.health, other.health, alarm, rules, sources),
                ]
            )
            better.append(TargetVerdict(alarm, target, value, threshold, quorum))
        best = max(best, (target, value), key=lambda entry: entry[1])
    return first_of(better or [TargetVerdict(alarm, None, best[1], threshold, Quorum.WAITING)])


def choose(live: LivePeriod, targets: list[str], rules: Rules, sources: SourceTable) -> TargetVerdict:
    """Return the verdict on the alarm to report: the first that is confirmed and agreed on, else confirmed, else the
    first."""
    return first_of([confirm(live, alarm, targets, rules, sources) for alarm in live.health.alarms])


def first_of(found: list[TargetVerdict]) -> TargetVerdict:
    """Return the one that is confirmed and agreed on, else confirmed, else the first."""
    for wanted in (Quorum.AGREED, Quorum.WAITING, Quorum.FAILED):
        for confirmation in found:
            if confirmation.target is not None and confirmation.quorum is wanted:
                return confirmation
    return found[0]


def recall(
    live: LivePeriod,
    records: list[tuple[TrackRecord, Known]],
    streams: list[Stream],
    config: ModelConfig,
    rules: Rules,
    sources: SourceTable,
) -> TargetVerdict:
    """Return which earlier live version, newest first, was by its record better where the alarm was.

    All the records that are asked share the promise. Where labels are not as complete as they were, the outcomes are
    samples of another kind, and no record confirms anything.
    """
    found = []
    rise = not config.negative
    for alarm in live.health.alarms:
        # Nothing is immature without a maturity, and a loss that needs no label has no missing ones.
        whole = not config.mature_after_ms or alarm.loss in config.latency_losses or config.tells_use
        threshold = threshold_of(alarm.stream, rules) * len(records)
        against = [
            weigh(record, known, live.health, alarm, streams, config.slices_by, threshold) for record, known in records
        ]
        fair = [whole or live.labels.agrees_with_record(record.coverage, rise) for record, _ in records]
        better = [
            entry
            for entry, comparable in zip(against, fair, strict=True)
            if comparable and entry.evidence >= rounded(threshold)
        ]
        shown = better[0] if better else against[0]
        quorum = quorum_of(live.health, alarm, rules, sources) if better else Quorum.WAITING
        target = shown.target if better else None
        found.append(TargetVerdict(alarm, target, shown.evidence, threshold, quorum, shown))
    return first_of(found)


def is_blind(state: ModelState, live: LivePeriod, config: ModelConfig) -> bool:
    """Return whether predictions are made, but labels that the first loss needs do not come any more."""
    return not config.losses[0].of_latency and Arm(live.version, "live") in silent_arms(state)


def is_incomputable(live: LivePeriod, config: ModelConfig) -> bool:
    """Return whether labels come, but none gives the first loss."""
    if config.losses[0].partial:
        # A model that never predicts the positive class has no precision, and nothing is wrong with its labels. But
        # where nothing is yes or no, there is no positive class.
        return live.kinds.unfit >= UNUSABLE_LEAST and not live.kinds.usable
    return live.health.outcomes >= UNUSABLE_LEAST and live.health.unusable == live.health.outcomes


def silent_arms(state: ModelState) -> list[Arm]:
    """Return the arms that had no label for longer than chance allows."""
    return [state.layout.arms[number] for number in state.labels.silence.arms()]


def usable_records(
    state: ModelState, live: LivePeriod, targets: list[str], streams: int
) -> list[tuple[TrackRecord, Known]]:
    """Return the records of earlier live versions that may be gone back to, newest first.

    There are none as long as there is a concurrent holdback or shadow: what it does now outweighs the past.
    """
    if any(target in live.concurrent for target in targets):
        return []
    found = []
    for version in recorded(state, live):
        record = record_of(state, live, version)
        known = young_part(record, state.clock, streams)
        if record is not None and known is not None:
            found.append((record, known))
    return found


def why_unfit(state: ModelState, version: str, config: ModelConfig) -> str | None:
    """Return why no replica could serve a version, None if it could be."""
    answered_at = state.desired.facts(version).answered_at
    return unfit(state.replicas, version, answered_at, state.clock, config.horizon_ms)


def why_no_record(state: ModelState, version: str, config: ModelConfig, live: LivePeriod) -> str | None:
    """Return why an earlier version is none to go back to: nothing can serve it, or nothing to compare is on record."""
    return why_unfit(state, version, config) or why_unknown(record_of(state, live, version), state.clock)


def answering(state: ModelState, live: LivePeriod, config: ModelConfig) -> list[str]:
    """Return the versions next to the live one that may be gone back to by what they do now.

    These are holdback and shadow versions; and others that answer live, where several may: if nothing is deployed, or
    is only observed. Next to a version that only answers there is also the one that should serve.
    """
    versions, found = state.desired.versions, []
    for version, other in live.concurrent.items():
        if other.beside is not None:
            deployed = versions.facts(version).status not in (None, "retired")
            several = not versions.announced or (config.mode == "observe" and deployed)
            if not (several or version == state.desired.serve) or not versions.answers(version):
                continue
            stopped = not any(answers_since(other.health, alarm) for alarm in live.health.alarms)
            if stopped and version in recorded(state, live):
                # Its record shows more than what it answers now.
                continue
        found.append(version)
    return found


def recorded(state: ModelState, live: LivePeriod) -> list[str]:
    """Return the versions that may be gone back to by what they did when they were live, newest first."""
    serve = state.desired.serve
    return state.desired.past() if serve is None or live.version == serve else [serve]


def record_of(state: ModelState, live: LivePeriod, version: str) -> TrackRecord | None:
    """Return what is on record of a version that was live, with what it answered next to the live one since."""
    other = live.concurrent.get(version)
    if other is None or other.beside is None:
        return state.past.records.get(version)
    return state.past.record_so_far(other.health, other.labels.share)


def ladder_of(state: ModelState, live: LivePeriod, config: ModelConfig) -> list[str]:
    """Return the versions that could be gone back to now, newest first."""
    beside = answering(state, live, config)
    if live.version == state.desired.serve:
        return state.desired.ladder(beside)
    return [version for version in beside if state.desired.why_barred(version) is None]


def _only_proposed(state: ModelState, live: LivePeriod, target: str | None) -> bool:
    """Return whether an operator has to approve: the version, or its target, only answers and was never deployed."""
    if live.version != state.desired.serve:
        return True
    if target is None or not state.desired.is_implied(target):
        return False
    other = live.concurrent.get(target)
    return other is None or other.beside is not None


def _few_units(live: LivePeriod, chosen: TargetVerdict) -> bool:
    """Return whether one of the two versions has answered too few units where the alarm was."""
    units = None if chosen.target is None else live.concurrent[chosen.target].comparison.units_in(chosen.alarm.stream)
    return units is not None and min(units) < UNITS_LEAST


def others_quorum(live: LivePeriod, degraded: set[str], rules: Rules, sources: SourceTable) -> Quorum:
    """Return whether the label sources agree on each of the targets that got worse."""
    found = []
    for target in sorted(degraded):
        health = live.concurrent[target].health
        found.append(quorum_of_target(health, health.alarms, rules, sources))
    return worst(found)


def find(
    state: ModelState, live: LivePeriod, config: ModelConfig, rules: Rules
) -> tuple[Findings, TargetVerdict | None]:
    """Return what is known of the live version now, and the alarm that this rests on."""
    health, labels = live.health, live.labels
    maturity = config.mature_after_ms > 0
    blind = is_blind(state, live, config)
    # Where no label means no, nothing is known before the first one: it may be that nobody reports anything.
    unreported = config.negative and not state.labels.silence.labelled
    findings = Findings(
        version=live.version,
        incomputable=is_incomputable(live, config),
        blind=blind,
        implausible=state.labels.classes.implausible is not None,
        learning=missing_outcomes(health) > 0 or unreported,
        degraded=health.degraded,
        coverage_shift=maturity and labels.shifted,
    )
    if not health.degraded:
        return findings, None
    # A slice that appeared since the last judged cohort has no row yet.
    streams = state.layout.slices.streams[: health.rows.streams]
    ladder = ladder_of(state, live, config)
    targets = [target for target in ladder if why_unfit(state, target, config) is None]
    degraded = {
        target
        for target in targets
        if target in live.concurrent and is_genuine(live.concurrent[target].health, streams, config)
    }
    sources = state.layout.sources
    chosen = choose(live, [target for target in targets if target not in degraded], rules, sources)
    all_degraded = bool(targets) and len(degraded) == len(targets)
    past = usable_records(state, live, targets, len(streams))
    records = [(record, known) for record, known in past if why_unfit(state, record.version, config) is None]
    if chosen.target is None:
        for alarm in health.alarms:
            explain_by_mix(health, alarm, streams, config)
        if records:
            chosen = recall(live, records, streams, config, rules, sources)
    concurrent = chosen.target is not None and chosen.record is None
    fair = concurrent and chosen.target is not None and labels.agrees_with(live.concurrent[chosen.target].labels)
    mixed = next((alarm.mix for alarm in health.alarms if alarm.mix is not None), None)
    findings = msgspec.structs.replace(
        findings,
        coverage_shift=maturity and labels.shifted and not fair,
        degraded_since=health.alarms[0].at,
        slice=streams[chosen.alarm.stream].describe(),
        quarantined=state.desired.is_quarantined(live.version),
        target=chosen.target,
        any_target=bool(ladder or past),
        all_unfit=bool(ladder or past) and not targets and not records,
        all_degraded=all_degraded,
        others_quorum=others_quorum(live, degraded, rules, sources) if all_degraded else Quorum.AGREED,
        confirmed=concurrent,
        on_record=chosen.target is not None and not concurrent,
        only_proposed=_only_proposed(state, live, chosen.target),
        few_units=concurrent and _few_units(live, chosen),
        quorum=chosen.quorum,
        mix=None if mixed is None else streams[mixed[1]].describe(),
    )
    return findings, chosen
