"""Detect a rise of a bounded loss with the classical CUSUM: one-sided, tuned to one rise, per outcome.

The score of a loss x is log((1 - x) (1 - q) / (1 - m) + x q / m), where m is the baseline's mean and q = m + the rise.
For 0 and 1 that is the log-likelihood ratio of an error rate q against m; between them it is the log of the straight
line through both, whose expectation is at most 1 for every loss in [0, 1] with mean at most m, whatever its shape.
The bound on the run length needs no more, so it holds for Brier as for errors.

It is the reference that other detectors are measured against. The e-detector needs neither an exact baseline nor a
rise to be tuned to.
"""

from __future__ import annotations

from math import log, sqrt
from typing import ClassVar, Self

import msgspec
from numpy.typing import ArrayLike

from detectors.base import LossKind, Positions, checked_loss, checked_losses, positions
from detectors.betting import LARGEST_MEAN
from detectors.snapshots import decoded, seal
from unship.errors import SnapshotError

LIMIT_CONFIDENCE = 0.9
LIMIT_QUANTILE = 1.2815515655446004
"""Of the standard normal distribution, at ``LIMIT_CONFIDENCE``."""


class CusumSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold everything a Cusum needs to continue; ``baseline`` and ``threshold`` as they were given."""

    baseline: float | None
    worse_by: float
    arl: float
    threshold: float | None
    learn: int
    learned_sum: float
    learned_count: int
    score: float


class Cusum:
    """Add up how much better a higher mean explains the losses, never below zero (CUSUM, Page 1954) [^1].

    With ``baseline`` and without ``threshold`` the alarm is raised at log(arl). What that promises: while the
    conditional mean of the losses is at most ``baseline``, the average run length to a false alarm is at least
    ``arl`` (Lorden 1971 [^2] for independent losses, Shin, Ramdas and Rinaldo [^3] for any dependence). It is far
    more than promised: about ``arl`` divided by the Kullback-Leibler divergence of m from q, measured 25 times
    ``arl`` for .02 against .12 and 330 times for .05 against .07; so it is also slower than with a threshold chosen by
    simulation, which may be given instead.

    A learned baseline is not the mean of what was learned but its upper 90 % limit, and the threshold log(arl / .9):
    nine in ten such limits are not too low and keep ``arl`` / .9, so the average over what may be learned keeps
    ``arl``. Measured on healthy streams with error rates from .05 to .2, at the defaults: within 100,000 outcomes
    17 to 27 % alarm if the bare mean is the baseline, 1.5 to 2.5 % with the limit. The limit is Wilson's [^4],
    approximate and for independent outcomes. Its price: a rise not much larger than its distance from the mean (.013
    for .1 after 1,000 outcomes) is not seen.

    After an alarm it restarts: score zero, the baseline kept.

    Args:
        baseline: Mean loss of healthy outcomes, above 0 and below 1. None: learned from the first ``learn``.
        worse_by: The rise of the mean that it is tuned to, above 0; baseline + ``worse_by`` is cut halfway to 1.
        arl: The promised average run length to a false alarm, in outcomes.
        threshold: The score that raises the alarm, in nats; None for log(arl), or log(arl / .9) without baseline.
        learn: Outcomes that become the baseline if none is given; nothing is judged meanwhile.

    Raises:
        ValueError: A parameter or a loss is out of range.

    [^1]: "Continuous inspection schemes", Biometrika 41.
    [^2]: "Procedures for reacting to a change in distribution", Annals of Mathematical Statistics 42, theorem 2.
    [^3]: "E-detectors: a nonparametric framework for sequential change detection", New England Journal of Statistics
        in Data Science 2(2), e-CUSUM.
    [^4]: "Probable inference, the law of succession, and statistical inference", Journal of the American Statistical
        Association 22, 1927.

    Example:
        >>> import numpy as np
        >>> losses = np.random.default_rng(5).random(5_000) < np.repeat([0.1, 0.15], [4_000, 1_000])
        >>> Cusum(baseline=0.1, worse_by=0.05, arl=10_000).update_many(losses).tolist()
        [4450]
    """

    name: ClassVar[str] = "cusum"
    accepts: ClassVar[LossKind] = "unit"

    def __init__(
        self,
        *,
        baseline: float | None = None,
        worse_by: float = 0.02,
        arl: float = 1_000_000,
        threshold: float | None = None,
        learn: int = 1_000,
    ) -> None:
        if baseline is not None and not 0.0 < baseline < 1.0:
            raise ValueError(f"expected baseline above 0 and below 1, was {baseline}")
        if not 0.0 < worse_by < 1.0:
            raise ValueError(f"expected worse_by above 0 and below 1, was {worse_by}")
        if not 1.0 < arl <= 1e15:
            raise ValueError(f"expected arl above 1 and at most 1e15 outcomes, was {arl}")
        if threshold is not None and not 0.0 < threshold < float("inf"):
            raise ValueError(f"expected threshold above 0, was {threshold}")
        if not 1 <= learn <= 10**12:
            raise ValueError(f"expected learn between 1 and 1e12 outcomes, was {learn}")
        self._given = None if baseline is None else float(baseline)
        self._worse_by, self._arl, self._learn = float(worse_by), float(arl), int(learn)
        self._given_threshold = None if threshold is None else float(threshold)
        promised = self._arl if baseline is not None else self._arl / LIMIT_CONFIDENCE
        self._threshold = log(promised) if self._given_threshold is None else self._given_threshold
        self._learned_sum, self._learned_count = 0.0, 0
        self._score = 0.0
        self._tune()

    def _tune(self) -> None:
        """Compute the scores of a loss of 0 and of 1, once the baseline is known."""
        self._mean = self._given
        if self._given is None and self._learned_count >= self._learn:
            self._mean = upper_limit(self._learned_sum, self._learned_count)
        if self._mean is not None:
            worse = min(self._mean + self._worse_by, (1.0 + self._mean) / 2)
            self._right = (1.0 - worse) / (1.0 - self._mean)
            self._slope = worse / self._mean - self._right

    @property
    def score(self) -> float:
        """Return the evidence for the rise, in nats: 0 after a start, an alarm at ``threshold``."""
        return self._score

    @property
    def threshold(self) -> float:
        """Return the score that raises the alarm, in nats."""
        return self._threshold

    @property
    def learning(self) -> bool:
        """Return whether the detector still gathers its own baseline and judges nothing."""
        return self._mean is None

    @property
    def baseline(self) -> float | None:
        """Return the mean that losses are judged against, the upper limit if it was learned; None while learning."""
        return self._mean

    def update(self, x: float) -> bool:
        """Take one loss; return whether it raises the alarm."""
        return bool(self._alarms([checked_loss(x)]))

    def update_many(self, losses: ArrayLike) -> Positions:
        """Take losses in order; return the positions of the alarms inside this batch."""
        return positions(self._alarms(checked_losses(losses).tolist()))

    def _alarms(self, losses: list[float]) -> list[int]:
        start = self._learn_from(losses) if self._mean is None else 0
        if start == len(losses):
            return []
        alarms: list[int] = []
        score, right, slope = self._score, self._right, self._slope
        # Rounding to 9 significant digits hides the last bits, in which processors may differ; only a score this near
        # to the threshold can be rounded up to it.
        near, bar = self._threshold * (1.0 - 1e-8), float(f"{self._threshold:.8e}")
        for position, loss in enumerate(losses[start:], start=start):
            score += log(right + slope * loss)
            if score < 0.0:
                score = 0.0
            elif score >= near and float(f"{score:.8e}") >= bar:
                alarms.append(position)
                score = 0.0
        self._score = score
        return alarms

    def _learn_from(self, losses: list[float]) -> int:
        """Take losses into the baseline and return how many it needed."""
        mine = losses[: self._learn - self._learned_count]
        for loss in mine:
            self._learned_sum += loss
        self._learned_count += len(mine)
        self._tune()
        return len(mine)

    def snapshot(self) -> bytes:
        """Return everything needed to continue later, bit for bit."""
        content = CusumSnapshot(
            baseline=self._given,
            worse_by=self._worse_by,
            arl=self._arl,
            threshold=self._given_threshold,
            learn=self._learn,
            learned_sum=self._learned_sum,
            learned_count=self._learned_count,
            score=self._score,
        )
        return seal(self.name, content)

    @classmethod
    def restored(cls, payload: bytes) -> Self:
        """Return the detector that wrote the payload; raise SnapshotError if it is not one of this kind."""
        content = decoded(payload, CusumSnapshot)
        try:
            detector = cls(
                baseline=content.baseline,
                worse_by=content.worse_by,
                arl=content.arl,
                threshold=content.threshold,
                learn=content.learn,
            )
        except ValueError as error:
            raise SnapshotError(f"snapshot of an impossible cusum: {error}") from error
        counts_fit = 0.0 <= content.learned_sum <= content.learned_count <= content.learn
        if not (counts_fit and 0.0 <= content.score < detector.threshold):
            raise SnapshotError(f"snapshot of an impossible cusum: count, sum or score in {content}")
        detector._learned_sum, detector._learned_count = content.learned_sum, content.learned_count
        detector._score = content.score
        detector._tune()
        return detector


def upper_limit(losses_sum: float, count: int) -> float:
    """Return the upper 90 % limit of a mean by Wilson's formula, with the variance of 0/1 losses: the largest possible.

    Example:
        >>> round(upper_limit(100.0, 1_000), 4), round(upper_limit(0.0, 1_000), 4)
        (0.1128, 0.0016)
    """
    mean, shrink = losses_sum / count, LIMIT_QUANTILE**2 / count
    spread = LIMIT_QUANTILE * sqrt(mean * (1.0 - mean) / count + shrink / (4.0 * count))
    return min((mean + shrink / 2.0 + spread) / (1.0 + shrink), LARGEST_MEAN)
