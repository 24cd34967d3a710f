"""Write the alerts for people: one line for each decision that did something or needs a person."""

from __future__ import annotations

from actions.journal import read_decision
from actions.reasons import Action, Reason


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
