"""Answer whether a version is good, for gates of releases: a pure function of what the topics show."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from actions.reasons import Verdict
from console.web.board import Board, reason_of
from streams.fold.status import ModelStatus

STALE_MS: Final = 60_000
"""A monitor that has reported nothing for so long knows nothing of now."""

STALE, UNKNOWN, NOT_LIVE = "STALE", "UNKNOWN", "NOT_LIVE"
NOT_KNOWN: Final = (STALE, UNKNOWN, NOT_LIVE)
"""Reasons of an answer that are none of a decision: why nothing is known of a version."""

Gate = Literal["promote", "rollback"]


class Answer(msgspec.Struct, frozen=True):
    """What is known of a version; exactly one of `ok`, `inconclusive` and a verdict of DEGRADED holds."""

    verdict: str
    ok: bool
    inconclusive: bool
    reason: str
    sentence: str
    model: str
    version: str | None


def answer_of(verdict: Verdict, reason: str, sentence: str, model: str, version: str | None) -> Answer:
    """Return an answer; what is an error, or not known, passes no gate and fails none."""
    return Answer(
        verdict=verdict.value,
        ok=verdict is Verdict.HEALTHY,
        inconclusive=verdict in (Verdict.INCONCLUSIVE, Verdict.ERROR),
        reason=reason,
        sentence=sentence,
        model=model,
        version=version,
    )


def verdict_on(board: Board, name: str, version: str | None, now_ms: int) -> Answer:
    """Return the verdict on a version of a model.

    Args:
        board: What the topics show.
        name: The model.
        version: The version; None for the one that should serve.
        now_ms: The wall clock.
    """
    model = board.status.models.get(name)
    unknown = Verdict.INCONCLUSIVE
    seen_ts = board.seen_of(name)
    if seen_ts is None or now_ms - seen_ts > STALE_MS:
        since = "never" if seen_ts is None else f"{(now_ms - seen_ts) // 1_000} s ago"
        return answer_of(unknown, STALE, f"The monitor reported last {since}.", name, version)
    if model is None:
        return answer_of(unknown, UNKNOWN, "No event of this model was seen.", name, version)
    asked = model.desired if version is None else version
    if asked is None:
        return answer_of(unknown, UNKNOWN, "No version of the model serves yet.", name, None)
    return _on_version(board, name, model, asked)


def _on_version(board: Board, name: str, model: ModelStatus, version: str) -> Answer:
    incident = board.incident_of(name, version)
    if version in model.quarantine:
        reason = "QUARANTINED" if incident is None else incident.reason
        return answer_of(Verdict.DEGRADED, reason, "The version was taken back and is in quarantine.", name, version)
    if version == model.desired:
        found = reason_of(model.state)
        if found is None:
            return answer_of(Verdict.INCONCLUSIVE, model.state, f"The state is {model.state}.", name, version)
        return answer_of(found.verdict, found.value, found.meaning, name, version)
    newest = board.newest_of(name, version)
    known = None if newest is None else reason_of(newest.reason)
    if known is not None and known.verdict is Verdict.DEGRADED:
        return answer_of(known.verdict, known.value, known.meaning, name, version)
    outcomes = model.outcomes.get(version, 0)
    sentence = f"{version} is not the version that should serve ({model.desired}); it has {outcomes} labelled answers."
    return answer_of(Verdict.INCONCLUSIVE, NOT_LIVE, sentence, name, version)


def passes(answer: Answer, gate: Gate) -> bool:
    """Return whether a gate is to answer 200: `promote` if the version is good, `rollback` if it is not.

    >>> passes(answer_of(Verdict.INCONCLUSIVE, "LEARNING", "", "m", "v"), "rollback")
    False
    """
    return answer.ok if gate == "promote" else answer.verdict == Verdict.DEGRADED
