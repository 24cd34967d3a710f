"""Decisions become incidents: one for each version, one for each kind of notice, and what resolves them."""

from __future__ import annotations

from typing import Any

import pytest

from actions.evidence_tree import Evidence
from actions.incidents import CLOSED_MAX, NOTICES, OPEN_MAX, Alert, Incidents, Switch, incident_id
from actions.journal import Decision
from actions.reasons import Action, Reason, Verdict
from tests.decisions import decision as made


def decision(reason: Reason, ts: int = 100, action: Action | None = None, **changes: Any) -> Decision:
    given = {"reason": reason, "verdict": reason.verdict, "action": action or reason.action, "ts": ts}
    return made(Evidence(), **(given | changes))


HEALTHY = decision(Reason.HEALTHY, 900)
NO_SWITCH = lambda model, left: None  # noqa: E731


def fired(incidents: Incidents, *decisions: Decision, serve: str | None = "v2") -> list[Alert]:
    return incidents.decided(decisions, lambda model: serve, 100)


@pytest.mark.parametrize(
    ("reason", "action", "severity"),
    [
        (Reason.TARGET_BETTER, Action.ROLLBACK, "page"),
        (Reason.RECORD_BETTER, Action.PROPOSE, "page"),
        (Reason.TARGET_BETTER, Action.OBSERVE, "page"),
        (Reason.BLIND, Action.PAGE, "page"),
        (Reason.CHURN, Action.PAGE, "notice"),
        (Reason.UNSIGNED_DEPLOYMENT, Action.PAGE, "notice"),
        (Reason.QUARANTINED, Action.PAGE, "notice"),
        (Reason.DEPLOYED_WHILE_PINNED, Action.PAGE, "notice"),
        (Reason.CONFIRMING, Action.NONE, None),
        (Reason.HEALTHY, Action.NONE, None),
        (Reason.OPERATOR_ROLLBACK, Action.ROLLBACK, None),
    ],
)
def test_page_proposal_rollback_and_observation_open_an_incident(
    reason: Reason, action: Action, severity: str | None
) -> None:
    found = fired(Incidents(), decision(reason, action=action))
    assert [alert.severity for alert in found] == ([] if severity is None else [severity])


def test_later_decisions_on_a_version_go_on_with_its_incident() -> None:
    incidents = Incidents()
    first, second = fired(
        incidents,
        decision(Reason.NOT_CONFIRMED, 100, id="d-1"),
        decision(Reason.TARGET_BETTER, 160, id="d-2", to="v1"),
    )
    assert (first.incident, first.started_ts, first.ts) == (incident_id("m", "v2"), 100, 100)
    assert (second.incident, second.started_ts, second.ts) == (first.incident, 100, 160)
    assert (second.reason, second.decision, second.action, second.to) == ("TARGET_BETTER", "d-2", "rollback", "v1")


def test_changes_at_the_same_instant_have_different_times() -> None:
    found = fired(Incidents(), decision(Reason.NOT_CONFIRMED), decision(Reason.TARGET_BETTER), HEALTHY, HEALTHY)
    assert [(alert.status, alert.ts) for alert in found] == [("firing", 100), ("firing", 101), ("resolved", 900)]


def test_health_resolves_the_incident_of_that_version_and_no_notice() -> None:
    incidents = Incidents()
    fired(incidents, decision(Reason.NOT_CONFIRMED), decision(Reason.CHURN), decision(Reason.BLIND, version="v3"))
    (alert,) = fired(incidents, HEALTHY)
    assert (alert.status, alert.incident, alert.reason) == ("resolved", incident_id("m", "v2"), "NOT_CONFIRMED")
    assert alert.summary == Reason.HEALTHY.meaning
    assert set(incidents.open["m"]) == {incident_id("m", "v2", "CHURN"), incident_id("m", "v3")}


def test_rollback_is_resolved_once_all_living_replicas_obey() -> None:
    incidents = Incidents()
    fired(incidents, decision(Reason.TARGET_BETTER, to="v1"), serve="v1")
    asked: list[tuple[str, str | None]] = []

    def switch(model: str, left: str | None) -> Switch | None:
        asked.append((model, left))
        return Switch("v1", 3) if len(asked) > 1 else None

    assert incidents.switched(switch, 200) == []
    (alert,) = incidents.switched(switch, 300)
    assert asked == [("m", "v2")] * 2
    assert (alert.status, alert.ts, alert.summary) == ("resolved", 300, "v1 serves now: all 3 living replicas obey.")
    assert incidents.open == {}


def test_notice_waits_for_a_switch_away_from_what_served_when_it_came() -> None:
    incidents = Incidents()
    fired(incidents, decision(Reason.QUARANTINED, version="v2"), serve="v1")
    asked: list[str | None] = []

    def switch(model: str, left: str | None) -> Switch | None:
        asked.append(left)
        return None

    assert incidents.switched(switch, 200) == []
    assert asked == ["v1"]


@pytest.mark.parametrize(
    ("act", "version", "reasons", "resolved"),
    [
        ("approve", None, [], 2),
        ("reject", None, [Reason.REJECTED], 2),
        ("pin", None, [], 2),
        ("resume", None, [], 2),
        ("release", "v2", [], 1),
        ("release", "v9", [], 0),
        ("approve", None, [Reason.APPROVED], 0),
        ("reject", None, [Reason.OPERATOR_REFUSED], 0),
        ("rollback", None, [Reason.OPERATOR_ROLLBACK], 0),
        ("hold", None, [], 0),
    ],
)
def test_act_of_an_operator_settles_what_is_open_unless_it_is_refused_or_only_holds(
    act: str, version: str | None, reasons: list[Reason], resolved: int
) -> None:
    incidents = Incidents()
    fired(incidents, decision(Reason.NOT_CONFIRMED), decision(Reason.CHURN, version="v3"))
    found = incidents.acted("m", act, version, [decision(reason) for reason in reasons], 500)
    assert [alert.status for alert in found] == ["resolved"] * resolved
    assert incidents.acted("other", act, version, [], 500) == []


def test_rollback_by_an_operator_goes_on_with_an_open_incident() -> None:
    incidents = Incidents()
    fired(incidents, decision(Reason.NOT_CONFIRMED))
    (alert,) = fired(incidents, decision(Reason.OPERATOR_ROLLBACK, 200, to="v1"))
    assert (alert.status, alert.started_ts, alert.reason) == ("firing", 100, "OPERATOR_ROLLBACK")


def test_incident_that_opens_again_has_the_same_id_and_a_later_time() -> None:
    incidents = Incidents()
    (first,) = fired(incidents, decision(Reason.NOT_CONFIRMED, 500))
    (closed,) = incidents.acted("m", "resume", None, [], 500)
    (again,) = fired(incidents, decision(Reason.TARGET_BETTER, 500))
    assert first.incident == closed.incident == again.incident
    assert (first.ts, closed.ts, again.ts, again.started_ts) == (500, 501, 502, 502)


def test_incident_of_a_model_that_is_forgotten_is_resolved() -> None:
    incidents = Incidents()
    fired(incidents, decision(Reason.BLIND))
    (alert,) = incidents.forgotten("m", 700)
    assert (alert.status, alert.summary) == ("resolved", "The model is not watched any more.")
    assert incidents.forgotten("m", 800) == []


def test_open_and_remembered_incidents_are_bounded_and_notices_leave_first() -> None:
    incidents = Incidents()
    fired(incidents, decision(Reason.NOT_CONFIRMED))
    for number in range(CLOSED_MAX + 2 * OPEN_MAX):
        fired(incidents, decision(Reason.QUARANTINED, number, version=f"w{number}"))
    assert len(incidents.open["m"]) == OPEN_MAX
    assert incident_id("m", "v2") in incidents.open["m"]
    assert len(incidents.closed) == CLOSED_MAX


def test_notices_are_known_reasons_or_those_of_records_that_are_not_in_the_ledger() -> None:
    assert {name for name in NOTICES if name not in Reason.__members__} <= {"UNANNOUNCED_VERSION", "FORGED_CONTROL"}
    assert Reason.HEALTHY.verdict == Verdict.HEALTHY
