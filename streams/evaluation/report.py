"""The evidence of a decision, as it is written: every number that was weighed, at 9 significant digits."""

from typing import Any

import numpy as np

from detectors.base import rounded
from detectors.multiplicity import e_d_bh
from detectors.rows.types import BASES, Alarm, Rules
from detectors.rows.watch import Health
from streams.config.resolved import ModelConfig
from streams.config.units import span_text
from streams.evaluation.findings import Confirmation, rise_without, since_change, source_shares, why_unfit
from streams.evaluation.opinions import E_DETECTOR, Opinions
from streams.evaluation.periods import LivePeriod, ModelState
from streams.evaluation.track_records import Against

SLICES_SHOWN = 5


def evidence_of(
    state: ModelState,
    live: LivePeriod,
    config: ModelConfig,
    rules: Rules,
    opinions: Opinions,
    chosen: Confirmation | None,
) -> dict[str, Any]:
    """Return the `evidence` object of a decision."""
    report: dict[str, Any] = {
        "detectors": _detectors(live, config, rules, opinions),
        "maturity": span_text(config.mature_after_ms) if config.mature_after_ms else "none",
        "sources": len(state.layout.sources.names) or int(len(config.latency_losses) < len(config.losses)),
    }
    if live.labels.share is not None:
        report["label_coverage"] = rounded(live.labels.share)
    if chosen is None:
        return report
    alarm = chosen.alarm
    report["alarm"] = _alarm(state, live.health, alarm, config)
    report["slices"] = _worst_slices(state, live.health, alarm, config, rules)
    report["comparison"] = _comparison(live, config, chosen)
    report["sources"] = _sources(state, live.health, alarm, rules)
    mix = next((entry.mix for entry in live.health.alarms if entry.mix is not None), None)
    if mix is not None:
        dimension, stream = mix
        report["mix"] = {"dimension": dimension, "value": state.layout.slices.streams[stream].value}
    known = [*state.desired.ladder(live.beside), *state.desired.past()]
    unfit = {target: why_unfit(state, target, config) for target in known}
    if any(unfit.values()):
        report["unfit"] = {target: why for target, why in unfit.items() if why is not None}
    return report


def _detectors(live: LivePeriod, config: ModelConfig, rules: Rules, opinions: Opinions) -> dict[str, Any]:
    health = live.health
    report: dict[str, Any] = {}
    for name in config.detectors:
        if name == E_DETECTOR:
            report[name] = {
                spec.name: {
                    "evidence": rounded(float(health.banks[loss].totals[0])),
                    **_baseline(health, loss, 0),
                    **_ignored(health, loss),
                }
                for loss, spec in enumerate(config.losses)
            }
            report[name]["threshold"] = rounded(rules.promise)
    for opinion in opinions.overall():
        report[opinion.name] = {
            config.losses[0].name: {"alarms": opinion.alarms, "last_ts": max(opinion.last_at, 0) or None}
        }
    decider = config.detectors[0]
    if decider == E_DETECTOR:
        unit = "seconds" if config.promise_in_time else "outcomes"
        report["promise"] = f"one false alarm per {config.promise:.0f} {unit}"
    else:
        report["promise"] = "not promised"
    report["decides"] = decider
    return report


def _baseline(health: Health, loss: int, row: int) -> dict[str, Any]:
    if health.banks[loss].learning[row]:
        return {"baseline": None, "basis": BASES[0]}
    mean, n = health.baseline(loss, row)
    return {"baseline": {"mean": rounded(mean), "n": rounded(n)}, "basis": BASES[int(health.basis[loss, row])]}


def _ignored(health: Health, loss: int) -> dict[str, Any]:
    """Return the reference that is not believed, where there is one."""
    stated = health.references.get(loss)
    if stated is None or not stated.ignored:
        return {}
    return {"ignored_reference": {"mean": rounded(stated.mean), "n": rounded(stated.size)}}


def _window_mean(health: Health, alarm: Alarm, stream: int) -> tuple[float, float]:
    n = float(alarm.window[alarm.loss, stream].sum())
    k = float(alarm.window[len(health.banks) + alarm.loss, stream].sum())
    return n, k / n if n else 0.0


def _alarm(state: ModelState, health: Health, alarm: Alarm, config: ModelConfig) -> dict[str, Any]:
    n, mean = _window_mean(health, alarm, alarm.stream)
    return {
        "detector": alarm.detector,
        "loss": config.losses[alarm.loss].name,
        "slice": state.layout.slices.streams[alarm.stream].describe(),
        "ts": alarm.at,
        "change_ts": alarm.since,
        "evidence": rounded(alarm.evidence),
        "threshold": rounded(alarm.threshold),
        "since_change": {"mean": rounded(mean), "n": rounded(n)},
        **_baseline(health, alarm.loss, health.row(alarm.stream)),
    }


def _worst_slices(
    state: ModelState, health: Health, alarm: Alarm, config: ModelConfig, rules: Rules
) -> list[dict[str, Any]]:
    """Return the slices with most evidence, and whether the whole family of slices singles them out."""
    # A slice that appeared since the last judged cohort has no row yet.
    streams = state.layout.slices.streams[: health.streams]
    if len(streams) < 2:
        return []
    totals = health.banks[alarm.loss].totals[:: health.variants].copy()
    for other in health.alarms:
        if other.loss == alarm.loss:
            # An alarmed row starts afresh; what it had reached is what counts here.
            totals[other.stream] = max(totals[other.stream], other.evidence)
    # `__other__` of each dimension comes on top of the cap.
    named = e_d_bh(totals[1:], max(config.slices_cap, totals.size - 1))
    order = sorted(range(1, len(streams)), key=lambda stream: (-totals[stream], stream))[:SLICES_SHOWN]
    shown = []
    for stream in order:
        n, mean = _window_mean(health, alarm, stream)
        shown.append(
            {
                "slice": streams[stream].describe(),
                "evidence": rounded(float(totals[stream])),
                "singled_out": bool(named[stream - 1] and rules.weights[stream] > 0),
                "since_change": {"mean": rounded(mean), "n": rounded(n)},
                **_baseline(health, alarm.loss, health.row(stream)),
            }
        )
    return shown


def _comparison(live: LivePeriod, config: ModelConfig, chosen: Confirmation) -> dict[str, Any] | None:
    alarm = chosen.alarm
    if chosen.record is not None:
        return _with_record(live, alarm, chosen.record)
    target = chosen.target or next(iter(live.beside), None)
    if target is None:
        return None
    beside = live.beside[target]
    n, k = since_change(beside.health, alarm)
    mine_n, mine = _window_mean(live.health, alarm, alarm.stream)
    return {
        "basis": "concurrent",
        "target": target,
        "role": beside.role,
        "evidence": rounded(beside.comparison.value(alarm.loss, alarm.stream)),
        "threshold": rounded(chosen.threshold),
        "candidate": {"mean": rounded(mine), "n": rounded(mine_n)},
        "target_since_change": {"mean": rounded(k / n) if n else None, "n": rounded(n)},
        "difference": rounded(mine - k / n) if n else None,
        "target_degraded": beside.health.degraded,
    }


def _with_record(live: LivePeriod, alarm: Alarm, record: Against) -> dict[str, Any]:
    """Return the comparison with the past: the target says nothing of today."""
    n, mine = _window_mean(live.health, alarm, alarm.stream)
    return {
        "basis": "record",
        "target": record.target,
        "role": "live",
        "evidence": record.evidence,
        "threshold": rounded(record.threshold),
        "candidate": {"mean": rounded(mine), "n": rounded(n)},
        "target_since_change": {"mean": None, "n": 0.0},
        "record": {
            "mean": rounded(record.mean),
            "n": rounded(record.n),
            "since_ts": record.since,
            "label_coverage": None if record.coverage is None else rounded(record.coverage),
            "today": {"mean": rounded(record.today), "n": rounded(record.worth), "dimension": record.dimension},
        },
        "difference": rounded(mine - record.today),
        "target_degraded": False,
    }


def _sources(state: ModelState, health: Health, alarm: Alarm, rules: Rules) -> Any:
    names = state.layout.sources.names
    if alarm.loss in rules.unlabelled:
        return 0
    if len(names) < 2:
        return 1
    counts = source_shares(health, alarm)
    total = float(counts.sum())
    report = {}
    for source in np.flatnonzero(counts[: len(names)]):
        report[str(names[source])] = {
            "share": rounded(float(counts[source]) / total),
            "without": rise_without(health, alarm, int(source), rules),
        }
    return report
