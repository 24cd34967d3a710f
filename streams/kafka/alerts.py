"""What people are alerted of: decisions that did something or need a person, one line each."""

import msgspec

from actions.journal import Decision
from actions.reasons import Action, meaning_of


def alert_text(value: bytes | None) -> str | None:
    """Return one line about a decision that a person should know of, None for the others.

    >>> alert_text(b"no decision") is None
    True
    """
    try:
        decision = msgspec.json.decode(value or b"", type=Decision)
        meaning = meaning_of(decision.reason)
    except (msgspec.DecodeError, ValueError):
        return None
    if decision.action == Action.NONE:
        return None
    to = f" to {decision.to!r}" if decision.to else ""
    return (
        f"{decision.model!r} {decision.version!r}: {decision.action}{to}, {decision.reason} ({meaning}) {decision.id}"
    )
