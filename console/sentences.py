"""Put decisions into plain sentences: one that a manager understands, made from the decision alone."""

from __future__ import annotations

from typing import Any

from actions.evidence_tree import Slice
from actions.journal import Decision
from actions.reasons import Action, Reason
from unship.text import printable


def sentence(decision: Decision) -> str:
    """Return what happened, in one sentence."""
    model, version, reason = clean(decision.model), clean(decision.version), decision.reason
    where, to = _where(decision.slice), clean(decision.to)
    acts = {
        Action.ROLLBACK: f"{model} was taken back from {version} to {to}",
        Action.PROPOSE: f"{model} should be taken back from {version} to {to}; an operator has to approve",
        Action.OBSERVE: f"{model} would have been taken back from {version} to {to}, but is only being observed",
    }
    if decision.action in acts:
        return f"{acts[decision.action]}{_because(decision, where)}."
    if reason is Reason.HEALTHY:
        return f"{model} {version} is as good as it was."
    if reason is Reason.MIX_SHIFT:
        requests = f"requests{_where(decision.slice, ' with ')}"
        return (
            f"{model} {version} is wrong more often because more {requests} come than before; "
            "the version itself is not worse, so going back would not help."
        )
    if reason is Reason.QUARANTINED and decision.evidence.missing:
        return f"A person is needed for {model} {version}, which is not served: {clean(decision.evidence.missing)}."
    if reason is Reason.OPERATOR_REFUSED and decision.evidence.missing:
        who = decision.evidence.operator
        order = "An order" if not who else f"The act {clean(who.act)} by {clean(who.by)}"
        return f"{order} on {model} was refused: {clean(decision.evidence.missing)}."
    lead = "A person is needed for" if decision.action is Action.PAGE else "Nothing was done about"
    return f"{lead} {model} {version}{where}: {reason.meaning[0].lower()}{reason.meaning[1:]}"


def _because(decision: Decision, where: str) -> str:
    """Return the numbers behind a rollback, where the evidence has them."""
    alarm, comparison = decision.evidence.alarm, decision.evidence.comparison
    if not alarm or not comparison or not alarm.baseline:
        return where
    now, usual = alarm.since_change.mean, alarm.baseline.mean
    text = f": {_rate(now, alarm.loss)}{where}, usually {_rate(usual, alarm.loss, short=True)}"
    if comparison.record:
        past = _rate(comparison.record.today.mean, alarm.loss, short=True)
        return (
            f"{text}; {clean(comparison.target)} had {past} when it served last, counted for the requests of today, "
            "but nothing shows how good it would be now"
        )
    concurrent = comparison.target_since_change.mean
    if concurrent is not None:
        rate = _rate(concurrent, alarm.loss, short=True)
        text += f", while {clean(comparison.target)} had {rate} in the same time"
    return text


def _rate(mean: float, loss: str, short: bool = False) -> str:
    if loss == "zero_one":
        count = f"{100 * mean:.0f} in 100" if mean >= 0.095 else f"{1000 * mean:.0f} in 1000"
        return count if short else f"{count} answers were wrong"
    return f"{mean:.3f}" if short else f"its loss ({loss}) was {mean:.3f}"


def _where(place: Slice | None, lead: str = " for ") -> str:
    if not place:
        return ""
    return lead + ", ".join(f"{clean(name)} {clean(value)}" for name, value in place.items())


def clean(value: Any) -> str:
    """Return a value as text that cannot steer a terminal: names come from events that anybody may have sent.

    >>> clean("v1" + chr(27) + "[2J")
    'v1?[2J'
    """
    return printable(str(value))
