"""Write the alerts for people: what a decision that did something, or needs a person, is to them."""

from __future__ import annotations

from typing import Literal

import msgspec

from actions.journal import read_decision
from actions.reasons import Action, Reason

NOTICES = (Reason.CHURN, Reason.UNANNOUNCED_VERSION, Reason.UNSIGNED_DEPLOYMENT)
"""Reasons that concern how versions are deployed, and not whether the one that serves is worse."""

SENT = (Action.PAGE, Action.PROPOSE, Action.ROLLBACK)


class Alert(msgspec.Struct, frozen=True, tag="alert"):
    """Report a decision to a person, by its id: one that comes twice is the same alert. `ts` is its time in ms."""

    decision: str
    status: Literal["firing"]
    severity: Literal["page", "notice"]
    model: str
    version: str
    action: str
    to: str | None
    reason: str
    summary: str
    ts: int


def alert_of(value: bytes | None) -> Alert | None:
    """Return the alert for a record of the journal, None where nobody needs one.

    >>> alert_of(b"no decision") is None
    True
    """
    decision = read_decision(value)
    if decision is None or decision.action not in SENT:
        return None
    reason = Reason.__members__.get(decision.reason)
    if reason is None:
        return None
    return Alert(
        decision=decision.id,
        status="firing",
        severity="notice" if reason in NOTICES else "page",
        model=decision.model,
        version=decision.version,
        action=decision.action,
        to=decision.to,
        reason=reason,
        summary=reason.meaning,
        ts=decision.ts,
    )


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
