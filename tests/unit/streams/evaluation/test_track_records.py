"""What a version leaves behind when it is live no more, and what that proves about its successor."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.betting import GRID_BINARY
from detectors.comparison import record_evidence
from detectors.rows.types import SOURCE_CELLS, Alarm, Entries, Rules
from detectors.rows.watch import Health, new_health
from streams.evaluation.slices import Stream
from streams.evaluation.track_records import (
    AGE_MAX_MS,
    OUTCOMES_MAX,
    STRETCHES,
    Known,
    TrackRecord,
    reweighted,
    track_record,
    weigh,
    young_part,
)
from streams.ledger.encoding import pack

DAY = 86_400_000
STREAMS = [Stream("", ""), Stream("country", "DE"), Stream("country", "BR")]
CALM = Rules(1e15, np.array([0.5, 0.25, 0.25]), 0.02, False, True)


def entries(losses: list[float], start: int, slices: list[int] | None = None, step: int = 1_000) -> Entries:
    size = len(losses)
    streams = np.array([[0] * size, slices or [1] * size])
    return Entries(start + step * np.arange(size), streams, np.zeros(size, np.int64), np.array([losses]))


def lived(count: int, since: int = 0, rate: int = 10, step: int = 1_000, part: int = 500) -> Health:
    """Return a live period of so many outcomes, of which every `rate`-th is wrong."""
    health = new_health("v1", "live", since, [True], len(STREAMS))
    losses = [float(i % rate == 0) for i in range(count)]
    for begin in range(0, count, part):
        health.judge(entries(losses[begin : begin + part], since + begin * step, step=step), CALM, since)
    return health


def total(record: TrackRecord) -> float:
    return sum(stretch.outcomes for stretch in record.stretches)


def test_short_period_is_remembered_whole() -> None:
    record = track_record(lived(700), 0.9, None)
    assert total(record) == 700
    assert sum(float(stretch.k[0, 0]) for stretch in record.stretches) == 70
    assert (record.version, record.degraded, record.coverage) == ("v1", False, 0.9)


def test_long_period_leaves_its_newest_outcomes_in_a_few_stretches() -> None:
    record = track_record(lived(60_000), None, None)
    assert OUTCOMES_MAX - 500 <= total(record) <= OUTCOMES_MAX
    assert len(record.stretches) <= STRETCHES
    starts = [stretch.start for stretch in record.stretches]
    assert starts == sorted(starts)
    assert starts[0] >= 1_000 * (60_000 - OUTCOMES_MAX)


@given(part=st.sampled_from([1, 7, 32, 333, 4_096]))
def test_how_outcomes_were_cut_changes_no_sum(part: int) -> None:
    record = track_record(lived(900, part=part), None, None)
    assert total(record) == 900
    assert sum(float(stretch.k[0, 0]) for stretch in record.stretches) == 90


def test_outcomes_judged_after_the_period_belong_to_it() -> None:
    health = lived(600)
    health.absorb(entries([1.0] * 40, 600_000))
    record = track_record(health, None, None)
    assert total(record) == 640
    assert sum(float(stretch.k[0, 0]) for stretch in record.stretches) == 100


def test_asking_twice_counts_once() -> None:
    health = lived(700)
    first = track_record(health, 0.9, None)
    assert pack(track_record(health, 0.9, first)) == pack(first)


def test_second_period_counts_on_from_the_first_and_forgets_what_is_too_old() -> None:
    first = track_record(lived(3_000), 0.9, None)
    second = track_record(lived(800, since=DAY), 0.9, first)
    assert total(second) == 3_800
    third = track_record(lived(4_900, since=2 * DAY), 0.9, second)
    assert total(third) <= OUTCOMES_MAX
    assert {stretch.period for stretch in third.stretches} == {2 * DAY}


@pytest.mark.parametrize("change", ["degraded", "coverage"])
def test_period_that_ended_badly_or_under_other_labels_counts_on_for_nothing(change: str) -> None:
    first = track_record(lived(3_000), 0.5 if change == "coverage" else 0.9, None)
    if change == "degraded":
        first = TrackRecord(first.version, True, 0.9, first.stretches)
    assert total(track_record(lived(800, since=DAY), 0.9, first)) == 800


def test_version_that_ended_degraded_has_no_record_to_go_by() -> None:
    health = lived(3_000)
    health.raise_alarm("e_detector", 0, 0, 3_000_000, 1e6, 1e6)
    record = track_record(health, None, None)
    assert record.degraded
    assert young_part(record, 3_000_000, 3) is None


@pytest.mark.parametrize(("count", "there"), [(499, False), (500, True)])
def test_fewer_than_five_hundred_outcomes_are_no_record(count: int, there: bool) -> None:
    assert (young_part(track_record(lived(count), None, None), 0, 3) is not None) is there


def test_record_ages_by_stretches_and_is_none_after_thirty_days() -> None:
    # 5,000 outcomes, one every ten minutes, are 35 days.
    record = track_record(lived(5_000, step=600_000), None, None)
    end = 5_000 * 600_000
    young = young_part(record, end, 3)
    assert young is not None
    assert 3_000 <= young.n[0, 0] < 4_500
    assert young.since >= end - AGE_MAX_MS
    assert young_part(record, end + AGE_MAX_MS, 3) is None
    assert young_part(None, end, 3) is None


def test_slice_that_appeared_since_is_unknown_to_the_record() -> None:
    young = young_part(track_record(lived(700), None, None), 0, 5)
    assert young is not None
    assert young.n.shape == (1, 5)
    assert young.n[0, 3:].sum() == 0


# Reweighting

N, K = np.array([3_000.0, 2_700.0, 300.0]), np.array([252.0, 162.0, 90.0])


def test_same_mix_gives_the_plain_mean_and_never_more_outcomes_than_there_are() -> None:
    mean, worth = reweighted(N, K, N / 10, [1, 2])
    assert mean == pytest.approx(252 / 3_000, rel=0.01)
    assert worth == 3_001


def test_mix_that_grows_harder_raises_the_mean_and_rests_on_fewer_outcomes() -> None:
    mean, worth = reweighted(N, K, np.array([1_000.0, 600.0, 400.0]), [1, 2])
    assert mean == pytest.approx(0.6 * 0.06 + 0.4 * 0.3, rel=0.02)
    assert 500 < worth < 1_500


def test_slice_the_record_hardly_knows_counts_with_the_overall_mean() -> None:
    n, k = np.array([3_000.0, 2_901.0, 99.0]), np.array([300.0, 201.0, 99.0])
    mean, _ = reweighted(n, k, np.array([100.0, 0.0, 100.0]), [1, 2])
    assert mean == pytest.approx(0.1, rel=0.01)


def test_requests_outside_all_slices_count_with_the_overall_mean() -> None:
    mean, _ = reweighted(N, K, np.array([100.0, 0.0, 0.0]), [1, 2])
    assert mean == pytest.approx(252 / 3_000, rel=0.01)


# Weighing


def weighed(seen: dict[int, tuple[float, float]], stream: int = 0, dimension: str = "country") -> float:
    """Return the evidence of outcomes and losses by slice since an alarm, against the record above."""
    health = new_health("v2", "live", 0, [True], len(STREAMS))
    window = np.zeros((2, len(STREAMS), SOURCE_CELLS))
    for slice_, (n, k) in seen.items():
        window[:, slice_, 0] = n, k
    window[:, 0, 0] = window[:, 1:].sum(axis=(1, 2))
    alarm = Alarm("e_detector", 0, stream, 0, 0, 1e6, 1e6, 0.0, window)
    record = TrackRecord("v1", False, None, [])
    return weigh(record, Known(0, N[None], K[None]), health, alarm, STREAMS, [dimension], 1e6).evidence


def test_decay_on_the_same_mix_is_shown() -> None:
    assert weighed({1: (900.0, 120.0), 2: (100.0, 50.0)}) > 1e6


def test_harder_mix_alone_shows_nothing() -> None:
    # 15.6 % are wrong after 8.4 %, but in each slice as many as ever.
    assert weighed({1: (600.0, 36.0), 2: (400.0, 120.0)}) < 10
    assert weighed({1: (600.0, 36.0), 2: (400.0, 120.0)}, dimension="nothing of that kind") > 1e6


def test_alarm_inside_a_slice_is_held_against_that_slice() -> None:
    assert weighed({1: (600.0, 36.0), 2: (400.0, 240.0)}, stream=2) > 1e6
    assert weighed({1: (600.0, 36.0), 2: (400.0, 120.0)}, stream=2) < 10


def test_harder_requests_on_another_dimension_are_no_decay_of_a_slice() -> None:
    streams = [*STREAMS, Stream("channel", "web")]
    n, k = np.array([[*N, 1_500.0]]), np.array([[*K, 126.0]])
    health = new_health("v2", "live", 0, [True], len(streams))
    window = np.zeros((2, len(streams), SOURCE_CELLS))
    window[:, :, 0] = [[1_000.0, 600.0, 400.0, 500.0], [156.0, 36.0, 120.0, 78.0]]
    alarm = Alarm("e_detector", 0, 3, 0, 0, 1e6, 1e6, 0.0, window)
    record = TrackRecord("v1", False, None, [])

    def evidence(dimensions: list[str]) -> float:
        return weigh(record, Known(0, n, k), health, alarm, streams, dimensions, 1e6).evidence

    assert evidence(["channel"]) > 1_000
    assert evidence(["country", "channel"]) < 1


# The evidence itself


@pytest.mark.parametrize(("mean", "size"), [(0.02, 500), (0.1, 1_000), (0.4, 5_000)])
def test_equal_means_reach_a_threshold_as_rarely_as_is_promised(mean: float, size: int) -> None:
    rng = np.random.default_rng(size)
    reached = 0
    for _ in range(400):
        usual = (rng.binomial(size, mean) + 0.5) / (size + 1.0)
        lost = (rng.random(3_000) < mean).cumsum()
        steps = range(50, 3_001, 59)
        reached += max(record_evidence(n, float(lost[n - 1]), usual, size + 1.0, GRID_BINARY) for n in steps) >= 20
    # At most one in twenty; four standard deviations of the count are allowed for.
    assert reached <= 400 / 20 + 4 * math.sqrt(400 / 20)


@pytest.mark.parametrize("size", [500.0, 5_000.0])
def test_record_bounds_what_can_be_proved_by_it(size: float) -> None:
    values = [math.log10(record_evidence(n, 0.16 * n, 0.08, size, GRID_BINARY)) for n in (1e3, 1e4, 1e5, 1e6, 1e7)]
    divergence = 0.08 * math.log(0.08 / 0.16) + 0.92 * math.log(0.92 / 0.84)
    assert max(values) <= size * divergence / math.log(10) * 1.2


@given(
    n=st.integers(0, 10**9),
    share=st.floats(0, 1),
    mean=st.floats(1e-9, 1 - 1e-9),
    worth=st.floats(1, 1e6),
)
def test_evidence_is_always_a_number_from_nothing_to_its_cap(n: int, share: float, mean: float, worth: float) -> None:
    value = record_evidence(float(n), share * n, mean, worth, GRID_BINARY)
    assert 0.0 <= value <= 1e300


def test_better_than_the_record_is_no_evidence() -> None:
    assert record_evidence(2_000.0, 100.0, 0.1, 5_001.0, GRID_BINARY) < 1e-3
