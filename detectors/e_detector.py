"""Watch the mean of a bounded loss with a mixture of betting Shiryaev-Roberts processes.

Problem: detect a rise of the loss soon, yet raise at most one false alarm in about ``arl`` outcomes, for every
base rate, without a threshold to tune.

The kernel, with its theory, is `detectors.betting`.

Why not a simpler detector: CUSUM with threshold ``log(arl)`` keeps the same promise with 1.5 to 6 times the delay;
a baseline mean that is estimated once and treated as exact breaks the promise for one reference in ten. Here
``m`` is the Krichevsky-Trofimov predictive mean of *all* outcomes so far (reference and live). The promise then holds
on average over a Beta(1/2, 1/2) prior of the base rate; for each fixed base rate it is measured, not proved
(``benchmarks/e_detector.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self, cast

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from detectors.base import Floats, LossKind, Positions, checked_losses, positions
from detectors.betting import (
    GRIDS,
    baseline_path,
    evidence_path,
    factors,
    predictive_mean,
    reaches,
    total,
)
from detectors.snapshots import decoded, seal
from unship.errors import SnapshotError


class EDetectorSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold everything an EDetector needs to continue."""

    arl: float
    worse_by: float
    grid: Literal["binary", "low_variance"]
    learn: int
    cap: int
    learning: bool
    reference_sum: float
    reference_count: int
    losses_sum: float
    count: int
    evidence: list[float]


class EDetector:
    """Alarm on a rise of the mean loss, with at most one false alarm in about ``arl`` outcomes.

    After an alarm it restarts: evidence zero, the reference kept, outcomes that joined the baseline since dropped. To
    watch for a fall, or for both directions, feed a second one with ``1 - x``.

    Args:
        arl: The promised average run length to a false alarm, in outcomes.
        reference: Losses of healthy outcomes (an array; the newest ``cap`` count), or the tuple (mean, n). One with
            fewer than 500 outcomes is too small to judge by and is left out.
        worse_by: The rise of the mean that does not matter; baseline mean + ``worse_by`` is still healthy.
        grid: "binary" bets on up to 12 times the odds; "low_variance" on up to 400 times, for losses whose spread is
            much smaller than that of 0/1 losses of the same mean (Brier, for example).
        learn: Without a reference, the first outcomes that become it; nothing is judged meanwhile.
        cap: Most outcomes in the baseline; beyond it old ones fade, so that the newest weigh most.

    Raises:
        ValueError: A parameter or a loss is out of range; names it with its value.

    Example:
        >>> import numpy as np
        >>> losses = np.random.default_rng(5).random(7_000) < np.repeat([0.1, 0.15], [6_000, 1_000])
        >>> detector = EDetector(arl=10_000)
        >>> int(detector.update_many(losses)[0])
        6171
    """

    name: ClassVar[str] = "e_detector"
    accepts: ClassVar[LossKind] = "unit"

    smallest_reference: ClassVar[int] = 500

    def __init__(
        self,
        *,
        arl: float = 1_000_000,
        reference: ArrayLike | tuple[float, int] | None = None,
        worse_by: float = 0.0,
        grid: Literal["binary", "low_variance"] = "binary",
        learn: int = 1_000,
        cap: int = 20_000,
    ) -> None:
        self._arl, self._worse_by, self._learn, self._cap = float(arl), float(worse_by), int(learn), int(cap)
        if not 1.0 <= self._arl <= 1e15:
            raise ValueError(f"expected arl between 1 and 1e15 outcomes, was {arl}")
        if not 0.0 <= self._worse_by < 1.0:
            raise ValueError(f"expected worse_by in [0, 1), was {worse_by}")
        if grid not in GRIDS:
            raise ValueError(f"expected grid to be one of {', '.join(GRIDS)}, was {grid!r}")
        if not self.smallest_reference <= self._cap <= 10**12:
            raise ValueError(f"expected cap between {self.smallest_reference} and 1e12 outcomes, was {cap}")
        if not 1 <= self._learn <= self._cap:
            raise ValueError(f"expected learn between 1 and cap ({self._cap}) outcomes, was {learn}")
        self._grid_name: Literal["binary", "low_variance"] = grid
        self._grid = GRIDS[grid]
        self._reference_sum, self._reference_count = _reference_sums(reference, self._cap)
        self._learning = self._reference_count < self.smallest_reference
        if self._learning:
            self._reference_sum, self._reference_count = 0.0, 0
        self._restart()

    def _restart(self) -> None:
        self._losses_sum, self._count = self._reference_sum, self._reference_count
        self._evidence: Floats = np.zeros((1, self._grid.size))

    @property
    def arl(self) -> float:
        """Return the promised average run length, in outcomes."""
        return self._arl

    @property
    def evidence(self) -> float:
        """Return the evidence against health: 0 after a start, an alarm at ``arl``."""
        return float(total(self._evidence)[0])

    @property
    def learning(self) -> bool:
        """Return whether the detector still gathers its own reference and judges nothing."""
        return self._learning

    @property
    def baseline(self) -> tuple[float, int]:
        """Return mean and count of the outcomes that the next loss is judged against (mean 0 when there are none)."""
        return (self._losses_sum / self._count if self._count else 0.0), self._count

    def update(self, x: float) -> bool:
        """Take one loss; return whether it raises the alarm."""
        return self.update_many([x]).size == 1

    def update_many(self, losses: ArrayLike) -> Positions:
        """Take losses in order; return the positions of the alarms inside this batch."""
        values = checked_losses(losses)
        alarms: list[int] = []
        start, width = 0, 32
        while start < values.size:
            if self._learning:
                start += self._learn_from(values[start : start + self._learn - self._reference_count])
                continue
            chunk = values[start : start + width]
            judged = self._judge(chunk)
            if judged is None:
                # Long runs without an alarm are the rule, and long chunks are cheaper; after an alarm the rest of a
                # chunk was computed for nothing, so the next one is short again.
                start, width = start + chunk.size, min(2 * width, 1_024)
            else:
                alarms.append(start + judged)
                start, width = start + judged + 1, 32
        return positions(alarms)

    def _learn_from(self, losses: Floats) -> int:
        sums, counts = baseline_path(self._reference_sum, self._reference_count, losses, self._cap)
        self._reference_sum, self._reference_count = float(sums[-1]), int(counts[-1])
        self._learning = self._reference_count < self._learn
        self._restart()
        return losses.size

    def _judge(self, losses: Floats) -> int | None:
        """Take losses up to the first alarm and return its position, or take all of them and return None."""
        sums, counts = baseline_path(self._losses_sum, self._count, losses, self._cap)
        mean = predictive_mean(sums[:-1], counts[:-1], self._worse_by)
        growth = np.ones((losses.size, 1))
        path = evidence_path(self._evidence, growth, factors(losses, mean, self._grid)[:, None, :])
        reached = reaches(total(path)[:, 0], self._arl)
        if reached.any():
            self._restart()
            return int(reached.argmax())
        self._evidence = path[-1].copy()
        self._losses_sum, self._count = float(sums[-1]), int(counts[-1])
        return None

    def snapshot(self) -> bytes:
        """Return everything needed to continue later, bit for bit."""
        content = EDetectorSnapshot(
            arl=self._arl,
            worse_by=self._worse_by,
            grid=self._grid_name,
            learn=self._learn,
            cap=self._cap,
            learning=self._learning,
            reference_sum=self._reference_sum,
            reference_count=self._reference_count,
            losses_sum=self._losses_sum,
            count=self._count,
            evidence=self._evidence[0].tolist(),
        )
        return seal(self.name, content)

    @classmethod
    def restored(cls, payload: bytes) -> Self:
        """Return the detector that wrote the payload; raise SnapshotError if it is not one of this kind."""
        content = decoded(payload, EDetectorSnapshot)
        try:
            detector = cls(
                arl=content.arl,
                worse_by=content.worse_by,
                grid=content.grid,
                learn=content.learn,
                cap=content.cap,
            )
        except ValueError as error:
            raise SnapshotError(f"snapshot of an impossible e_detector: {error}") from error
        counts_fit = 0 <= content.reference_count <= content.count <= content.cap
        sums_fit = 0 <= content.reference_sum <= content.reference_count and 0 <= content.losses_sum <= content.count
        evidence = np.array([content.evidence])
        shape_fits = evidence.shape == (1, detector._grid.size)
        if not (counts_fit and sums_fit and shape_fits and ((evidence >= 0.0) & (evidence < content.arl)).all()):
            raise SnapshotError(f"snapshot of an impossible e_detector: counts, sums or evidence in {content}")
        detector._learning = content.learning
        detector._reference_sum, detector._reference_count = content.reference_sum, content.reference_count
        detector._losses_sum, detector._count, detector._evidence = content.losses_sum, content.count, evidence
        return detector


def _reference_sums(reference: ArrayLike | tuple[float, int] | None, cap: int) -> tuple[float, int]:
    if reference is None:
        return 0.0, 0
    if isinstance(reference, tuple) and len(reference) == 2:
        mean, count = cast(Sequence[float], reference)
        if not 0.0 <= mean <= 1.0:
            raise ValueError(f"expected the reference's mean in [0, 1], was {mean}")
        if not (count >= 0 and float(count).is_integer()):
            raise ValueError(f"expected the reference's n to be a whole number of outcomes, was {count}")
        counted = min(int(count), cap)
        return float(mean) * counted, counted
    losses = checked_losses(reference)[-cap:]
    return float(np.add.accumulate(losses)[-1]) if losses.size else 0.0, losses.size
