"""Decisions in plain words: the sentence that a manager understands, made from the decision alone."""

from typing import Any

from actions.reasons import Reason, meaning_of
from unship.text import printable

Decision = dict[str, Any]


def sentence(decision: Decision) -> str:
    """Return what happened, in one sentence.

    Args:
        decision: a decision as it is written to the journal.
    """
    model, version, action = clean(decision["model"]), clean(decision["version"]), decision["action"]
    where = _where(decision["slice"])
    if action in ("rollback", "propose", "observe"):
        to = clean(decision["to"])
        done = {
            "rollback": f"{model} was taken back from {version} to {to}",
            "propose": f"{model} should be taken back from {version} to {to}; an operator has to approve",
            "observe": f"{model} would have been taken back from {version} to {to}, but is only being observed",
        }[action]
        return f"{done}{_because(decision, where)}."
    reason = decision["reason"]
    if reason == Reason.HEALTHY:
        return f"{model} {version} is as good as it was."
    if reason == Reason.MIX_SHIFT:
        requests = f"requests{_where(decision['slice'], ' with ')}"
        return (
            f"{model} {version} is wrong more often because more {requests} come than before; "
            "the version itself is not worse, so going back would not help."
        )
    meaning = meaning_of(reason)
    lead = "A person is needed for" if action == "page" else "Nothing was done about"
    return f"{lead} {model} {version}{where}: {meaning[0].lower()}{meaning[1:]}"


def _because(decision: Decision, where: str) -> str:
    """Return the numbers behind a rollback, where the evidence has them."""
    evidence = decision.get("evidence") or {}
    alarm, comparison = evidence.get("alarm"), evidence.get("comparison")
    if not alarm or not comparison or not alarm.get("baseline"):
        return where
    now, usual = alarm["since_change"]["mean"], alarm["baseline"]["mean"]
    text = f": {_rate(now, alarm['loss'])}{where}, usually {_rate(usual, alarm['loss'], short=True)}"
    if comparison["basis"] == "record":
        past = _rate(comparison["record"]["today"]["mean"], alarm["loss"], short=True)
        return (
            f"{text}; {clean(comparison['target'])} had {past} when it served last, counted for the requests of today, "
            "but nothing shows how good it would be now"
        )
    beside = comparison["target_since_change"]["mean"]
    if beside is not None:
        text += f", while {clean(comparison['target'])} beside it had {_rate(beside, alarm['loss'], short=True)}"
    return text


def _rate(mean: float, loss: str, short: bool = False) -> str:
    if loss == "zero_one":
        count = f"{100 * mean:.0f} in 100" if mean >= 0.095 else f"{1000 * mean:.0f} in 1000"
        return count if short else f"{count} answers were wrong"
    return f"{mean:.3f}" if short else f"its loss ({loss}) was {mean:.3f}"


def _where(place: dict[str, Any] | None, lead: str = " for ") -> str:
    if not place:
        return ""
    return lead + ", ".join(f"{clean(name)} {clean(value)}" for name, value in place.items())


def clean(value: Any) -> str:
    """Return a value as text that cannot steer a terminal: names come from events that anybody may have sent.

    >>> clean("v1" + chr(27) + "[2J")
    'v1?[2J'
    """
    return printable(str(value))
