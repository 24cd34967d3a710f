"""The source clock: what is read moves it, and it never runs backwards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.config.units import DAY_MS
from streams.join.clock import SourceClock

NOW = 10 * DAY_MS


def clock_at(now: int) -> SourceClock:
    clock = SourceClock()
    assert clock.read(now) == now
    return clock


def test_first_time_sets_the_clock_however_far_it_lies() -> None:
    assert clock_at(3_000 * DAY_MS).now == 3_000 * DAY_MS


def test_line_without_a_time_before_any_time_is_refused() -> None:
    clock = SourceClock()
    assert clock.read(None) is None
    assert clock.now == -1


def test_line_without_a_time_takes_the_present_one() -> None:
    assert clock_at(NOW).read(None) == NOW


def test_clock_never_runs_backwards() -> None:
    clock = clock_at(NOW)
    assert [clock.read(ts) for ts in (NOW - 5, NOW + 7, 0, NOW + 6)] == [NOW, NOW + 7, NOW + 7, NOW + 7]


def test_time_of_the_log_moves_the_clock_and_the_own_time_does_not() -> None:
    clock = clock_at(NOW)
    assert clock.read_appended("predictions", 0, NOW + 50 * DAY_MS, 3) == NOW + 50 * DAY_MS
    assert clock.read_appended("predictions", 0, NOW, NOW + DAY_MS) == NOW + 50 * DAY_MS


@pytest.mark.parametrize(("ahead", "accepted"), [(DAY_MS, True), (DAY_MS + 1, False)])
def test_own_time_a_day_after_the_append_time_is_refused_and_the_clock_moves_all_the_same(
    ahead: int, accepted: bool
) -> None:
    clock = clock_at(NOW)
    assert clock.read_appended("predictions", 0, NOW + 5, NOW + 5 + ahead) == (NOW + 5 if accepted else None)
    assert clock.now == NOW + 5


@given(st.lists(st.one_of(st.none(), st.integers(0, 40 * DAY_MS)), max_size=60))
def test_answers_are_the_running_maximum_of_what_was_read(times: list[int | None]) -> None:
    clock, answers = SourceClock(), []
    for ts in times:
        before = clock.now
        answer = clock.read(ts)
        if answer is None:
            assert clock.now == before
        else:
            assert answer == clock.now >= before
            answers.append(answer)
    assert answers == sorted(answers)


def test_partition_that_lags_holds_the_source_clock_and_keeps_its_own_time() -> None:
    clock = SourceClock()
    clock.read_appended("predictions", 0, NOW + 100, None)
    clock.read_appended("predictions", 1, NOW + 10, None)
    assert (clock.now, clock.at) == (NOW + 100, NOW + 10)
    clock.read_appended("predictions", 0, NOW + 500, None)
    assert (clock.now, clock.at) == (NOW + 100, NOW + 500)
    clock.read_appended("feedback", 1, NOW + 300, None)
    assert (clock.now, clock.at) == (NOW + 300, NOW + 300)


def test_topics_that_are_no_source_do_not_move_the_clock_past_the_sources() -> None:
    clock = SourceClock()
    clock.read_appended("predictions", 0, NOW, None)
    clock.read_appended("deployments", 0, NOW + 1_000, None)
    assert (clock.now, clock.at) == (NOW, NOW + 1_000)
