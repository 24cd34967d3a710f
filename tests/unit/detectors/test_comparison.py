"""Candidate against target: evidence rises when the candidate is worse, and only then."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.comparison import BETS, PAIR_BETS, advance_comparison, pair_factors, two_sample_factors


def blocks(*rows: tuple[float, float, float, float, float]) -> np.ndarray:
    return two_sample_factors(*(np.array(column, dtype=float) for column in zip(*rows, strict=True)))


@pytest.mark.filterwarnings("error")
def test_block_that_lacks_an_arm_says_nothing() -> None:
    found = blocks((0, 0, 20, 9, 0.1), (20, 2, 0, 0, 0.1), (0, 0, 0, 0, 0.1))
    np.testing.assert_array_equal(found, np.ones((3, BETS)))


def test_worse_candidate_raises_and_better_candidate_lowers_every_bet() -> None:
    worse, better = blocks((100, 10, 100, 20, 0.15), (100, 20, 100, 10, 0.15))
    assert (worse[:6] > 1.0).all()
    assert (better < 1.0).all()


def test_factor_of_a_single_pair_of_outcomes_is_the_formula() -> None:
    odds_ratio = np.exp(np.geomspace(0.1, 2.5, 8))
    odds = 0.1 / 0.9
    target = odds / np.sqrt(odds_ratio) / (1 + odds / np.sqrt(odds_ratio))
    candidate = odds * np.sqrt(odds_ratio) / (1 + odds * np.sqrt(odds_ratio))
    null = (target + candidate) / 2
    expected = (1 - target) / (1 - null) * candidate / null
    np.testing.assert_allclose(blocks((1, 0, 1, 1, 0.1))[0], expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("pooled", [0.0, 1e-12, 1.0 - 1e-12, 1.0])
def test_extreme_guess_of_the_pooled_mean_stays_finite(pooled: float) -> None:
    found = blocks((5_000, 0, 5_000, 5_000, pooled), (5_000, 5_000, 5_000, 0, pooled))
    assert not np.isnan(found).any()
    assert not np.isnan(advance_comparison(np.full((2, 8), 1e300), found)).any()


def test_pairs_bet_on_the_difference() -> None:
    np.testing.assert_allclose(pair_factors(np.array([1.0, 0.0, -1.0])), [1 + PAIR_BETS, np.ones(8), 1 - PAIR_BETS])


def test_each_step_adds_one_to_the_evidence() -> None:
    evidence = np.zeros((2, BETS))
    for _ in range(5):
        evidence = advance_comparison(evidence, np.ones((2, BETS)))
    np.testing.assert_allclose(evidence.sum(axis=1), [5.0, 5.0])


def test_candidate_that_decays_late_is_confirmed_soon_after() -> None:
    rng = np.random.default_rng(9)
    evidence, target_sum, candidate_sum, seen = np.zeros((1, BETS)), 0.0, 0.0, 0.0
    confirmed = None
    for block in range(400):
        mean = 0.1 if block < 300 else 0.2
        k_target, k_candidate = float(rng.binomial(20, 0.1)), float(rng.binomial(180, mean))
        pooled = (target_sum + candidate_sum + 0.5) / (seen + 1.0)
        factor = two_sample_factors(*(np.array([v]) for v in (20.0, k_target, 180.0, k_candidate, pooled)))
        evidence = advance_comparison(evidence, factor)
        target_sum, candidate_sum, seen = target_sum + k_target, candidate_sum + k_candidate, seen + 200.0
        if confirmed is None and evidence.sum() >= 10_000:
            confirmed = block
    assert confirmed is not None
    assert 300 <= confirmed < 330


def test_versions_that_are_equally_bad_are_not_told_apart() -> None:
    rng = np.random.default_rng(10)
    rows, evidence, highest = 200, np.zeros((200, BETS)), np.zeros(200)
    target, candidate = np.full(rows, 10.0), np.full(rows, 90.0)
    for block in range(300):
        mean = 0.1 if block < 100 else 0.4
        k_target, k_candidate = (rng.binomial(n, mean, rows).astype(np.float64) for n in (10, 90))
        factor = two_sample_factors(target, k_target, candidate, k_candidate, np.full(rows, 0.2))
        evidence = advance_comparison(evidence, factor)
        highest = np.maximum(highest, evidence.sum(axis=1))
    assert (highest >= 3_000).mean() <= 300 / 3_000
