"""Estimate when a loss rose, and bound a mean at any time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

TIGHTEST_AT = 1_000
"""The number of terms at which the bound is tightest; it is valid at every other number too."""


def block_glr(n: ArrayLike, k: ArrayLike, baseline_mean: float) -> int:
    """Return the index of the block where the rise most likely began.

    The generalised likelihood ratio of "since block j the mean is the one seen since block j" against the baseline is
    ``N KL(K/N || baseline)``, with N outcomes and loss K since block j. Only rises count. 0 if there is none.

    Args:
        n: Shape (b,), outcomes of each block, oldest first.
        k: Shape (b,), sums of their losses.
        baseline_mean: In (0, 1).

    Example:
        >>> block_glr([100, 100, 100, 100], [10, 9, 31, 28], 0.1)
        2
    """
    counts = np.asarray(n, dtype=np.float64)[::-1].cumsum()[::-1]
    sums = np.asarray(k, dtype=np.float64)[::-1].cumsum()[::-1]
    if counts.shape != sums.shape or counts.ndim != 1:
        raise ValueError(f"expected counts and sums of the same blocks, was shapes {counts.shape} and {sums.shape}")
    if not 0.0 < baseline_mean < 1.0:
        raise ValueError(f"expected a baseline mean between 0 and 1, was {baseline_mean}")
    mean = np.clip(sums / np.maximum(counts, 1.0), 0.0, 1.0)
    ratio = counts * (_x_log(mean, mean / baseline_mean) + _x_log(1.0 - mean, (1.0 - mean) / (1.0 - baseline_mean)))
    ratio[mean <= baseline_mean] = 0.0
    return int(ratio.argmax()) if ratio.size else 0


def _x_log(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return x log(y), 0 where x is 0."""
    return x * np.log(np.where(x > 0.0, y, 1.0))


def mean_upper_bound(total: float, total_of_squares: float, count: float, alpha: float = 0.05) -> float:
    """Return an upper bound of the mean that holds at all times at once with probability about 1 - alpha.

    A one-sided asymptotic confidence sequence: Robbins's normal mixture with the variance estimated [^1]. For the sum S
    of the centred terms and V = variance * count, mixing exp(b S - b^2 V / 2) over half a normal with variance r gives
    the martingale 2 Phi(z) exp(z^2/2) / s, s = sqrt(1 + r V), z = S sqrt(r) / s. By Ville's inequality it reaches
    1/alpha with probability at most alpha; since Phi(z) >= 1 - exp(-z^2/2)/2 for z >= 0, staying below implies
    z^2/2 < log((1 + s/alpha)/2), which is solved for the mean here, at a margin of ``width`` standard errors.

    The sample variance is not enough: when large terms are rare (errors of a good model), too few of them
    make mean and variance small together, and the bound fails in up to 14 % of runs instead of 5 %. The variance is
    therefore taken from the same bound on the mean square q: squares lie in [0, 1], so their variance is at most
    their mean, and the upper bound u solves u = q + width sqrt(u / count). For 0/1 terms this is Wilson's interval.

    Args:
        total: Sum of the terms, each in [-1, 1].
        total_of_squares: Sum of their squares.
        count: Number of terms.
        alpha: Probability of ever being wrong, in (0, 1).

    Returns:
        The bound, at most 1; 1 when there are no terms.

    [^1]: Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas. "Time-uniform central limit theory and asymptotic confidence
        sequences", 2024, theorem 2.2 and its one-sided form.

    Example:
        >>> round(mean_upper_bound(total=10.0, total_of_squares=250.0, count=1_000.0), 4)
        0.0578
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"expected alpha between 0 and 1, was {alpha}")
    if count <= 0.0:
        return 1.0
    mean, mean_square = total / count, total_of_squares / count
    # The mixture in units of the standard deviation; tightest at the chosen count (equation 9 of the source).
    mixture = (-2.0 * math.log(alpha) + math.log(1.0 - 2.0 * math.log(alpha))) / TIGHTEST_AT
    spread = 1.0 + count * mixture
    width = math.sqrt(2.0 * spread / (mixture * count) * math.log(0.5 + 0.5 * math.sqrt(spread) / alpha))
    step = width / math.sqrt(count)
    largest_square = ((step + math.sqrt(step * step + 4.0 * mean_square)) / 2.0) ** 2
    return min(mean + step * math.sqrt(max(largest_square - mean * mean, 0.0)), 1.0)
