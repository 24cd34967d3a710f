"""A rise that harder requests explain is told from one inside the slices."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.rows.types import SOURCE_CELLS, Alarm
from detectors.rows.watch import Health, new_health
from streams.config.parse import parse
from streams.config.resolved import ModelConfig
from streams.evaluation.mix import explain_by_mix, is_genuine, is_worse_than_the_rest, splits
from streams.evaluation.slices import Stream

STREAMS = [Stream("", ""), Stream("country", "DE"), Stream("country", "BR")]
EASY, HARD = 0.05, 0.4


def config_of(by: str = "[country]") -> ModelConfig:
    return parse(f"models: {{m: {{slices: {{by: {by}}}, worse_by: 0.02, detectors: [e_detector]}}}}").of("m")


def usual_of(hard: float, known: float = 20_000.0) -> Health:
    """Return a version whose requests were hard to this share, and whose slices were as wrong as they always are."""
    health = new_health("v1", "live", 0, [True], 3)
    n = np.array([known, known * (1 - hard), known * hard])
    k = n * [EASY * (1 - hard) + HARD * hard, EASY, HARD]
    health.mix.add(np.array([n, n, k]))
    bank = health.rows.banks[0]
    bank.n[:], bank.k[:], bank.learning[:] = n, k, False
    return health


def alarm_of(easy: tuple[float, float], hard: tuple[float, float], stream: int = 0, none: float = 0.0) -> Alarm:
    """Return an alarm since which each slice had so many outcomes of such a mean loss, and `none` were in neither."""
    window = np.zeros((2, 3, SOURCE_CELLS))
    window[0, :, 0] = easy[0] + hard[0] + none, easy[0], hard[0]
    window[1, :, 0] = easy[0] * easy[1] + hard[0] * hard[1] + none * EASY, easy[0] * easy[1], hard[0] * hard[1]
    return Alarm("e_detector", 0, stream, 0, 0, 1.0, 1.0, 1.0, window)


def test_parts_between_and_within_make_the_rise() -> None:
    health = usual_of(0.1)
    (split,) = splits(health, alarm_of((3_000.0, EASY), (3_000.0, HARD)), STREAMS, config_of())
    assert split.rise == pytest.approx(0.225 - 0.085, abs=1e-3)
    assert split.within == pytest.approx(0.0, abs=1e-3)
    assert split.lower < split.within < split.upper
    (split,) = splits(health, alarm_of((2_700.0, EASY + 0.1), (300.0, HARD + 0.1)), STREAMS, config_of())
    assert split.within == pytest.approx(split.rise, abs=1e-3)


@pytest.mark.parametrize(
    ("alarm", "worse"),
    [
        # One slice got worse: it, and not the other.
        (alarm_of((2_700.0, EASY), (300.0, HARD + 0.2)), [False, True]),
        (alarm_of((2_700.0, EASY + 0.1), (300.0, HARD)), [True, False]),
        # All got worse alike, or one a little more than chance explains.
        (alarm_of((2_700.0, EASY + 0.1), (300.0, HARD + 0.1)), [False, False]),
        (alarm_of((2_700.0, EASY + 0.1), (300.0, HARD + 0.12)), [False, False]),
        # Both got worse, one of them by far more.
        (alarm_of((2_700.0, EASY + 0.05), (3_000.0, HARD + 0.3)), [False, True]),
        # Against requests of no slice; and with nothing to compare with.
        (alarm_of((3_000.0, EASY + 0.1), (0.0, 0.0), none=3_000.0), [True, False]),
        (alarm_of((3_000.0, EASY + 0.1), (0.0, 0.0)), [False, False]),
    ],
)
def test_slice_is_worse_than_the_rest_only_where_it_rose_more(alarm: Alarm, worse: list[bool]) -> None:
    health = usual_of(0.1)
    assert [is_worse_than_the_rest(health, alarm, STREAMS, stream, 0.05) for stream in (1, 2)] == worse


@pytest.mark.parametrize(
    ("alarm", "mix"),
    [
        (alarm_of((3_000.0, EASY), (3_000.0, HARD)), ("country", 2)),
        # The slices themselves are worse.
        (alarm_of((3_000.0, EASY + 0.15), (3_000.0, HARD + 0.15)), None),
        (alarm_of((2_700.0, EASY + 0.1), (300.0, HARD + 0.1)), None),
        # Fewer outcomes than it takes to know.
        (alarm_of((30.0, EASY), (30.0, HARD)), None),
        # Only an alarm on all requests can be explained by their mix.
        (alarm_of((3_000.0, EASY), (3_000.0, HARD), stream=1), None),
        # No rise, nothing to explain; nothing since the change, nothing to go by.
        (alarm_of((5_900.0, EASY), (100.0, HARD)), None),
        (alarm_of((0.0, 0.0), (0.0, 0.0)), None),
    ],
)
def test_mix_explains_a_rise_only_if_little_of_it_is_within_the_slices(
    alarm: Alarm, mix: tuple[str, int] | None
) -> None:
    explain_by_mix(usual_of(0.1), alarm, STREAMS, config_of())
    assert alarm.mix == mix


def test_explanation_that_was_found_stays() -> None:
    alarm = alarm_of((3_000.0, EASY + 0.15), (3_000.0, HARD + 0.15))
    alarm.explain("country", 1)
    explain_by_mix(usual_of(0.1), alarm, STREAMS, config_of())
    assert alarm.mix == ("country", 1)


def test_requests_outside_all_slices_are_measured_against_all_requests() -> None:
    (split,) = splits(usual_of(0.0), alarm_of((0.0, 0.0), (0.0, 0.0), none=4_000.0), STREAMS, config_of())
    assert split.within == pytest.approx(split.rise, abs=1e-6)


def test_thin_slice_is_measured_against_all_requests() -> None:
    # Nothing is known of the hard slice, so that its losses count as a rise within.
    (split,) = splits(usual_of(0.004), alarm_of((3_000.0, EASY), (3_000.0, HARD)), STREAMS, config_of())
    assert split.within == pytest.approx(0.17, abs=0.01)


def test_without_slices_there_is_nothing_to_split() -> None:
    assert splits(usual_of(0.1), alarm_of((3_000.0, EASY), (3_000.0, HARD)), STREAMS[:1], config_of("[]")) == []


@pytest.mark.parametrize(
    ("alarms", "genuine"),
    [
        ([], False),
        ([alarm_of((3_000.0, EASY + 0.15), (300.0, HARD + 0.15))], True),
        ([alarm_of((3_000.0, EASY), (3_000.0, HARD))], False),
        # An alarm inside a slice alone is the version's own.
        ([alarm_of((3_000.0, EASY), (3_000.0, HARD), stream=2)], True),
        # Of several on all requests, one that the mix may explain is enough.
        ([alarm_of((3_000.0, 0.2), (300.0, 0.55)), alarm_of((3_000.0, EASY), (3_000.0, HARD))], False),
    ],
)
def test_target_got_worse_itself_only_if_no_mix_may_explain_it(alarms: list[Alarm], genuine: bool) -> None:
    health = usual_of(0.1)
    health.alarms.extend(alarms)
    assert is_genuine(health, STREAMS, config_of()) is genuine
