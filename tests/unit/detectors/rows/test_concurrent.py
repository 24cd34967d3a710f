"""Evidence that the live version is worse than the one beside it grows when it is, and only then."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detectors.betting import total
from detectors.comparison import advance_comparison, pair_factors, two_sample_factors
from detectors.rows.bank import BLOCK
from detectors.rows.concurrent import (
    POOL_CAP,
    SUB_INTERVALS,
    WAIT_MAX,
    WAITING_MAX,
    WAITING_OUTCOMES_MAX,
    Comparison,
    new_comparison,
)
from detectors.rows.types import Entries
from streams.ledger.encoding import pack

WIDTH = 6_000


def entries(at: Any, losses: Any, slices: Any = None) -> Entries:
    at, losses = np.asarray(at, np.int64), np.atleast_2d(np.asarray(losses, float))
    streams = [np.zeros(at.size, np.int64)] + ([] if slices is None else [np.asarray(slices, np.int64)])
    return Entries(at, np.stack(streams), np.zeros(at.size, np.int64), losses)


def drawn(rng: np.random.Generator, begin: int, count: int, rate: float, losses: int = 1) -> Entries:
    at = np.sort(rng.integers(begin, begin + WIDTH, count))
    return entries(at, (rng.random((losses, count)) < rate).astype(float), rng.integers(1, 3, count))


def step_blocks(comparison: Comparison, target: Entries, candidate: Entries, begin: int, width: int) -> None:
    """Step all rows with one cohort at once."""
    comparison.add(target, candidate, begin, width)
    comparison.settle()


def compare(target_rate: float, candidate_rate: float, cohorts: int, seed: int = 0, width: int = WIDTH) -> Comparison:
    rng = np.random.default_rng(seed)
    comparison = new_comparison("v41", "holdback", 1, 3)
    for number in range(cohorts):
        begin = number * WIDTH
        target, candidate = drawn(rng, begin, 12, target_rate), drawn(rng, begin, 60, candidate_rate)
        step_blocks(comparison, target, candidate, begin, width)
    return comparison


@pytest.mark.parametrize("width", [WIDTH, 0])
def test_evidence_grows_where_the_candidate_is_worse(width: int) -> None:
    comparison = compare(0.1, 0.35, 150, width=width)
    assert comparison.value(0, 0) > 1e9
    assert comparison.value(0, 1) > 100
    assert comparison.value(0, 2) > 100


@pytest.mark.parametrize(("target", "candidate"), [(0.1, 0.1), (0.35, 0.1), (0.5, 0.48), (0.0, 0.0), (1.0, 1.0)])
def test_evidence_stays_small_where_the_candidate_is_no_worse(target: float, candidate: float) -> None:
    for seed in range(3):
        assert compare(target, candidate, 150, seed).value(0, 0) < 1e5


def test_candidate_that_decays_late_is_seen_after_a_long_good_time() -> None:
    rng = np.random.default_rng(5)
    comparison = new_comparison("v41", "holdback", 1, 3)
    for number in range(500):
        begin = number * WIDTH
        rate = 0.05 if number < 300 else 0.35
        step_blocks(comparison, drawn(rng, begin, 12, 0.1), drawn(rng, begin, 60, rate), begin, WIDTH)
        if number == 299:
            assert comparison.value(0, 0) < 1e4
    assert comparison.value(0, 0) > 1e9


def plain(blocks: list[tuple[list[float], list[float]]]) -> float:
    """Step one row with the losses of (target, candidate) in each sub-interval, as the rule says it."""
    evidence, pool_n, pool_k = np.zeros((1, 8)), 0.0, 0.0
    target: list[float] = []
    candidate: list[float] = []
    waited = 0
    for more_target, more_candidate in blocks:
        if not more_target and not more_candidate and not target and not candidate:
            continue
        target, candidate, waited = target + more_target, candidate + more_candidate, waited + 1
        if target and candidate:
            mean = min(max((pool_k + 0.5) / (pool_n + 1), 1 / (pool_n + 1)), 1 - 1e-9)
            sums = [
                np.array([float(value)]) for value in (len(target), sum(target), len(candidate), sum(candidate), mean)
            ]
            evidence = advance_comparison(evidence, two_sample_factors(*sums))
            pool_n, pool_k = pool_n + len(target) + len(candidate), pool_k + sum(target) + sum(candidate)
            target, candidate, waited = [], [], 0
        elif waited >= WAIT_MAX:
            target, candidate, waited = [], [], 0
    return float(total(evidence[0]))


@pytest.mark.parametrize("seed", range(6))
def test_blocks_are_sub_intervals_in_which_both_arms_answered(seed: int) -> None:
    """Sparse traffic: where one arm is missing, the block goes on into the next sub-interval."""
    rng = np.random.default_rng(seed)
    comparison = new_comparison("v41", "holdback", 1, 1)
    blocks = []
    for number in range(20):
        begin = number * WIDTH
        # The overall row sees something in every sub-interval, so that each of them is a step of waiting.
        at = begin + np.arange(SUB_INTERVALS) * (WIDTH // SUB_INTERVALS)
        arms = []
        for share in (0.3, 0.9):
            use = rng.random(SUB_INTERVALS) < share
            arms.append((at[use], (rng.random(SUB_INTERVALS) < 0.4).astype(float)[use]))
        step_blocks(comparison, entries(*arms[0]), entries(*arms[1]), begin, WIDTH)
        for moment in at:
            blocks.append(tuple([float(v) for v in losses[where == moment]] for where, losses in arms))
    expected = plain(blocks)  # type: ignore[arg-type]
    assert comparison.value(0, 0) == pytest.approx(expected, rel=1e-9)
    assert expected > 0


def test_block_that_waits_too_long_for_its_other_arm_is_given_up() -> None:
    comparison = new_comparison("v41", "holdback", 1, 1)
    nobody = entries([], np.zeros((1, 0)))
    for number in range(WAIT_MAX):
        step_blocks(comparison, entries([number * WIDTH], [1.0]), nobody, number * WIDTH, 0)
        assert comparison.open_block[0, 0, 0] == (0 if number == WAIT_MAX - 1 else number + 1)
    begin = WAIT_MAX * WIDTH
    step_blocks(comparison, nobody, entries([begin], [0.0]), begin, 0)
    assert comparison.value(0, 0) == 0.0
    assert comparison.open_block[:, 0, 0].tolist() == [0.0, 0.0, 1.0, 0.0]


def test_loss_that_could_not_be_computed_belongs_to_no_arm() -> None:
    comparison = new_comparison("v41", "holdback", 2, 1)
    step_blocks(
        comparison, entries([0, 1], [[0.0, 1.0], [np.nan, np.nan]]), entries([0, 1], [[1.0, 1.0], [1.0, 1.0]]), 0, 0
    )
    assert comparison.value(0, 0) > 0
    assert comparison.value(1, 0) == 0
    assert comparison.open_block[:, 1, 0].tolist() == [0.0, 0.0, 2.0, 2.0]


def test_guess_of_the_mean_remembers_a_bounded_number_of_outcomes() -> None:
    comparison = new_comparison("v41", "holdback", 1, 1)
    many = entries(np.zeros(15_000), np.ones((1, 15_000)))
    for _ in range(3):
        step_blocks(comparison, many, many, 0, 0)
    assert comparison.pooled_n[0, 0] == POOL_CAP
    assert comparison.pooled_k[0, 0] == pytest.approx(POOL_CAP)
    assert np.isfinite(comparison.evidence).all()


def test_streams_that_appear_get_rows_without_evidence_and_the_others_keep_theirs() -> None:
    comparison = compare(0.1, 0.4, 10)
    before = [comparison.value(0, stream) for stream in range(3)]
    comparison.fit(5)
    assert [comparison.value(0, stream) for stream in range(5)] == [*before, 0.0, 0.0]
    comparison.fit(2)
    assert comparison.evidence.shape[1] == 5
    rng = np.random.default_rng(1)
    at = np.sort(rng.integers(0, WIDTH, 30))
    step_blocks(
        comparison,
        entries(at, np.zeros((1, 30)), np.full(30, 4)),
        entries(at, np.ones((1, 30)), np.full(30, 4)),
        0,
        WIDTH,
    )
    assert comparison.value(0, 4) > 0
    assert comparison.value(0, 3) == 0


# Pairs


def paired(candidate_rate: float, shadow_rate: float, count: int, seed: int = 0) -> Comparison:
    rng = np.random.default_rng(seed)
    comparison = new_comparison("v43", "shadow", 1, 3)
    live, shadow = (rng.random(count) < candidate_rate).astype(float), (rng.random(count) < shadow_rate).astype(float)
    streams = np.stack([np.zeros(count, np.int64), rng.integers(1, 3, count)])
    comparison.step_pairs(streams, (live - shadow)[None, :])
    return comparison


def test_pairs_in_which_the_live_version_is_worse_raise_the_evidence() -> None:
    comparison = paired(0.35, 0.1, 1_500)
    assert comparison.value(0, 0) > 1e9
    assert comparison.value(0, 1) > 1e3


@pytest.mark.parametrize(("candidate", "shadow"), [(0.1, 0.1), (0.1, 0.35), (0.0, 0.0)])
def test_pairs_in_which_it_is_no_worse_do_not(candidate: float, shadow: float) -> None:
    for seed in range(3):
        assert paired(candidate, shadow, 1_500, seed).value(0, 0) < 1e5


@pytest.mark.parametrize("width", [WIDTH, 0])
def test_outcome_without_a_loss_is_no_part_of_a_block(width: int) -> None:
    comparison = new_comparison("v41", "holdback", 1, 1)
    nothing = entries([], [[]])
    step_blocks(comparison, entries([10], [1.0]), nothing, 0, width)
    before = comparison.waited.copy()
    for count in (1, 2):
        step_blocks(comparison, nothing, entries([11] * count, [np.nan] * count), 0, width)
    assert comparison.waited.tolist() == before.tolist() == [[1.0]]


def test_pairs_step_in_blocks_of_their_order() -> None:
    rng = np.random.default_rng(2)
    count = 100
    excess = rng.integers(-1, 2, (2, count)).astype(float)
    excess[1, ::7] = np.nan
    streams = np.stack([np.zeros(count, np.int64), rng.integers(-1, 3, count)])
    streams[1, streams[1] == 0] = 1
    comparison = new_comparison("v43", "shadow", 2, 3)
    comparison.step_pairs(streams, excess)
    for loss in range(2):
        for stream in range(3):
            evidence = np.zeros((1, 8))
            for begin in range(0, count, BLOCK):
                places = [
                    i
                    for i in range(begin, min(begin + BLOCK, count))
                    if stream in streams[:, i] and not np.isnan(excess[loss, i])
                ]
                if places:
                    evidence = advance_comparison(
                        evidence, np.prod(pair_factors(excess[loss, places]), axis=0)[None, :]
                    )
            assert comparison.value(loss, stream) == pytest.approx(float(total(evidence[0])), rel=1e-9)


def test_no_pairs_change_nothing() -> None:
    comparison = new_comparison("v43", "shadow", 1, 1)
    comparison.step_pairs(np.zeros((1, 0), np.int64), np.zeros((1, 0)))
    assert comparison.value(0, 0) == 0.0


@pytest.mark.parametrize("width", [WIDTH, 0])
@pytest.mark.parametrize("seed", range(3))
def test_intervals_that_wait_leave_the_bits_of_those_stepped_one_by_one(width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    alone, together = (new_comparison("v41", "holdback", 2, 3) for _ in range(2))
    for number in range(200):
        begin = number * WIDTH
        sizes = rng.integers(0, 8, 2) * rng.integers(0, 2, 2)
        target, candidate = drawn(rng, begin, int(sizes[0]), 0.2, 2), drawn(rng, begin, int(sizes[1]), 0.4, 2)
        for arm in (target, candidate):
            arm.losses[rng.random(arm.losses.shape) < 0.1] = np.nan
        for comparison, streams in ((alone, 3 + number // 100), (together, 3 + number // 100)):
            comparison.fit(streams)
        step_blocks(alone, target, candidate, begin, width)
        together.add(target, candidate, begin, width)
        if number % 37 == 0:
            # Asking in between changes nothing either.
            assert together.value(0, 0) == alone.value(0, 0)
    together.settle()
    assert pack(together) == pack(alone)


def test_intervals_wait_until_they_are_many_or_large() -> None:
    nobody, one = entries([], []), entries([0], [1.0])
    comparison = new_comparison("v41", "holdback", 1, 1)
    for _ in range(WAITING_MAX - 1):
        comparison.add(one, nobody, 0, 0)
    assert (len(comparison.waiting), comparison.waiting_outcomes) == (WAITING_MAX - 1, WAITING_MAX - 1)
    comparison.add(one, nobody, 0, 0)
    assert (comparison.waiting, comparison.waiting_outcomes) == ([], 0)
    comparison.add(entries([0] * WAITING_OUTCOMES_MAX, [0.0] * WAITING_OUTCOMES_MAX), nobody, 0, 0)
    assert comparison.waiting == []
