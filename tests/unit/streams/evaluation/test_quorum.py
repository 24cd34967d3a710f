"""Whether label sources agree on a rise: each large one is left out in turn, and the rise has to show without it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from actions.evidence import Quorum
from actions.evidence_tree import Without
from detectors.rows.types import SOURCE_CELLS, Alarm, Rules
from detectors.rows.watch import Health, new_health
from streams.evaluation.findings import QUORUM_LEAST, quorum_of, rise_without, source_shares, threshold_of

RULES = Rules(1_000.0, np.array([0.5, 0.25]), 0.02, False, True)
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
    assert quorum_of(health_of(2, evidence), alarm_of(counts, rate), RULES) is quorum


@pytest.mark.parametrize(
    ("needed", "quorum"), [(QUORUM_LEAST / 2, Quorum.FAILED), (QUORUM_LEAST / 2 + 0.5, Quorum.WAITING)]
)
def test_disagreement_is_final_after_twice_the_outcomes_of_the_alarm(needed: float, quorum: Quorum) -> None:
    alarm = alarm_of([QUORUM_LEAST / 2] * 2, [0.3, 0.1], needed)
    assert quorum_of(health_of(2, [SHOWN] * 3), alarm, RULES) is quorum


def test_loss_that_needs_no_label_needs_no_agreement() -> None:
    rules = msgspec.structs.replace(RULES, unlabelled=(0,))
    assert quorum_of(health_of(2, [SHOWN] * 3), alarm_of([600.0, 600.0], [0.3, 0.1]), rules) is Quorum.AGREED


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
