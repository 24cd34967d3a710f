"""Draw the traffic of a recording: who asks when, which version answers what, and when the truth is told.

Rows, truths and v41's answers are those of the survey file. v42's answers are computed here, on the features as they
arrive: re-encoded from a row on, where the scenario says so. Only the clock is invented: when a request comes, which
version the router picks, and when which office reports the truth. All of it is drawn from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from console.census.rows import CensusRows, load_rows
from console.census.scenarios import Scenario, in_age_bands
from console.census.trees import load_v42, probability_of_work

TS_START_MS = 1_767_571_200_000
"""2026-01-05T00:00:00Z."""

MEAN_GAP_MS = 500.0
HOLDBACK_SHARE = 0.1
NEVER_LABELLED_SHARE = 0.03
MATURE_AFTER_MS = 3_600_000
# Share of the labels, median and spread (of the logarithm) of the delay. The tail reaches beyond the hour after which
# outcomes are judged; no source depends on the truth, and neither does its delay.
SOURCES = (
    ("register", 0.45, 5 * 60_000, 0.9),
    ("survey", 0.35, 10 * 60_000, 1.0),
    ("employer", 0.20, 15 * 60_000, 1.1),
)
# Half of the labels' horizon of a day, so that no label is too late to be counted.
DELAY_MS_MAX = 12 * 3_600_000


@dataclass(frozen=True, slots=True)
class Traffic:
    """Hold one entry per request, in the order of arrival: what was asked, answered, by whom, and the label's fate."""

    rows: CensusRows
    ts_ms: NDArray[np.int64]
    by_v42: NDArray[np.bool_]
    released: NDArray[np.bool_]
    banded: NDArray[np.bool_]
    score: NDArray[np.float64]
    output: NDArray[np.int64]
    source: NDArray[np.int64]
    labelled: NDArray[np.bool_]
    ts_label_ms: NDArray[np.int64]


def draw_traffic(scenario: Scenario, rng: np.random.Generator) -> Traffic:
    """Draw clock, router and labels, and let both versions answer."""
    rows = load_rows().take(scenario.stretches)
    count = len(rows.row)
    position = np.arange(count)
    released = position >= int(np.flatnonzero(rows.row == scenario.released_at)[0])
    banded = np.zeros(count, dtype=np.bool_)
    if scenario.banded_from is not None:
        banded = position >= int(np.flatnonzero(rows.row == scenario.banded_from)[0])

    gaps_ms = np.maximum(1, np.rint(rng.exponential(MEAN_GAP_MS, count))).astype(np.int64)
    by_v42 = released & (rng.random(count) >= HOLDBACK_SHARE)
    source = rng.choice(len(SOURCES), size=count, p=[share for _, share, _, _ in SOURCES])
    median_ms = np.array([median for _, _, median, _ in SOURCES], dtype=np.float64)[source]
    spread = np.array([spread for _, _, _, spread in SOURCES])[source]
    delay_ms = np.rint(median_ms * np.exp(spread * rng.standard_normal(count)))
    ts_ms = TS_START_MS + np.cumsum(gaps_ms)

    score = rows.probability.copy()
    output = rows.prediction.astype(np.int64)
    features = np.where(banded, in_age_bands(rows.features), rows.features)
    score[by_v42] = probability_of_work(load_v42().model, features[:, by_v42])
    output[by_v42] = score[by_v42] >= 0.5
    return Traffic(
        rows=rows,
        ts_ms=ts_ms,
        by_v42=by_v42,
        released=released,
        banded=banded,
        score=score,
        output=output,
        source=source,
        labelled=rng.random(count) >= NEVER_LABELLED_SHARE,
        ts_label_ms=ts_ms + np.clip(delay_ms, 1_000, DELAY_MS_MAX).astype(np.int64),
    )
