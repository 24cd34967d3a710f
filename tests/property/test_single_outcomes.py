"""A single outcome takes a shorter way through the rows than many do, and leaves the same bits behind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.rows import concurrent as comparing
from detectors.rows.bank import BASELINE_CAP
from detectors.rows.concurrent import SUB_INTERVALS
from detectors.rows.types import Entries, Rules
from detectors.rows.watch import Health, new_health
from streams.ledger.encoding import pack

STREAMS, SOURCES = 4, 3
WEIGHTS = np.array([0.5, 0.2, 0.2, 0.1])
LOSSES = (0.0, 1.0, 0.25, float("nan"))

outcomes = st.lists(
    st.tuples(st.sampled_from([-1, 1, 2, 3]), st.integers(-1, SOURCES - 1), st.sampled_from(LOSSES),
              st.sampled_from(LOSSES), st.integers(0, 3_000)),
    min_size=1, max_size=120,
)  # fmt: skip


def single(stream: int, source: int, losses: tuple[float, float], at: int) -> Entries:
    return Entries(np.array([at]), np.array([[0], [stream]]), np.array([source]), np.array(losses)[:, None])


def health_of(n: float, variants: bool) -> Health:
    health = new_health("v1", "live", 0, [True, False], STREAMS)
    health.fit(STREAMS, SOURCES if variants else 0)
    for bank in health.banks:
        bank.n[:], bank.k[:] = n, n * 0.1
        bank.learning[1:3] = False
        bank.learning[0] = n == 0
    return health


class LongWay(Health):
    """Takes a single outcome as if it were many."""

    def _run_one(self, entries: Entries, rules: Rules, now: int) -> None:
        assert self._run(entries, 0, rules, now) == 1


@given(drawn=outcomes, n=st.sampled_from([0.0, 900.0, BASELINE_CAP - 3]), variants=st.booleans(), in_time=st.booleans())
def test_rows_end_with_the_same_bits_whichever_way_a_single_outcome_takes(
    drawn: list[tuple[int, int, float, float, int]], n: float, variants: bool, in_time: bool
) -> None:
    short, long = health_of(n, variants), health_of(n, variants)
    long.__class__ = LongWay
    rules = Rules(50.0, WEIGHTS, 0.02, in_time, True)
    at = 0
    for stream, source, first, second, later in drawn:
        at += later
        for health in (short, long):
            health.judge(single(stream, source, (first, second), at), rules, at)
    long.__class__ = Health
    assert pack(short) == pack(long)


@pytest.mark.parametrize("width", [0, 6_000])
@given(drawn=outcomes)
def test_comparison_ends_with_the_same_bits_whichever_way_a_single_outcome_takes(
    width: int, drawn: list[tuple[int, int, float, float, int]]
) -> None:
    sums = [np.zeros((SUB_INTERVALS if width else 1, 2, 2, STREAMS)) for _ in range(2)]
    for stream, source, first, second, at in drawn:
        entries = single(stream, source, (first, second), 2 * at)
        for way, found in zip((comparing._add_one, comparing._add), sums, strict=True):
            way(found, entries, 0, width)
        assert sums[0].tobytes() == sums[1].tobytes()
        sums = [np.zeros_like(found) for found in sums]


def test_alarm_is_raised_on_the_short_way() -> None:
    health = health_of(900.0, False)
    rules = Rules(50.0, WEIGHTS, 0.02, False, True)
    for at in range(200):
        health.judge(single(1, 0, (1.0, 1.0), at), rules, at)
    assert health.degraded
