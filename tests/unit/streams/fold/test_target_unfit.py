"""A target that nobody could serve is passed over: the next one is asked, or a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from actions.journal import Decision
from actions.reasons import Reason
from tests.pipelines import Run
from tests.plans import EVERYTHING, Plan, config_of, events_of
from unship.codec import encode_line
from unship.events import Ack, Deployment, Event

PLAN: Plan = msgspec.structs.replace(EVERYTHING, slices=False, sources=1, noise=False)
#: v1 was the first to be ordered, by the record after the configuration.
ORDER_OF_V1, ORDER_OF_V2 = (0, 1, 0), (0, 2, 0)


def decided(extra: Sequence[Event], plan: Plan = PLAN) -> list[Decision]:
    """Return the decisions on a version that decays beside a good one, with more events between."""
    events = [*(event for _, event in events_of(plan)), *extra]
    events.sort(key=lambda event: event.ts or 0)
    made = Run(config_of(plan))
    made.take(map(encode_line, events))
    return made.decisions


START = events_of(PLAN)[0][1].ts or 0


def ack(after: int, replica: str, stage: Any, epoch: Any, code: Any = None) -> Ack:
    ts = START + after
    return Ack(model="m", replica=replica, boot="b", epoch=epoch, stage=stage, serving="v2", code=code, ts=ts)


def test_target_that_all_replicas_refused_is_paged_with_why_and_taken_once_one_has_it() -> None:
    refused = [ack(2_000 + i, f"r-{i}", "refused", ORDER_OF_V1, "LOAD_FAILED") for i in range(2)]
    decisions = decided(refused)
    unfit = next(decision for decision in decisions if decision.reason == "TARGET_UNFIT")
    assert (unfit.action, unfit.to) == ("page", None)
    assert unfit.evidence.unfit == {"v1": "every replica that answered refused it"}
    assert "rollback" not in [decision.action for decision in decisions]
    late = ack(unfit.ts - START + 3_000, "r-1", "staged", ORDER_OF_V1)
    decisions = decided([*refused, late])
    (rollback,) = [decision for decision in decisions if decision.action == "rollback"]
    assert rollback.to == "v1"
    assert rollback.ts >= (late.ts or 0)
    assert decisions.index(rollback) > [decision.reason for decision in decisions].index(Reason.TARGET_UNFIT)


def test_one_refusal_among_replicas_that_have_the_target_stops_nothing() -> None:
    words = [ack(2_000, "r-1", "refused", ORDER_OF_V1, "LOAD_FAILED"), ack(2_001, "r-2", "staged", ORDER_OF_V1)]
    assert "rollback" in [decision.action for decision in decided(words)]


def test_refusal_of_the_version_that_decays_says_nothing_of_the_target() -> None:
    words = [ack(2_000, "r-1", "refused", ORDER_OF_V2, "LOAD_FAILED")]
    assert "rollback" in [decision.action for decision in decided(words)]


def test_holdback_that_was_announced_and_never_answered_is_passed_over_for_the_one_that_did() -> None:
    """Without a single ack, answers are the only proof that a version is loaded anywhere."""
    newer = Deployment(model="m", version="v9", status="holdback", ts=START + 5)
    decisions = decided([newer])
    (rollback,) = [decision for decision in decisions if decision.action == "rollback"]
    assert rollback.to == "v1"
    assert list(rollback.evidence.unfit or ()) == ["v9"]


def test_earlier_version_known_by_its_record_alone_is_no_target_if_every_replica_refused_it() -> None:
    alone = msgspec.structs.replace(PLAN, beside="none", before=1_200, without_control="act", mature_after_s=0)
    (free,) = [decision for decision in decided([], alone) if decision.action == "rollback"]
    assert (free.reason, free.to) == ("RECORD_BETTER", "v1")
    # Said shortly before, because a replica of which nothing is heard for an hour is gone.
    refused = [ack(free.ts - START - 5_000, "r-1", "refused", ORDER_OF_V1, "LOAD_FAILED")]
    decisions = decided(refused, alone)
    assert "rollback" not in [decision.action for decision in decisions]
    unfit = next(decision for decision in decisions if decision.reason == "TARGET_UNFIT")
    assert list(unfit.evidence.unfit or ()) == ["v1"]
