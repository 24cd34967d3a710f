"""A target that nobody could serve is passed over: the next one is asked, or a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from actions.journal import Decision
from actions.reasons import Reason
from actions.replicas import ANSWERS_PROVE_MS
from tests.pipelines import Run
from tests.plans import EVERYTHING, Plan, config_of, events_of
from unship.codec import encode_line
from unship.events import Ack, Deployment, Event

PLAN: Plan = msgspec.structs.replace(EVERYTHING, slices=False, sources=1, noise=False)
#: v1 is known by its record alone, and was live until v2 was deployed.
ALONE: Plan = msgspec.structs.replace(PLAN, beside="none", before=1_200, without_control="act", mature_after_s=0)
#: v1 was the first to be ordered, by the record after the configuration.
ORDER_OF_V1, ORDER_OF_V2 = (0, 1, 0), (0, 2, 0)
#: Longer ago than an answer outweighs acks.
LONG_MS = ANSWERS_PROVE_MS + 60_000


def decided(extra: Sequence[Event], plan: Plan = PLAN, pause_ms: int = 0) -> list[Decision]:
    """Return the decisions on a version that decays, with more events between.

    Args:
        extra: the events.
        plan: what else happens.
        pause_ms: how long nothing happens before v2 is deployed.
    """
    switch = START + 1 + plan.before * 60
    events = [
        msgspec.structs.replace(event, ts=(event.ts or 0) + (pause_ms if (event.ts or 0) >= switch else 0))
        for _, event in events_of(plan)
    ]
    events = sorted([*events, *extra], key=lambda event: event.ts or 0)
    made = Run(config_of(plan))
    made.take(map(encode_line, events))
    return made.decisions


START = events_of(PLAN)[0][1].ts or 0


def ack(after: int, replica: str, stage: Any, epoch: Any, code: Any = None) -> Ack:
    ts = START + after
    return Ack(model="m", replica=replica, boot="b", epoch=epoch, stage=stage, serving="v2", code=code, ts=ts)


def test_target_that_all_replicas_refused_is_paged_with_why_and_taken_once_one_has_it() -> None:
    (free,) = [decision for decision in decided([], ALONE, LONG_MS) if decision.action == "rollback"]
    assert (free.reason, free.to) == ("RECORD_BETTER", "v1")
    # Reported shortly before, because a replica without any report for an hour is gone.
    before = free.ts - START - 5_000
    refused = [ack(before + i, f"r-{i}", "refused", ORDER_OF_V1, "LOAD_FAILED") for i in range(2)]
    decisions = decided(refused, ALONE, LONG_MS)
    unfit = next(decision for decision in decisions if decision.reason == "TARGET_UNFIT")
    assert (unfit.action, unfit.to) == ("page", None)
    assert unfit.evidence.unfit == {"v1": "every replica that answered refused it"}
    assert "rollback" not in [decision.action for decision in decisions]
    late = ack(unfit.ts - START + 1_000, "r-1", "staged", ORDER_OF_V1)
    decisions = decided([*refused, late], ALONE, LONG_MS)
    (rollback,) = [decision for decision in decisions if decision.action == "rollback"]
    assert rollback.to == "v1"
    assert decisions.index(rollback) > [decision.reason for decision in decisions].index(Reason.TARGET_UNFIT)


@pytest.mark.parametrize("code", ["LOAD_FAILED", "UNREGISTERED_ARTIFACT", "QUARANTINED"])
@pytest.mark.parametrize("plan", [PLAN, ALONE])
def test_target_that_answered_within_ten_minutes_is_taken_whatever_acks_claim(plan: Plan, code: Any) -> None:
    """Whoever may write acks may write them in the names of all replicas, again and again."""
    times = range(0, 100_000, 500)
    claimed = [ack(after + i, f"r-{i}", "refused", ORDER_OF_V1, code) for after in times for i in range(3)]
    decisions = decided(claimed, plan)
    assert "TARGET_UNFIT" not in [decision.reason for decision in decisions]
    assert [decision.to for decision in decisions if decision.action == "rollback"] == ["v1"]


def test_one_refusal_among_replicas_that_have_the_target_stops_nothing() -> None:
    reports = [ack(2_000, "r-1", "refused", ORDER_OF_V1, "LOAD_FAILED"), ack(2_001, "r-2", "staged", ORDER_OF_V1)]
    shifted = [msgspec.structs.replace(report, ts=(report.ts or 0) + LONG_MS) for report in reports]
    assert "rollback" in [decision.action for decision in decided(shifted, ALONE, LONG_MS)]


def test_refusal_of_the_version_that_decays_says_nothing_of_the_target() -> None:
    reports = [ack(LONG_MS + 72_000, "r-1", "refused", ORDER_OF_V2, "LOAD_FAILED")]
    assert "rollback" in [decision.action for decision in decided(reports, ALONE, LONG_MS)]


def test_holdback_that_was_announced_and_never_answered_is_passed_over_for_the_one_that_did() -> None:
    """Without a single ack, answers are the only proof that a version is loaded anywhere."""
    newer = Deployment(model="m", version="v9", status="holdback", ts=START + 5)
    decisions = decided([newer])
    (rollback,) = [decision for decision in decisions if decision.action == "rollback"]
    assert rollback.to == "v1"
    assert list(rollback.evidence.unfit or ()) == ["v9"]
