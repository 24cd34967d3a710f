"""KSWIN draws river's numbers, finds river's changes, and its generator comes back bit for bit."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from river.drift import KSWIN
from scipy.stats import ks_2samp

import detectors
from detectors.river.fhddm_kswin import Kswin, distance, least_distance
from detectors.snapshots import seal, unseal
from unship.errors import SnapshotError


def losses(*stretches: tuple[float, int]) -> np.ndarray:
    means = np.repeat([mean for mean, _ in stretches], [count for _, count in stretches])
    return (np.random.default_rng(21).random(means.size) < means).astype(float)


def river_changes(values: np.ndarray, **parameters: Any) -> list[int]:
    detector, found = KSWIN(**parameters), []
    for position, value in enumerate(values.tolist()):
        detector.update(value)
        if detector.drift_detected:
            found.append(position)
    return found


RISES = losses((0.05, 300), (0.8, 400))
THERE_AND_BACK = losses((0.1, 600), (0.8, 600), (0.1, 600), (0.8, 600))
SHADES = THERE_AND_BACK[600:1_800] * np.random.default_rng(22).random(1_200).round(2)


def test_alarms_are_rivers_when_only_rises_happen() -> None:
    expected = river_changes(RISES, seed=0)
    assert expected == detectors.create("kswin").update_many(RISES).tolist() == [320]


@pytest.mark.parametrize("values", [RISES, SHADES])
@pytest.mark.parametrize("parameters", [{"seed": 0}, {"seed": 5, "alpha": 0.2, "window_size": 40, "stat_size": 12}])
def test_changes_of_either_direction_are_rivers(values: np.ndarray, parameters: dict[str, Any]) -> None:
    # A mirrored loss has the same distances and the other direction, so both together show every change.
    rises = detectors.create("kswin", **parameters).update_many(values).tolist()
    falls = detectors.create("kswin", **parameters).update_many(1.0 - values).tolist()
    assert set(rises).isdisjoint(falls)
    assert sorted(rises + falls) == river_changes(values, **parameters) != []


def test_fall_starts_afresh_without_an_alarm() -> None:
    ours = detectors.create("kswin").update_many(THERE_AND_BACK).tolist()
    theirs = river_changes(THERE_AND_BACK, seed=0)
    falls = [change for change in theirs if 1_200 <= change < 1_800]
    assert falls
    assert ours == [change for change in theirs if change not in falls]


def test_other_seed_draws_other_losses() -> None:
    first, second = detectors.create("kswin", alpha=0.2), detectors.create("kswin", alpha=0.2, seed=1)
    assert first.update_many(SHADES).tolist() != second.update_many(SHADES).tolist()


def test_snapshot_at_any_place_goes_on_with_the_same_draws() -> None:
    whole = detectors.create("kswin", alpha=0.2, seed=1)
    expected = whole.update_many(SHADES).tolist()
    assert len(expected) >= 3
    found: list[int] = []
    detector = detectors.create("kswin", alpha=0.2, seed=1)
    for start in range(0, SHADES.size, 37):
        found += [start + int(place) for place in detector.update_many(SHADES[start : start + 37])]
        detector = detectors.restore(detector.snapshot())
    assert found == expected
    assert detector.snapshot() == whole.snapshot()


def test_window_given_at_the_start_is_judged_like_losses_seen() -> None:
    seen = detectors.create("kswin")
    seen.update_many(np.zeros(70))
    given = detectors.create("kswin", window=np.zeros(70))
    ones = np.ones(40)
    assert given.update_many(ones).tolist() == seen.update_many(ones).tolist() != []


@pytest.mark.parametrize("size", [1, 4, 10, 30, 45])
@pytest.mark.parametrize("alpha", [0.1, 0.005, 1e-6])
def test_least_distance_is_the_first_that_scipy_finds_rare(size: int, alpha: float) -> None:
    rare = []
    for found in range(1, size + 1):
        first, second = np.r_[np.zeros(found), np.ones(size - found)], np.ones(size)
        assert distance(first.tolist(), second.tolist()) == found
        if found / size > 0.1 and ks_2samp(first, second, method="exact").pvalue <= alpha:
            rare.append(found)
    assert least_distance(alpha, size) == (rare[0] if rare else size + 1)


def test_distance_is_scipys_for_losses_with_ties() -> None:
    rng = np.random.default_rng(23)
    for _ in range(50):
        first, second = rng.integers(0, 6, 25) / 5, rng.integers(0, 8, 25) / 7
        expected = round(ks_2samp(first, second).statistic * 25)
        assert distance(first.tolist(), second.tolist()) == expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"alpha": 0.0},
        {"alpha": float("nan")},
        {"window_size": 5_000},
        {"stat_size": 51},
        {"stat_size": 0},
        {"seed": -1},
    ],
)
def test_impossible_parameter_is_refused_by_name(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(parameters))):
        detectors.create("kswin", **parameters)


@pytest.mark.parametrize(
    "changes",
    [
        {"generator": b""},
        {"generator": b"\xff" * 2_500},
        {"window": [0.0] * 101},
        {"window": [2.0]},
        {"stat_size": 90},
    ],
)
def test_impossible_content_under_a_good_digest_is_refused(changes: dict[str, Any]) -> None:
    detector = detectors.create("kswin")
    detector.update_many(RISES[:150])
    content = msgspec.msgpack.decode(unseal(detector.snapshot()).payload, type=Kswin.content)
    assert detectors.restore(seal("kswin", content)).snapshot() == detector.snapshot()
    with pytest.raises(SnapshotError, match="impossible kswin"):
        detectors.restore(seal("kswin", msgspec.structs.replace(content, **changes)))
