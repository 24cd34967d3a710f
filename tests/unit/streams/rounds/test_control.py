"""What a ledger partition publishes next: nothing for a ledger that does not lead to what journal and commands hold."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from actions.facts import FleetFact
from actions.incidents import alert_bytes
from actions.journal import Decision, decision_bytes
from actions.reconcile import Timing
from streams.config.parse import parse
from streams.fold.fold import Fold
from streams.ledger.coverage import Coverage
from streams.ledger.entries import entry_of
from streams.ledger.records import Deployed, Operated, Record
from streams.rounds.control import ASK_AGAIN_MS, LedgerConflict, LedgerState, Output, Terms, due
from streams.rounds.rewind import Rewind
from tests.keys import BY_DEPLOYER, BY_OPERATOR
from unship.commands import Command
from unship.events import Deployment, OperatorAct

CONFIG = parse("models: {m: {policy: {mode: act}}}")
TERMS = Terms("prod", Timing(), CONFIG.digest())
NOW = 1_700_000_000_000


def deployed(version: str, offset: int) -> Deployed:
    at = ("deployments", 0, offset, 1_000)
    event = Deployment(model="m", version=version, status="live", ts=1 + offset, nonce=f"d-{offset}", at=at)
    return Deployed(-1, event, BY_DEPLOYER)


def rolled_back(to: str, offset: int) -> Operated:
    at = ("operator", 0, offset, 1_000)
    act = OperatorAct(
        act="rollback", model="m", to=to, reason="drill", by="me", override=True, ts=1 + offset, nonce=f"o-{offset}",
        at=at,
    )  # fmt: skip
    return Operated(-1, act, BY_OPERATOR)


LEDGER: Sequence[Record] = (deployed("v1", 0), deployed("v2", 1), rolled_back("v1", 0))


def state_of(records: Sequence[Record] = LEDGER, goal: int | None = None) -> LedgerState:
    """Return a partition that has folded these records of a ledger that ends at `goal`."""
    state = LedgerState(3, Fold(CONFIG))
    state.expect(len(records) if goal is None else goal)
    for offset, record in enumerate(records):
        state.fold.offset = offset
        state.fold.step(entry_of(record))
        state.folded()
    return state


def decision_of(state: LedgerState) -> Decision:
    (decision,) = [each for each in state.decided if each.epoch[1] == 2]
    return decision


def command(epoch: tuple[int, int, int], model: str = "m") -> Command:
    return Command(
        model=model, epoch=epoch, serve="v", quarantine=(), action="deploy", issued_ts=NOW, not_after_ts=NOW + 1,
        audience="prod",
    )  # fmt: skip


def publish(state: LedgerState, now_ms: int = NOW, terms: Terms = TERMS) -> Output:
    """Publish as the service does, with a broker that acknowledges everything."""
    output = due(state, terms, now_ms)
    state.take(output)
    state.decisions_acknowledged(output)
    if state.caught_up:
        state.acknowledged(output, now_ms)
    return output


def test_before_the_end_of_the_ledger_only_decisions_are_due() -> None:
    state = state_of(goal=4)
    decided = list(state.decided)
    assert decided
    assert due(state, TERMS, NOW) == Output(decided)


def test_at_the_end_of_the_ledger_the_newest_command_is_due_and_cites_its_decision() -> None:
    state = state_of()
    decision = decision_of(state)
    output = due(state, TERMS, NOW)
    assert decision in output.decisions
    (only,) = output.commands
    assert (only.serve, only.epoch, only.decision, only.issued_ts) == ("v1", decision.epoch, decision.id, NOW)


def test_what_is_due_changes_nothing() -> None:
    state = state_of()
    assert due(state, TERMS, NOW) == due(state, TERMS, NOW)


def test_what_was_acknowledged_is_not_due_again_but_for_the_heartbeat() -> None:
    state = state_of()
    assert publish(state).commands
    assert publish(state, NOW + 1) == Output()
    assert [each.issued_ts for each in publish(state, NOW + Timing().beat_ms).commands] == [NOW + Timing().beat_ms]


def test_without_a_key_nothing_is_commanded_and_decisions_are_journalled() -> None:
    output = due(state_of(), msgspec.structs.replace(TERMS, audience=None), NOW)
    assert output.decisions
    assert not output.commands


def test_fold_ahead_of_the_journal_is_behind_until_the_journal_has_its_decisions() -> None:
    state = state_of()
    assert state.behind
    output = due(state, TERMS, NOW)
    state.take(output)
    assert state.behind
    state.decisions_acknowledged(output)
    assert not state.behind


def test_another_configuration_is_put_in_force_once() -> None:
    state, terms = state_of(), msgspec.structs.replace(TERMS, config_digest="0" * 64)
    assert publish(state, terms=terms).configuration
    assert not publish(state, terms=terms).configuration


def test_fact_of_the_fleet_is_due_until_it_was_sent_and_again_only_as_another_one() -> None:
    state = state_of()
    publish(state)
    fact, other = (FleetFact(1, name, "m", 9) for name in ("d-1", "d-2"))
    state.fold.fleet.owed[fact.decision] = fact
    assert publish(state).facts == [fact]
    assert publish(state).facts == []
    state.fold.fleet.owed[other.decision] = other
    assert publish(state).facts == [other]


def test_gap_is_requested_at_once_and_again_only_long_after() -> None:
    state = state_of()
    publish(state)
    state.fold.coverage[7] = Coverage(1, [(5, 2), (3, 4)])
    state.fold.gaps.add(7)
    asked = [Rewind(7, (3, 2), state.fold.offset, 1)]
    assert publish(state).rewinds == asked
    assert publish(state, NOW + ASK_AGAIN_MS - 1).rewinds == []
    assert publish(state, NOW + ASK_AGAIN_MS).rewinds == asked
    state.fold.gaps.clear()
    publish(state, NOW + ASK_AGAIN_MS)
    state.fold.gaps.add(7)
    assert publish(state, NOW + ASK_AGAIN_MS).rewinds == asked


def test_ledger_that_ends_before_a_decision_is_a_conflict_with_its_remedy() -> None:
    decision = decision_of(state_of())
    state = LedgerState(3, Fold(CONFIG))
    state.decision_read(decision, decision_bytes(decision))
    with pytest.raises(LedgerConflict, match=r"ledger partition 3 ends at 2.*epoch \[0, 2, 0\].*kafka\.topics\.prefix"):
        state.expect(2)


def test_ledger_that_ends_before_a_command_is_a_conflict() -> None:
    state = LedgerState(3, Fold(CONFIG))
    state.commands_read([command((0, 7, 0))], 0)
    with pytest.raises(LedgerConflict, match="ends at 7"):
        state.expect(7)


def test_command_of_a_higher_epoch_than_the_ledger_explains_is_a_conflict() -> None:
    state = state_of()
    state.commands_read([command((1, 0, 0))], 0)
    with pytest.raises(LedgerConflict, match=r"control holds epoch \[1, 0, 0\].*explains \[0, 2, 0\] at most"):
        due(state, TERMS, NOW)


def test_ledger_that_does_not_lead_to_a_journalled_decision_is_a_conflict() -> None:
    decision = decision_of(state_of())
    state = LedgerState(3, Fold(CONFIG))
    state.decision_read(decision, decision_bytes(decision))
    state.expect(3)
    state.fold.offset = 3
    with pytest.raises(LedgerConflict, match="does not lead to the decision of epoch"):
        due(state, TERMS, NOW)


def test_decision_that_the_journal_has_already_is_reproduced_and_not_written_again() -> None:
    state = state_of()
    decision = decision_of(state)
    state.decision_read(decision, decision_bytes(decision))
    state.expect(3)
    state.fold.offset = 3
    output = publish(state)
    assert decision not in output.decisions
    assert output.reproduced == {"m"}


def test_journal_with_another_decision_of_the_same_epoch_is_a_conflict() -> None:
    state = state_of()
    state.decision_read(msgspec.structs.replace(decision_of(state), outcomes=99), b"another one")
    with pytest.raises(LedgerConflict, match="the journal holds another one of epoch"):
        due(state, TERMS, NOW)


def test_decision_before_the_snapshot_is_not_expected_again() -> None:
    state = LedgerState(3, Fold(CONFIG))
    decision = decision_of(state_of())
    state.fold.offset = 8
    state.decision_read(decision, decision_bytes(decision))
    state.expect(9)
    state.fold.offset = 9
    assert due(state, TERMS, NOW) == Output()


UNSIGNED = Deployed(-1, Deployment(model="m", version="v3", status="live", ts=9, at=("deployments", 0, 2, 1_000)))


def test_alerts_are_due_once_the_ledger_is_folded_and_hold_the_snapshot_back_until_acknowledged() -> None:
    state = state_of((*LEDGER, UNSIGNED), goal=5)
    assert publish(state).alerts == []
    state.expect(4)
    assert state.behind
    output = publish(state)
    assert [(alert.status, alert.reason) for alert in output.alerts] == [("firing", "UNSIGNED_DEPLOYMENT")]
    assert not state.behind
    assert publish(state).alerts == []


def test_alerts_that_the_topic_holds_are_not_appended_again_after_a_take_over() -> None:
    first = publish(state_of((*LEDGER, UNSIGNED)))
    state = LedgerState(3, Fold(CONFIG))
    state.alerts_read([None, b"{", *(alert_bytes(alert) for alert in first.alerts)])
    state.expect(4)
    for offset, record in enumerate((*LEDGER, UNSIGNED)):
        state.fold.offset = offset
        state.fold.step(entry_of(record))
        state.folded()
    assert (first.alerts != [], publish(state).alerts) == (True, [])
