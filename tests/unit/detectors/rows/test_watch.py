"""A stated reference is believed until the version's own outcomes belie it."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.rows.types import BASES, SOURCE_CELLS, Baselines, Entries, Rules
from detectors.rows.watch import Health, new_health
from streams.ledger.encoding import pack, unpack

RULES = Rules(1_000_000.0, np.array([1.0]), 0.02, False, True)


def entries(losses: np.ndarray) -> Entries:
    size = losses.size
    return Entries(np.arange(size), np.zeros((1, size), np.int64), np.zeros(size, np.int64), losses[None].astype(float))


def left(mean: float, n: float = 5_000.0) -> Baselines:
    shape = (1, 1, 1)
    counts, losses = np.full(shape, n), np.full(shape, n * mean)
    return Baselines(
        "v0", True, counts, losses, counts.copy(), losses.copy(), np.zeros((3, 1)), np.zeros((2, 1, SOURCE_CELLS))
    )


def stated(mean: float, previous: Baselines | None = None, earlier: Baselines | None = None) -> Health:
    health = new_health("v1", "live", 0, [True], 1)
    health.fix_baselines({0: (mean, 2_000.0)}, earlier, previous)
    return health


def told(health: Health, count: int, rate: float = 0.1, part: int = 250) -> int:
    """Judge so many outcomes of which a fixed share is wrong; return how many references were dropped."""
    wrong = (np.arange(count) * rate) % 1 < rate - 1e-9
    dropped = 0
    for begin in range(0, count, part):
        health.judge(entries(wrong[begin : begin + part]), RULES, 0)
        dropped += health.check_references(RULES.worse_by)
    return dropped


def basis(health: Health) -> str:
    return BASES[int(health.rows.basis[0, 0])]


def test_reference_much_worse_than_the_first_thousand_outcomes_is_dropped_once() -> None:
    health = stated(0.3)
    assert told(health, 750) == 0
    assert basis(health) == "reference"
    assert told(health, 250) == 1
    assert basis(health) == "first outcomes"
    assert health.rows.baseline(0, 0) == pytest.approx((0.1, 1_000.0), rel=0.01)
    assert told(health, 2_000) == 0
    assert health.rows.baseline(0, 0) == pytest.approx((0.1, 3_000.0), rel=0.01)


@pytest.mark.parametrize("mean", [0.05, 0.1, 0.12])
def test_reference_that_is_better_or_worse_by_what_does_not_matter_is_kept(mean: float) -> None:
    health = stated(mean)
    assert told(health, 3_000) == 0
    assert basis(health) == "reference"


def test_row_then_has_the_baseline_of_the_version_before_it() -> None:
    health = stated(0.3, previous=left(0.08))
    assert told(health, 1_000) == 1
    assert basis(health) == "previous"
    assert health.rows.baseline(0, 0) == pytest.approx(((400 + 100) / 6_000, 6_000.0), rel=0.01)


def test_own_earlier_baseline_comes_before_any_reference() -> None:
    health = stated(0.3, earlier=left(0.08))
    assert told(health, 2_000) == 0
    assert basis(health) == "earlier"


def test_later_decay_does_not_make_a_good_reference_look_better_nor_a_bad_one_good() -> None:
    health = stated(0.3)
    told(health, 1_000)
    told(health, 2_000, rate=0.5)
    assert health.degraded
    kept = stated(0.1)
    assert told(kept, 1_000) + told(kept, 1_000, rate=0.02) == 0


@pytest.mark.parametrize("part", [1, 7, 1_000, 4_096])
def test_only_the_first_thousand_outcomes_count_however_they_come(part: int) -> None:
    health = stated(0.14)
    # The first thousand are 10 % wrong; what comes with them in one batch is not looked at.
    wrong = np.concatenate([np.arange(1_000) % 10 == 0, np.ones(96, bool)])
    dropped = 0
    for begin in range(0, wrong.size, part):
        health.judge(entries(wrong[begin : begin + part]), RULES, 0)
        dropped += health.check_references(0.03) if not health.degraded else 0
    assert health.rows.first_outcomes[:, 0].tolist() == [1_000.0, 100.0]


def test_saved_health_drops_the_reference_at_the_same_outcome() -> None:
    whole = stated(0.3, previous=left(0.08))
    told(whole, 900)
    saved = unpack(pack(whole), Health)
    assert told(whole, 100) == told(saved, 100) == 1
    assert pack(saved) == pack(whole)
