"""Draw the traffic of a recording: when requests come, which version answers what, and when the truth is reported.

Rows, truths and v41's answers are those of the survey file. v42's answers are computed here, on the features as they
arrive: changed from a row on in some scenarios. Invented are the clock (when a request comes, which version
the router picks, when which office reports the truth) and, where a scenario is about them, absences from work and lies.
All of it is drawn from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from console.census.rows import CensusRows, load_rows
from console.census.scenarios import HOLDBACK_SHARE, Change, Scenario, in_age_bands, without_age_of_some
from console.census.trees import load_v42, probability_of_work
from streams.config.units import HOUR_MS, MINUTE_MS

TS_START_MS = 1_767_571_200_000
"""2026-01-05T00:00:00Z."""

MEAN_GAP_MS = 500.0
NEVER_LABELLED_SHARE = 0.03
MATURE_AFTER_MS = HOUR_MS
# Share of the labels, median and spread (of the logarithm) of the delay. The tail reaches beyond the hour after which
# outcomes are judged; no source depends on the truth, and neither does its delay.
SOURCES = (
    ("register", 0.45, 5 * MINUTE_MS, 0.9),
    ("survey", 0.35, 10 * MINUTE_MS, 1.0),
    ("employer", 0.20, 15 * MINUTE_MS, 1.1),
)
# Half of the labels' horizon of a day, so that no label is too late to be counted.
DELAY_MS_MAX = 12 * HOUR_MS


# Where labels are prompt, the longest delay, and the whole times to which the slow ones are put off: still inside the
# maturity, so that no label is lost by the delay.
PROMPT_MS_MAX = 20 * MINUTE_MS
BURST_MS = 30 * MINUTE_MS
LIAR = "survey"
# Share of the liar's truths that contradict v42 where v42 is right, and of the workers who stay at home.
LIES, STAYS_HOME = 0.5, 0.5


@dataclass(frozen=True, slots=True)
class Requests:
    """Hold one entry per request, in the order of arrival: what is asked, and the label's fate. No answers yet.

    Attributes:
        rows: The people, as the survey has them.
        ts_ms: When the request comes, int64 (n,).
        held: What the router gives to the holdback, bool (n,); only after the release.
        released: Whether v42 was released before, bool (n,).
        changed: Whether the scenario's change is in force, bool (n,).
        features: What arrives at the models, uint8 (16, n).
        truth: What turns out to be true, int64 (n,).
        source: Index in `SOURCES`, int64 (n,).
        labelled: Whether the truth is ever reported, bool (n,).
        lies: Whether the source contradicts v42 should v42 be right, bool (n,).
        ts_label_ms: When the truth is reported, int64 (n,).
    """

    rows: CensusRows
    ts_ms: NDArray[np.int64]
    held: NDArray[np.bool_]
    released: NDArray[np.bool_]
    changed: NDArray[np.bool_]
    features: NDArray[np.uint8]
    truth: NDArray[np.int64]
    source: NDArray[np.int64]
    labelled: NDArray[np.bool_]
    lies: NDArray[np.bool_]
    ts_label_ms: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Pair the requests with answers: who gave them, the probability of work, and the answer, each (n,)."""

    requests: Requests
    by_v42: NDArray[np.bool_]
    score: NDArray[np.float64]
    output: NDArray[np.int64]

    def reported(self) -> NDArray[np.int64]:
        """Return the truths as the sources report them, (n,)."""
        asked = self.requests
        lied = asked.lies & self.by_v42 & (self.output == asked.truth)
        return np.where(lied, 1 - asked.truth, asked.truth)


def draw_requests(scenario: Scenario, rng: np.random.Generator, holdback: bool = True) -> Requests:
    """Draw clock, router and labels; without `holdback` v42 answers alone after the release."""
    rows = load_rows().take(scenario.stretches)
    count = len(rows.row)
    released = _from_row(rows, scenario.released_at)
    changed = _from_row(rows, scenario.changed_from)

    gaps_ms = np.maximum(1, np.rint(rng.exponential(MEAN_GAP_MS, count))).astype(np.int64)
    held = released & (rng.random(count) < HOLDBACK_SHARE) & holdback
    source = rng.choice(len(SOURCES), size=count, p=[share for _, share, _, _ in SOURCES])
    median_ms = np.array([median for _, _, median, _ in SOURCES], dtype=np.float64)[source]
    spread = np.array([spread for _, _, _, spread in SOURCES])[source]
    delay_ms = np.rint(median_ms * np.exp(spread * rng.standard_normal(count)))
    labelled = rng.random(count) >= NEVER_LABELLED_SHARE
    chance = rng.random(count)

    ts_ms = TS_START_MS + np.cumsum(gaps_ms)
    longest = PROMPT_MS_MAX if scenario.prompt else DELAY_MS_MAX
    ts_label_ms = ts_ms + np.clip(delay_ms, 1_000, longest).astype(np.int64)
    truth = rows.truth.astype(np.int64)
    features, lies = rows.features, np.zeros(count, dtype=np.bool_)
    if scenario.change is Change.AGE_BANDS:
        features = np.where(changed, in_age_bands(features), features)
    elif scenario.change is Change.AGE_LOST:
        features = np.where(changed, without_age_of_some(features), features)
    elif scenario.change is Change.WORLD:
        truth = np.where(changed & (chance < STAYS_HOME), 0, truth)
    elif scenario.change is Change.LIAR:
        lies = changed & (source == [name for name, _, _, _ in SOURCES].index(LIAR)) & (chance < LIES)
    elif scenario.change is Change.SLOW_LABELS:
        ts_label_ms = np.where(changed & (truth == 1), -(-ts_label_ms // BURST_MS) * BURST_MS, ts_label_ms)
    return Requests(rows, ts_ms, held, released, changed, features, truth, source, labelled, lies, ts_label_ms)


def draw_traffic(scenario: Scenario, rng: np.random.Generator, holdback: bool = True) -> Traffic:
    """Draw the requests, and let both versions answer as if v42 was never rolled back."""
    requests = draw_requests(scenario, rng, holdback)
    by_v42 = requests.released & ~requests.held
    score = requests.rows.probability.copy()
    output = requests.rows.prediction.astype(np.int64)
    score[by_v42] = probability_of_work(load_v42().model, requests.features[:, by_v42])
    output[by_v42] = score[by_v42] >= 0.5
    return Traffic(requests, by_v42, score, output)


def _from_row(rows: CensusRows, first: int | None) -> NDArray[np.bool_]:
    """Return which requests come at or after the one for this row; none where there is no row."""
    if first is None:
        return np.zeros(len(rows.row), dtype=np.bool_)
    return np.arange(len(rows.row)) >= int(np.flatnonzero(rows.row == first)[0])
