"""What order there is in an interval follows from the places of predictions alone."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.rows.types import Entries, Rules
from detectors.rows.watch import Health, new_health
from streams.evaluation.cohorts import ARM, POSITION, PREDICTED_AT, add_outcomes, add_pairs, close_cohort
from streams.ledger.encoding import pack
from streams.ledger.places import hashed, place

WIDTH = 1_000


def columns_of(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return outcomes of one cohort from three partitions, some of them packed."""
    columns = np.zeros((5, size), np.int64)
    columns[PREDICTED_AT] = 5 * WIDTH + rng.integers(0, WIDTH, size)
    offset = rng.permutation(size)
    columns[POSITION] = [(int(number) % 3 << 48) + place(int(number) // 3, int(number) % 5) for number in offset]
    return columns


@pytest.mark.parametrize("width", [0, WIDTH])
def test_rows_are_in_the_order_of_their_hashes_however_they_arrive_and_when_they_were_predicted(width: int) -> None:
    rng = np.random.default_rng(1)
    columns, losses = columns_of(rng, 200), rng.random((1, 200))
    closed = []
    for order in (np.arange(200), losses[0].argsort(), columns[PREDICTED_AT].argsort()):
        cohorts: dict = {}
        add_outcomes(cohorts, columns[:, order], losses[:, order], width)
        add_pairs(cohorts, columns[:, order], losses[:, order], width)
        ((number, cohort),) = cohorts.items()
        closed.append(close_cohort(cohort, number, width, 1, 0))
    expected = sorted(hashed(columns[POSITION]).tolist())
    assert hashed(closed[0].columns[POSITION]).tolist() == expected
    assert hashed(closed[0].pairs[POSITION]).tolist() == expected
    assert pack(closed[0]) == pack(closed[1]) == pack(closed[2])


def test_entries_begin_with_their_cohort_but_never_before_the_version_was_live() -> None:
    columns = columns_of(np.random.default_rng(2), 50)
    columns[ARM] = 0
    cohorts: dict = {}
    add_outcomes(cohorts, columns, np.zeros((1, 50)), WIDTH)
    closed = close_cohort(cohorts[5], 5, WIDTH, 1, 0)
    assert closed.of(0, 0).start == 5 * WIDTH
    assert closed.of(0, 5 * WIDTH + 300).start == 5 * WIDTH + 300
    at_once: dict = {}
    add_outcomes(at_once, columns, np.zeros((1, 50)), 0)
    assert close_cohort(at_once[0], 0, 0, 1, 0).of(0, 0).start == columns[PREDICTED_AT].min()


def test_time_of_a_cohort_is_spread_over_its_outcomes_whatever_their_order() -> None:
    rng = np.random.default_rng(3)
    rules = Rules(1e15, np.array([1.0]), 0.02, True, True)

    def grown(sort: bool) -> tuple[float, Health]:
        health = new_health("v1", "live", 0, [True], 1)
        health.fix_baselines({0: (0.1, 2_000.0)}, None, None)
        for cohort in range(5):
            at = cohort * 64_000 + np.arange(64) * 1_000
            at = at if sort else rng.permutation(at)
            nothing = np.zeros(64, np.int64)
            health.judge(Entries(at, nothing[None], nothing, np.full((1, 64), 0.1), cohort * 64_000), rules, 0)
        return float(health.rows.banks[0].totals[0]), health

    first, health = grown(True)
    assert first == grown(False)[0]
    assert health.last_at == 4 * 64_000 + 63_000
    assert first > 0
