"""CUSUM alarms on a rise, keeps its promise for a baseline that is right, and says what it was tuned to."""

from __future__ import annotations

from math import exp, log
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.stats import binomtest

import detectors
from detectors.cusum import Cusum, CusumSnapshot
from detectors.snapshots import seal, unseal
from unship.errors import SnapshotError


def losses(*stretches: tuple[float, int], seed: int = 21) -> np.ndarray:
    means = np.repeat([mean for mean, _ in stretches], [count for _, count in stretches])
    return (np.random.default_rng(seed).random(means.size) < means).astype(float)


THERE_AND_BACK = losses((0.1, 3_000), (0.2, 1_000), (0.1, 2_000))


def test_pinned_alarms() -> None:
    assert Cusum().update_many(losses((0.1, 3_000), (0.3, 1_000))).tolist() == [3_498, 3_942]
    assert Cusum(baseline=0.1).update_many(THERE_AND_BACK).tolist() == [3_703]
    quick = Cusum(baseline=0.1, worse_by=0.1, arl=1_000)
    assert quick.update_many(THERE_AND_BACK[:3_500]).tolist() == [3_169, 3_290]


def test_improvement_is_no_alarm() -> None:
    assert Cusum(arl=1_000).update_many(losses((0.5, 3_000), (0.05, 3_000))).size == 0


def test_score_of_errors_is_the_log_likelihood_ratio() -> None:
    detector = Cusum(baseline=0.1, worse_by=0.05)
    detector.update(1.0)
    assert detector.score == pytest.approx(log(0.15 / 0.1), rel=1e-12)
    detector.update(0.0)
    assert detector.score == pytest.approx(log(0.15 / 0.1) + log(0.85 / 0.9), rel=1e-12)


def test_score_never_falls_below_zero() -> None:
    detector = Cusum(baseline=0.1)
    detector.update_many(np.zeros(1_000))
    assert detector.score == 0.0


@pytest.mark.parametrize("mean", [0.1, 0.05])
@pytest.mark.parametrize("worse_by", [0.02, 0.3, 0.99])
def test_one_loss_of_any_shape_is_a_fair_bet_at_the_baseline(mean: float, worse_by: float) -> None:
    # Three values with any weights and the given mean: the likelihood ratio that a loss adds is worth at most 1.
    for low, middle, high in ((0.0, 0.0, 1.0), (0.0, 0.04, 0.8), (0.02, 0.3, 0.6)):
        share = (mean - low) / (high - low)
        chances = [(1 - share), 0.0, share]
        part = 0.01 / (high - low)
        chances = [chances[0] - part * (high - middle), 0.01, chances[2] - part * (middle - low)]
        assert min(chances) >= 0.0
        assert np.dot(chances, (low, middle, high)) == pytest.approx(mean)
        worth = 0.0
        for loss, chance in zip((low, middle, high), chances, strict=True):
            # One error before it keeps the score off its floor, where the bet could not be read.
            detector = Cusum(baseline=0.1, worse_by=worse_by, threshold=1e9)
            detector.update_many([1.0, 1.0])
            before = detector.score
            detector.update(loss)
            worth += chance * exp(detector.score - before)
        assert worth <= 1.0 + 1e-9


@pytest.mark.parametrize(("mean", "worse_by"), [(0.05, 0.1), (0.2, 0.1), (0.2, 0.5)])
def test_average_run_length_is_at_least_the_promise(mean: float, worse_by: float) -> None:
    alarms = Cusum(baseline=mean, worse_by=worse_by, arl=50).update_many(losses((mean, 200_000)))
    assert alarms.size, "without any alarm the run length was not measured"
    assert 200_000 / alarms.size >= 50


def test_learned_baseline_judges_like_its_upper_limit_given() -> None:
    learned = Cusum(worse_by=0.1, learn=999)
    values = losses((0.1, 999), (0.1, 500), (0.4, 500))
    learned.update_many(values[:999])
    limit = binomtest(int(values[:999].sum()), 999).proportion_ci(0.8, "wilson").high
    assert learned.baseline == pytest.approx(limit, rel=1e-12)
    given = Cusum(baseline=learned.baseline, worse_by=0.1, arl=1_000_000 / 0.9)
    assert given.threshold == learned.threshold
    assert learned.update_many(values[999:]).tolist() == given.update_many(values[999:]).tolist() != []


@pytest.mark.parametrize("mean", [0.05, 0.2])
def test_promise_holds_on_average_over_what_is_learned(mean: float) -> None:
    # Each stream learns anew. A false alarm within a tenth of the promise is rarer than one stream in ten, which it
    # would not be if the bare mean were the baseline.
    early = sum(
        bool(Cusum(worse_by=0.05, arl=20_000, learn=200).update_many(losses((mean, 2_200), seed=seed)).size)
        for seed in range(200)
    )
    assert early <= 20


def test_nothing_is_judged_while_learning() -> None:
    detector = Cusum()
    assert detector.update_many(np.ones(999)).size == 0
    assert detector.learning
    detector.update(1.0)
    assert not detector.learning


def test_baseline_without_any_error_does_not_alarm_on_the_first_one() -> None:
    detector = Cusum()
    detector.update_many(np.zeros(1_000))
    assert not detector.update(1.0)
    assert detector.update_many(np.ones(10)).size


def test_alarm_starts_the_score_afresh_and_keeps_the_baseline() -> None:
    detector = Cusum(baseline=0.1, worse_by=0.1, arl=1_000)
    assert detector.update_many(np.ones(10)).tolist() == [9]
    assert (detector.score, detector.baseline) == (0.0, 0.1)
    assert detector.update_many(np.ones(10)).tolist() == [9]


def test_threshold_given_takes_the_place_of_the_promise() -> None:
    assert Cusum(baseline=0.1, arl=1_000).threshold == log(1_000)
    assert Cusum(arl=900).threshold == pytest.approx(log(1_000))
    assert Cusum(arl=1_000, threshold=3.0).threshold == Cusum(baseline=0.1, threshold=3.0).threshold == 3.0


def test_threshold_is_compared_after_rounding() -> None:
    step = log(0.2 / 0.1)
    assert Cusum(baseline=0.1, worse_by=0.1, threshold=step * (1 + 1e-12)).update(1.0)
    assert not Cusum(baseline=0.1, worse_by=0.1, threshold=step * (1 + 1e-7)).update(1.0)


def test_rise_beyond_the_largest_mean_is_cut() -> None:
    detector = Cusum(baseline=0.99, worse_by=0.5)
    detector.update(1.0)
    assert detector.score == pytest.approx(log(0.995 / 0.99))


@pytest.mark.parametrize(
    "parameters",
    [
        {"baseline": 0.0},
        {"baseline": 1.0},
        {"worse_by": 0.0},
        {"worse_by": float("nan")},
        {"arl": 1.0},
        {"arl": float("inf")},
        {"threshold": 0.0},
        {"learn": 0},
    ],
)
def test_impossible_parameter_is_refused_by_name(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(parameters))):
        detectors.create("cusum", **parameters)


@pytest.mark.parametrize(
    "changes", [{"score": 20.0}, {"score": -1.0}, {"learned_count": 1_001}, {"learned_sum": 5e5}, {"arl": 0.0}]
)
def test_impossible_content_under_a_good_digest_is_refused(changes: dict[str, Any]) -> None:
    detector = Cusum()
    detector.update_many(THERE_AND_BACK[:2_000])
    content = msgspec.msgpack.decode(unseal(detector.snapshot()).payload, type=CusumSnapshot)
    assert detectors.restore(seal("cusum", content)).snapshot() == detector.snapshot()
    with pytest.raises(SnapshotError, match="impossible cusum"):
        detectors.restore(seal("cusum", msgspec.structs.replace(content, **changes)))
