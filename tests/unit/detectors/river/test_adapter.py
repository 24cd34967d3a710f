"""What the table of a detector says is its signature, and what is refused is named."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest
from river.drift import ADWIN, KSWIN, PageHinkley
from river.drift.binary import DDM, EDDM, FHDDM, HDDMA, HDDMW

import detectors

RIVER = {
    "adwin": ADWIN,
    "page_hinkley": PageHinkley,
    "ddm": DDM,
    "eddm": EDDM,
    "fhddm": FHDDM,
    "hddm_a": HDDMA,
    "hddm_w": HDDMW,
    "kswin": KSWIN,
}
# A fall is never an alarm, and chance is repeatable.
OTHER_DEFAULTS: dict[str, dict[str, Any]] = {"page_hinkley": {"mode": "up"}, "kswin": {"seed": 0}}


@pytest.mark.parametrize("name", RIVER)
def test_parameters_and_defaults_are_rivers(name: str) -> None:
    expected = {key: argument.default for key, argument in signature(RIVER[name]).parameters.items()}
    found = {key: argument.default for key, argument in signature(type(detectors.create(name))).parameters.items()}
    assert found == expected | OTHER_DEFAULTS.get(name, {})


@pytest.mark.parametrize("name", RIVER)
def test_unknown_parameter_is_refused_by_name(name: str) -> None:
    with pytest.raises(TypeError, match="sensitivity"):
        detectors.create(name, sensitivity=1.0)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("adwin", {"delta": 1.0}, "expected delta between 0 and 1, was 1.0"),
        ("adwin", {"clock": 0}, "expected clock of at least 1, was 0"),
        ("page_hinkley", {"alpha": 0.0}, "expected alpha in (0, 1], was 0.0"),
        ("page_hinkley", {"mode": "down"}, "expected mode to be 'up' or 'both' (a fall is never an alarm), was 'down'"),
        ("ddm", {"drift_threshold": 0.0}, "expected drift_threshold between 0 and inf, was 0.0"),
        ("eddm", {"alpha": 0.8}, "expected alpha to be at least beta (0.9), was 0.8"),
        ("eddm", {"warm_start": 2.5}, "expected warm_start to be a whole number between 1 and 1000000000000, was 2.5"),
        (
            "fhddm",
            {"sliding_window_size": 50, "short_window_size": 51},
            "expected short_window_size to be a whole number between 1 and 50, was 51",
        ),
        ("kswin", {"window_size": 40}, "expected stat_size to be a whole number between 1 and 20, was 30"),
    ],
)
def test_refusal_says_what_was_expected_and_what_was_given(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the whole message is compared
        detectors.create(name, **parameters)
    assert str(refused.value) == message
