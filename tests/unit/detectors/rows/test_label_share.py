"""Label coverage: steady shares raise nothing, however noisy; a fall, a rise and silence are seen."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.rows.label_share import COHORTS, LabelHealth, Silence, new_label_health
from streams.ledger.encoding import pack, unpack

PROMISE = 1_000_000.0


def shares(health: LabelHealth, share: float, cohorts: int, size: int, seed: int = 0) -> int | None:
    """Close cohorts of a share; return after how many the alarm came."""
    rng = np.random.default_rng(seed)
    for i in range(cohorts):
        health.close(size, int(rng.binomial(size, share)), PROMISE)
        if health.shifted:
            return i + 1
    return None


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.97, 1.0])
@pytest.mark.parametrize("size", [20, 100, 2_000])
def test_steady_coverage_raises_nothing_however_small_the_cohorts(share: float, size: int) -> None:
    health = new_label_health()
    assert shares(health, share, 2_000, size, seed=size) is None
    assert not health.shifted


@pytest.mark.parametrize(
    ("before", "after"), [(0.9, 0.6), (0.97, 0.8), (0.5, 0.2), (0.5, 0.8), (0.3, 0.9), (0.1, 0.4), (0.9, 0.0)]
)
def test_fall_and_rise_are_seen_within_a_few_dozen_cohorts(before: float, after: float) -> None:
    health = new_label_health()
    assert shares(health, before, 100, 300) is None
    found = shares(health, after, 400, 300, seed=1)
    assert found is not None
    assert found <= 200


def test_change_by_less_than_five_points_does_not_matter() -> None:
    health = new_label_health()
    assert shares(health, 0.80, 100, 2_000) is None
    assert shares(health, 0.77, 1_000, 2_000) is None
    assert shares(health, 0.83, 1_000, 2_000) is None


def test_first_cohorts_are_the_baseline_and_say_nothing() -> None:
    health = new_label_health()
    for i in range(COHORTS):
        health.close(100, 100 * (i % 2), PROMISE)
    assert not health.evidence.any()
    assert health.share_sum / health.cohorts == 0.5


def test_cohort_without_predictions_is_no_cohort() -> None:
    health = new_label_health()
    for _ in range(3 * COHORTS):
        health.close(0, 0, PROMISE)
    assert (health.cohorts, health.unlabelled, health.share) == (0, 0, None)


def test_share_is_that_of_the_newest_cohorts_weighted_by_size() -> None:
    health = new_label_health()
    health.close(1_000, 1_000, PROMISE)
    assert health.share == 1.0
    for _ in range(COHORTS - 1):
        health.close(10, 5, PROMISE)
    assert health.share == pytest.approx((1_000 + 19 * 5) / (1_000 + 190))
    health.close(10, 5, PROMISE)
    assert health.share == 0.5


def test_more_labels_than_predictions_are_a_full_share() -> None:
    health = new_label_health()
    health.close(10, 30, PROMISE)
    assert health.share_sum == 1.0


@pytest.mark.parametrize(
    ("mine", "theirs", "fair"), [(90, 90, True), (90, 86, True), (90, 84, False), (40, 90, False), (None, 90, False)]
)
def test_arms_agree_where_their_shares_differ_by_at_most_five_points(mine: int | None, theirs: int, fair: bool) -> None:
    first, second = new_label_health(), new_label_health()
    if mine is not None:
        first.close(100, mine, PROMISE)
    second.close(100, theirs, PROMISE)
    assert first.agrees_with(second) is fair
    assert second.agrees_with(first) is fair


def shifted(level: float = 0.6, size: int = 300) -> LabelHealth:
    """Return label health right after a fall from 90 % was found."""
    health = new_label_health()
    assert shares(health, 0.9, 100, size) is None
    assert shares(health, level, 400, size, seed=1) is not None
    return health


@pytest.mark.parametrize("size", [1, 30, 300, 5_000])
@pytest.mark.parametrize("level", [0.6, 0.9, 0.05])
def test_share_that_stays_at_one_level_is_the_normal_one_after_twenty_cohorts(level: float, size: int) -> None:
    health, rng = shifted(), np.random.default_rng(3)
    found = []
    for _ in range(8 * COHORTS):
        health.close(size, int(rng.binomial(size, level)), PROMISE)
        found.append(health.settled)
    # Chance makes small cohorts look uneven now and then, so that it may take a little longer.
    assert not any(found[: COHORTS - 1])
    assert any(found[: 2 * COHORTS] if size > 1 else found)


@pytest.mark.parametrize("step", [0.02, -0.02])
def test_share_that_keeps_moving_never_settles(step: float) -> None:
    health, level = shifted(), 0.5
    for _ in range(200):
        level += step
        if not 0.05 <= level <= 0.95:
            step = -step
        health.close(2_000, round(2_000 * level), PROMISE)
        assert not health.settled


def test_share_that_jumps_between_two_levels_never_settles() -> None:
    health = shifted()
    for i in range(100):
        health.close(1_000, (400, 600)[i % 2], PROMISE)
        assert not health.settled


def test_no_labels_at_all_are_no_level() -> None:
    health = shifted()
    for _ in range(100):
        health.close(1_000, 0, PROMISE)
    assert not health.settled


def test_share_that_never_shifted_has_nothing_to_settle() -> None:
    health = new_label_health()
    assert shares(health, 0.9, 200, 300) is None
    assert not health.settled


@pytest.mark.parametrize(
    ("record", "cohorts", "fair"),
    [
        (0.9, [90] * 20, True),
        (0.9, [90] * 19 + [60], False),
        (0.9, [60] * 20, False),
        (0.9, [90] * 10 + [86] * 10, True),
        (None, [90] * 20, False),
        (0.9, [], False),
    ],
)
def test_record_is_comparable_only_if_labels_are_as_complete_now(
    record: float | None, cohorts: list[int], fair: bool
) -> None:
    health = new_label_health()
    for labelled in cohorts:
        health.close(100, labelled, PROMISE)
    assert health.agrees_with_record(record) is fair


@pytest.mark.parametrize(("labelled", "fair"), [(3, True), (30, True), (0, False)])
def test_more_bad_news_than_on_record_is_the_decay_and_less_is_none(labelled: int, fair: bool) -> None:
    health = new_label_health()
    for _ in range(COHORTS):
        health.close(100, labelled, PROMISE)
    assert health.agrees_with_record(0.15 if not labelled else 0.03, rise=False) is fair


def test_saved_label_health_goes_on_bit_for_bit() -> None:
    whole = new_label_health()
    shares(whole, 0.8, 40, 50)
    saved = unpack(pack(whole), LabelHealth)
    for health in (whole, saved):
        shares(health, 0.7, 40, 50, seed=2)
    assert pack(saved) == pack(whole)


def test_two_of_them_share_nothing() -> None:
    first, second = new_label_health(), new_label_health()
    first.close(10, 5, PROMISE)
    assert second.recent == []


@pytest.mark.parametrize(("before", "after"), [(0.1, 0.4), (0.5, 0.8), (0.02, 0.2)])
def test_rise_is_no_shift_where_only_bad_news_is_told(before: float, after: float) -> None:
    health = new_label_health()
    rng = np.random.default_rng(0)
    for i in range(300):
        health.close(300, int(rng.binomial(300, before if i < 100 else after)), PROMISE, rise=False)
    assert not health.shifted


def test_fall_is_a_shift_where_only_bad_news_is_told() -> None:
    health = new_label_health()
    for i in range(200):
        health.close(300, 90 if i < 100 else 0, PROMISE, rise=False)
    assert health.shifted


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("size", [3, 100])
def test_gaps_of_chance_between_bad_news_are_no_silence(share: float, size: int) -> None:
    silence, rng = Silence(), np.random.default_rng(size)
    silence.close({0: 20_000}, {0: int(20_000 * share)})
    for _ in range(5_000):
        silence.close({0: size}, {0: int(rng.binomial(size, share))})
        assert silence.arms() == []


def test_silence_of_one_arm_is_measured_by_what_the_model_is_told() -> None:
    silence = Silence()
    for _ in range(49):
        silence.close({0: 90, 1: 10}, {0: 9})
    # 490 predictions without a label, which would be more than chance allows if they were ten more.
    assert silence.arms() == []
    silence.close({0: 90, 1: 10}, {0: 9})
    assert silence.arms() == [1]
    silence.close({1: 10}, {1: 1})
    assert silence.arms() == []


def test_model_of_which_nothing_was_ever_told_is_silent_after_two_thousand_predictions() -> None:
    silence = Silence()
    silence.close({0: 1_999}, {})
    assert silence.arms() == []
    silence.close({0: 1}, {})
    assert silence.arms() == [0]


def test_what_was_asked_in_a_silence_is_no_part_of_what_is_usual() -> None:
    silence = Silence()
    silence.close({0: 1_000}, {0: 100})
    silence.close({0: 5_000}, {})
    silence.close({0: 100}, {0: 10})
    assert (silence.asked, silence.labelled, silence.longest) == (1_100, 110, 5_000)


def test_run_as_long_as_those_that_ended_is_no_silence_and_half_as_long_again_is() -> None:
    """Labels that rest every night page in the first night at most."""
    silence = Silence()
    silence.close({0: 5_000}, {0: 2_500})
    silence.close({0: 600}, {})
    assert silence.arms() == [0]
    silence.close({0: 1_000}, {0: 500})
    silence.close({0: 900}, {})
    assert silence.arms() == []
    silence.close({0: 1}, {})
    assert silence.arms() == [0]


def test_few_feedbacks_in_a_hundred_make_gaps_that_are_no_silence() -> None:
    """Three in a hundred answers are rated, and cohorts are small: twenty of them without a label are chance."""
    silence, rng = Silence(), np.random.default_rng(6)
    for _ in range(20_000):
        silence.close({0: 9}, {0: int(rng.binomial(9, 0.03))})
        assert silence.arms() == []
    silence.close({0: 700}, {})
    assert silence.arms() == [0]
