"""Put the status of a model into lines: what is known and what is waited for, what was ordered, and how old it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from actions.evidence_tree import ComparisonReport
from actions.reconcile import Timing
from actions.replicas import Left, Replica
from console.sentences import clean, missing, risen, share_held, would_have_shown
from console.times import shown_time
from streams.config.units import percent, rounded_span
from streams.fold.status import ModelStatus, Seen
from streams.fold.status_records import TICK_MS

SILENT_TICKS = 3
"""A monitor that has not reported for so many of its ticks is silent."""

SILENT_BEATS = 3
"""A replica that has not acknowledged for so many heartbeats is silent; each is acknowledged."""


def silent(replicas: Mapping[str, Replica], now: int) -> dict[str, int]:
    """Return the replicas that have acknowledged nothing for some heartbeats, and when each last did (ms).

    Only those that have acknowledged a command: others get no heartbeats, or are mere names in predictions.
    """
    since = now - SILENT_BEATS * Timing().beat_ms
    return {name: each.heard for name, each in replicas.items() if follows(each) and each.heard <= since}


def replicas_shown(replicas: Mapping[str, Replica], left: Mapping[str, Left]) -> dict[str, dict[str, Any]]:
    """Return replicas as JSON has them; those that ended in order are there, but nothing is expected of them."""
    found = {
        name: {"version": last.version, "stage": "left", "epoch": last.epoch, "heard_ts": last.at}
        for name, last in left.items()
    }
    for name, replica in replicas.items():
        version, epoch = replica.serves()
        found[name] = {"version": version, "stage": replica.stage(), "epoch": epoch, "heard_ts": replica.heard}
    return dict(sorted(found.items()))


def follows(replica: Replica) -> bool:
    """Return whether a replica has acknowledged a command, and not only that it runs."""
    return any(known is not None and known.epoch > (0, 0, 0) for known in (replica.acked, replica.refused))


def stale(model: ModelStatus, replicas: Mapping[str, Replica], seen: Seen | None, now: int) -> list[str]:
    """Return why the status of a model is too old to rely on; empty if it is not."""
    why = []
    if seen is None:
        why.append("its monitor never stated when it reports")
    elif now >= seen.seen_ts + SILENT_TICKS * TICK_MS:
        why.append(f"its monitor reported last {_ago(seen.seen_ts, now)}")
    following = {name: each for name, each in replicas.items() if follows(each)}
    if model.commanded and following and len(silent(following, now)) == len(following):
        newest = max(each.heard for each in following.values())
        why.append(f"no replica has acknowledged anything since {_ago(newest, now)}")
    return why


def monitor_line(seen: Seen | None, now: int) -> str:
    """Return when the monitor reported last.

    >>> monitor_line(Seen(0, 1_500), 2_000)
    'monitor: reported 1970-01-01T00:00:00+00:00 (2s ago), 2s behind'
    """
    if seen is None:
        return "monitor: has not stated when it reports"
    behind = f", {rounded_span(seen.lag)} behind" if seen.lag else ""
    return f"monitor: reported {_ago(seen.seen_ts, now)}{behind}"


def model_lines(model: ModelStatus, now: int) -> Iterator[str]:
    """Yield what there is to know of a model besides its row of the table."""
    yield from _known(model)
    if model.comparison is not None:
        yield f"waits for the comparison: {waited_for(model.comparison, now)}"
    if model.judged_ts is not None:
        yield f"the newest outcome was judged {_ago(model.judged_ts, now)}"
    if (kept := model.holdback) is not None:
        yield f"holdback: {share_held(kept)}"
    if model.held:
        yield "on hold by an operator: no act is done until unship ctl resume"
    if model.pinned:
        yield f"pinned to {clean(model.desired)} by an operator"
    if model.stopped:
        yield "too many rollbacks: automatic acts are stopped until unship ctl resume"
    if (proposal := model.proposal) is not None:
        change = f"{clean(proposal.version)} -> {clean(proposal.to)}"
        if proposal.share is not None:
            change = f"{clean(proposal.to)} answers {percent(proposal.share)}"
        yield f"proposal {clean(proposal.decision)}: {change} waits for unship ctl approve or reject"
    if model.quarantine:
        yield f"in quarantine: {', '.join(map(clean, model.quarantine))}"
    if (act := model.last_act) is not None:
        change = clean(act.version) if act.to is None else f"{clean(act.version)} -> {clean(act.to)}"
        what = f"{clean(act.action)} {change}, {clean(act.reason)} ({clean(act.decision)})"
        yield f"last act: {what}, {_ago(act.ts, now)}"


def _known(model: ModelStatus) -> Iterator[str]:
    if model.learning is not None:
        yield missing(model.learning)
    report = model.detectable
    if report is None:
        return
    yield f"{report.outcomes:,} outcomes judged; {would_have_shown(report)}"
    if report.rise_in_a_day is not None and report.outcomes_in_a_day is not None:
        rise = risen(report.rise_in_a_day, report.loss)
        yield f"of a day ({report.outcomes_in_a_day:,.0f} outcomes at this rate) a rise of {rise} or more shows"


def waited_for(report: ComparisonReport, now: int) -> str:
    """Return how far a comparison is from showing that the target is better, and when it is expected to."""
    who = f"{clean(report.target)} ({'its record' if report.basis == 'record' else clean(report.role)})"
    share = report.evidence / report.threshold
    if share >= 1:
        return f"{who} is better, evidence {share:.2g} of 1"
    due = report.expected_ts
    expected = f", expected by {shown_time(due)}" if due and due > now else ""
    return f"evidence that {who} is better is {share:.2g} of 1{expected}"


def _ago(ts: int, now: int) -> str:
    return f"{shown_time(ts)} ({rounded_span(max(now - ts, 0))} ago)"
