"""How losses are cut into batches, and when a detector is saved, never changes what it says."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.drift import ADWIN

import detectors
from detectors.betting import GRID_BINARY, advance, reaches, total
from tests.row_steps import step_rows

PARAMETERS: dict[str, dict[str, Any]] = {
    "e_detector": {"arl": 50, "learn": 20, "cap": 500},
    "adwin": {"delta": 0.3, "clock": 1},
    "page_hinkley": {"threshold": 2.0, "min_instances": 5, "mode": "both"},
    "ddm": {"warm_start": 10, "drift_threshold": 1.5},
    "eddm": {"warm_start": 5},
    "fhddm": {"sliding_window_size": 20, "short_window_size": 8, "confidence_level": 0.1},
    "hddm_a": {"drift_confidence": 0.2, "warning_confidence": 0.3, "two_sided_test": True},
    "hddm_w": {"drift_confidence": 0.2, "lambda_val": 0.2, "two_sided_test": True},
    "kswin": {"alpha": 0.2, "window_size": 25, "stat_size": 8},
    "cusum": {"worse_by": 0.2, "arl": 20, "learn": 15},
}


@st.composite
def streams(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Draw losses with a few changes of level, and the places to cut them at."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 200)), min_size=1, max_size=5))
    means = np.repeat([mean for mean, _ in levels], [count for _, count in levels])
    losses = (rng.random(means.size) < means).astype(float)
    if draw(st.booleans()):
        losses = losses * rng.random(means.size)
    cuts = draw(st.lists(st.integers(0, means.size), max_size=8))
    return losses, [0, *sorted(cuts), means.size]


@pytest.mark.parametrize("name", detectors.names())
@settings(max_examples=60)
@given(stream=streams())
def test_any_cut_with_a_save_at_every_cut_equals_a_loop(name: str, stream: tuple[np.ndarray, list[int]]) -> None:
    losses, cuts = stream
    looped = detectors.create(name, **PARAMETERS[name])
    if looped.accepts == "binary":
        losses = np.ceil(losses)
    expected = [position for position, loss in enumerate(losses.tolist()) if looped.update(loss)]
    found: list[int] = []
    detector = detectors.create(name, **PARAMETERS[name])
    for low, high in pairwise(cuts):
        found += [low + int(position) for position in detector.update_many(losses[low:high])]
        detector = detectors.restore(detector.snapshot())
    assert found == expected
    assert detector.snapshot() == looped.snapshot()


@settings(max_examples=60)
@given(stream=streams())
def test_rows_stepped_together_equal_one_detector(stream: tuple[np.ndarray, list[int]]) -> None:
    losses, _ = stream
    detector = detectors.create("e_detector", arl=50, reference=(0.3, 500), cap=600, learn=600)
    expected = detector.update_many(losses).tolist()
    # The stream is the second of three rows; the others only have to be there.
    evidence, sums, counts = np.zeros((3, GRID_BINARY.size)), np.full(3, 150.0), np.full(3, 500.0)
    found = []
    for position, loss in enumerate(losses.tolist()):
        row = np.array([1.0 - loss, loss, 0.5])
        evidence, sums, counts = step_rows(evidence, sums, counts, row, GRID_BINARY, cap=600.0)
        alarmed = reaches(total(evidence), 50.0)
        if alarmed[1]:
            found.append(position)
        evidence[alarmed], sums[alarmed], counts[alarmed] = 0.0, 150.0, 500.0
    assert found == expected


@settings(max_examples=60)
@given(stream=streams())
def test_adwin_alarms_are_a_subset_of_rivers(stream: tuple[np.ndarray, list[int]]) -> None:
    losses, _ = stream
    river, theirs = ADWIN(**PARAMETERS["adwin"]), []
    for position, loss in enumerate(losses.tolist()):
        river.update(loss)
        if river.drift_detected:
            theirs.append(position)
    ours = detectors.create("adwin", **PARAMETERS["adwin"]).update_many(losses).tolist()
    assert set(ours) <= set(theirs)
    falls = detectors.create("adwin", **PARAMETERS["adwin"]).update_many(1.0 - losses).tolist()
    assert set(ours).isdisjoint(falls)


extremes = st.sampled_from([0.0, 5e-324, 1e-300, 1.0, 1e300])


@given(
    evidence=st.lists(extremes, min_size=4, max_size=4),
    growth=st.sampled_from([0.0, 1.0, 32.0, 1e12]),
    factor=st.lists(extremes | st.just(float("inf")), min_size=4, max_size=4),
)
def test_evidence_stays_finite_and_not_negative(evidence: list[float], growth: float, factor: list[float]) -> None:
    found = advance(np.array([evidence]), np.array([growth]), np.array([factor]))
    assert ((found >= 0.0) & (found <= 1e300)).all()
