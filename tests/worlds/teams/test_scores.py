"""Changes that teams would want to hear of are found and dated, and nothing is decided before them or without them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.worlds.teams.people import DAY_MS, HOUR_MS, Told, clicks, ratings
from tests.worlds.teams.scores import arrivals, demand, fraud
from tests.worlds.teams.watched import CLICKS, RATINGS, decided, degraded

FRAUD = """
models:
  m:
    labels: {horizon: 30d, mature_after: 5d}
    slices: {by: [country]}
    worse_by: 0.01
    one_false_alarm_per: 90d
    policy: {mode: approve, deployments: any}
"""
ARRIVALS = """
models:
  m:
    target: {kind: regression}
    losses: [{absolute: {scale: 20}}]
    labels: {mature_after: 1h, horizon: 2d}
    slices: {by: [city]}
"""
DEMAND = """
models:
  m:
    target: {kind: regression}
    losses: [{absolute: {scale: 100}}]
    labels: {mature_after: 8d, horizon: 30d}
    worse_by: 0.02
    slices: {by: [region]}
    policy: {mode: act, deployments: any}
"""


class World(NamedTuple):
    """How a world is made with and without its change, how it is watched, and how wide its cohorts are."""

    changed: Callable[[int], Told]
    same: Callable[[int], Told]
    text: str
    cohort_ms: int


def _clicks(text: str, label: str) -> World:
    return World(
        lambda seed: clicks(seed, kind=label), lambda seed: clicks(seed, after=0.2, kind=label), text, HOUR_MS // 20
    )


WORLDS = {
    "fraud": World(fraud, lambda seed: fraud(seed, rise=0.0), FRAUD, 5 * DAY_MS // 20),
    "arrivals": World(arrivals, lambda seed: arrivals(seed, bias=0.0), ARRIVALS, HOUR_MS // 20),
    "demand": World(demand, lambda seed: demand(seed, factor=1.0), DEMAND, 8 * DAY_MS // 20),
    "ratings": World(ratings, lambda seed: ratings(seed, after=0.2), RATINGS, HOUR_MS // 20),
    "clicked item": _clicks(CLICKS.replace("KIND", "ranking").replace("LOSS", "ranking"), "truth"),
    "click": _clicks(CLICKS.replace("KIND", "custom").replace("LOSS", "engagement"), "engagement"),
}
#: Of the first five seeds of the six worlds 26 changes are found and dated, each within a cohort, or a quarter of the
#: time that the alarm took: UNSHIP_WORLD_SEEDS=5.
SEEDS = range(1, 1 + int(os.environ.get("UNSHIP_WORLD_SEEDS", "1")))
#: A change of little evidence has no sharp date.
DATED = 0.6


@pytest.mark.parametrize("name", WORLDS)
def test_change_is_found_and_dated_and_nothing_is_decided_before_it(name: str) -> None:
    world, dated = WORLDS[name], 0
    for seed in SEEDS:
        told = world.changed(seed)
        found = decided(told, world.text)
        before = {str(each.reason) for each in found if each.ts <= told.changed_at}
        assert before <= {"LEARNING", "HEALTHY"}, (seed, before)
        # Most answers of some of these never get a label, which is no fault of the labels.
        assert not {"BLIND", "COVERAGE_SHIFT", "IMPLAUSIBLE_LABELS"} & {str(each.reason) for each in found}
        alarms = [each for each in degraded(found) if each.evidence.alarm]
        if not alarms or not alarms[0].evidence.alarm:
            continue
        late = abs(alarms[0].evidence.alarm.change_ts - told.changed_at)
        dated += late <= max(world.cohort_ms, (alarms[0].ts - told.changed_at) / 4)
    assert dated >= DATED * len(SEEDS)


@pytest.mark.parametrize("name", WORLDS)
def test_world_without_a_change_is_healthy(name: str) -> None:
    world = WORLDS[name]
    for seed in SEEDS[:1]:
        assert {str(each.reason) for each in decided(world.same(seed), world.text)} <= {"LEARNING", "HEALTHY"}, seed
