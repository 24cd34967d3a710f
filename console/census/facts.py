"""Measure what a recording holds: how often each version was wrong in each phase, and how many labels came in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from console.census.scenarios import ANOMALY, Scenario
from console.census.traffic import MATURE_AFTER_MS, TS_START_MS, Traffic


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

    `banded_from_row` and `ts_banded_ms` are None without a re-encoding, `ts_anomaly_ms` (first request, last request)
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
    ts_banded_ms: int | None
    ts_anomaly_ms: tuple[int, int] | None
    ts_last_ms: int
    banded_from_row: int | None
    phases: tuple[PhaseFacts, ...]


def measure(scenario: Scenario, seed: int, traffic: Traffic, lines: int) -> RecordingFacts:
    """Measure the traffic of a recording of `lines` lines."""
    rows = traffic.rows.row
    anomaly = np.flatnonzero((rows >= ANOMALY[0]) & (rows < ANOMALY[1]))
    in_time = traffic.labelled & (traffic.ts_label_ms - traffic.ts_ms <= MATURE_AFTER_MS)
    banded = bool(traffic.banded.any())
    return RecordingFacts(
        scenario=scenario.name,
        story=scenario.story,
        seed=seed,
        lines=lines,
        predictions=len(rows),
        labels=int(traffic.labelled.sum()),
        labelled_share=float(traffic.labelled.mean()),
        labelled_in_time_share=float(in_time.mean()),
        ts_first_ms=TS_START_MS,
        ts_released_ms=int(traffic.ts_ms[np.argmax(traffic.released)]),
        ts_banded_ms=int(traffic.ts_ms[np.argmax(traffic.banded)]) if banded else None,
        ts_anomaly_ms=(int(traffic.ts_ms[anomaly[0]]), int(traffic.ts_ms[anomaly[-1]])) if len(anomaly) else None,
        ts_last_ms=int(max(traffic.ts_ms[-1], traffic.ts_label_ms[traffic.labelled].max())),
        banded_from_row=scenario.banded_from,
        phases=_phases(traffic),
    )


def _phases(traffic: Traffic) -> tuple[PhaseFacts, ...]:
    """Cut the traffic where something happens and measure each version between two cuts."""
    rows = traffic.rows.row
    in_anomaly = (rows >= ANOMALY[0]) & (rows < ANOMALY[1])
    named = {
        "v41 alone": ~traffic.released,
        "v42 released": traffic.released & ~traffic.banded & ~in_anomaly & (rows < ANOMALY[0]),
        "age in bands": traffic.banded & ~in_anomaly & (rows < ANOMALY[0]),
        "group quarters": in_anomaly & ~traffic.banded,
        "group quarters, age in bands": in_anomaly & traffic.banded,
        "after group quarters": (rows >= ANOMALY[1]) & ~traffic.banded,
        "after group quarters, age in bands": (rows >= ANOMALY[1]) & traffic.banded,
    }
    wrong = traffic.output != traffic.rows.truth
    squared = (traffic.score - traffic.rows.truth) ** 2
    found = []
    for phase, inside in named.items():
        for version, answered in (("v42", traffic.by_v42), ("v41", ~traffic.by_v42)):
            chosen = inside & answered
            if not chosen.any():
                continue
            found.append(
                PhaseFacts(
                    phase=phase,
                    version=version,
                    role="live" if version == "v42" or not traffic.released[chosen].any() else "holdback",
                    predictions=int(chosen.sum()),
                    zero_one=float(wrong[chosen].mean()),
                    brier=float(squared[chosen].mean()),
                )
            )
    return tuple(found)
