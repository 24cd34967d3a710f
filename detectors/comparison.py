"""Test whether the candidate is worse than the target on concurrent outcomes, with evidence valid at any time.

The null is that the candidate is *not* worse: candidate mean <= target mean. Evidence grows like an e-detector's: it
restarts itself at every step, so that a candidate that decays late is still seen. One step is one block, and a step
adds 1 to the evidence's expectation under the null, so evidence >= threshold happens at most once in ``threshold``
blocks on average, hence at most once in ``threshold`` outcomes.

Two forms, eight bets each. *Blocks* for split traffic: outcomes of both arms from one interval of time. *Pairs* for
mirrored traffic, where both versions answered the same request: shared errors cancel, which saves half the requests.
"""

from __future__ import annotations

import math

import numpy as np

from detectors.base import Floats
from detectors.betting import LARGEST_EVIDENCE, advance, total

LOG_ODDS_RATIOS: Floats = np.geomspace(0.1, 2.5, 8)
PAIR_BETS: Floats = np.geomspace(0.02, 0.8, 8)
BETS = 8


def two_sample_factors(
    n_target: Floats, k_target: Floats, n_candidate: Floats, k_candidate: Floats, pooled_mean: Floats
) -> Floats:
    """Return each block's betting factors on "the candidate's mean is higher" [^1].

    For a log odds ratio l, with n = n_t + n_c, theta_t = expit(logit(pooled) - l n_c/n), theta_c =
    expit(logit(pooled) + l n_t/n) and theta_0 = (n_t theta_t + n_c theta_c) / n, the factor is the product over the
    arms g of (theta_g/theta_0)^k_g ((1-theta_g)/(1-theta_0))^(n_g-k_g).

    Why its expectation is at most 1 whenever p_c <= p_t, for losses x in [0, 1] that have, inside the block and given
    the past, mean p_g in arm g. Let u_g = theta_g/theta_0, v_g = (1-theta_g)/(1-theta_0).

    1. One loss contributes u^x v^(1-x) <= x u + (1-x) v (weighted geometric below arithmetic mean), with equality for
       0/1 losses. So real losses only lower the factor, and by conditioning one loss after the other the block's
       expectation is at most a_t(p_t)^n_t a_c(p_c)^n_c, where a_g(p) = p u_g + (1-p) v_g.
    2. theta_c >= theta_0 >= theta_t, so a_c rises with p: a_c(p_c) <= a_c(p_t).
    3. At equal p, weighted geometric below arithmetic mean once more: a_t^(n_t/n) a_c^(n_c/n) <=
       (n_t a_t + n_c a_c)/n = p + (1-p) = 1, since theta_0 is the weighted mean of theta_t and theta_c.

    The null's p may differ from block to block; ``pooled_mean`` must come from before the block.

    Args:
        n_target, n_candidate: Shape (r,), outcomes of each arm in the block.
        k_target, k_candidate: Shape (r,), sums of their losses.
        pooled_mean: Shape (r,), mean loss of both arms before the block (any guess is valid, a good one is powerful).

    Returns:
        Shape (r, 8). A block that lacks an arm has factor 1: it is no evidence.

    [^1]: Turner, Ly, Grunwald. "Generic e-variables for exact sequential k-sample tests", 2021, theorem 1.
    """
    n = n_target + n_candidate
    both = (n_target > 0) & (n_candidate > 0)
    # A block that lacks an arm is computed as if the arms were equal, and then left out.
    share = np.where(both, n_candidate / np.maximum(n, 1.0), 0.5)[:, None]
    guess = np.clip(pooled_mean, 1e-9, 1.0 - 1e-9)
    logit = (np.log(guess) - np.log1p(-guess))[:, None]
    target = _expit(logit - LOG_ODDS_RATIOS * share)
    candidate = _expit(logit + LOG_ODDS_RATIOS * (1.0 - share))
    null = (1.0 - share) * target + share * candidate
    log_factor = (
        k_target[:, None] * np.log(target / null)
        + (n_target - k_target)[:, None] * np.log((1.0 - target) / (1.0 - null))
        + k_candidate[:, None] * np.log(candidate / null)
        + (n_candidate - k_candidate)[:, None] * np.log((1.0 - candidate) / (1.0 - null))
    )
    with np.errstate(over="ignore", under="ignore"):
        factor: Floats = np.exp(np.where(both[:, None], log_factor, 0.0))
    return factor


def pair_factors(difference: Floats) -> Floats:
    """Return each pair's betting factors ``1 + b (x_candidate - x_target)``, whose mean under the null is at most 1.

    Args:
        difference: Shape (e,), the candidate's loss minus the target's on the same request, each in [-1, 1].

    Returns:
        Shape (e, 8), between 0.2 and 1.8.
    """
    factor: Floats = 1.0 + difference[:, None] * PAIR_BETS
    return factor


def advance_comparison(evidence: Floats, factor: Floats) -> Floats:
    """Return ``(R + 1/8) * factor``, at most 1e300, never NaN.

    Args:
        evidence: Shape (r, 8).
        factor: Shape (r, 8), of one block or one pair per row.
    """
    return advance(evidence, np.ones(evidence.shape[0]), factor)


def record_evidence(count: float, losses_sum: float, mean: float, worth: float, grid: Floats) -> float:
    """Return the evidence that outcomes have a higher mean than a record of finite size, on all of them at once.

    The record is a Beta(a, b) prior of its true mean, a = mean * worth, b = (1 - mean) * worth. For a bet c with the
    tilted mean q = mean (1 + c) / (1 + mean c), the evidence is the likelihood ratio of "0/1 losses of mean q" against
    "0/1 losses of the record's unknown mean", averaged over the grid:

        q^k (1 - q)^(n - k)  B(a, b) / B(a + k, b + n - k).

    This is the e-detector's growing baseline with the outcomes taken as one block: a martingale of mean 1 for outcomes
    of the record's mean, averaged over that prior, and the order inside does not matter. Against a record worth
    ``worth`` outcomes it stays bounded however many outcomes come, for a short record proves nothing with certainty. By
    Ville's inequality it ever reaches ``threshold`` with probability 1/threshold at most. That is for one start; if the
    start was chosen among t outcomes with hindsight, as an alarm's change point is, the bound is t/threshold.

    A loss x between 0 and 1 counts as q^x (1 - q)^(1 - x), which is at most the mixture of the two; it makes the
    evidence smaller, for a loss that varies less than 0/1 losses of its mean.

    Args:
        count: Number of outcomes, 0 or more.
        losses_sum: Sum of their losses.
        mean: The record's mean, in (0, 1).
        worth: The number of outcomes that it rests on, above 0.
        grid: Shape (K,), the bets c > 0.

    Returns:
        The evidence, at most 1e300.

    Example:
        >>> from detectors.betting import GRID_BINARY
        >>> record_evidence(0.0, 0.0, 0.1, 5_000.0, GRID_BINARY)
        1.0
        >>> round(math.log10(record_evidence(500.0, 100.0, 0.1, 5_000.0, GRID_BINARY)), 1)
        7.6
    """
    right = count - losses_sum
    a, b = mean * worth, (1.0 - mean) * worth
    tilted = mean * (1.0 + grid) / (1.0 + mean * grid)
    usual = _log_beta(a + losses_sum, b + right) - _log_beta(a, b)
    logs = losses_sum * np.log(tilted) + right * np.log1p(-tilted) - usual
    top = float(logs.max())
    return min(
        float(total(np.exp(logs - top))) / grid.size * math.exp(min(top, math.log(LARGEST_EVIDENCE))), LARGEST_EVIDENCE
    )


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _expit(x: Floats) -> Floats:
    result: Floats = 1.0 / (1.0 + np.exp(-x))
    return result
