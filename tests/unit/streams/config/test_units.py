"""Durations and limits as operators write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.config.units import DURATION_MS_MAX, count_per_span, duration_ms, span_text
from unship.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (0, 0),
        ("0s", 0),
        ("1ms", 1),
        ("30s", 30_000),
        ("1.5h", 5_400_000),
        (" 10 m ", 600_000),
        ("7d", 604_800_000),
        ("2w", 1_209_600_000),
        ("3660d", DURATION_MS_MAX),
    ],
)
def test_duration_is_read_in_milliseconds(text: str | int, expected: int) -> None:
    assert duration_ms(text, "x") == expected


@pytest.mark.parametrize("text", ["", "10", "m", "-1s", "1 year", "1h30m", "1e3s", "ms", 10, "1,5h", "10 M"])
def test_what_is_no_duration_is_refused_with_its_path_and_an_example(text: str | int) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^models\.m\.labels\.early: expected a duration such as 30s, .*, was "
    ) as found:
        duration_ms(text, "models.m.labels.early")
    assert repr(text) in str(found.value)


@pytest.mark.parametrize("text", ["3661d", "9999999999w", "9" * 400 + "d"])
def test_duration_of_more_than_ten_years_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^x: .*limit of ten years"):
        duration_ms(text, "x")


def test_limit_is_a_count_per_span() -> None:
    assert count_per_span("2 per 1d", "x") == (2, 86_400_000)
    assert count_per_span("0 per  30m", "x") == (0, 1_800_000)


@pytest.mark.parametrize(
    "text",
    ["", "2", "2/1d", "per 1d", "two per 1d", "2 per", "-2 per 1d", "2per1d", "2 per 1", "9" * 5_000 + " per 1d"],
)
def test_what_is_no_limit_is_refused_with_its_path(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^models\.m\.policy\.max_switches: "):
        count_per_span(text, "models.m.policy.max_switches")


@given(st.integers(0, DURATION_MS_MAX))
def test_printed_span_is_read_back_as_the_same(milliseconds: int) -> None:
    assert duration_ms(span_text(milliseconds), "x") == milliseconds
