"""Adapt river's DDM and EDDM to the protocol.

They count errors, so a loss between 0 and 1 is refused. They alarm only on a rise, as in river; their warnings are
dropped, because nothing here reads them.
"""

from __future__ import annotations

from typing import ClassVar, Self

import msgspec
from river.drift.binary import DDM as RiverDdm
from river.drift.binary import EDDM as RiverEddm
from river.stats import Mean

from detectors.river.zero_one import ZeroOneAdapter, check_between, check_count
from detectors.snapshots import decoded, seal
from unship.errors import SnapshotError


class DdmSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold everything a Ddm needs to continue; the smallest rate is None until the warm start is over."""

    warm_start: int
    warning_threshold: float
    drift_threshold: float
    drift_detected: bool
    count: float
    mean: float
    p_min: float | None
    s_min: float | None


class Ddm(ZeroOneAdapter):
    """Compare the error rate since the start with the lowest it ever was (DDM, Gama et al. 2004) [^1].

    No promised run length: many streams alarm falsely soon after the warm start, and in a longer one the detector loses
    its power, because the rate since the start hardly moves. After a perfect warm start the first error alarms.

    Args:
        warm_start: No check before so many outcomes.
        warning_threshold: As in river; there are no warnings here, so it changes nothing.
        drift_threshold: Alarm when the rate exceeds the lowest by so many of its standard deviations.

    Raises:
        ValueError: A parameter is out of range, or a loss is neither 0 nor 1.

    [^1]: "Learning with drift detection", SBIA 2004, section 3.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> losses = rng.random(4_000) < np.repeat([0.1, 0.3], 2_000)
        >>> Ddm().update_many(losses).tolist()  # the first is false
        [545, 2088]
        >>> Ddm(drift_threshold=4.0).update_many(losses).tolist()
        [2104]
    """

    name: ClassVar[str] = "ddm"

    def __init__(self, *, warm_start: int = 30, warning_threshold: float = 2.0, drift_threshold: float = 3.0) -> None:
        check_count("warm_start", warm_start, 1, 10**12)
        check_between("warning_threshold", warning_threshold, 0.0, float("inf"))
        check_between("drift_threshold", drift_threshold, 0.0, float("inf"))
        self._river = RiverDdm(
            warm_start=int(warm_start),
            warning_threshold=float(warning_threshold),
            drift_threshold=float(drift_threshold),
        )

    def snapshot(self) -> bytes:
        """Return everything needed to continue later, bit for bit."""
        river = self._river
        content = DdmSnapshot(
            warm_start=river.warm_start,
            warning_threshold=river.warning_threshold,
            drift_threshold=river.drift_threshold,
            drift_detected=river._drift_detected,
            count=river._p.n,
            mean=river._p.get(),
            p_min=river._p_min,
            s_min=river._s_min,
        )
        return seal(self.name, content)

    @classmethod
    def restored(cls, payload: bytes) -> Self:
        """Return the detector that wrote the payload; raise SnapshotError if it is not one of this kind."""
        content = decoded(payload, DdmSnapshot)
        try:
            detector = cls(
                warm_start=content.warm_start,
                warning_threshold=content.warning_threshold,
                drift_threshold=content.drift_threshold,
            )
        except ValueError as error:
            raise SnapshotError(f"snapshot of an impossible ddm: {error}") from error
        rated = content.p_min is not None and content.s_min is not None
        if not (content.count >= 0.0 and 0.0 <= content.mean <= 1.0 and rated == (content.count > content.warm_start)):
            raise SnapshotError(f"snapshot of an impossible ddm: count, mean or lowest rate in {content}")
        river = detector._river
        river._drift_detected = content.drift_detected
        river._p = Mean._from_state(content.count, content.mean)
        river._p_min, river._s_min = content.p_min, content.s_min
        if content.p_min is not None and content.s_min is not None:
            river._ps_min = content.p_min + content.s_min
        return detector


class EddmSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold everything an Eddm needs to continue; ``squares`` is the sum of squared deviations of the distances."""

    warm_start: int
    alpha: float
    beta: float
    drift_detected: bool
    outcomes: int
    errors: int
    last_error: int
    distances: float
    mean: float
    squares: float
    largest: float


class Eddm(ZeroOneAdapter):
    """Compare the distances between errors with the widest they ever were (EDDM, Baena-García et al. 2006) [^1].

    No promised run length: at its defaults it alarms falsely every few thousand outcomes, whatever the error rate.

    Args:
        warm_start: No check before so many outcomes and so many errors.
        alpha: As in river; there are no warnings here, so it changes nothing, but must not be below ``beta``.
        beta: Alarm when the distances have shrunk to this share of the widest.

    Raises:
        ValueError: A parameter is out of range, or a loss is neither 0 nor 1.

    [^1]: "Early drift detection method", Fourth International Workshop on Knowledge Discovery from Data Streams.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> losses = rng.random(4_000) < np.repeat([0.1, 0.3], 2_000)
        >>> Eddm(beta=0.8).update_many(losses).tolist()  # the first two are false
        [378, 611, 2054]
        >>> Eddm(warm_start=100, beta=0.6).update_many(losses).tolist()
        [2316]
    """

    name: ClassVar[str] = "eddm"

    def __init__(self, *, warm_start: int = 30, alpha: float = 0.95, beta: float = 0.9) -> None:
        check_count("warm_start", warm_start, 1, 10**12)
        check_between("alpha", alpha, 0.0, 1.0)
        check_between("beta", beta, 0.0, 1.0)
        if alpha < beta:
            raise ValueError(f"expected alpha to be at least beta ({beta}), was {alpha}")
        self._river = RiverEddm(warm_start=int(warm_start), alpha=float(alpha), beta=float(beta))

    def snapshot(self) -> bytes:
        """Return everything needed to continue later, bit for bit."""
        river = self._river
        content = EddmSnapshot(
            warm_start=river.warm_start,
            alpha=river.alpha,
            beta=river.beta,
            drift_detected=river._drift_detected,
            outcomes=river._n,
            errors=river._n_errors,
            last_error=river._last_error,
            distances=river._error_distances.n,
            mean=river._error_distances.mean.get(),
            squares=river._error_distances._S,
            # river starts it as an integer, which would be encoded differently after a restore.
            largest=float(river._p2s_prime_max),
        )
        return seal(self.name, content)

    @classmethod
    def restored(cls, payload: bytes) -> Self:
        """Return the detector that wrote the payload; raise SnapshotError if it is not one of this kind."""
        content = decoded(payload, EddmSnapshot)
        try:
            detector = cls(warm_start=content.warm_start, alpha=content.alpha, beta=content.beta)
        except ValueError as error:
            raise SnapshotError(f"snapshot of an impossible eddm: {error}") from error
        counts_fit = 0 <= content.errors == content.distances <= content.last_error <= content.outcomes
        if not (counts_fit and content.squares >= 0.0 and content.mean >= 0.0):
            raise SnapshotError(f"snapshot of an impossible eddm: counts or distances in {content}")
        river = detector._river
        river._drift_detected = content.drift_detected
        river._n, river._n_errors, river._last_error = content.outcomes, content.errors, content.last_error
        river._error_distances.mean = Mean._from_state(content.distances, content.mean)
        river._error_distances._S = content.squares
        river._p2s_prime_max = content.largest
        return detector
