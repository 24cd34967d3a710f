"""Whether label sources agree on a rise: each large one is left out in turn, and the rise has to show without it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from actions.evidence import Quorum
from actions.evidence_tree import Without
from detectors.rows.history import Block
from detectors.rows.types import SOURCE_CELLS, Alarm, Rules
from detectors.rows.watch import Health, new_health
from streams.evaluation.quorum import (
    QUORUM_LEAST,
    quorum_of,
    quorum_of_lead,
    quorum_of_target,
    rest_without,
    rise_without,
    source_shares,
    threshold_of,
)
from streams.evaluation.sources import SourceTable
from streams.join.rows import coded

RULES = Rules(1_000.0, np.array([0.5, 0.25]), 0.02, False, True)
#: Names as their writers declare them.
TABLE = SourceTable(["a", "b"])
#: Evidence that is enough for a part of the labels.
SHOWN = 1_000.0


def health_of(sources: int, evidence: list[float], learning: tuple[int, ...] = ()) -> Health:
    """Return a version of which every row has a baseline of 0.1, and the rows of all requests this evidence."""
    health = new_health("v1", "live", 0, [True], 2)
    health.fit(2, sources)
    bank = health.rows.banks[0]
    bank.n[:], bank.k[:], bank.learning[:] = 10_000.0, 1_000.0, False
    bank.totals[: len(evidence)] = evidence
    bank.learning[list(learning)] = True
    return health


def alarm_of(counts: list[float], rate: list[float], needed: float = 100.0, detector: str = "e_detector") -> Alarm:
    """Return an alarm on all requests, with so many outcomes by source and such mean losses."""
    window = np.zeros((2, 2, SOURCE_CELLS))
    window[0, 0, : len(counts)] = counts
    window[1, 0, : len(counts)] = np.array(counts) * rate
    return Alarm(detector, 0, 0, 0, 0, 1.0, 1.0, needed, window)


@pytest.mark.parametrize(("stream", "threshold"), [(0, 1_000.0), (1, 4_000.0)])
def test_slice_has_to_reach_more_by_its_small_weight(stream: int, threshold: float) -> None:
    assert threshold_of(stream, RULES) == threshold


def test_outcomes_without_a_label_are_of_no_source() -> None:
    alarm = alarm_of([5.0, 3.0], [0.0, 0.0])
    alarm.window[0, 0, -1] = 900.0
    assert source_shares(health_of(2, []), alarm).tolist() == [5.0, 3.0, *[0.0] * (SOURCE_CELLS - 3)]


@pytest.mark.parametrize(
    ("counts", "rate", "evidence", "quorum"),
    [
        # Both show the rise.
        ([400.0, 400.0], [0.3, 0.3], [SHOWN] * 3, Quorum.AGREED),
        # Only the first does: without it nothing is left, and there were labels enough to know.
        ([600.0, 600.0], [0.3, 0.1], [SHOWN] * 3, Quorum.FAILED),
        # The same with too few labels to know.
        ([400.0, 400.0], [0.3, 0.1], [SHOWN] * 3, Quorum.WAITING),
        # The rise is there, but hardly any evidence without the second one.
        ([600.0, 600.0], [0.3, 0.3], [SHOWN, SHOWN, 9.9], Quorum.FAILED),
        ([600.0, 600.0], [0.3, 0.3], [SHOWN, SHOWN, 10.0], Quorum.AGREED),
        # One that gives less than a tenth of the labels is not asked.
        ([1_000.0, 90.0], [0.3, 0.1], [SHOWN, 0.0, 0.0], Quorum.AGREED),
        ([1_000.0, 150.0], [0.3, 0.1], [SHOWN, 0.0, SHOWN], Quorum.FAILED),
        # A single one cannot be left out, nor can none.
        ([1_000.0], [0.3], [SHOWN], Quorum.AGREED),
        ([], [], [SHOWN], Quorum.AGREED),
    ],
)
def test_sources_agree_if_the_rise_shows_without_each_large_one(
    counts: list[float], rate: list[float], evidence: list[float], quorum: Quorum
) -> None:
    assert quorum_of(health_of(2, evidence), alarm_of(counts, rate), RULES, TABLE) is quorum


@pytest.mark.parametrize(
    ("needed", "quorum"), [(QUORUM_LEAST / 2, Quorum.FAILED), (QUORUM_LEAST / 2 + 0.5, Quorum.WAITING)]
)
def test_disagreement_is_final_after_twice_the_outcomes_of_the_alarm(needed: float, quorum: Quorum) -> None:
    alarm = alarm_of([QUORUM_LEAST / 2] * 2, [0.3, 0.1], needed)
    assert quorum_of(health_of(2, [SHOWN] * 3), alarm, RULES, TABLE) is quorum


def test_loss_that_needs_no_label_needs_no_agreement() -> None:
    rules = msgspec.structs.replace(RULES, unlabelled=(0,))
    assert quorum_of(health_of(2, [SHOWN] * 3), alarm_of([600.0, 600.0], [0.3, 0.1]), rules, TABLE) is Quorum.AGREED


@pytest.mark.parametrize(
    ("detector", "evidence", "rate", "learning", "expected"),
    [
        ("e_detector", SHOWN, 0.3, (), Without(400.0, 0.2, SHOWN, True)),
        # The rise has to matter, and the evidence to be a hundredth of what a row alone needs.
        ("e_detector", SHOWN, 0.115, (), Without(400.0, 0.015, SHOWN, False)),
        ("e_detector", 9.0, 0.3, (), Without(400.0, 0.2, 9.0, False)),
        # A row that learns has no evidence to give, so that the rise alone counts.
        ("e_detector", 0.0, 0.3, (1,), Without(400.0, 0.2, 0.0, True)),
        # Another detector has no evidence at all; half of the whole rise is enough.
        ("adwin", 0.0, 0.125, (), Without(400.0, 0.025, 0.0, True)),
        ("adwin", 0.0, 0.104, (), Without(400.0, 0.004, 0.0, False)),
    ],
)
def test_rise_without_a_source_is_measured_against_the_row_that_leaves_it_out(
    detector: str, evidence: float, rate: float, learning: tuple[int, ...], expected: Without
) -> None:
    alarm = alarm_of([600.0, 400.0], [0.3, rate], detector=detector)
    found = rise_without(health_of(2, [SHOWN, evidence, SHOWN], learning), alarm, 0, RULES)
    assert found.rise == pytest.approx(expected.rise, abs=1e-4)
    assert msgspec.structs.replace(found, rise=expected.rise) == expected


def test_rise_without_the_only_source_is_none() -> None:
    found = rise_without(health_of(0, [SHOWN]), alarm_of([600.0], [0.3]), 0, RULES)
    assert (found.outcomes, found.rise, found.agrees) == (0.0, 0.0, False)


# With sources that the configuration lists: the last one is the pool of all others

LISTED = SourceTable(["a", "b", "c", "d"], listed=4)


def asked(counts: list[float], rate: list[float], evidence: list[float], needed: float = 100.0) -> Quorum:
    return quorum_of(health_of(5, evidence), alarm_of(counts, rate, needed), RULES, LISTED)


@pytest.mark.parametrize(
    ("pool", "quorum"), [(500.0, Quorum.FAILED), (900.0, Quorum.FAILED), (499.0, Quorum.AGREED), (0.0, Quorum.AGREED)]
)
def test_pool_with_half_of_the_labels_is_suspect_whatever_the_others_show(pool: float, quorum: Quorum) -> None:
    assert asked([1_000.0 - pool, 0.0, 0.0, 0.0, pool], [0.3] * 5, [SHOWN] * 6) is quorum


@pytest.mark.parametrize("share", [510.0, 900.0, 990.0])
def test_listed_source_is_never_suspect_by_its_share(share: float) -> None:
    """What is left without it is too little to reach the evidence, as long as it does not contradict."""
    counts = [2 * share, 2_000 - 2 * share, 0.0, 0.0, 0.0]
    assert asked(counts, [0.3] * 5, [SHOWN, 0.0, SHOWN]) is Quorum.AGREED
    assert asked([2 * share, 0.0, 0.0, 0.0, 2_000 - 2 * share], [0.3] * 5, [SHOWN, 0.0, *[SHOWN] * 4]) is Quorum.AGREED


def test_listed_source_that_gives_most_labels_and_that_the_rest_contradicts_is_suspect() -> None:
    assert asked([1_400.0, 600.0, 0.0, 0.0, 0.0], [0.4, 0.1, 0.0, 0.0, 0.0], [SHOWN, 0.0, SHOWN]) is Quorum.FAILED


@pytest.mark.parametrize(("names", "quorum"), [(1, Quorum.FAILED), (40, Quorum.FAILED)])
def test_liar_outside_the_list_is_one_suspect_under_any_number_of_names(names: int, quorum: Quorum) -> None:
    table = SourceTable(["a"], listed=1)
    values = ["a"] * 700 + [f"x{i % names}" for i in range(300)]
    counts = np.bincount(table.encode(coded(values)), minlength=2).astype(float)
    alarm = alarm_of((2 * counts).tolist(), [0.1, 0.8])
    assert quorum_of(health_of(2, [SHOWN, SHOWN, 0.0]), alarm, RULES, table) is quorum


def test_pool_that_shows_no_rise_hides_none_from_the_listed_ones() -> None:
    """Nobody knows who writes under names that are not listed, so what they contradict stands."""
    counts, rate = [800.0, 0.0, 0.0, 0.0, 700.0], [0.4, 0.0, 0.0, 0.0, 0.1]
    assert asked(counts, rate, [SHOWN, 0.0, *[SHOWN] * 4]) is Quorum.AGREED
    counts, rate = [600.0, 600.0, 0.0, 0.0, 700.0], [0.4, 0.4, 0.0, 0.0, 0.1]
    assert asked(counts, rate, [SHOWN] * 6) is Quorum.AGREED


def test_two_listed_liars_are_found_where_a_third_large_source_is_left() -> None:
    rate = [0.5, 0.5, 0.1, 0.1, 0.1]
    assert asked([400.0, 400.0, 600.0, 600.0, 0.0], rate, [SHOWN] * 6) is Quorum.FAILED
    # Each alone leaves the other one's rise, and without a third one nobody could tell.
    assert asked([400.0, 400.0, 70.0, 60.0, 0.0], rate, [SHOWN] * 6) is Quorum.AGREED


def test_listed_liar_and_pool_together_are_found_where_another_listed_source_is_left() -> None:
    assert asked([400.0, 800.0, 0.0, 0.0, 400.0], [0.5, 0.1, 0.0, 0.0, 0.5], [SHOWN] * 6) is Quorum.FAILED


def test_two_honest_sources_of_a_high_base_rate_are_measured_by_their_own() -> None:
    """Leaving out those that report most errors leaves a low mean, which is a rise nevertheless."""
    alarm = alarm_of([600.0, 600.0, 600.0], [0.6, 0.6, 0.12])
    alarm.usual[:, :3] = [[5_000.0] * 3, [2_000.0, 2_000.0, 100.0]]
    found = rest_without(health_of(3, [SHOWN] * 4), alarm, (0, 1))
    assert (found.outcomes, found.evidence, found.agrees) == (600.0, None, True)
    assert found.rise == pytest.approx(0.1)
    alarm.usual[1, 2] = 600.0
    assert not rest_without(health_of(3, [SHOWN] * 4), alarm, (0, 1)).agrees


# Of the version that could be gone back to


def target_of(counts: list[float], rate: list[float]) -> Health:
    """Return a version with these outcomes by source at 500, in all requests."""
    health, cells = new_health("v0", "holdback", 0, [True], 2), np.flatnonzero(counts)
    sums = np.array([counts, np.array(counts) * rate])[:, cells]
    health.history.extend([Block(500, cells, sums)])
    return health


@pytest.mark.parametrize(
    ("theirs", "rate", "table", "quorum"),
    [
        ([100.0, 100.0], [0.1, 0.1], TABLE, Quorum.AGREED),
        # The whole lead is that of the first one, who calls wrong answers of the target right.
        ([100.0, 100.0], [0.0, 0.3], TABLE, Quorum.FAILED),
        # A source that labels the target above all is large there.
        ([500.0, 60.0], [0.1, 0.3], TABLE, Quorum.FAILED),
        # What is not listed may give most of the target's labels, as long as the lead shows without it.
        ([100.0, 110.0], [0.1, 0.1], SourceTable(["a"], listed=1), Quorum.AGREED),
        ([100.0, 110.0], [0.3, 0.0], SourceTable(["a"], listed=1), Quorum.FAILED),
    ],
)
def test_lead_of_the_target_has_to_show_without_each_source(
    theirs: list[float], rate: list[float], table: SourceTable, quorum: Quorum
) -> None:
    alarm = alarm_of([600.0, 600.0], [0.3, 0.3])
    assert quorum_of_lead(health_of(2, [SHOWN] * 3), target_of(theirs, rate), alarm, RULES, table) is quorum


def test_lead_waits_for_as_many_outcomes_as_the_rise_does() -> None:
    alarm = alarm_of([300.0, 300.0], [0.3, 0.3])
    target = target_of([100.0, 100.0], [0.0, 0.3])
    assert quorum_of_lead(health_of(2, [SHOWN] * 3), target, alarm, RULES, TABLE) is Quorum.WAITING


@pytest.mark.parametrize(
    ("counts", "rate", "quorum"),
    [
        ([100.0, 100.0], [0.4, 0.4], Quorum.AGREED),
        ([100.0, 100.0], [0.5, 0.1], Quorum.FAILED),
        ([60.0, 60.0], [0.5, 0.1], Quorum.WAITING),
        ([200.0], [0.5], Quorum.AGREED),
    ],
)
def test_targets_own_alarm_has_to_show_without_each_source(
    counts: list[float], rate: list[float], quorum: Quorum
) -> None:
    alarms = [alarm_of(counts, rate, needed=80.0)]
    assert quorum_of_target(health_of(2, [SHOWN]), alarms, RULES, TABLE) is quorum


def test_one_alarm_of_the_target_that_all_sources_agree_on_is_enough() -> None:
    alarms = [alarm_of([100.0, 100.0], [0.5, 0.1], 80.0), alarm_of([100.0, 100.0], [0.4, 0.4], 80.0)]
    assert quorum_of_target(health_of(2, [SHOWN]), alarms, RULES, TABLE) is Quorum.AGREED
