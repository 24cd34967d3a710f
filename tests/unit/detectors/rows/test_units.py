"""Units are counted within a few hundredths whatever they are called, and each counts once in a cohort."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detectors.rows.concurrent import Comparison, new_comparison
from detectors.rows.types import Entries
from detectors.rows.units import UNITS_LEAST, UNITS_SHOWN, new_unit_counts, weights_of
from streams.ledger.encoding import pack, unpack
from streams.window.records import units_of

WIDTH = 6_000


def entries(unit: Any, losses: Any, at: Any = None, stream: Any = None) -> Entries:
    losses = np.atleast_2d(np.asarray(losses, float))
    size = losses.shape[1]
    streams = [np.zeros(size, np.int64)] + ([] if stream is None else [np.asarray(stream, np.int64)])
    times = np.zeros(size, np.int64) if at is None else np.asarray(at, np.int64)
    units = None if unit is None else np.asarray(unit, np.int64)
    return Entries(times, np.stack(streams), np.zeros(size, np.int64), losses, None, units)


def asked(hashes: Any) -> Entries:
    return entries(units_of(list(hashes)), np.zeros(len(hashes)))


NAMED = {
    "in order": range,
    "steps": lambda count: range(0, count << 16, 1 << 16),
    "of one version": lambda count: np.random.default_rng(1).integers(0, 2**32 // 20, count).tolist(),
    "highest": lambda count: range(2**32 - count, 2**32),
}


@pytest.mark.parametrize("named", NAMED.values(), ids=NAMED)
@pytest.mark.parametrize("count", [1, 300, 3_000, 4_600, 5_400, 10_000])
def test_units_are_counted_within_a_few_hundredths_whatever_hashes_they_have(named: Any, count: int) -> None:
    counts = new_unit_counts(1)
    for _ in range(2):
        # A unit that comes again, in another cohort or from another partition, is no new one.
        counts.add(1, [asked(named(count))])
    nobody, found = counts.count(0)
    assert nobody == 0
    assert found == pytest.approx(count, rel=0.05)
    assert (found < UNITS_LEAST) is (count < UNITS_LEAST)


def test_units_of_any_number_take_no_more_memory_and_are_shown_up_to_a_limit() -> None:
    counts = new_unit_counts(1)
    size = len(pack(counts))
    for begin in range(0, 200_000, 50_000):
        counts.add(0, [asked(range(begin, begin + 50_000))])
    assert counts.count(0) == (UNITS_SHOWN, 0)
    assert len(pack(counts)) == size < 2_000


def test_outcome_without_a_unit_counts_as_one_by_itself() -> None:
    counts = new_unit_counts(2)
    counts.add(0, [entries([0, 7, 0, 7], np.zeros(4), stream=[1, 1, -1, 1]), entries(None, np.zeros(3))])
    assert counts.count(0) == (6, 0)
    assert counts.count(1) == (2, 0)


def test_streams_that_appear_have_counted_nothing_and_the_others_keep_theirs() -> None:
    counts = new_unit_counts(1)
    counts.add(0, [entries([5, 6], np.zeros(2))])
    counts.fit(3)
    counts.add(1, [entries([5], np.zeros(1), stream=[2])])
    assert [counts.count(stream) for stream in range(3)] == [(2, 1), (0, 0), (0, 1)]


def test_outcomes_of_a_unit_count_one_together_by_loss_and_cohort() -> None:
    losses = np.array([[0.0, 1.0, 1.0, 1.0, 0.5], [np.nan, 1.0, 0.0, np.nan, np.nan]])
    weights = weights_of(losses, np.array([0, 0, 0, 1, 1]), np.array([9, 9, 9, 9, 0]))
    np.testing.assert_allclose(weights, [[1 / 3, 1 / 3, 1 / 3, 1, 1], [0, 0.5, 0.5, 0, 0]])


def stepped(comparison: Comparison, target: Entries, candidate: Entries, begin: int = 0) -> Comparison:
    comparison.add(target, candidate, begin, WIDTH)
    comparison.settle()
    return comparison


def test_unit_of_many_outcomes_weighs_as_much_as_one_of_a_single_one() -> None:
    once, often = new_comparison("v1", "holdback", 1, 1), new_comparison("v1", "holdback", 1, 1)
    stepped(once, entries([1, 2], [0, 0]), entries([3, 4], [1, 0]))
    stepped(often, entries([1, 2, 1], [0, 0, 0]), entries([3, 4, *[3] * 98], [1, 0, *[1] * 98]))
    np.testing.assert_allclose(often.evidence, once.evidence)
    without = stepped(
        new_comparison("v1", "holdback", 1, 1), entries(None, [0, 0, 0]), entries(None, [1, 0, *[1] * 98])
    )
    assert without.value(0, 0) > 1.3 * once.value(0, 0)


def test_units_of_single_outcomes_give_the_evidence_of_outcomes_without_units() -> None:
    rng = np.random.default_rng(3)
    named, plain = new_comparison("v1", "holdback", 2, 3), new_comparison("v1", "holdback", 2, 3)
    for number in range(40):
        arms = []
        for size in (12, 60):
            losses = (rng.random((2, size)) < 0.3).astype(float)
            losses[1, ::5] = np.nan
            at, stream = number * WIDTH + np.sort(rng.integers(0, WIDTH, size)), rng.integers(1, 3, size)
            arms.append((rng.permutation(65_535)[:size] + 1, losses, at, stream))
        target, candidate = (entries(*arm) for arm in arms)
        stepped(named, target, candidate, number * WIDTH)
        target, candidate = (entries(None, *arm[1:]) for arm in arms)
        stepped(plain, target, candidate, number * WIDTH)
    np.testing.assert_array_equal(named.evidence, plain.evidence)
    assert plain.units is None
    assert plain.units_in(0) is None


def test_units_are_counted_alike_however_many_intervals_wait_and_after_a_snapshot() -> None:
    rng = np.random.default_rng(4)
    waits, steps = new_comparison("v1", "holdback", 1, 3), new_comparison("v1", "holdback", 1, 3)
    for number in range(30):
        # The first cohorts have no units, and one arm of the others has some.
        arms = []
        for arm in (0, 1):
            unit = rng.integers(0, 300, 8) if number >= 7 + 2 * arm else None
            arms.append(entries(unit, rng.random(8).round(), number * WIDTH + np.arange(8), rng.integers(1, 3, 8)))
        waits.add(arms[0], arms[1], number * WIDTH, WIDTH)
        steps = unpack(pack(stepped(steps, arms[0], arms[1], number * WIDTH)), Comparison)
    assert [waits.units_in(stream) for stream in range(3)] == [steps.units_in(stream) for stream in range(3)]
    assert (waits.units_in(0) or (0, 0)) > (100, 100)
    np.testing.assert_array_equal(waits.evidence, steps.evidence)


def test_one_unit_for_all_is_one_unit_in_each_arm() -> None:
    comparison = new_comparison("v1", "holdback", 1, 1)
    for number in range(50):
        stepped(comparison, entries([8] * 40, [0] * 40), entries([8] * 40, [1] * 40), number * WIDTH)
    assert comparison.units_in(0) == (1, 1)
