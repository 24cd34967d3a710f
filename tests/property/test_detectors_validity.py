"""The betting factors have expectation at most one under the null: computed exactly, for any null."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.betting import GRID_LOW_VARIANCE, factors
from detectors.comparison import pair_factors, two_sample_factors
from detectors.multiplicity import e_d_bh

probabilities = st.floats(0.001, 0.999)


def binomial(n: int, p: float) -> np.ndarray:
    return np.array([comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


@settings(max_examples=200)
@given(
    n_target=st.integers(1, 12),
    n_candidate=st.integers(1, 12),
    means=st.tuples(probabilities, probabilities),
    pooled=st.floats(0, 1),
)
def test_block_factor_is_fair_when_the_candidate_is_not_worse(
    n_target: int, n_candidate: int, means: tuple[float, float], pooled: float
) -> None:
    low, high = sorted(means)
    outcomes = np.array(list(product(range(n_target + 1), range(n_candidate + 1))), dtype=float)
    weight = np.outer(binomial(n_target, high), binomial(n_candidate, low)).ravel()
    ones = np.ones(len(outcomes))
    found = two_sample_factors(ones * n_target, outcomes[:, 0], ones * n_candidate, outcomes[:, 1], ones * pooled)
    assert (weight @ found <= 1.0 + 1e-9).all()


@settings(max_examples=100)
@given(
    values=st.lists(st.floats(0, 1), min_size=2, max_size=3),
    weights=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    sizes=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pooled=probabilities,
)
def test_block_factor_is_fair_for_real_losses(
    values: list[float], weights: list[int], sizes: tuple[int, int], pooled: float
) -> None:
    """Both arms draw from the same few values: every combination is weighed by its probability."""
    chance = np.array(weights[: len(values)], dtype=float)
    chance /= chance.sum()
    n_target, n_candidate = sizes
    k_target, k_candidate, weight = [], [], []
    for drawn in product(range(len(values)), repeat=n_target + n_candidate):
        k_target.append(sum(values[i] for i in drawn[:n_target]))
        k_candidate.append(sum(values[i] for i in drawn[n_target:]))
        weight.append(float(np.prod(chance[list(drawn)])))
    ones = np.ones(len(weight))
    found = two_sample_factors(
        ones * n_target, np.array(k_target), ones * n_candidate, np.array(k_candidate), ones * pooled
    )
    assert (np.array(weight) @ found <= 1.0 + 1e-9).all()


@given(
    losses=st.lists(st.floats(0, 1), min_size=1, max_size=8),
    slack=st.floats(0, 0.5),
)
def test_factor_is_fair_when_the_mean_is_at_most_the_baseline(losses: list[float], slack: float) -> None:
    values = np.array(losses)
    baseline = min(max(float(values.mean()), 1e-6) + slack, 1.0 - 1e-9)
    found = factors(values, np.full(values.size, baseline), GRID_LOW_VARIANCE)
    assert (found.mean(axis=0) <= 1.0 + 1e-9).all()


@given(pairs=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_pair_factor_is_fair_when_the_candidate_is_not_worse(pairs: list[tuple[float, float]]) -> None:
    difference = np.array([candidate - target for candidate, target in pairs])
    difference = difference - max(float(difference.mean()), 0.0)
    found = pair_factors(difference / max(float(np.abs(difference).max()), 1.0))
    assert (found > 0.0).all()
    assert (found.mean(axis=0) <= 1.0 + 1e-9).all()


@given(
    evidence=st.lists(st.floats(0, 1e6), max_size=12),
    spare=st.integers(0, 50),
    alpha=st.sampled_from([0.01, 0.05, 0.2]),
)
def test_named_streams_are_those_of_the_definition(evidence: list[float], spare: int, alpha: float) -> None:
    streams = len(evidence) + spare
    found = e_d_bh(evidence, streams, alpha)
    enough = [k for k in range(1, len(evidence) + 1) if sum(value >= streams / (alpha * k) for value in evidence) >= k]
    largest = max(enough, default=0)
    assert found.sum() == largest
    if 0 < largest < len(evidence):
        values = np.array(evidence)
        assert values[found].min() >= values[~found].max()
