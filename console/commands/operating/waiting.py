"""Wait until every living replica obeys an act, and name those that do not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET

from actions.convergence.conduct import OBEYS
from actions.convergence.progress import line_of
from console.commands.operating.following import Following, Sight
from console.commands.operating.tail import Tail
from console.sentences import clean
from console.settings import Exit, Settings
from unship.log.link import wall_ms

WAIT_S = 1.0
"""Longest wait for a record, after which the clock is looked at again."""

PAUSE_S = 0.2
"""What is appended in this time is looked at together."""

NAMED_MAX = 50
"""So many replicas are named on standard error; the output in JSON has all."""


class Clocks(msgspec.Struct, frozen=True):
    """Hold the clocks of a wait: append times in milliseconds, seconds that pass, and how to pause."""

    now_ms: Callable[[], int] = wall_ms
    passed_s: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


def follow(settings: Settings, tail: Tail, following: Following, limit_s: float, clocks: Clocks) -> Sight:
    """Follow an act for so many seconds at most, with a line on standard error whenever something changed."""
    end, shown = clocks.passed_s() + limit_s, ""
    while True:
        left = end - clocks.passed_s()
        following.take(tail.next(following.topics, max(0.0, min(left, WAIT_S))))
        if following.needs_decisions:
            following.take_decisions(tail.rest("decisions"))
        sight = following.look(clocks.now_ms())
        if (line := _line(sight)) != shown:
            settings.report(f"ctl: {line}")
            shown = line
        if sight.state in ("refused", "obeyed") or clocks.passed_s() >= end:
            return sight
        clocks.pause(min(PAUSE_S, max(0.0, end - clocks.passed_s())))


def _line(sight: Sight) -> str:
    if sight.state == "sent":
        return "waiting for the monitor to take the act"
    if sight.state == "taken":
        return "the monitor has the act; waiting for what follows"
    if sight.state == "refused":
        return "refused"
    return line_of(sight.progress)


def report(settings: Settings, model: str, sight: Sight, limit_s: float) -> Exit:
    """Report how a wait ended; return the exit code."""
    if sight.state == "refused":
        settings.report(f"ctl: refused: {clean(refusal_of(sight))}")
        return Exit.FINDING
    if sight.state == "obeyed":
        settings.report(f"ctl: every living replica of {clean(model)} obeys")
        return Exit.GOOD
    settings.report(f"ctl: timed out after {limit_s:g} s: {_why(model, sight)}")
    faults = [(name, conduct) for name, conduct in sight.conducts.items() if conduct.kind != OBEYS]
    for name, conduct in faults[:NAMED_MAX]:
        settings.report(f"ctl: {clean(name)} does not obey ({conduct.kind}): {clean(conduct.why)}")
    if len(faults) > NAMED_MAX:
        settings.report(f"ctl: and {len(faults) - NAMED_MAX:,} more")
    return Exit.TIMED_OUT


def _why(model: str, sight: Sight) -> str:
    if sight.state == "sent":
        return (
            "the monitor has not taken the act, which is in the log and may be followed yet; is `unship run` running, "
            "and does it trust this operator's key?"
        )
    if sight.state == "taken":
        return "the monitor has taken the act, and its status does not show yet what followed"
    if not sight.progress.live:
        return f"no replica of {clean(model)} is known to live, so nothing shows that it is obeyed"
    if sight.status is not None and not sight.status.commanded:
        return "no commands are sent for this model (mode observe, or nothing was deployed), so replicas follow none"
    if not [conduct for conduct in sight.conducts.values() if conduct.kind != OBEYS]:
        return "every living replica acknowledged it, and not all have answered since"
    return "not every living replica obeys"


def refusal_of(sight: Sight) -> str:
    """Return the sentence by which an act was refused."""
    assert sight.decision is not None
    missing = sight.decision.evidence.missing
    return "see unship decisions" if missing is UNSET else missing


def as_json(sight: Sight) -> dict[str, Any]:
    """Return how a wait ended, for programs."""
    progress = sight.progress
    found: dict[str, Any] = {"state": "timed_out" if sight.state in ("sent", "taken", "waiting") else sight.state}
    if sight.state == "refused":
        found["why"] = refusal_of(sight)
    if sight.decision is not None:
        found["decision"] = sight.decision.id
    found |= {"live": progress.live, "kinds": progress.kinds}
    found["reached_ms"] = {str(share): ms for share, ms in progress.reached.items()}
    found["replicas"] = {name: each for name, each in sight.conducts.items() if each.kind != OBEYS}
    return found
