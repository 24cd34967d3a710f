"""What people are alerted of: decisions that did something or need a person, one line each."""

from actions.journal import read_decision
from actions.reasons import Action, meaning_of


def alert_text(value: bytes | None) -> str | None:
    """Return one line about a decision that a person should know of, None for the others.

    >>> alert_text(b"no decision") is None
    True
    """
    decision = read_decision(value)
    if decision is None or decision.action == Action.NONE:
        return None
    try:
        meaning = meaning_of(decision.reason)
    except ValueError:
        return None
    to = f" to {decision.to!r}" if decision.to else ""
    return (
        f"{decision.model!r} {decision.version!r}: {decision.action}{to}, {decision.reason} ({meaning}) {decision.id}"
    )
