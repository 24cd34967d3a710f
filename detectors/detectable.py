"""State which rise of a mean an e-detector would have shown: what an absence of alarms is worth.

Problem: no alarm after 300 outcomes and no alarm after 300,000 are different findings, and neither means that nothing
changed.

If the losses had mean ``q`` from the first of ``n`` outcomes on, the best bet's log evidence against a healthy mean
``m`` would have grown by ``n kl(q, m)`` on average, where ``kl`` is the divergence of two 0/1 losses, with a standard
deviation of at most ``sqrt(n q (1 - q))`` times the log odds ratio of ``q`` and ``m``. So in nine of ten cases it would
have been above the mean less 1.2816 of these, and a rise counts as one that would have shown where that reaches the
threshold [^1]. It is a normal approximation for losses of a fixed mean and a baseline that is known: a rise that came
later, or a short baseline, takes more. Losses that vary less than 0/1 losses of their mean take less.

[^1]: Wald. "Sequential tests of statistical hypotheses", 1945, section 3.2: the log likelihood ratio of Bernoulli
    trials, its mean and variance.
"""

from __future__ import annotations

import math

from detectors.base import rounded
from detectors.betting import LARGEST_MEAN

#: The normal quantile of 9 in 10.
Z_90 = 1.2816
BISECTIONS = 60


def smallest_rise(usual: float, worse_by: float, outcomes: float, threshold: float) -> float | None:
    """Return the smallest rise of the mean that would have raised the alarm in nine of ten cases, None if none would.

    Args:
        usual: The baseline's mean, in [0, 1].
        worse_by: The rise that does not matter; ``usual + worse_by`` is still healthy.
        outcomes: How many outcomes there are with the higher mean, 0 or more.
        threshold: The evidence at which the alarm is raised, above 1.

    Returns:
        The rise over ``usual``, at 9 significant digits; it is always above ``worse_by``.

    Example:
        >>> smallest_rise(0.1, 0.02, 1_000, 1e6), smallest_rise(0.1, 0.02, 100_000, 1e6)
        (0.0951688449, 0.0269464568)
        >>> smallest_rise(0.5, 0.02, 10, 1e6) is None
        True
    """
    healthy = min(usual + worse_by, LARGEST_MEAN)
    wanted = math.log(threshold)
    if healthy <= 0.0 or _shown(1.0, healthy, outcomes) < wanted:
        return None
    below, above = healthy, 1.0
    for _ in range(BISECTIONS):
        middle = (below + above) / 2
        if _shown(middle, healthy, outcomes) >= wanted:
            above = middle
        else:
            below = middle
    return rounded(above - usual)


def _shown(mean: float, healthy: float, outcomes: float) -> float:
    """Return the log evidence that outcomes of a higher mean reach in nine of ten cases."""
    if mean >= 1.0:
        return -outcomes * math.log(healthy)
    right = 1.0 - mean
    log_odds_ratio = math.log(mean * (1.0 - healthy) / (healthy * right))
    divergence = mean * math.log(mean / healthy) + right * math.log(right / (1.0 - healthy))
    return outcomes * divergence - Z_90 * math.sqrt(outcomes * mean * right) * log_odds_ratio
