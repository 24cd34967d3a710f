"""Units from the sources to a comparison: on several partitions, in any role of a label, and after a restart."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import pytest
from msgspec import UNSET

from actions.journal import decision_bytes
from detectors.rows.units import UNITS_LEAST
from streams.audit.replayed import audit_replayed
from streams.config.parse import parse
from streams.ledger.records import Batch
from streams.recordings.replay import Recorder, Replay
from streams.window.records import units_of
from tests.pipelines import run
from tests.worlds.busy import START_MS, busy_lines, placed
from unship.codec import encode_line
from unship.events import Event, Feedback, OperatorAct, Prediction

CONFIG = """
defaults: {losses: [zero_one], one_false_alarm_per: 2000, slices: {by: [country]}, LABELSpolicy: {mode: act}}
"""
MATURE = parse(CONFIG.replace("LABELS", "labels: {mature_after: 1s}, "))
"""Cohorts of 1 s, 200 requests."""


def named(lines: Sequence[bytes], units: int) -> list[bytes]:
    """Return lines whose requests are of so many units, by their ids."""
    found = []
    for line in lines:
        event = json.loads(line)
        if event["type"] == "prediction":
            event["unit_hash"] = crc32(f"unit {int(event['id'][1:]) % units}".encode())
        found.append(json.dumps(event).encode())
    return found


def decided(lines: Sequence[bytes], batch: int = 4_096) -> list[bytes]:
    return [decision_bytes(each) for each in Replay(MATURE).decisions(io.BytesIO(b"\n".join(lines)), batch)]


def units_in(decisions: Sequence[bytes]) -> tuple[int, int]:
    (units,) = [
        (each["target"], each["candidate"])
        for line in decisions
        if (each := (json.loads(line)["evidence"].get("comparison") or {}).get("units"))
        and json.loads(line)["reason"] == "FEW_UNITS"
    ]
    return units


@pytest.mark.parametrize("partitions", [1, 2, 5])
def test_unit_on_several_partitions_is_one_unit(partitions: int) -> None:
    decisions = decided(placed(named(busy_lines(1), 40), partitions))
    assert units_in(decisions) == (40, 40)
    assert decisions == decided(placed(named(busy_lines(1), 40), partitions), 7)


def test_decay_is_proposed_while_units_are_few_and_acted_upon_once_they_are_enough() -> None:
    decisions = [json.loads(line) for line in decided(named(busy_lines(1, 24_000), 24_000))]
    few, enough = decisions[-2:]
    assert (few["reason"], few["action"], few["to"]) == ("FEW_UNITS", "propose", "v1")
    assert (enough["reason"], enough["action"], enough["to"]) == ("TARGET_BETTER", "rollback", "v1")
    units = [each["evidence"]["comparison"]["units"]["target"] for each in (few, enough)]
    assert units[0] < UNITS_LEAST <= units[1] < UNITS_LEAST + 100


def test_proposal_that_rests_on_few_units_is_followed_once_it_is_approved() -> None:
    act = OperatorAct(act="approve", model="m", reason="these are all of our customers", by="me")
    decisions = [json.loads(line) for line in decided([*named(busy_lines(1), 40), encode_line(act)])]
    assert [(each["reason"], each["action"], each["to"]) for each in decisions[-2:]] == [
        ("FEW_UNITS", "propose", "v1"),
        ("APPROVED", "rollback", "v1"),
    ]


def test_recording_of_units_is_reproduced_and_its_ledger_too() -> None:
    written = io.BytesIO()
    replay = Replay(MATURE, recorder=Recorder(written))
    decisions = list(replay.decisions(io.BytesIO(b"\n".join(named(busy_lines(2), 40)))))
    assert [decision.reason for decision in decisions][-1] == "FEW_UNITS"
    written.seek(0)
    result = audit_replayed(written)
    assert (result.first_difference, result.reproduced) == (None, len(decisions))


MADE: list[Event] = [
    Feedback(id="early", truth=1, ts=START_MS + 0),
    Prediction(id="early", model="m", version="v", output=1, unit_hash=5, ts=START_MS + 1),
    Prediction(id="usual", model="m", version="v", output=1, unit_hash=6, ts=START_MS + 2),
    Prediction(id="usual", model="m", version="w", output=1, unit_hash=2**32 - 1, role="holdback", ts=START_MS + 3),
    Prediction(id="none", model="m", version="v", output=1, ts=START_MS + 4),
    Prediction(id="alone", model="m", version="v", output=1, unit_hash=0, ts=START_MS + 5),
    Feedback(id="usual", truth=1, ts=START_MS + 6),
    Feedback(id="usual", truth=0, ts=START_MS + 7),
    Feedback(id="none", truth=1, ts=START_MS + 8),
    Feedback(id="alone", truth=0, ts=START_MS + 9),
]


@pytest.mark.parametrize(
    "labels", ["", "labels: {mature_after: 1s, missing: negative}, ", "labels: {mature_after: 1s, on_conflict: last}, "]
)
def test_outcome_has_the_unit_of_its_prediction_however_its_label_came(labels: str) -> None:
    """Early, twice, for two versions, and for predictions that are judged without a label as well."""
    lines = [encode_line(event) for event in MADE]
    made = run(parse(CONFIG.replace("LABELS", labels)), lines)
    parts = [part for record in made.records if isinstance(record, Batch) for part in record.parts]
    found: dict[int, set[int]] = {}
    for part in parts:
        for rows in (part.outcomes, part.unlabelled):
            if rows is not None:
                units = np.zeros_like(rows.arm) if rows.unit is UNSET else rows.unit
                for position, unit in zip(rows.position.tolist(), units.tolist(), strict=True):
                    found.setdefault(position, set()).add(unit)
    first, second, last, least = units_of([5, 6, 2**32 - 1, 0]).tolist()
    assert len({0, first, second, last, least}) == 5
    assert found == {1: {first}, 2: {second}, 3: {last}, 4: {0}, 5: {least}}
