"""Where a rise began, and how large a mean can still be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detectors.change_point import block_glr, mean_upper_bound


def test_change_point_is_the_block_where_the_rise_began() -> None:
    rng = np.random.default_rng(12)
    found = [block_glr(np.full(120, 50), rng.binomial(50, np.repeat([0.1, 0.25], [80, 40])), 0.1) for _ in range(100)]
    assert np.median(found) == 80
    assert np.quantile(np.abs(np.array(found) - 80), 0.9) <= 3


def test_change_point_without_a_rise_is_the_first_block() -> None:
    assert block_glr([100, 100, 100], [10, 5, 1], 0.1) == 0
    assert block_glr([], [], 0.1) == 0


def test_empty_blocks_do_no_harm() -> None:
    assert block_glr([100, 0, 100, 0], [10, 0, 40, 0], 0.1) == 1
    assert block_glr([0, 0], [0, 0], 0.1) == 0


def test_losses_that_are_all_wrong_have_a_change_point() -> None:
    assert block_glr([10, 10, 10], [0, 10, 10], 0.5) == 1


@pytest.mark.parametrize("baseline", [0.0, 1.0, float("nan")])
def test_impossible_baseline_is_refused(baseline: float) -> None:
    with pytest.raises(ValueError, match="baseline"):
        block_glr([1], [1], baseline)


def test_blocks_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="same blocks"):
        block_glr([1, 2], [1], 0.1)


def terms(kind: str, rng: np.random.Generator, count: int) -> np.ndarray:
    """Return terms of mean zero in [-1, 1]."""
    if kind == "symmetric":
        return rng.uniform(-1.0, 1.0, count)
    if kind == "rare losses":
        return (rng.random(count) < 0.02) - 0.02
    if kind == "rare gains":
        return 0.02 - (rng.random(count) < 0.02)
    return (rng.random(count) < 0.3) - 0.3


def ever_below(kind: str, bound: str, runs: int = 200, count: int = 1_500) -> float:
    """Return the share of runs in which the bound falls below the true mean at any time."""
    rng = np.random.default_rng(13)
    failed = 0
    for _ in range(runs):
        values = terms(kind, rng, count)
        sums, squares = np.cumsum(values).tolist(), np.cumsum(values * values).tolist()
        for n, (total, total_of_squares) in enumerate(zip(sums, squares, strict=True), start=1):
            if bound == "ours":
                upper = mean_upper_bound(total, total_of_squares, n)
            else:
                upper = total / n + 1.645 * math.sqrt(max(total_of_squares / n - (total / n) ** 2, 0.0) / n)
            if upper < 0.0:
                failed += 1
                break
    return failed / runs


@pytest.mark.parametrize("kind", ["symmetric", "rare losses", "rare gains", "errors"])
def test_bound_holds_at_all_times_at_once(kind: str) -> None:
    assert ever_below(kind, "ours") <= 0.05


def test_bound_for_one_fixed_time_would_not_hold_at_all_times() -> None:
    assert ever_below("errors", "fixed time") > 0.2


def test_bound_tightens_with_the_number_of_terms() -> None:
    widths = [mean_upper_bound(0.0, 0.09 * n, n) for n in (10, 100, 1_000, 10_000, 100_000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[2] < 3.5 * math.sqrt(0.09 / 1_000)


def test_bound_without_terms_is_the_largest_possible_mean() -> None:
    assert mean_upper_bound(0.0, 0.0, 0.0) == 1.0


def test_bound_is_never_above_one() -> None:
    assert mean_upper_bound(2.0, 2.0, 2.0) == 1.0


def test_smaller_alpha_gives_a_higher_bound() -> None:
    assert mean_upper_bound(0.0, 90.0, 1_000, alpha=0.01) > mean_upper_bound(0.0, 90.0, 1_000, alpha=0.05)
    with pytest.raises(ValueError, match="alpha"):
        mean_upper_bound(0.0, 1.0, 10.0, alpha=0.0)
