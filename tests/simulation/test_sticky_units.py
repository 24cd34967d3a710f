"""Two equal versions that answer different users: without units one is found better, and with them nobody acts on that.

`UNSHIP_STICKY_SEEDS=20` runs so many seeds of each kind.
"""

from __future__ import annotations

import io
import os

import pytest

from actions.journal import Decision
from actions.reasons import Action, Reason
from console.commands.explain import page
from console.sentences import sentence
from detectors.rows.units import UNITS_LEAST, UNITS_SHOWN
from streams.config.parse import parse
from streams.recordings.replay import Replay
from tests.simulation.sticky import PROMISE, compared, lines_of

SEEDS = int(os.environ.get("UNSHIP_STICKY_SEEDS", "2"))
CONFIG = parse(
    "models: {m: {worse_by: 0.01, one_false_alarm_per: 10000, labels: {mature_after: 30s}, detectors: [e_detector], "
    "policy: {mode: act, confirm_within: 30d}}}"
)


def decided(seed: int, *, named: bool) -> list[Decision]:
    lines = b"\n".join(lines_of(seed, 300, requests=20_000, named=named))
    return list(Replay(CONFIG).decisions(io.BytesIO(lines)))


@pytest.mark.parametrize("seed", [0, 8])
def test_rollback_by_a_few_users_who_got_harder_is_only_proposed_once_they_are_named(seed: int) -> None:
    *_, last = decided(seed, named=False)
    assert (last.reason, last.action, last.to) == (Reason.TARGET_BETTER, Action.ROLLBACK, "v1")
    *_, last = decided(seed, named=True)
    assert (last.reason, last.action, last.to) == (Reason.FEW_UNITS, Action.PROPOSE, "v1")
    assert last.evidence.comparison
    units = last.evidence.comparison.units
    assert units
    assert 60 < units.target < units.candidate < 220
    assert f"one of the two was asked by {units.target} units only" in sentence(last)
    assert f"of {units.target} units, and of {units.candidate} units; 5,000 of either are needed" in page(last)


@pytest.mark.parametrize("seed", range(1, max(SEEDS, 2)))
def test_equal_versions_of_few_users_are_never_switched(seed: int) -> None:
    assert Action.ROLLBACK not in {decision.action for decision in decided(seed, named=True)}


def test_equal_versions_of_300_users_differ_for_certain_and_the_units_show_that_they_are_few() -> None:
    better = 0
    for seed in range(max(SEEDS, 3)):
        without = compared(seed, 300, requests=2_000, cohorts=150, sticky=True, named=False)
        better += without.value(0, 0) >= PROMISE
        units = compared(seed, 300, requests=2_000, cohorts=20, sticky=True, named=True).units_in(0)
        assert units is not None
        assert 200 < units[0] < 320 < units[1] < UNITS_LEAST
    assert better


@pytest.mark.parametrize("seed", range(SEEDS))
def test_equal_versions_whose_requests_are_dealt_out_do_not_differ_and_enough_users_are_enough(seed: int) -> None:
    by_request = compared(seed, 300, requests=2_000, cohorts=30, sticky=False, named=False)
    assert by_request.value(0, 0) < PROMISE
    assert by_request.units_in(0) is None
    many = compared(seed, 8_000, requests=4_000, cohorts=100, sticky=True, named=True)
    assert many.value(0, 0) < PROMISE
    units = many.units_in(0)
    assert units is not None
    assert units[0] > UNITS_LEAST
    assert units[1] == UNITS_SHOWN
