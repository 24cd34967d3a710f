"""Measure what a recording holds: how often each version was wrong in each phase, and how many labels came in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from console.census.scenarios import ANOMALY, Scenario
from console.census.traffic import MATURE_AFTER_MS, TS_START_MS, Requests, Traffic


@dataclass(frozen=True, slots=True)
class PhaseFacts:
    """Measure one version in one phase: `zero_one` and `brier` are mean losses over all its answers there."""

    phase: str
    version: str
    role: str
    predictions: int
    zero_one: float
    brier: float


@dataclass(frozen=True, slots=True)
class RecordingFacts:
    """State what a recording holds; times are milliseconds since the epoch, rows are indexes in the survey file.

    `changed_from_row` and `ts_changed_ms` are None where nothing changes, `ts_anomaly_ms` (first request, last request)
    without the rows of the anomaly. `labelled_share` is the share of predictions that ever get a label,
    `labelled_in_time_share` of those whose label comes within `MATURE_AFTER_MS`.
    """

    scenario: str
    story: str
    seed: int
    lines: int
    predictions: int
    labels: int
    labelled_share: float
    labelled_in_time_share: float
    ts_first_ms: int
    ts_released_ms: int
    ts_changed_ms: int | None
    ts_anomaly_ms: tuple[int, int] | None
    ts_last_ms: int
    changed_from_row: int | None
    phases: tuple[PhaseFacts, ...]


def measure(scenario: Scenario, seed: int, traffic: Traffic, lines: int) -> RecordingFacts:
    """Measure the traffic of a recording of `lines` lines."""
    asked = traffic.requests
    anomaly = np.flatnonzero(_in_anomaly(asked))
    in_time = asked.labelled & (asked.ts_label_ms - asked.ts_ms <= MATURE_AFTER_MS)
    return RecordingFacts(
        scenario=scenario.name,
        story=scenario.story,
        seed=seed,
        lines=lines,
        predictions=len(asked.ts_ms),
        labels=int(asked.labelled.sum()),
        labelled_share=float(asked.labelled.mean()),
        labelled_in_time_share=float(in_time.mean()),
        ts_first_ms=TS_START_MS,
        ts_released_ms=int(asked.ts_ms[np.argmax(asked.released)]),
        ts_changed_ms=int(asked.ts_ms[np.argmax(asked.changed)]) if asked.changed.any() else None,
        ts_anomaly_ms=(int(asked.ts_ms[anomaly[0]]), int(asked.ts_ms[anomaly[-1]])) if len(anomaly) else None,
        ts_last_ms=int(max(asked.ts_ms[-1], asked.ts_label_ms[asked.labelled].max())),
        changed_from_row=scenario.changed_from,
        phases=phases(scenario, traffic, len(asked.ts_ms)),
    )


def phases(
    scenario: Scenario, traffic: Traffic, answered: int, taken_back: int | None = None
) -> tuple[PhaseFacts, ...]:
    """Cut the traffic where something happens, and measure each version between two cuts.

    Args:
        scenario: Names the phase after the change.
        traffic: Requests with their answers.
        answered: How many of the requests were answered, the first ones.
        taken_back: The first request after a rollback; what comes then is a phase of its own.
    """
    asked = traffic.requests
    known = np.arange(len(asked.ts_ms)) < answered
    after = np.arange(len(asked.ts_ms)) >= (answered if taken_back is None else taken_back)
    anomaly, late = _in_anomaly(asked), asked.rows.row >= ANOMALY[1]
    changed, calm = asked.changed, asked.released & ~asked.changed
    named = {
        "v41 alone": ~asked.released,
        "v42 released": calm & ~anomaly & ~late,
        scenario.change.value: changed & ~anomaly & ~late,
        "group quarters": anomaly & ~changed,
        f"group quarters, {scenario.change}": anomaly & changed,
        "after group quarters": late & ~changed,
        f"after group quarters, {scenario.change}": late & changed,
    }
    cut = {name: inside & known & ~after for name, inside in named.items()} | {"v42 taken back": known & after}
    wrong = traffic.output != asked.truth
    squared = (traffic.score - asked.truth) ** 2
    held = asked.held & (taken_back is None or ~after)
    found = []
    for phase, inside in cut.items():
        for version, role, answers in (
            ("v42", "live", traffic.by_v42),
            ("v41", "live", ~traffic.by_v42 & ~held),
            ("v41", "holdback", ~traffic.by_v42 & held),
        ):
            chosen = inside & answers
            if chosen.any():
                mean = float(wrong[chosen].mean()), float(squared[chosen].mean())
                found.append(PhaseFacts(phase, version, role, int(chosen.sum()), *mean))
    return tuple(found)


def _in_anomaly(asked: Requests) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (asked.rows.row >= ANOMALY[0]) & (asked.rows.row < ANOMALY[1])
    return inside
