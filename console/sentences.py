"""Put decisions into plain sentences: one that a manager understands, made from the decision alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from msgspec import UNSET

from actions.evidence_tree import DetectableReport, HoldbackReport, LearningReport, Slice
from actions.journal import Decision
from actions.reasons import Action, Reason
from console.times import shown_time
from streams.config.units import percent
from unship.text import printable

DENOMINATORS = (100, 1_000, 10_000, 100_000, 1_000_000)
DIGITS_LEAST = 9.5
"""What the smallest rate of a sentence is at least, over their common denominator: about two digits."""


def sentence(decision: Decision) -> str:
    """Return what happened, in one sentence."""
    model, version, reason = clean(decision.model), clean(decision.version), decision.reason
    where, to = _where(decision.slice), clean(decision.to)
    acts = {
        Action.ROLLBACK: f"{model} was taken back from {version} to {to}",
        Action.PROPOSE: f"{model} should be taken back from {version} to {to}; an operator has to approve",
        Action.OBSERVE: f"{model} would have been taken back from {version} to {to}, but is only being observed",
    }
    if decision.reason is Reason.CONFIRMING and decision.evidence.holdback:
        asks = "; an operator has to approve" if decision.action is Action.PROPOSE else ""
        return f"{model} {version} got worse{where}; {held_back(decision.evidence.holdback)}{asks}."
    if decision.action in acts:
        return f"{acts[decision.action]}{_because(decision, where)}."
    if reason is Reason.HEALTHY:
        return f"{model} {version} shows no sign that it got worse{_within(decision)}."
    if reason is Reason.LEARNING and decision.evidence.learning is not UNSET:
        return f"It is not known yet whether {model} {version} got worse: {missing(decision.evidence.learning)}."
    if reason is Reason.MIX_SHIFT:
        requests = f"requests{_where(decision.slice, ' with ')}"
        return (
            f"{model} {version} is wrong more often because more {requests} come than before; "
            "the version itself is not worse, so going back would not help."
        )
    if reason is Reason.QUARANTINED and decision.evidence.missing:
        return f"A person is needed for {model} {version}, which is not served: {clean(decision.evidence.missing)}."
    if reason is Reason.COVERAGE_SHIFT and decision.evidence.lost:
        lost = decision.evidence.lost
        what = f"with{_where(lost.slice, ' ')}" if lost.slice else f"answered with {clean(lost.output)}"
        before, now = (f"{100 * share.mean:.0f}" for share in (lost.before, lost.now))
        return (
            f"A person is needed for {model} {version}: of requests {what} {now} in 100 get a label, and "
            f"{before} before, so the outcomes cannot be compared with earlier ones."
        )
    if reason is Reason.IMPLAUSIBLE_LABELS and decision.evidence.classes:
        classes = decision.evidence.classes
        return (
            f"A person is needed for {model} {version}: answers are {clean(', '.join(classes.answers))} and labels "
            f"{clean(', '.join(classes.truths))}, and {classes.wrong} of {classes.outcomes} differ; one of the two is "
            "probably coded in another way."
        )
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
    past, concurrent = comparison.record, comparison.target_since_change.mean
    other = past.today.mean if past else concurrent
    means = [alarm.since_change.mean, alarm.baseline.mean, *([] if other is None else [other])]
    now, usual, *others = rates(means, alarm.loss)
    what = f"{now} answers were wrong" if alarm.loss == "zero_one" else f"its loss ({clean(alarm.loss)}) was {now}"
    text = f": {what}{where}{_not_alone(decision) if where else ''}, usually {usual}"
    if past:
        return (
            f"{text}; {clean(comparison.target)} had {others[0]} when it served last, counted for the requests of "
            "today, but nothing shows how good it would be now"
        )
    if others:
        text += f", while {clean(comparison.target)} had {others[0]} in the same time"
    if decision.reason is Reason.FEW_UNITS and comparison.units:
        fewer = min(comparison.units.target, comparison.units.candidate)
        text += f"; one of the two was asked by {fewer:,} units only, which may differ from those of the other"
    return text


def _not_alone(decision: Decision) -> str:
    """Return that a slice is not worse than the rest, so that nobody looks for the fault there alone."""
    known = decision.evidence.slices or []
    singled_out = next((entry.singled_out for entry in known if entry.slice == decision.slice), True)
    return "" if singled_out else " (not shown to be worse than the rest)"


def _within(decision: Decision) -> str:
    """Return what a decision of health is worth."""
    report = decision.evidence.detectable
    return "" if report is UNSET else f"; {would_have_shown(report)}"


def would_have_shown(report: DetectableReport) -> str:
    """Return which rise would have shown in the outcomes so far.

    >>> would_have_shown(DetectableReport("zero_one", 0.0312, 2_000, None, None))
    'a rise of 32 in 1,000 or more would have shown'
    """
    if report.rise is None:
        return "which rise would have shown is not known"
    return f"a rise of {risen(report.rise, report.loss)} or more would have shown"


def missing(report: LearningReport) -> str:
    """Return how many outcomes are missing, and when they are expected.

    >>> missing(LearningReport(380, 0))
    '380 more outcomes are needed, expected by 1970-01-01T00:00:00+00:00 at this rate'
    """
    expected = "" if report.expected_ts is None else f", expected by {shown_time(report.expected_ts)} at this rate"
    return f"{report.missing:,} more outcomes are needed{expected}"


def share_held(report: HoldbackReport) -> str:
    """Return which share a version answers now.

    >>> share_held(HoldbackReport("v1", 0.3, 0, raised_from=0.05))
    'v1 answers 30 %, raised from 5 %, until 1970-01-01T00:00:00+00:00'
    """
    was = "" if report.raised_from is UNSET else f", raised from {percent(report.raised_from)}"
    until = "" if report.until_ts is None else f", until {shown_time(report.until_ts)}"
    return f"{clean(report.version)} answers {percent(report.share)}{was}{until}"


def held_back(report: HoldbackReport) -> str:
    """Return which share an earlier version answers, and until when it is known whether that one is better.

    >>> held_back(HoldbackReport("v1", 0.3, None, raised_from=0.05, expected_ts=0))
    'v1 answers 30 % instead of 5 % to show whether it is better, which is expected by 1970-01-01T00:00:00+00:00'
    """
    version, share = clean(report.version), percent(report.share)
    if report.proposed is not UNSET:
        what = f"{version} should answer {percent(report.proposed)} instead of {share}"
    elif report.raised_from is not UNSET:
        what = f"{version} answers {share} instead of {percent(report.raised_from)}"
    else:
        what = f"{version} answers {share}"
    due = "is not known yet" if report.expected_ts is None else ""
    if report.expected_ts is not UNSET and report.expected_ts is not None:
        due = f"is expected by {shown_time(report.expected_ts)}"
    return f"{what} to show whether it is better" + (f", which {due}" if due else "")


def rates(means: Iterable[float], loss: str) -> list[str]:
    """Return mean losses as people read them; all wrong answers over one denominator, so that they can be compared.

    >>> rates([0.31, 0.059, 0.031], "zero_one"), rates([0.31, 0.2], "zero_one"), rates([0.31], "brier")
    (['310 in 1,000', '59 in 1,000', '31 in 1,000'], ['31 in 100', '20 in 100'], ['0.310'])
    """
    means = list(means)
    if loss != "zero_one":
        return [f"{mean:.3f}" for mean in means]
    of = _denominator(means)
    return [f"{of * mean:,.0f} in {of:,}" for mean in means]


def risen(rise: float, loss: str) -> str:
    """Return a rise of the mean loss, rounded up, so that no more is promised than is known.

    >>> risen(0.04, "zero_one"), risen(0.0312, "zero_one"), risen(0.0312, "brier")
    ('4 in 100', '32 in 1,000', '0.032 of the loss (brier)')
    """
    if loss != "zero_one":
        return f"{math.ceil(1_000 * rise - 1e-6) / 1_000:.3f} of the loss ({clean(loss)})"
    of = _denominator([rise])
    count = math.ceil(of * rise - 1e-6)
    while of > DENOMINATORS[0] and count % 10 == 0:
        count, of = count // 10, of // 10
    return f"{count:,} in {of:,}"


def _denominator(means: list[float]) -> int:
    """Return the smallest denominator over which each rate that is not 0 has about two digits."""
    smallest = min((mean for mean in means if mean > 0), default=1.0)
    return next((of for of in DENOMINATORS if of * smallest >= DIGITS_LEAST), DENOMINATORS[-1])


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
