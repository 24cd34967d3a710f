"""Run `unship explain`: one page on one decision, from the decision alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click
from msgspec import UNSET

from actions.evidence_tree import (
    AlarmReport,
    ComparisonReport,
    DetectableReport,
    DetectorReport,
    Detectors,
    Evidence,
    HoldbackReport,
    Mean,
    MeanIfAny,
    RecordReport,
    RecordToday,
    Slice,
    SliceReport,
    SourceReport,
    TogetherReport,
)
from actions.journal import Decision, decision_bytes, rests_on
from console.journal import Found, journal_of, newest_act, read_whole
from console.sentences import clean, missing, risen, sentence, share_held, would_have_shown
from console.settings import Exit, Settings
from console.times import shown_time
from detectors.rows.units import UNITS_LEAST, UNITS_SHOWN
from streams.config.units import percent
from streams.evaluation.opinions import E_DETECTOR
from streams.evaluation.quorum import POOL_SHARE
from unship.errors import RecordingError


def explain_command(settings: Settings, wanted: str, source: str | None) -> Exit:
    """Print the page of a decision."""
    with journal_of(settings, source) as (name, decisions):
        found = find_decision(decisions, wanted)
    if found is None:
        none = "there is no decision yet" if wanted == "last" else f"there is no decision {wanted}"
        raise RecordingError(f"{name}: {none}; unship decisions lists all")
    decision = read_whole(found, name)
    click.echo(decision_bytes(decision).decode() if settings.as_json else page(decision))
    return Exit.GOOD


def find_decision(decisions: Iterable[Found], wanted: str) -> Found | None:
    """Return the decision with an id, or the newest act for `last`."""
    if wanted == "last":
        return newest_act(decisions)
    return next((found for found in decisions if found.head.id == wanted), None)


def page(decision: Decision) -> str:
    """Return one page of text on a decision."""
    evidence, provenance, digests = decision.evidence, decision.provenance, decision.digests
    name, version = clean(decision.id), clean(decision.version)
    ts, epoch = shown_time(decision.ts, "milliseconds"), ".".join(map(str, decision.epoch))
    lines = [
        sentence(decision),
        "",
        f"{name}  {clean(decision.model)} {version}  at {ts}  epoch {epoch}",
        f"  verdict   {decision.verdict}; action {decision.action} (mode {clean(decision.mode)})",
        f"  reason    {decision.reason}: {decision.reason.meaning}",
        f"  counted   {decision.outcomes} labelled answers since {version} went live",
        *_weighed(evidence),
        f"  proof     {clean(rests_on(provenance))}, ledger records 0..{provenance.ledger[1]}",
        f"            digests: ledger {clean(digests.ledger[:16])}, configuration {clean(digests.config[:16])}",
        f"            reproduce it with: unship audit RECORDING --decision {name}",
    ]
    return "\n".join(lines)


def _weighed(evidence: Evidence) -> Iterator[str]:
    """Yield the lines on whatever the evidence has."""
    if evidence.missing is not UNSET:
        yield f"  missing   {clean(evidence.missing)}"
    if evidence.learning is not UNSET:
        yield f"  missing   {missing(evidence.learning)}"
    if evidence.detectable is not UNSET:
        yield from _detectable(evidence.detectable)
    if evidence.alarm is not UNSET:
        yield from _alarm(evidence.alarm)
    if evidence.detectors is not UNSET:
        yield from _detectors(evidence.detectors)
    if evidence.comparison:
        yield from _comparison(evidence.comparison)
    if evidence.holdback is not UNSET:
        yield from _held_back(evidence.holdback)
    if evidence.sources is not UNSET:
        yield from _sources(evidence.sources)
    if evidence.together is not UNSET:
        yield from map(_together, evidence.together)
    if evidence.slices is not UNSET:
        yield from map(_slice, evidence.slices[:3])
    if (mix := evidence.mix) is not UNSET:
        yield f"  requests  more with {clean(mix.dimension)} {clean(mix.value)} than before"
    if evidence.label_coverage is not UNSET:
        share = 100 * evidence.label_coverage
        yield f"  labels    {share:.1f} % of the newest judged answers have one (maturity {clean(evidence.maturity)})"
    if (who := evidence.operator) is not UNSET:
        yield f"  operator  {clean(who.act)} by {clean(who.by)}: {clean(who.reason)}"


def _mean(entry: Mean | MeanIfAny | RecordReport | RecordToday | None) -> str:
    return "unknown" if entry is None or entry.mean is None else f"{entry.mean:.4f} (n={entry.n:.0f})"


def _of(entry: AlarmReport | ComparisonReport) -> str:
    """Return evidence as a share of what it takes, the same scale everywhere."""
    return f"evidence {entry.evidence / entry.threshold:.2g} of 1" if entry.threshold else "evidence without a number"


def _detectable(report: DetectableReport) -> Iterator[str]:
    yield f"  within    {report.outcomes:,} outcomes: {would_have_shown(report)}"
    if report.rise_in_a_day is not None and report.outcomes_in_a_day is not None:
        rise = risen(report.rise_in_a_day, report.loss)
        yield f"            of a day ({report.outcomes_in_a_day:,.0f} outcomes at this rate) a rise of {rise} shows"


def _expected(comparison: ComparisonReport) -> Iterator[str]:
    """Yield when the evidence that is waited for is expected to be enough."""
    if comparison.expected_ts is None:
        yield "            when that is enough is not known yet"
    elif comparison.expected_ts is not UNSET:
        yield f"            expected by {shown_time(comparison.expected_ts)}, if both go on like this"


def _units(comparison: ComparisonReport) -> Iterator[str]:
    """Yield how many units each version answered, where predictions name units."""
    if (units := comparison.units) is not UNSET:
        target, candidate = (
            f"{count:,} units{' or more' if count >= UNITS_SHOWN else ''}" for count in (units.target, units.candidate)
        )
        yield f"            of {target}, and of {candidate}; {UNITS_LEAST:,} of either are needed"


def _named(place: Slice | None) -> str:
    return ", ".join(f"{clean(name)}={clean(value)}" for name, value in (place or {}).items()) or "all requests"


def _alarm(alarm: AlarmReport) -> list[str]:
    return [
        f"  why       {clean(alarm.detector)} on {clean(alarm.loss)}, {_named(alarm.slice)}: {_of(alarm)}",
        f"            since {shown_time(alarm.change_ts)}: {_mean(alarm.since_change)}",
        f"            before: {_mean(alarm.baseline)}, from {clean(alarm.basis)}",
    ]


def _detectors(detectors: Detectors) -> list[str]:
    ignored, opinions = [], []
    for name, entry in detectors.items():
        for loss, report in entry.items() if isinstance(entry, dict) else ():
            if not isinstance(report, DetectorReport):
                continue
            if report.ignored_reference is not UNSET:
                ignored.append(
                    f"  reference the deployment's for {clean(loss)} is ignored: {_mean(report.ignored_reference)} is "
                    "worse than the version's own first outcomes"
                )
            if name != E_DETECTOR:
                opinions.append(f"            second opinion of {clean(name)} on {clean(loss)}: {report.alarms} alarms")
    return [
        *ignored,
        f"  promise   {clean(detectors.get('promise', 'unknown'))}",
        f"            {clean(detectors.get('decides', 'nothing'))} decides",
        *opinions,
    ]


def _comparison(comparison: ComparisonReport) -> list[str]:
    better = "yes" if comparison.evidence >= comparison.threshold else "not shown"
    target, candidate = clean(comparison.target), _mean(comparison.candidate)
    if not comparison.record:
        basis = f"{clean(comparison.basis)}, {clean(comparison.role)}"
        return [
            f"  would going back help?  {better}: {_of(comparison)} ({basis})",
            f"            {target} at the same time: {_mean(comparison.target_since_change)}, "
            f"the judged version: {candidate}",
            *_units(comparison),
            *_expected(comparison),
        ]
    record, dimension = comparison.record, comparison.record.today.dimension
    by = f", as {clean(dimension)} is mixed today" if dimension else ""
    return [
        f"  would going back help?  by the past, {better}: {_of(comparison)} (no concurrent holdback or shadow)",
        f"            {target} when it served, from {shown_time(record.since_ts)} on: {_mean(record)}",
        f"            that is{by}: {_mean(record.today)}; the judged version: {candidate}",
    ]


def _held_back(report: HoldbackReport) -> Iterator[str]:
    yield f"  holdback  {share_held(report)}"
    if report.proposed is not UNSET:
        yield f"            {percent(report.proposed)} is proposed: unship ctl approve or reject"
    if report.expected_ts is None:
        yield "            when that shows whether it is better is not known yet"
    elif report.expected_ts is not UNSET:
        yield f"            with this share it shows by {shown_time(report.expected_ts)} whether it is better"


def _sources(sources: int | dict[str, SourceReport]) -> list[str]:
    if sources == 0:
        return ["  sources   none: this loss needs no label"]
    if isinstance(sources, int):
        return [f"  sources   {sources}"]
    lines = []
    if any(entry.listed is UNSET for entry in sources.values()):
        lines.append("  sources   by the names that they declare; labels.sources lists none")
    for name, entry in sources.items():
        listed = "" if entry.listed is UNSET else " (listed)" if entry.listed else " (not listed)"
        if entry.listed is False and entry.share >= POOL_SHARE:
            listed = f" (not listed: from {100 * POOL_SHARE:.0f} % of the labels on nothing is acted upon)"
        lines.append(
            f"  source    {clean(name)}{listed}: {100 * entry.share:.0f} % of the labels; "
            f"the rise {_shows(entry.without.agrees, entry.without.rise)}"
        )
        if entry.lead is not UNSET:
            lines.append(f"            the other version's lead {_shows(entry.lead.agrees, entry.lead.difference)}")
        if entry.target is not UNSET:
            lines.append(f"            the other version's own rise {_shows(entry.target.agrees, entry.target.rise)}")
    return lines


def _together(entry: TogetherReport) -> str:
    names = " and ".join(map(clean, entry.sources))
    return f"  sources   {names} together: the rise {_shows(entry.without.agrees, entry.without.rise, 'them')}"


def _shows(agrees: bool, by: float | None, left_out: str = "it") -> str:
    """Return whether a rise or a lead shows with sources left out, and what is left of it."""
    rest = "nothing left" if by is None else f"{by:+.3f}"
    return f"{'shows' if agrees else 'does not show'} without {left_out} ({rest})"


def _slice(entry: SliceReport) -> str:
    mark = "singled out" if entry.singled_out else "not singled out"
    return (
        f"  slice     {_named(entry.slice)}: evidence {entry.evidence:.3g}, {mark}; "
        f"{_mean(entry.since_change)}, before {_mean(entry.baseline)}"
    )
