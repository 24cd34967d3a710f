"""Group decisions into incidents: what is open for people, since when, and by what it was resolved.

An incident is open for one version of a model from its first page, proposal, rollback or observation on. It is resolved
when a decision finds the version healthy, when replicas obey a switch to another version, or by an operator's act.
Notices, which concern how versions are deployed, have incidents of their own, one for each reason; health does not
resolve these. Each change is one alert.

Everything is a function of the ledger: a fold that steps the same records makes the same alerts, with the same times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from actions.journal import Decision, read_decision
from actions.reasons import Action, Reason
from unship.budgets.table import INCIDENTS

NOTICES = frozenset(
    (
        "UNANNOUNCED_VERSION",
        "CHURN",
        "FORGED_CONTROL",
        "QUARANTINED",
        "DEPLOYED_WHILE_PINNED",
        "UNSIGNED_DEPLOYMENT",
    )
)
"""Reasons that concern how versions are deployed, and not whether the one that serves is worse."""

SENT = (Action.PAGE, Action.PROPOSE, Action.ROLLBACK, Action.OBSERVE)
"""Actions that a person should know of."""

OPEN_MAX = INCIDENTS.limit
"""Open incidents of a model."""

CLOSED_MAX = 1_000
"""Resolved incidents whose time is remembered, so that one that opens again has a later one."""

SETTLING_ACTS = ("approve", "reject", "pin", "unpin", "resume", "release")
"""Acts by which an operator settles what is open. A rollback is settled once replicas obey it, and a hold nothing."""

OPERATED = (Reason.OPERATOR_ROLLBACK, Reason.APPROVED)
"""Reasons of an operator's own order: they go on with an incident, and open none."""


Status = Literal["firing", "resolved"]
Severity = Literal["page", "notice"]


class Alert(msgspec.Struct, frozen=True, tag="alert", kw_only=True):
    """Report the state of an incident after a change of it; times are in ms.

    Two records with the same `incident` and `ts` are one change, appended twice. `reason`, `action` and `decision` are
    those of the incident's last decision, also where it is resolved; `summary` is a sentence for people.
    """

    incident: str
    status: Status
    severity: Severity
    model: str
    version: str
    reason: str
    summary: str
    decision: str
    started_ts: int
    ts: int
    action: str
    to: str | None = None
    url: str | None = None


_decoder = msgspec.json.Decoder(Alert)
_encoder = msgspec.json.Encoder()


DECISION_PATH = "/v1/decisions?id="
"""Where the web of a monitor shows a decision, by its id."""


def alert_bytes(alert: Alert, decisions: str | None = None) -> bytes:
    """Return the value of an alert's record; its key is the incident's id.

    Args:
        alert: The alert, which has no `url` where it comes from a fold.
        decisions: The address of a decision but for its id, None where there is no web.
    """
    if decisions is not None:
        alert = msgspec.structs.replace(alert, url=decisions + alert.decision)
    return _encoder.encode(alert)


def read_alert(value: bytes | None) -> Alert | None:
    """Return the alert that a record of `alerts` holds, None if it holds none.

    >>> read_alert(b"no alert") is None
    True
    """
    try:
        return _decoder.decode(value or b"")
    except ValueError:
        return None


class Incident(msgspec.Struct, frozen=True):
    """An open incident: its last alert, and the version that a switch has to leave."""

    alert: Alert
    left: str | None


class Switch(msgspec.Struct, frozen=True):
    """A switch that is obeyed: to which version, by how many living replicas; none, where only its answers show it."""

    to: str
    replicas: int


class Incidents(msgspec.Struct):
    """Hold the open incidents of the models of one ledger partition; each method returns the alerts that follow."""

    open: dict[str, dict[str, Incident]] = {}
    closed: dict[str, int] = {}

    def acted(self, model: str, act: str, version: str | None, decisions: Iterable[Decision], now: int) -> list[Alert]:
        """Take an operator's act: it resolves what is open of the model, unless the order was refused.

        Args:
            model: The model's name.
            act: What was ordered.
            version: Which version the order names; a release concerns only the incidents of that one.
            decisions: What the act led to.
            now: The clock of the ledger, in ms.
        """
        if act not in SETTLING_ACTS or model not in self.open:
            return []
        reasons = [decision.reason for decision in decisions if decision.model == model]
        if any(reason in reasons for reason in (Reason.OPERATOR_REFUSED, Reason.APPROVED, Reason.CONFIRMING)):
            # A rollback that was approved is resolved once it is obeyed, and a raised share settles nothing.
            return []
        found = [each for each in self.open[model].values() if act != "release" or version == each.alert.version]
        return [self._resolve(each, f"An operator settled it: {act}.", now) for each in found]

    def decided(self, decisions: Iterable[Decision], serving: Callable[[str], str | None], now: int) -> list[Alert]:
        """Take decisions in their order; `serving` returns which version of a model should serve now."""
        alerts: list[Alert] = []
        for decision in decisions:
            known = self.open.get(decision.model, {})
            if decision.action in SENT:
                alerts += self._fire(decision, serving(decision.model), now)
            elif decision.reason == Reason.HEALTHY:
                found = known.get(incident_id(decision.model, decision.version))
                if found is not None:
                    alerts.append(self._resolve(found, Reason.HEALTHY.meaning, decision.ts))
        return alerts

    def forgotten(self, model: str, now: int) -> list[Alert]:
        """Resolve what is open of a model that is not watched any more."""
        found = list(self.open.get(model, {}).values())
        return [self._resolve(each, "The model is not watched any more.", now) for each in found]

    def switched(self, switch: Callable[[str, str | None], Switch | None], now: int) -> list[Alert]:
        """Resolve what a switch has ended.

        Args:
            switch: Returns the obeyed switch of a model away from a version, None if there is none.
            now: The clock of the ledger, in ms.
        """
        alerts: list[Alert] = []
        for model in list(self.open):
            for each in list(self.open[model].values()):
                found = switch(model, each.left)
                if found is not None:
                    alerts.append(self._resolve(each, _sentence_of(found), now))
        return alerts

    def _fire(self, decision: Decision, serve: str | None, now: int) -> list[Alert]:
        known = self.open.get(decision.model, {})
        notice = decision.reason in NOTICES
        name = incident_id(decision.model, decision.version, decision.reason if notice else "")
        before = known.get(name)
        if before is None and decision.reason in OPERATED:
            return []
        ts = self._time(decision.model, name, decision.ts)
        alert = Alert(
            incident=name,
            status="firing",
            severity="notice" if notice else "page",
            model=decision.model,
            version=decision.version,
            reason=decision.reason,
            summary=decision.reason.meaning,
            decision=decision.id,
            started_ts=ts if before is None else before.alert.started_ts,
            ts=ts,
            action=decision.action,
            to=decision.to,
        )
        alerts = []
        if before is None and len(known) >= OPEN_MAX:
            oldest = min(known.values(), key=lambda each: (each.alert.severity == "page", each.alert.ts))
            alerts.append(self._resolve(oldest, f"Closed, because {OPEN_MAX} newer ones of the model are open.", now))
        left = serve if before is None else before.left
        if decision.action == Action.ROLLBACK:
            left = decision.version
        self.open.setdefault(decision.model, {})[name] = Incident(alert, left)
        return [*alerts, alert]

    def _resolve(self, incident: Incident, summary: str, now: int) -> Alert:
        last = incident.alert
        ts = self._time(last.model, last.incident, now)
        known = self.open[last.model]
        del known[last.incident]
        if not known:
            del self.open[last.model]
        self.closed[last.incident] = ts
        while len(self.closed) > CLOSED_MAX:
            del self.closed[next(iter(self.closed))]
        return msgspec.structs.replace(last, status="resolved", summary=summary, ts=ts)

    def _time(self, model: str, name: str, now: int) -> int:
        """Return the time of the next change of an incident of a model, which is later than its last one."""
        found = self.open.get(model, {}).get(name)
        return max(now, self.closed.pop(name, -1) + 1, 0 if found is None else found.alert.ts + 1)


def incident_id(model: str, version: str, kind: str = "") -> str:
    """Return the id of the incident of a version, or of a kind of notice about it: always the same one.

    >>> incident_id("fraud", "v42")
    'i-532bbcab4e34'
    """
    digest = hashlib.sha256(f"{model}\x00{version}\x00{kind}".encode()).hexdigest()
    return f"i-{digest[:12]}"


def _sentence_of(found: Switch) -> str:
    if not found.replicas:
        return f"{found.to} serves now: no replica reports, and the version that it replaced answers no more."
    return f"{found.to} serves now: all {found.replicas} living replicas obey."


def alert_text(value: bytes | None) -> str | None:
    """Return one line about a decision that a person should know of, None for the others.

    >>> alert_text(b"no decision") is None
    True
    """
    decision = read_decision(value)
    if decision is None or decision.action == Action.NONE:
        return None
    reason = Reason.__members__.get(decision.reason)
    if reason is None:
        return None
    act = f"{decision.action} to {decision.to!r}" if decision.to else decision.action
    return f"{decision.model!r} {decision.version!r}: {act}, {reason} ({reason.meaning}) {decision.id}"
