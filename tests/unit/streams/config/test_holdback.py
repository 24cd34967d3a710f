"""The share of an earlier version in the configuration: what is filled in, and errors that name place, numbers, fix."""

from __future__ import annotations

import pytest

from streams.config.parse import parse
from streams.config.resolved import HoldbackPolicy
from streams.config.units import DAY_MS, NEVER
from unship.errors import ConfigurationError


def holdback_of(text: str) -> HoldbackPolicy | None:
    return parse(f"models: {{m: {{policy: {{holdback: {text}}}}}}}").of("m").holdback


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("null", None),
        ("{share: 5%}", HoldbackPolicy(0.05, 0.05, 14 * DAY_MS)),
        ("{share: 0.05, raise_to: 30 %, keep: 2d}", HoldbackPolicy(0.05, 0.3, 2 * DAY_MS)),
        ("{share: 50%, raise_to: 50%, keep: always}", HoldbackPolicy(0.5, 0.5, NEVER)),
        ("{share: 12.5%}", HoldbackPolicy(0.125, 0.125, 14 * DAY_MS)),
    ],
)
def test_holdback_is_resolved_into_fractions_and_milliseconds(text: str, expected: HoldbackPolicy | None) -> None:
    assert holdback_of(text) == expected


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("{share: 60%}", ("holdback.share: 60 %", "50 %", "write for example 5%")),
        ("{share: 0}", ("holdback.share: 0 %", "0 % excluded")),
        ("{share: 5}", ("holdback.share: ", "5%", "was 5")),
        ("{share: -5%}", ("holdback.share: ", "was '-5%'")),
        ("{share: 5%, raise_to: 3%}", ("holdback.raise_to: 3 %", "share, 5 %", "leave raise_to out")),
        ("{share: 5%, raise_to: 51%}", ("holdback.raise_to: 51 %", "50 %")),
        ("{raise_to: 5%}", ("holdback.share: it is absent", "share: 5%")),
        ("{share: 5%, keep: 0s}", ("holdback.keep: 0s", "14d", "always")),
        ("{share: 5%, keep: soon}", ("holdback.keep: ", "soon")),
        ("{shares: 5%}", ("holdback: unknown key `shares`", "share, raise_to, keep")),
    ],
)
def test_fault_names_its_place_both_numbers_and_the_fix(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as found:
        holdback_of(text)
    for part in ("models.m.policy.", *parts):
        assert part in str(found.value)


def test_model_may_leave_out_the_holdback_of_the_defaults() -> None:
    config = parse("defaults: {policy: {holdback: {share: 5%}}}\nmodels: {a: {}, b: {policy: {holdback: null}}}")
    assert config.of("a").holdback == config.of("unlisted").holdback == HoldbackPolicy(0.05, 0.05, 14 * DAY_MS)
    assert config.of("b").holdback is None


def test_holdback_is_policy_so_that_what_was_judged_goes_on() -> None:
    with_one, without = (
        parse(f"defaults: {{policy: {{holdback: {each}}}}}").defaults for each in ("{share: 5%}", "null")
    )
    assert with_one != without
    assert with_one.judges_as(without)
