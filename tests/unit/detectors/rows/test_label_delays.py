"""When labels should have come, where no maturity says so."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.rows.label_delays import HOUR_MS, Waiting, interval_ms
from detectors.rows.label_share import Silence
from streams.ledger.encoding import pack, unpack

WIDTH = interval_ms(7 * 24 * HOUR_MS)


def label(waiting: Waiting, silence: Silence, predicted_at: int, delay: int, times: int = 1, arm: int = 0) -> None:
    made = np.full(times, predicted_at)
    waiting.labelled(np.full(times, arm), made, made + delay, silence)


@pytest.mark.parametrize("delay", [0, 1, 7, 1_000, 3_599_999, 3_600_000, 12_345_678, 600_000_000])
def test_usual_delay_is_rounded_up_by_a_quarter_at_most(delay: int) -> None:
    waiting = Waiting(WIDTH)
    label(waiting, Silence(), 0, delay, 100)
    assert max(HOUR_MS, 2 * delay) <= waiting.mature_after_ms <= max(HOUR_MS, 2.5 * delay)


def test_one_label_in_a_hundred_that_comes_late_is_not_waited_for() -> None:
    waiting, silence = Waiting(WIDTH), Silence()
    label(waiting, silence, 0, 1_000, 990)
    label(waiting, silence, 0, 90_000_000, 10)
    assert waiting.mature_after_ms == HOUR_MS
    label(waiting, silence, 0, 90_000_000, 10)
    assert waiting.mature_after_ms > 180_000_000


def test_predictions_tell_of_silence_an_hour_after_their_interval_and_not_before() -> None:
    waiting, silence = Waiting(WIDTH), Silence()
    waiting.predicted(0, 0, 2_000)
    waiting.close(WIDTH + HOUR_MS - 1, silence)
    assert silence.arms() == []
    waiting.close(2 * WIDTH + HOUR_MS, silence)
    assert silence.arms() == [0]


def test_label_of_a_newer_prediction_ends_the_silence_at_once_and_that_of_an_older_one_does_not() -> None:
    waiting, silence = Waiting(WIDTH), Silence()
    waiting.predicted(0, 0, 1_000)
    label(waiting, silence, 0, 1_000, 500)
    for interval in (1, 2, 30):
        waiting.predicted(0, interval, 400)
    waiting.close(10 * WIDTH + HOUR_MS, silence)
    assert silence.arms() == [0]
    label(waiting, silence, WIDTH - 1, 12 * WIDTH)
    assert silence.arms() == [0]
    label(waiting, silence, 30 * WIDTH, 1_000)
    assert (silence.arms(), silence.longest) == ([], 800)


def test_delays_and_intervals_are_bounded_and_a_forgotten_arm_leaves_nothing() -> None:
    waiting, silence, rng = Waiting(WIDTH), Silence(), np.random.default_rng(1)
    for number in range(3_000):
        waiting.predicted(number % 3, number, 5)
        label(waiting, silence, number * WIDTH, int(rng.integers(2**48)), 30, number % 3)
        waiting.close(number * WIDTH, silence)
    assert len(pack(waiting)) < 100_000
    waiting.forget(1)
    assert all(1 not in each.predictions and 1 not in each.labels for each in waiting.intervals.values())


def test_saved_predictions_go_on_waiting() -> None:
    waiting, silence = Waiting(WIDTH), Silence()
    waiting.predicted(0, 0, 10)
    label(waiting, silence, 0, 5)
    assert unpack(pack(waiting), Waiting) == waiting
