"""Which alarm is reported and which target is named: by what answers at the same time, else by what is on record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actions.evidence import Quorum
from detectors.comparison import BETS
from detectors.rows.concurrent import new_comparison
from detectors.rows.history import Block
from detectors.rows.label_share import new_label_health
from detectors.rows.types import SOURCE_CELLS, Alarm, Rules
from detectors.rows.watch import new_health
from streams.config.parse import parse
from streams.config.resolved import ModelConfig
from streams.evaluation.findings import TargetVerdict, choose, confirm, first_of, recall
from streams.evaluation.periods import Concurrent, LivePeriod, new_model_state, new_period
from streams.evaluation.slices import Stream
from streams.evaluation.sources import source_table
from streams.evaluation.track_records import Known, TrackRecord

RULES = Rules(100.0, np.array([1.0]), 0.02, False, True)
TABLE = source_table([])
STREAMS = [Stream("", "")]


def config_of(mature: str = "0s") -> ModelConfig:
    return parse(f"models: {{m: {{labels: {{mature_after: {mature}}}, detectors: [e_detector]}}}}").of("m")


def alarm_of(at: int = 500, wrong: float = 60.0) -> Alarm:
    """Return an alarm since 500 over 200 outcomes."""
    window = np.zeros((2, 1, SOURCE_CELLS))
    window[:, 0, 0] = 200.0, wrong
    return Alarm("e_detector", 0, 0, at, 500, 100.0, 100.0, 200.0, window)


def period_of(*alarms: Alarm) -> LivePeriod:
    config = config_of()
    live = new_period(new_model_state(config), config, "v2", 0)
    live.health.alarms.extend(alarms)
    return live


def concurrent_of(version: str, evidence: float, answered_at: int = 600) -> Concurrent:
    """Return a holdback with this much evidence that the live version is worse, and an outcome at that time."""
    health = new_health(version, "holdback", 0, [True], 1)
    health.history.extend([Block(answered_at, np.array([0]), np.ones((2, 1)))])
    comparison = new_comparison(version, "holdback", 1, 1)
    comparison.evidence[:] = evidence / BETS
    return Concurrent("holdback", health, new_label_health(), comparison)


@pytest.mark.parametrize(
    ("concurrent", "targets", "expected"),
    [
        ({"v1": 100.0}, ["v1"], ("v1", 100.0, Quorum.AGREED)),
        ({"v1": 99.0}, ["v1"], (None, 99.0, Quorum.WAITING)),
        # The ladder decides between two that are better; where none is, the most evidence is reported.
        ({"v1": 200.0, "v0": 900.0}, ["v1", "v0"], ("v1", 200.0, Quorum.AGREED)),
        ({"v1": 2.0, "v0": 900.0}, ["v1", "v0"], ("v0", 900.0, Quorum.AGREED)),
        ({"v1": 2.0, "v0": 50.0}, ["v1", "v0"], (None, 50.0, Quorum.WAITING)),
        # A target that does not answer, or is none, is not asked.
        ({}, ["v1"], (None, 0.0, Quorum.WAITING)),
        ({"v1": 900.0}, [], (None, 0.0, Quorum.WAITING)),
    ],
)
def test_target_is_the_first_of_the_ladder_that_is_better_now(
    concurrent: dict[str, float], targets: list[str], expected: tuple[str | None, float, Quorum]
) -> None:
    live = period_of(alarm_of())
    live.concurrent.update({version: concurrent_of(version, value) for version, value in concurrent.items()})
    found = confirm(live, live.health.alarms[0], targets, RULES, TABLE)
    assert (found.target, found.evidence, found.quorum) == expected
    assert found.threshold == 100.0


def test_target_that_stopped_answering_before_the_change_is_not_better_now() -> None:
    live = period_of(alarm_of())
    live.concurrent["v1"] = concurrent_of("v1", 900.0, answered_at=499)
    assert confirm(live, live.health.alarms[0], ["v1"], RULES, TABLE).target is None


def verdict(name: int, target: str | None, quorum: Quorum) -> TargetVerdict:
    return TargetVerdict(alarm_of(name), target, 0.0, 100.0, quorum)


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ([(None, Quorum.WAITING), ("v1", Quorum.WAITING), ("v1", Quorum.AGREED)], 2),
        ([(None, Quorum.WAITING), ("v1", Quorum.FAILED), ("v1", Quorum.WAITING)], 2),
        ([(None, Quorum.WAITING), ("v1", Quorum.FAILED)], 1),
        ([(None, Quorum.WAITING), (None, Quorum.AGREED)], 0),
        ([("v1", Quorum.AGREED), ("v0", Quorum.AGREED)], 0),
    ],
)
def test_alarm_that_is_reported_is_the_first_of_those_that_are_furthest(
    found: list[tuple[str | None, Quorum]], chosen: int
) -> None:
    verdicts = [verdict(i, *entry) for i, entry in enumerate(found)]
    assert first_of(verdicts) is verdicts[chosen]


def test_choice_asks_every_alarm() -> None:
    live = period_of(alarm_of(500), alarm_of(700))
    live.concurrent["v1"] = concurrent_of("v1", 900.0)
    assert choose(live, ["v1"], RULES, TABLE).alarm is live.health.alarms[0]


def record_of(version: str, wrong: float, coverage: float | None = None) -> tuple[TrackRecord, Known]:
    """Return a record of 5,000 outcomes."""
    record = TrackRecord(version, False, coverage, [])
    return record, Known(0, np.array([[5_000.0]]), np.array([[5_000.0 * wrong]]))


@pytest.mark.parametrize(
    ("records", "target"),
    [
        ([record_of("v1", 0.05)], "v1"),
        ([record_of("v1", 0.3)], None),
        ([record_of("v1", 0.3), record_of("v0", 0.05)], "v0"),
        ([record_of("v1", 0.06), record_of("v0", 0.05)], "v1"),
    ],
)
def test_newest_record_that_was_better_is_named(records: list[tuple[TrackRecord, Known]], target: str | None) -> None:
    found = recall(period_of(alarm_of()), records, STREAMS, config_of(), RULES, TABLE)
    assert found.target == target
    assert found.threshold == 100.0 * len(records)
    assert found.record is not None
    assert found.record.target == (target or records[0][0].version)
    assert found.quorum is (Quorum.AGREED if target else Quorum.WAITING)


@pytest.mark.parametrize(
    ("mature", "usual", "labelled", "target"),
    [
        ("0s", None, [], "v1"),
        ("20s", 0.9, [(100, 90)] * 3, "v1"),
        ("20s", 0.9, [(100, 90), (100, 60)], None),
        ("20s", None, [(100, 90)] * 3, None),
        ("20s", 0.9, [], None),
    ],
)
def test_record_of_other_label_coverage_confirms_nothing(
    mature: str, usual: float | None, labelled: list[tuple[int, int]], target: str | None
) -> None:
    live = period_of(alarm_of())
    for predictions, labels in labelled:
        live.labels.close(predictions, labels, 1e6)
    records: Any = [record_of("v1", 0.05, usual)]
    assert recall(live, records, STREAMS, config_of(mature), RULES, TABLE).target == target
