"""Accumulate evidence that a mean has risen: the kernel of the e-detector, the comparison, CUSUM and label coverage.

For a bet ``c > 0`` on a rise, ``L_c(x) = (1 + c x) / (1 + c m)`` has conditional mean at most 1 whenever the loss
``x`` in [0, 1] has conditional mean at most ``m``, whatever the dependence; for 0/1 losses it is the likelihood
ratio of the alternative whose odds are ``(1 + c)`` times those of ``m``. The process

    R_c <- (R_c + 1/K) L_c(x; m),        evidence = sum of R_c over the K bets of a grid

therefore satisfies ``E[evidence | past] <= evidence + 1``: evidence minus time is a supermartingale, so that a rule
that alarms at ``evidence >= arl`` has an average run length to a false alarm of at least ``arl``, and
``P(alarm by t) <= t / arl`` [^1].

Invariant of this module: every route (one outcome, a batch, many rows at once) runs the same elementwise float64
operations in the same order, and sums over the grid strictly from left to right, so that the bits never depend on
how outcomes were batched.

[^1]: Shin, Ramdas, Rinaldo. "E-detectors: a nonparametric framework for sequential change detection", 2023,
    definition 2.1 and proposition 2.3.
"""

from __future__ import annotations

import numpy as np

from detectors.base import Bools, Floats, Ints

GRID_BINARY: Floats = np.expm1(np.geomspace(0.1, 2.5, 12))
GRID_LOW_VARIANCE: Floats = np.expm1(np.geomspace(0.1, 6.0, 16))
GRIDS: dict[str, Floats] = {"binary": GRID_BINARY, "low_variance": GRID_LOW_VARIANCE}
LARGEST_EVIDENCE = 1e300
#: Blocks whose factors are computed at once: few enough to stay in the processor's cache.
BLOCKS_AT_ONCE = 128
#: Fewer numbers than this are added in one call, of which most is thrown away.
SMALL = 4_096
LARGEST_MEAN = 1.0 - 1e-9
#: Standard errors that a mean exceeds with a probability of 5 %.
Z_95 = 1.645


def factors(losses: Floats, baseline_mean: Floats, grid: Floats) -> Floats:
    """Return the betting factors ``(1 + c x) / (1 + c m)``.

    Args:
        losses: Shape (e,), each in [0, 1].
        baseline_mean: Shape (e,), the mean each loss is compared with, in (0, 1).
        grid: Shape (K,), the bets ``c > 0``.

    Returns:
        Shape (e, K).
    """
    factor: Floats = (1.0 + losses[:, None] * grid) / (1.0 + baseline_mean[:, None] * grid)
    return factor


def factor_products(losses: Floats, baseline_mean: Floats, grid: Floats, edges: Ints) -> Floats:
    """Return the product of the betting factors of each block: gains over stakes, each multiplied in order.

    Args:
        losses: Shape (e,), each in [0, 1].
        baseline_mean: Shape (e,), the mean each loss is compared with.
        grid: Shape (K,), the bets.
        edges: Shape (b,), rising from 0: where each block begins.

    Returns:
        Shape (K, b): the outcomes of a bet lie side by side, which is what makes it cheap.

    Example:
        >>> losses, mean, grid = np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.5, 0.25]), np.array([2.0])
        >>> factor_products(losses, mean, grid, np.array([0, 2])).tolist()
        [[0.75, 2.0]]
    """
    return gains(losses, grid, edges) / bet_products(baseline_mean, grid, edges)


def gains(losses: Floats, grid: Floats, edges: Ints) -> Floats:
    """Return the product of ``1 + c x`` over each block, shape (K, b); the arguments are those of `factor_products`.

    Example:
        >>> gains(np.array([1.0, 0.0, 1.0]), np.array([2.0]), np.array([0, 1])).tolist()
        [[3.0, 3.0]]
    """
    if np.count_nonzero(losses) != np.count_nonzero(losses == 1.0):
        return bet_products(losses, grid, edges)
    # Of losses that are 0 or 1 only their number counts: a factor of 1 changes no bit.
    ones = np.add.reduceat(losses, edges).astype(np.int64)
    return powers(1.0 + grid[:, None], int(np.maximum.reduce(ones)))[:, 0].take(ones, axis=1)


def powers(base: Floats, most: int) -> Floats:
    """Return the powers from 0 to ``most`` along a new last axis, by repeated multiplication.

    Example:
        >>> powers(np.array([2.0, 3.0]), 2).tolist()
        [[1.0, 2.0, 4.0], [1.0, 3.0, 9.0]]
    """
    table = np.empty((*base.shape, most + 1))
    table[..., 0], table[..., 1:] = 1.0, base[..., None]
    return np.multiply.accumulate(table, axis=-1, out=table)


def bet_products(values: Floats, grid: Floats, edges: Ints) -> Floats:
    """Return the product of ``1 + c v`` over each block, shape (K, b), for values of shape (e,)."""
    bets, size = grid[:, None], edges.size
    if size <= BLOCKS_AT_ONCE:
        factor = values * bets
        factor += 1.0
        return np.multiply.reduceat(factor, edges, axis=1) if size < values.size else factor
    product = np.empty((grid.size, size))
    begins = range(0, size, BLOCKS_AT_ONCE)
    firsts = edges[::BLOCKS_AT_ONCE].tolist()
    ends = [*firsts[1:], values.size]
    # One table for all parts, because to allocate it takes as long as to fill it. Rows that lay some pages apart
    # would push each other out of the cache.
    widest = max(end - first for first, end in zip(firsts, ends, strict=True))
    table = np.empty(grid.size * widest)
    for begin, first, end in zip(begins, firsts, ends, strict=True):
        factor = table[: grid.size * (end - first)].reshape(grid.size, -1)
        np.multiply(values[first:end], bets, out=factor)
        factor += 1.0
        some = slice(begin, begin + BLOCKS_AT_ONCE)
        np.multiply.reduceat(factor, edges[some] - first, axis=1, out=product[:, some])
    return product


def constant_products(values: Floats, number: Ints, grid: Floats, edges: Ints, sizes: Ints) -> Floats:
    """Return the same as `bet_products` of ``values[number]``, where a block has one number only.

    Args:
        values: Shape (r,).
        number: Shape (e,), which value each entry has.
        grid: Shape (K,), the bets.
        edges: Shape (b,), where each block begins.
        sizes: Shape (b,), how many entries it has.

    Example:
        >>> number, edges, sizes = np.array([0, 0, 1]), np.array([0, 2]), np.array([2, 1])
        >>> constant_products(np.array([0.5, 1.0]), number, np.array([2.0]), edges, sizes).tolist()
        [[4.0, 3.0]]
    """
    most = int(np.maximum.reduce(sizes))
    if values.size * most > number.size:
        return bet_products(values[number], grid, edges)
    table = powers(1.0 + values * grid[:, None], most).reshape(grid.size, -1)
    return table.take(number[edges] * (most + 1) + sizes, axis=1)


def predictive_mean(losses_sum: Floats, count: Floats, worse_by: float | Floats = 0.0) -> Floats:
    """Return the largest mean that still counts as healthy: the KT mean of the baseline plus ``worse_by``.

    Without the floor 1/(count + 1), a baseline of no losses would stake everything on the first one; the ceiling keeps
    the mean below 1, where no loss could be worse.

    Args:
        losses_sum: Sum of the baseline's losses.
        count: Number of the baseline's outcomes, same shape.
        worse_by: The rise of the mean that does not matter, broadcast.
    """
    size = count + 1.0
    mean: Floats = losses_sum + 0.5
    mean /= size
    mean += worse_by
    np.maximum(mean, np.divide(1.0, size, out=size), out=mean)
    return np.minimum(mean, LARGEST_MEAN, out=mean)


def upper_mean(losses_sum: Floats, count: Floats) -> Floats:
    """Return the upper end of the one-sided 95 % Wilson interval of a mean loss.

    It is exact to the order of its approximation for 0/1 losses; any other loss in [0, 1] with the same mean varies
    less, so the end is then higher than it has to be.

    Args:
        losses_sum: Sum of the losses.
        count: Number of outcomes, above 0, same shape.

    Example:
        >>> upper_mean(np.array([140.0, 0.0]), np.array([741.0, 500.0])).round(4).tolist()
        [0.2137, 0.0054]
    """
    mean, square = losses_sum / count, Z_95 * Z_95
    spread = np.sqrt(mean * (1.0 - mean) / count + square / (4.0 * count * count))
    upper: Floats = (mean + square / (2.0 * count) + Z_95 * spread) / (1.0 + square / count)
    return upper


def advance(evidence: Floats, growth: Floats, block_factor: Floats) -> Floats:
    """Return ``(R + growth / K) * factor``, at most 1e300, never NaN.

    Args:
        evidence: Shape (r, K), each in [0, 1e300].
        growth: Shape (r,), the number of outcomes (or of time units) in each row's block; 0 or more, finite.
        block_factor: Shape (r, K), the product of the block's betting factors; may be infinite, never NaN.
            A row without outcomes has growth 0 and factor 1.
    """
    with np.errstate(over="ignore", under="ignore"):
        # Infinity times an evidence of zero would be NaN; with a finite factor it is zero, which is what it means.
        finite = np.minimum(block_factor, LARGEST_EVIDENCE)
        after: Floats = (evidence + (growth / evidence.shape[-1])[:, None]) * finite
    return np.minimum(after, LARGEST_EVIDENCE, out=after)


def evidence_path(evidence: Floats, growth: Floats, block_factor: Floats) -> Floats:
    """Return the evidence after each of ``e`` consecutive steps of ``advance``.

    Args:
        evidence: Shape (r, K), before the first step.
        growth: Shape (e, r).
        block_factor: Shape (e, r, K).

    Returns:
        Shape (e, r, K).
    """
    increments = (growth / evidence.shape[-1])[:, :, None]
    path = np.empty_like(block_factor)
    with np.errstate(over="ignore", under="ignore"):
        # Infinity times an evidence of zero would be NaN; with a finite factor it is zero, which is what it means.
        finite = np.minimum(block_factor, LARGEST_EVIDENCE)
        for increment, factor, after in zip(increments, finite, path, strict=True):
            np.add(evidence, increment, out=after)
            np.multiply(after, factor, out=after)
            evidence = np.minimum(after, LARGEST_EVIDENCE, out=after)
    return path


def total(evidence: Floats) -> Floats:
    """Return the sum over the grid (last axis), added strictly from left to right.

    ``numpy.sum`` chooses its order of addition by shape; here the bits must not depend on the number of rows.
    """
    if evidence.size < SMALL:
        sums: Floats = np.add.accumulate(evidence, axis=-1)[..., -1]
        return sums
    sums = evidence[..., 0].copy()
    for bet in range(1, evidence.shape[-1]):
        sums += evidence[..., bet]
    return sums


def reaches(evidence: Floats, threshold: float) -> Bools:
    """Return where evidence, rounded to 9 significant digits, is at least the threshold (rounded alike).

    Rounding hides the last bits, in which processors may differ, from every decision.

    Args:
        evidence: Any shape, the totals over the grid.
        threshold: The promised average run length.
    """
    reached: Bools = evidence >= threshold * (1.0 - 1e-8)
    if reached.any():
        bar = float(f"{threshold:.8e}")
        reached[reached] = [float(f"{value:.8e}") >= bar for value in evidence[reached]]
    return reached


def baseline_path(losses_sum: float, count: float, losses: Floats, cap: float) -> tuple[Floats, Floats]:
    """Return sum and count of a baseline before each of ``e`` outcomes and after the last.

    Each outcome joins the baseline, which is faded to at most ``cap`` outcomes.

    Args:
        losses_sum: Sum of the losses in the baseline before the first.
        count: A whole number of outcomes, at most ``cap``.
        losses: Shape (e,).
        cap: A whole number.

    Returns:
        Two arrays of shape (e + 1,).
    """
    room = min(losses.size, int(cap - count))
    sums = np.empty(losses.size + 1)
    sums[0] = losses_sum
    sums[1 : room + 1] = losses[:room]
    np.add.accumulate(sums[: room + 1], out=sums[: room + 1])
    faded, fade = float(sums[room]), cap / (cap + 1.0)
    for position, loss in enumerate(losses[room:].tolist(), start=room + 1):
        faded = (faded + loss) * fade
        sums[position] = faded
    return sums, np.minimum(count + np.arange(losses.size + 1.0), cap)
