"""A job that is sorted within each night is as good at its end as at its beginning."""

from __future__ import annotations

import numpy as np
import pytest

from actions.journal import Decision
from detectors.rows.types import Entries, Rules
from detectors.rows.watch import Health, new_health
from streams.config.parse import parse
from streams.evaluation.cohorts import shuffled
from tests.pipelines import run
from unship.codec import encode_line
from unship.events import Deployment, Event, Feedback, Prediction

STORES, NIGHTS, RISEN = 120, 90, 60
LOSSES = (0.05, 0.35)
DAY_MS, START_MS = 86_400_000, 1_767_571_200_000

MATURE = """
log: embedded:./log
models:
  shops: {target: {kind: regression}, losses: [{absolute: {scale: 1}}], worse_by: 0.02, detectors: [e_detector],
          labels: {horizon: 2d, mature_after: 1d}}
"""
AT_ONCE = MATURE.replace("mature_after: 1d", "mature_after: 0s")
RULES = Rules(1_000_000.0, np.array([1.0]), 0.02, False, True)
RISE, SOON = 0.12, 4
QUIET = {"LEARNING", "HEALTHY"}


def night(rng: np.random.Generator, rise: float = 0.0) -> np.ndarray:
    """Return the losses of one night, store by store, from the easy ones to the hard ones."""
    mean = np.linspace(*LOSSES, STORES) + rise
    return rng.beta(mean * 8, (1 - mean) * 8)


def recorded(seed: int, rise: float = 0.0, by_value: bool = False, nights: int = NIGHTS) -> list[bytes]:
    """Return the lines of nights of which those from number `RISEN` on are worse by `rise`.

    Labels come 12 hours later, all at one time; with `by_value` they come one by one, a second apart, the smallest loss
    first.
    """
    rng = np.random.default_rng(seed)
    events: list[Event] = [Deployment(model="shops", version="v1", status="live", ts=START_MS - 1)]
    for number in range(nights):
        at, losses = START_MS + number * DAY_MS, night(rng, rise if number >= RISEN else 0.0)
        events += [
            Prediction(id=f"{number}-{store}", model="shops", version="v1", output=0.0, ts=at)
            for store in range(STORES)
        ]
        order = losses.argsort().tolist() if by_value else range(STORES)
        for place, store in enumerate(order):
            told = at + DAY_MS // 2 + (1_000 * place if by_value else 0)
            events.append(Feedback(id=f"{number}-{store}", truth=float(losses[store]), ts=told, source="tills"))
    return [encode_line(event) for event in events]


def judged(seed: int, rise: float = 0.0, sorted_too: bool = False) -> tuple[int | None, Health]:
    """Judge night after night; return the one that alarmed."""
    rng, health = np.random.default_rng(seed), new_health("v1", "live", 0, [False], 1)
    health.fix_baselines({}, None, None)
    nothing = np.zeros(STORES, np.int64)
    for number in range(NIGHTS):
        losses = night(rng, rise if number >= RISEN else 0.0)
        if not sorted_too:
            losses = losses[shuffled(number * STORES + np.arange(STORES))]
        at = np.full(STORES, number * DAY_MS)
        health.judge(Entries(at, nothing[None], nothing, losses[None], number * DAY_MS), RULES, number * DAY_MS)
        if health.degraded:
            return number, health
    return None, health


def test_sorted_nights_without_a_change_raise_no_alarm() -> None:
    assert [judged(seed)[0] for seed in range(50)] == [None] * 50


def test_sorted_nights_in_their_own_order_would_all_alarm() -> None:
    assert None not in [judged(seed, sorted_too=True)[0] for seed in range(10)]


def test_rise_is_found_within_four_nights_and_dated_to_a_night() -> None:
    for seed in range(50):
        alarmed, health = judged(seed, RISE)
        assert alarmed is not None
        assert RISEN <= alarmed < RISEN + SOON
        assert health.alarms[0].since % DAY_MS == 0
        assert abs(health.alarms[0].since // DAY_MS - RISEN) <= 1


def decided(config: str, lines: list[bytes]) -> list[Decision]:
    return run(parse(config), lines, START_MS + (NIGHTS + 3) * DAY_MS).decisions


@pytest.mark.parametrize("config", [MATURE, AT_ONCE])
@pytest.mark.parametrize("seed", [1, 2])
def test_sorted_nights_lead_to_no_alarm_from_lines_to_decisions(config: str, seed: int) -> None:
    assert {made.reason for made in decided(config, recorded(seed))} == QUIET


@pytest.mark.parametrize("seed", [1, 2])
def test_labels_sorted_by_value_lead_to_no_alarm_where_they_mature(seed: int) -> None:
    assert {made.reason for made in decided(MATURE, recorded(seed, by_value=True))} == QUIET


@pytest.mark.parametrize("config", [MATURE, AT_ONCE])
def test_rise_in_sorted_nights_is_found_within_four_from_lines_to_decisions(config: str) -> None:
    last = decided(config, recorded(3, RISE))[-1]
    assert last.verdict == "DEGRADED"
    assert last.ts < START_MS + (RISEN + SOON) * DAY_MS + DAY_MS * 11 // 10
    assert last.evidence.alarm
    assert last.evidence.alarm.change_ts == START_MS + RISEN * DAY_MS
