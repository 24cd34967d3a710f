"""The default detector: its kernels, its promise, its baseline and what an alarm leaves behind."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

import detectors
from detectors.betting import (
    GRID_BINARY,
    GRID_LOW_VARIANCE,
    LARGEST_EVIDENCE,
    advance,
    factors,
    predictive_mean,
    reaches,
    total,
)
from detectors.e_detector import EDetector, EDetectorSnapshot
from detectors.snapshots import seal, unseal
from tests.row_steps import step_rows
from unship.errors import SnapshotError


def wrong(seed: int, *stretches: tuple[float, int]) -> np.ndarray:
    means = np.repeat([mean for mean, _ in stretches], [count for _, count in stretches])
    return (np.random.default_rng(seed).random(means.size) < means).astype(float)


def test_grids_are_pinned() -> None:
    assert GRID_BINARY.size == 12
    assert GRID_LOW_VARIANCE.size == 16
    np.testing.assert_allclose(np.log1p(GRID_BINARY[[0, -1]]), [0.1, 2.5])
    np.testing.assert_allclose(np.log1p(GRID_LOW_VARIANCE[[0, -1]]), [0.1, 6.0])


def test_factor_of_a_0_1_loss_is_the_likelihood_ratio_of_shifted_odds() -> None:
    mean, bet = 0.2, GRID_BINARY
    odds = (1.0 + bet) * mean / (1.0 - mean)
    shifted = odds / (1.0 + odds)
    found = factors(np.array([1.0, 0.0]), np.array([mean, mean]), bet)
    np.testing.assert_allclose(found, [shifted / mean, (1.0 - shifted) / (1.0 - mean)])


def test_baseline_without_a_loss_bets_against_a_mean_above_zero() -> None:
    found = predictive_mean(np.array([0.0, 0.0, 10.0]), np.array([99.0, 0.0, 99.0]))
    np.testing.assert_allclose(found, [1 / 100, 1.0 - 1e-9, 10.5 / 100])


def test_baseline_plus_worse_by_stays_below_one() -> None:
    assert predictive_mean(np.array([95.0]), np.array([99.0]), 0.2)[0] == 1.0 - 1e-9


def test_worse_by_may_differ_from_row_to_row() -> None:
    found = predictive_mean(np.array([9.5, 9.5]), np.array([99.0, 99.0]), np.array([0.0, 0.05]))
    np.testing.assert_allclose(found, [0.1, 0.15])


def test_advance_spreads_growth_over_the_grid() -> None:
    found = advance(np.array([[1.0, 3.0]]), np.array([4.0]), np.array([[2.0, 0.5]]))
    np.testing.assert_array_equal(found, [[6.0, 2.5]])


@pytest.mark.filterwarnings("error")
def test_advance_stays_finite_whatever_the_factors() -> None:
    evidence = np.array([[0.0, 1e300, 1e300, 0.0]])
    found = advance(evidence, np.array([0.0]), np.array([[np.inf, np.inf, 0.0, 1e-320]]))
    np.testing.assert_array_equal(found, [[0.0, LARGEST_EVIDENCE, 0.0, 0.0]])


def test_row_without_outcomes_keeps_its_evidence() -> None:
    evidence = np.array([[0.25, 7.0]])
    np.testing.assert_array_equal(advance(evidence, np.zeros(1), np.ones((1, 2))), evidence)


def test_threshold_is_compared_at_nine_digits() -> None:
    values = np.array([9_999.9999, 9_999.99999, 9_999.999996, 10_000.0, np.inf])
    assert reaches(values, 10_000.0).tolist() == [False, False, True, True, True]


def test_total_does_not_depend_on_the_number_of_rows() -> None:
    evidence = np.random.default_rng(3).random((257, 12)) * 10.0 ** np.arange(-6, 6)
    alone = np.concatenate([total(row[None, :]) for row in evidence])
    np.testing.assert_array_equal(total(evidence), alone)
    np.testing.assert_array_equal(total(np.asfortranarray(evidence)), alone)


def test_rows_and_the_detector_compute_the_same_bits() -> None:
    losses = np.random.default_rng(8).random((3, 900))
    detector = [EDetector(arl=1e15, reference=(0.4, 600), cap=1_000, worse_by=0.01) for _ in losses]
    for one, values in zip(detector, losses, strict=True):
        one.update_many(values)
    evidence, sums, counts = np.zeros((3, 12)), np.full(3, 240.0), np.full(3, 600.0)
    for column in losses.T:
        evidence, sums, counts = step_rows(evidence, sums, counts, column, GRID_BINARY, 0.01, 1_000.0)
    assert total(evidence).tolist() == [one.evidence for one in detector]
    assert (sums / counts).tolist() == [one.baseline[0] for one in detector]


PINNED: list[tuple[dict[str, Any], list[int]]] = [
    ({"arl": 10_000}, [5_437, 6_180, 6_400, 6_910, 9_961]),
    ({"arl": 10_000, "reference": (0.1, 5_000)}, [328, 5_169, 5_455, 6_097, 6_412, 6_967, 9_962]),
    ({"arl": 10_000, "reference": (0.1, 5_000), "worse_by": 0.02}, [5_563]),
    ({}, [5_742]),
]


@pytest.mark.parametrize(("parameters", "expected"), PINNED)
def test_pinned_alarms(parameters: dict[str, Any], expected: list[int]) -> None:
    losses = wrong(1, (0.1, 5_000), (0.15, 2_000), (0.1, 4_000), (0.3, 1_000))[:11_000]
    assert detectors.create("e_detector", **parameters).update_many(losses).tolist() == expected


def test_wide_grid_sees_a_small_rise_of_a_low_variance_loss_sooner() -> None:
    rng = np.random.default_rng(6)
    waited: dict[str, list[int]] = {"binary": [], "low_variance": []}
    for _ in range(30):
        losses = np.concatenate([rng.beta(2, 18, 2_000), rng.beta(3, 17, 1_000)])
        for grid, found in waited.items():
            alarms = detectors.create("e_detector", arl=10_000, grid=grid).update_many(losses)
            found.append(int(alarms[alarms >= 2_000][0]) - 2_000)
    assert np.mean(waited["low_variance"]) < 0.85 * np.mean(waited["binary"])


@pytest.mark.parametrize("base_rate", [0.02, 0.2])
def test_share_of_early_false_alarms_stays_below_the_promise(base_rate: float) -> None:
    """P(alarm by t) <= t / promise, here at a tenth of the promise, with references as small as may be."""
    rng = np.random.default_rng(31)
    rows, promise, steps = 2_000, 2_000.0, 200
    sums, counts = rng.binomial(500, base_rate, rows).astype(float), np.full(rows, 500.0)
    evidence, alarmed = np.zeros((rows, 12)), np.zeros(rows, dtype=bool)
    for _ in range(steps):
        losses = (rng.random(rows) < base_rate).astype(float)
        evidence, sums, counts = step_rows(evidence, sums, counts, losses, GRID_BINARY)
        alarmed |= reaches(total(evidence), promise)
    assert 0.01 < alarmed.mean() <= steps / promise


def test_baseline_taken_for_the_truth_would_break_the_promise() -> None:
    """The reason why outcomes join the baseline: a fixed estimate alarms more often than promised."""
    rng = np.random.default_rng(32)
    rows, promise, steps = 2_000, 10_000.0, 1_000
    sums, counts = rng.binomial(500, 0.1, rows).astype(float), np.full(rows, 500.0)
    evidence, alarmed = np.zeros((rows, 12)), np.zeros(rows, dtype=bool)
    for _ in range(steps):
        losses = (rng.random(rows) < 0.1).astype(float)
        evidence, _, _ = step_rows(evidence, sums, counts, losses, GRID_BINARY)
        alarmed |= reaches(total(evidence), promise)
    assert alarmed.mean() > steps / promise


def test_without_a_reference_nothing_is_judged_until_it_has_learnt() -> None:
    detector = EDetector(arl=10)
    assert detector.learning
    assert detector.update_many(np.ones(999)).size == 0
    assert detector.learning
    assert not detector.update(0.0)
    assert not detector.learning
    assert detector.evidence == 0.0
    assert detector.baseline == (0.999, 1_000)


@pytest.mark.parametrize(
    "reference", [(0.1, 499), [0.0] * 499, np.zeros(0), (0.1, 0)], ids=["mean", "losses", "empty", "none"]
)
def test_reference_of_fewer_than_500_outcomes_is_left_out(reference: Any) -> None:
    detector = EDetector(reference=reference)
    assert detector.learning
    assert detector.baseline == (0.0, 0)


def test_reference_as_losses_and_as_mean_and_count_agree() -> None:
    losses = np.repeat([0.0, 1.0, 0.0, 0.0], 250)
    by_losses, by_mean = EDetector(reference=losses), EDetector(reference=(0.25, 1_000))
    assert by_losses.baseline == by_mean.baseline == (0.25, 1_000)
    assert by_losses.snapshot() == by_mean.snapshot()


def test_longer_reference_than_the_cap_keeps_its_newest_outcomes() -> None:
    losses = np.concatenate([np.ones(1_000), np.zeros(600)])
    assert EDetector(reference=losses, cap=1_000).baseline == (0.4, 1_000)
    assert EDetector(reference=(0.3, 50_000)).baseline == (0.3, 20_000)


def test_baseline_forgets_old_outcomes_beyond_the_cap() -> None:
    detector = EDetector(arl=1e15, reference=(0.5, 1_000), cap=1_000)
    detector.update_many(np.zeros(1_000))
    mean, count = detector.baseline
    assert count == 1_000
    assert mean == pytest.approx(0.5 * (1_000 / 1_001) ** 1_000, rel=1e-12)


def test_alarm_drops_the_live_part_and_keeps_the_reference() -> None:
    detector = EDetector(arl=1_000, reference=(0.1, 2_000))
    detector.update_many(wrong(2, (0.05, 3_000)))
    assert detector.baseline[1] == 5_000
    alarms = detector.update_many(np.ones(60))
    assert alarms.size >= 2
    assert detector.update_many(np.ones(alarms[1] - alarms[0])).size >= 1
    fresh = EDetector(arl=1_000, reference=(0.1, 2_000))
    assert fresh.update_many(np.ones(200)).tolist()[0] == alarms[1] - alarms[0] - 1


def test_learnt_reference_survives_an_alarm() -> None:
    detector = EDetector(arl=1_000, learn=500)
    detector.update_many(wrong(3, (0.1, 500)))
    learnt = detector.baseline
    detector.update_many(wrong(4, (0.1, 700)))
    last = int(detector.update_many(np.ones(100))[0])
    again = EDetector(arl=1_000, learn=500)
    again.update_many(np.concatenate([wrong(3, (0.1, 500)), wrong(4, (0.1, 700)), np.ones(last + 1)]))
    assert again.baseline == learnt
    assert again.evidence == 0.0
    assert not again.learning


def test_rise_within_worse_by_is_healthy() -> None:
    losses = wrong(5, (0.1, 5_000), (0.118, 20_000))
    assert detectors.create("e_detector", arl=10_000, reference=(0.1, 5_000)).update_many(losses).size >= 1
    assert (
        detectors.create("e_detector", arl=10_000, reference=(0.1, 5_000), worse_by=0.02).update_many(losses).size == 0
    )


def test_complement_of_the_loss_watches_for_a_fall() -> None:
    losses = wrong(6, (0.3, 3_000), (0.1, 1_000))
    up, down = EDetector(arl=1_000_000), EDetector(arl=1_000_000)
    assert up.update_many(losses).size == 0
    first = int(down.update_many(1.0 - losses)[0])
    assert 3_000 <= first < 3_300


@pytest.mark.parametrize(
    "parameters",
    [
        {"arl": 0.5},
        {"arl": float("nan")},
        {"arl": float("inf")},
        {"worse_by": -0.1},
        {"worse_by": 1.0},
        {"grid": "wide"},
        {"learn": 0},
        {"learn": 30_000},
        {"cap": 499},
        {"reference": (1.5, 1_000)},
        {"reference": (float("nan"), 1_000)},
        {"reference": (0.1, -5)},
        {"reference": (0.1, 1_000.5)},
    ],
)
def test_impossible_parameter_is_refused_by_name(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(parameters))):
        EDetector(**parameters)


def test_impossible_loss_is_named_with_its_position() -> None:
    with pytest.raises(ValueError, match=r"was 1\.5 at position 2"):
        EDetector().update_many([0.0, 1.0, 1.5, float("nan")])
    with pytest.raises(ValueError, match=r"was nan at position 600"):
        EDetector(reference=[0.0] * 600 + [float("nan")])


@pytest.mark.parametrize(
    "change",
    [
        {"evidence": [0.0] * 11},
        {"evidence": [float("nan")] * 12},
        {"evidence": [1e9] * 12},
        {"evidence": [-1.0] * 12},
        {"count": 40_000},
        {"losses_sum": -1.0},
        {"losses_sum": float("nan")},
        {"reference_sum": 1e6},
        {"arl": 0.0},
    ],
)
def test_snapshot_that_no_detector_could_have_written_is_refused(change: dict[str, Any]) -> None:
    content = msgspec.msgpack.decode(
        unseal(EDetector(reference=(0.1, 1_000)).snapshot()).payload, type=EDetectorSnapshot
    )
    with pytest.raises(SnapshotError, match="impossible e_detector"):
        detectors.restore(seal("e_detector", msgspec.structs.replace(content, **change)))
