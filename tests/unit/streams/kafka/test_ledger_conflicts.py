"""A controller speaks only for a ledger that leads to everything the journal and the commands hold of it."""

import asyncio
from typing import Any

import pytest

from actions.evidence_tree import Evidence
from actions.journal import Decision, Digests, Provenance, decision_bytes, digest_of
from actions.reconcile import Timing
from streams.config.file import load
from streams.fold.fold import Fold
from streams.kafka.clients import Access
from streams.kafka.control_service import Controller, LedgerConflict, _Partition
from unship.commands import Command
from unship.topics import TopicNames

EPOCH = (0, 7, 0)


def taken_over(goal: int) -> tuple[Controller, _Partition]:
    config = load(None)
    controller = Controller(Access({}, TopicNames()), config, lambda: 0, None, Timing())
    partition = _Partition(0, Fold(config), None)
    partition.goal = goal
    return controller, partition


def decided(epoch: tuple[int, int, int] = EPOCH) -> Decision:
    names = dict.fromkeys(("model", "version", "action", "verdict", "reason", "mode"), "x")
    more: dict[str, Any] = {
        "to": None,
        "ts": 0,
        "slice": None,
        "outcomes": 0,
        "evidence": Evidence(),
        "provenance": Provenance(ledger=(0, 0)),
        "digests": Digests(previous="", ledger="", config=""),
    }
    return Decision(id="d", epoch=epoch, **names, **more)  # type: ignore[arg-type]


def journalled(decision: Decision) -> tuple[tuple[int, int, int], str]:
    return decision.epoch, digest_of(decision_bytes(decision))


def test_ledger_that_ends_before_a_decision_is_a_conflict_that_says_what_to_do() -> None:
    controller, partition = taken_over(goal=7)
    partition.journalled["x"] = journalled(decided())
    with pytest.raises(LedgerConflict, match=r"ledger partition 0 ends at 7.*epoch \[0, 7, 0\].*kafka\.topics\.prefix"):
        controller._expect(partition)


def test_ledger_that_ends_before_a_command_is_a_conflict() -> None:
    controller, partition = taken_over(goal=7)
    partition.published["x"] = Command(
        model="x", epoch=EPOCH, serve="v", artifact=None, quarantine=(), action="deploy", decision=None,
        issued_ts=0, not_after_ts=1, audience="default",
    )  # fmt: skip
    with pytest.raises(LedgerConflict, match="ends at 7"):
        controller._expect(partition)


def test_ledger_that_does_not_lead_to_a_journalled_decision_is_a_conflict() -> None:
    controller, partition = taken_over(goal=8)
    partition.journalled["x"] = journalled(decided())
    controller._expect(partition)
    with pytest.raises(LedgerConflict, match="does not lead to the decision of epoch"):
        controller._explained(partition)


def test_ledger_that_leads_to_the_journalled_decision_again_is_none() -> None:
    controller, partition = taken_over(goal=8)
    partition.journalled["x"] = journalled(decided())
    controller._expect(partition)
    asyncio.run(controller._journal(partition, [decided()]))
    controller._explained(partition)


def test_decision_before_the_snapshot_is_not_asked_for_again() -> None:
    controller, partition = taken_over(goal=9)
    partition.fold.offset = 8
    partition.journalled["x"] = journalled(decided())
    controller._expect(partition)
    controller._explained(partition)
