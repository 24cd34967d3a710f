"""Adapt river's HDDM_A and HDDM_W to the protocol: 0/1 losses, bounds by Hoeffding and by McDiarmid.

Only a rise alarms: their two-sided tests restart on a fall, as in river, without an alarm.
"""

from __future__ import annotations

from typing import ClassVar, Self

import msgspec
from river.drift.binary import HDDMA as RiverHddmA
from river.drift.binary import HDDMW as RiverHddmW
from river.drift.binary.hddm_w import SampleInfo
from river.stats import Mean

from detectors.river.zero_one import ZeroOneAdapter, check_between
from detectors.snapshots import decoded, seal
from unship.errors import SnapshotError


class MeanOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold a running mean."""

    count: float
    mean: float


class HddmASnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold everything a HddmA needs to continue: the means up to the lowest cut, to the highest cut and to now."""

    drift_confidence: float
    warning_confidence: float
    two_sided_test: bool
    drift_detected: bool
    lowest: MeanOf
    highest: MeanOf
    now: MeanOf


class HddmA(ZeroOneAdapter):
    """Compare the mean now with the mean up to its best cut, by Hoeffding's bound (HDDM_A, Frías-Blanco 2015) [^1].

    No promised run length. Slow on a rise by half, because the mean now is the mean since the start.

    Args:
        drift_confidence: Chance of a false alarm in Hoeffding's bound for one comparison, in (0, 1).
        warning_confidence: As in river; there are no warnings here, so it changes nothing.
        two_sided_test: Whether a fall restarts the test, as in river; it is never an alarm.

    Raises:
        ValueError: A parameter is out of range, or a loss is neither 0 nor 1.

    [^1]: "Online and non-parametric drift detection methods based on Hoeffding's bounds", IEEE Transactions on
        Knowledge and Data Engineering 27(3), the A-test.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> HddmA().update_many(rng.random(4_000) < np.repeat([0.1, 0.3], 2_000)).tolist()
        [2171]
    """

    name: ClassVar[str] = "hddm_a"

    def __init__(
        self, *, drift_confidence: float = 0.001, warning_confidence: float = 0.005, two_sided_test: bool = False
    ) -> None:
        check_between("drift_confidence", drift_confidence, 0.0, 1.0)
        check_between("warning_confidence", warning_confidence, 0.0, 1.0)
        self._river = RiverHddmA(  # type: ignore[no-untyped-call]
            drift_confidence=float(drift_confidence),
            warning_confidence=float(warning_confidence),
            two_sided_test=bool(two_sided_test),
        )

    def _rose(self) -> bool:
        return bool(self._river._mean_incr(self._river.drift_confidence))

    def snapshot(self) -> bytes:
        """Return everything needed to continue later, bit for bit."""
        river = self._river
        content = HddmASnapshot(
            drift_confidence=river.drift_confidence,
            warning_confidence=river.warning_confidence,
            two_sided_test=river.two_sided_test,
            drift_detected=river._drift_detected,
            lowest=MeanOf(river._x_min.n, river._x_min.get()),
            highest=MeanOf(river._x_max.n, river._x_max.get()),
            now=MeanOf(river._z.n, river._z.get()),
        )
        return seal(self.name, content)

    @classmethod
    def restored(cls, payload: bytes) -> Self:
        """Return the detector that wrote the payload; raise SnapshotError if it is not one of this kind."""
        content = decoded(payload, HddmASnapshot)
        try:
            detector = cls(
                drift_confidence=content.drift_confidence,
                warning_confidence=content.warning_confidence,
                two_sided_test=content.two_sided_test,
            )
        except ValueError as error:
            raise SnapshotError(f"snapshot of an impossible hddm_a: {error}") from error
        if not all(0.0 <= cut.count <= content.now.count for cut in (content.lowest, content.highest)):
            raise SnapshotError(f"snapshot of an impossible hddm_a: counts in {content}")
        river = detector._river
        river._drift_detected = content.drift_detected
        river._x_min = Mean._from_state(content.lowest.count, content.lowest.mean)
        river._x_max = Mean._from_state(content.highest.count, content.highest.mean)
        river._z = Mean._from_state(content.now.count, content.now.mean)
        return detector


class WeightedMeanOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold an exponentially weighted mean, and the sum of squared weights that bounds it; mean None before any."""

    mean: float | None
    squared_weights: float


class HddmWSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hold everything a HddmW needs to continue: weighted means overall, and before and after each cut."""

    drift_confidence: float
    warning_confidence: float
    lambda_val: float
    two_sided_test: bool
    drift_detected: bool
    overall: WeightedMeanOf
    before_rise: WeightedMeanOf
    after_rise: WeightedMeanOf
    before_fall: WeightedMeanOf
    after_fall: WeightedMeanOf
    rise_cut: float
    fall_cut: float


class HddmW(ZeroOneAdapter):
    """Compare weighted means before and after the best cut, by McDiarmid's bound (HDDM_W, Frías-Blanco 2015) [^1].

    No promised run length: with the same confidence it is hundreds of times shorter at an error rate of .2 than at
    .02.

    Args:
        drift_confidence: Chance of a false alarm in McDiarmid's bound for one comparison, in (0, 1).
        warning_confidence: As in river; there are no warnings here, so it changes nothing.
        lambda_val: The weight of the newest outcome, in (0, 1).
        two_sided_test: Whether a fall restarts the test, as in river; it is never an alarm.

    Raises:
        ValueError: A parameter is out of range, or a loss is neither 0 nor 1.

    [^1]: "Online and non-parametric drift detection methods based on Hoeffding's bounds", IEEE Transactions on
        Knowledge and Data Engineering 27(3), the W-test.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(3)
        >>> HddmW().update_many(rng.random(4_000) < np.repeat([0.1, 0.5], 2_000)).tolist()
        [2022, 2768]
    """

    name: ClassVar[str] = "hddm_w"

    def __init__(
        self,
        *,
        drift_confidence: float = 0.001,
        warning_confidence: float = 0.005,
        lambda_val: float = 0.05,
        two_sided_test: bool = False,
    ) -> None:
        check_between("drift_confidence", drift_confidence, 0.0, 1.0)
        check_between("warning_confidence", warning_confidence, 0.0, 1.0)
        check_between("lambda_val", lambda_val, 0.0, 1.0)
        self._river = RiverHddmW(  # type: ignore[no-untyped-call]
            drift_confidence=float(drift_confidence),
            warning_confidence=float(warning_confidence),
            lambda_val=float(lambda_val),
            two_sided_test=bool(two_sided_test),
        )

    def _rose(self) -> bool:
        return bool(self._river._detect_mean_incr(self._river.drift_confidence))

    def snapshot(self) -> bytes:
        """Return everything needed to continue later, bit for bit."""
        river = self._river
        content = HddmWSnapshot(
            drift_confidence=river.drift_confidence,
            warning_confidence=river.warning_confidence,
            lambda_val=river.lambda_val,
            two_sided_test=river.two_sided_test,
            drift_detected=river._drift_detected,
            overall=_weighted_mean(river._total),
            before_rise=_weighted_mean(river._s1_incr),
            after_rise=_weighted_mean(river._s2_incr),
            before_fall=_weighted_mean(river._s1_decr),
            after_fall=_weighted_mean(river._s2_decr),
            rise_cut=river._incr_cutpoint,
            fall_cut=river._decr_cutpoint,
        )
        return seal(self.name, content)

    @classmethod
    def restored(cls, payload: bytes) -> Self:
        """Return the detector that wrote the payload; raise SnapshotError if it is not one of this kind."""
        content = decoded(payload, HddmWSnapshot)
        try:
            detector = cls(
                drift_confidence=content.drift_confidence,
                warning_confidence=content.warning_confidence,
                lambda_val=content.lambda_val,
                two_sided_test=content.two_sided_test,
            )
        except ValueError as error:
            raise SnapshotError(f"snapshot of an impossible hddm_w: {error}") from error
        river = detector._river
        river._drift_detected = content.drift_detected
        river._total = _sample(content.overall, content.lambda_val)
        river._s1_incr = _sample(content.before_rise, content.lambda_val)
        river._s2_incr = _sample(content.after_rise, content.lambda_val)
        river._s1_decr = _sample(content.before_fall, content.lambda_val)
        river._s2_decr = _sample(content.after_fall, content.lambda_val)
        river._incr_cutpoint, river._decr_cutpoint = content.rise_cut, content.fall_cut
        return detector


def _weighted_mean(sample: SampleInfo) -> WeightedMeanOf:
    return WeightedMeanOf(sample.ewma if sample.is_init else None, sample.ibc)


def _sample(content: WeightedMeanOf, weight: float) -> SampleInfo:
    if not 0.0 < content.squared_weights <= 1.0:
        raise SnapshotError(f"expected a sum of squared weights in (0, 1], was {content.squared_weights}")
    sample = SampleInfo(weight)
    if content.mean is not None:
        # A new weighted mean takes its first number unchanged as the mean.
        sample.update(content.mean)  # type: ignore[no-untyped-call]
    sample._ibc = content.squared_weights
    return sample
