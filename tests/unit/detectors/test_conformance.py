"""Every detector keeps what all detectors must keep, and the checks notice one that does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import detectors
from detectors import checks
from detectors.base import checked_losses
from detectors.checks import yield_checks
from detectors.e_detector import EDetector
from detectors.river.ddm_eddm import Ddm

CASES: list[tuple[str, dict[str, Any]]] = [
    ("e_detector", {}),
    ("e_detector", {"arl": 10_000, "reference": (0.1, 5_000), "worse_by": 0.02}),
    ("e_detector", {"arl": 100_000, "grid": "low_variance", "learn": 600, "cap": 1_500}),
    ("adwin", {}),
    ("adwin", {"delta": 1e-6, "clock": 1, "max_buckets": 3}),
    ("page_hinkley", {}),
    ("page_hinkley", {"threshold": 20.0, "mode": "both", "delta": 0.05}),
    ("ddm", {}),
    ("ddm", {"warm_start": 300, "drift_threshold": 4.0}),
    ("eddm", {}),
    ("eddm", {"warm_start": 200, "beta": 0.7}),
    ("fhddm", {}),
    ("fhddm", {"sliding_window_size": 200, "short_window_size": 50}),
    ("hddm_a", {}),
    ("hddm_a", {"drift_confidence": 0.0005, "two_sided_test": True}),
    ("hddm_w", {}),
    ("hddm_w", {"lambda_val": 0.02, "two_sided_test": True}),
    ("kswin", {}),
    ("kswin", {"alpha": 0.001, "window_size": 150, "stat_size": 40, "seed": 7}),
    ("cusum", {}),
    ("cusum", {"baseline": 0.12, "worse_by": 0.1, "arl": 1e8}),
    ("cusum", {"learn": 500, "threshold": 20.0}),
]

# These two alarm falsely every few thousand outcomes as river makes them, so a quiet stretch proves nothing about
# them; their stricter cases take these checks like everyone else.
RESTLESS = {"ddm", "eddm"}


def everything() -> list[Any]:
    """List every check of every case under a readable name."""
    found = []
    for name, parameters in CASES:
        # A detector that was given a reference of 10 % errors rightly alarms on 50 %: the fall has no quiet start.
        skipped = {"fall_is_silent"} if {"reference", "baseline"} & parameters.keys() else set()
        if name in RESTLESS and not parameters:
            skipped = {"fall_is_silent", "rise_is_an_alarm"}
        label = "-".join([name, *(f"{key}={value}" for key, value in parameters.items())])
        found += [
            pytest.param(check, id=f"{label}-{title}")
            for title, check in yield_checks(name, **parameters)
            if title not in skipped
        ]
    return found


@pytest.mark.parametrize("check", everything())
def test_detector_passes_check(check: Callable[[], None]) -> None:
    check()


def test_every_named_detector_has_a_case() -> None:
    assert {name for name, _ in CASES} == set(detectors.names())


class ForgetsAcrossBatches(EDetector):
    """Lose the evidence at the start of every batch."""

    def update_many(self, losses: Any) -> Any:
        self._evidence = np.zeros_like(self._evidence)
        return super().update_many(losses)


class AlarmsOnAFall(EDetector):
    """Watch the wrong direction."""

    def update_many(self, losses: Any) -> Any:
        return super().update_many(1.0 - np.asarray(losses, dtype=float))


class AcceptsAnything(EDetector):
    """Clip impossible losses instead of refusing them."""

    def update_many(self, losses: Any) -> Any:
        return super().update_many(np.clip(np.nan_to_num(np.asarray(losses, dtype=float)), 0.0, 1.0))


class SavesLess(EDetector):
    """Leave the live part of the baseline out of the snapshot."""

    def snapshot(self) -> bytes:
        kept = self._losses_sum, self._count
        self._losses_sum, self._count = self._reference_sum, self._reference_count
        saved = super().snapshot()
        self._losses_sum, self._count = kept
        return saved


class CountsAnything(Ddm):
    """Take what lies between 0 and 1 for an error."""

    def update_many(self, losses: Any) -> Any:
        return super().update_many(np.ceil(checked_losses(losses)))

    def update(self, x: float) -> bool:
        return bool(self.update_many([x]).size)


class NeverAlarms(EDetector):
    """Take everything and say nothing."""

    def update_many(self, losses: Any) -> Any:
        return super().update_many(losses)[:0]


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (ForgetsAcrossBatches, checks.check_update_many_equals_a_loop),
        (SavesLess, checks.check_snapshot_goes_on_bit_for_bit),
        (AlarmsOnAFall, checks.check_fall_is_silent),
        (AlarmsOnAFall, checks.check_rise_is_an_alarm),
        (NeverAlarms, checks.check_rise_is_an_alarm),
        (AcceptsAnything, checks.check_impossible_losses_are_refused),
    ],
)
def test_check_fails_on_a_detector_that_breaks_it(mutant: type[EDetector], check: Callable[[Any], None]) -> None:
    with pytest.raises(AssertionError):
        check(lambda: mutant(arl=10_000))


def test_check_fails_on_a_detector_of_errors_that_takes_a_half() -> None:
    with pytest.raises(AssertionError, match=r"the loss 0\.5 was accepted"):
        checks.check_impossible_losses_are_refused(CountsAnything)


def test_snapshot_that_grows_with_the_stream_is_noticed() -> None:
    class KeepsEverything(EDetector):
        def snapshot(self) -> bytes:
            return super().snapshot() + bytes(self._count)

    with pytest.raises(AssertionError, match="the snapshot has"):
        checks.check_memory_is_bounded(KeepsEverything)


def test_detector_that_differs_from_run_to_run_is_noticed() -> None:
    made: list[EDetector] = []

    def make() -> EDetector:
        made.append(EDetector(arl=10_000 + len(made)))
        return made[-1]

    with pytest.raises(AssertionError, match="different snapshots"):
        checks.check_same_losses_same_bytes(make)
