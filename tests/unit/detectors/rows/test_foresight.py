"""Cohorts that are stepped together lead to the same bits as one after the other, up to the first alarm."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

from detectors.rows.bank import BASELINE_CAP, BLOCK
from detectors.rows.types import SOURCE_CELLS, Baselines, Entries, Rules
from detectors.rows.watch import RUN, Health, new_health
from streams.ledger.encoding import pack

STREAMS, SOURCES = 6, 3
WEIGHTS = np.array([0.25, *[0.0125] * (STREAMS - 1)])


def entries_of(rng: np.random.Generator, sizes: list[int], wrong: float) -> Entries:
    """Return outcomes of some cohorts with two dimensions of slices, of which some have none."""
    size = sum(sizes)
    streams = np.stack([np.zeros(size, np.int64), rng.integers(1, 4, size), rng.integers(4, STREAMS, size)])
    streams[1:][rng.random((2, size)) < 0.1] = -1
    losses = np.stack([(rng.random(size) < wrong).astype(float), np.minimum(rng.random(size) * 3 * wrong, 1.0)])
    return Entries(np.arange(size) * 100, streams, rng.integers(0, SOURCES, size), losses)


def watched(rng: np.random.Generator, before: int, reference: float | None = None, sources: int = SOURCES) -> Health:
    """Return a version that has seen so many outcomes in blocks."""
    health = new_health("v1", "live", 0, [True, False], STREAMS)
    health.fit(STREAMS, sources)
    health.fix_baselines({} if reference is None else {0: (reference, 20_000.0)}, None, None)
    for begin in range(0, before, 400):
        health.judge(entries_of(rng, [min(400, before - begin)], 0.1), rules(), 0)
    return health


def rules(promise: float = 1e6, *, in_time: bool = False) -> Rules:
    return Rules(promise, WEIGHTS, 0.01, in_time, True)


def check(health: Health, entries: Entries, sizes: list[int], given: Rules) -> int:
    """Judge what is foreseen by both ways; return how many cohorts that are."""
    bounds = np.append(0, np.cumsum(sizes))
    foresight = health.foresee(entries, bounds, given)
    if foresight is None:
        return 0
    other = deepcopy(health)
    for cohort in range(foresight.cohorts):
        part = entries.part(int(bounds[cohort]), int(bounds[cohort + 1]))
        health.judge_foreseen(foresight, cohort, part)
        other.judge(part, given, 0)
        assert pack(health) == pack(other), cohort
    if foresight.cohorts < len(sizes):
        # From here on both go the same way, and so do the rows after the alarm.
        part = entries.part(int(bounds[foresight.cohorts]), entries.source.size)
        health.judge(part, given, 0)
        other.judge(part, given, 0)
        assert pack(health) == pack(other)
    return foresight.cohorts


@pytest.mark.parametrize("seed", range(12))
def test_cohorts_that_are_foreseen_have_the_bits_of_those_judged_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Rows of slices learn, and learn their baselines on the way; later counts fade at the cap.
    before = int(rng.choice([1_000, 2_000, 4_000, 21_000]))
    health = watched(rng, before, sources=int(rng.choice([0, SOURCES])))
    sizes = [int(rng.integers(1, rng.choice([3, 30, 100]))) for _ in range(60)]
    assert check(health, entries_of(rng, sizes, 0.1), sizes, rules()) == 60


def test_counts_that_reach_the_cap_on_the_way_fade_in_the_same_way() -> None:
    rng = np.random.default_rng(1)
    health = watched(rng, int(BASELINE_CAP) - 200)
    sizes = [7] * 60
    assert check(health, entries_of(rng, sizes, 0.1), sizes, rules()) == 60
    assert health.rows.banks[0].n[0] == BASELINE_CAP


@pytest.mark.parametrize("seed", range(6))
def test_rows_that_inherited_have_the_bits_of_those_judged_one_by_one(seed: int) -> None:
    """All rows, the overall ones, or some slices inherit; the others learn."""
    rng, sources = np.random.default_rng(seed), int(seed % 2) * SOURCES
    health = new_health("v1", "live", 0, [True, False], STREAMS)
    health.fit(STREAMS, sources)
    n = np.full((2, STREAMS, health.rows.variants), 900.0)
    n[:, [[], range(1, STREAMS), range(2, 4)][seed % 3]] = 0.0
    k = n * np.array([0.1, 0.15])[:, None, None]
    left = Baselines("v0", True, n, k, n, k, np.zeros((5, STREAMS)), np.zeros((4, STREAMS, SOURCE_CELLS)))
    health.fix_baselines({}, None, left)
    sizes = [int(rng.integers(1, rng.choice([3, 30, 100]))) for _ in range(60)]
    assert check(health, entries_of(rng, sizes, 0.1), sizes, rules()) == 60
    assert all(bank.kept_evidence.any() for bank in health.rows.banks)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_foreseen_from_the_cohort_on_that_may_raise_an_alarm(seed: int) -> None:
    rng = np.random.default_rng(seed)
    health = watched(rng, 3_000)
    sizes = [5] * 120
    assert 0 < check(health, entries_of(rng, sizes, 0.2), sizes, rules()) < 120
    assert health.degraded
    assert health.foresee(entries_of(rng, sizes, 0.1), np.arange(0, 601, 5), rules()) is None


def test_what_depends_on_more_than_the_outcomes_is_not_foreseen() -> None:
    rng = np.random.default_rng(2)
    entries, bounds = entries_of(rng, [10, 10], 0.1), np.array([0, 10, 20])
    assert watched(rng, 500).foresee(entries, bounds, rules()) is None, "the version still learns"
    assert watched(rng, 500, 0.1).foresee(entries, bounds, rules()) is None, "the reference may be dropped"
    assert watched(rng, 1_500, 0.1).foresee(entries, bounds, rules()) is not None
    assert watched(rng, 1_500).foresee(entries, bounds, rules(in_time=True)) is None, "evidence grows by time"
    entries.losses[1, 3] = np.nan
    assert watched(rng, 1_500).foresee(entries, bounds, rules()) is None, "an outcome without a loss"
    large = entries_of(rng, [RUN + BLOCK], 0.1)
    assert watched(rng, 1_500).foresee(large, np.array([0, RUN + BLOCK]), rules()) is None, "several runs of a cohort"


def test_looking_ahead_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    health = watched(rng, 3_000)
    before = pack(health)
    assert health.foresee(entries_of(rng, [10] * 30, 0.1), np.arange(0, 301, 10), rules()) is not None
    assert pack(health) == before
