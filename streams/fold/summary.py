"""Summarise what a fold knows of each version, for people who have replayed a recording."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from actions.evidence_tree import DetectableReport
from actions.reasons import Reason
from detectors.rows.watch import Health
from streams.evaluation.outlook import detectable_of
from streams.evaluation.periods import ModelState
from streams.evaluation.report import overall_baseline, overall_since_change
from streams.fold.fold import Fold
from streams.fold.status import state_of, states_beside


class VersionSummary(NamedTuple):
    """What is known of one version at the end.

    `part` is what it is for its model: `live`, `also live`, `holdback`, `shadow`, or empty.
    `outcomes` counts its labelled answers.
    `usual` is the mean of the primary loss before any alarm, and `since_change` that since the change point of its
    alarm; None where there is no such figure. `state` is that of the model, on the row of its live version, or how many
    outcomes of it were not judged.
    `detectable` is which rise would have shown in the outcomes of this live period, None for versions without one.
    """

    model: str
    version: str
    part: str
    outcomes: int
    usual: float | None
    since_change: float | None
    state: str
    detectable: DetectableReport | None = None


def summarise(fold: Fold) -> Iterator[VersionSummary]:
    """Yield a summary of each version, model by model in the order of names."""
    for name, model in sorted(fold.models.items()):
        state, live = model.state, model.state.live
        healths = {}
        if live is not None:
            healths = {
                version: ("also live" if other.beside else other.role, other.health)
                for version, other in live.concurrent.items()
            }
            healths[live.version] = ("live", live.health)
        beside = states_beside(model)
        for version in sorted({*state.outcomes, *healths}):
            part, health = healths.get(version, ("", None))
            usual, since_change = _losses(state, version, health)
            missed = state.desired.facts(version).not_judged
            word = state_of(model) if part == "live" else beside.get(version, "")
            if missed and not word:
                word = f"NOT JUDGED: {missed:,} outcomes"
            a_day = live.pace.per_day(fold.clock) if live is not None and part == "live" else None
            shows = None if health is None else detectable_of(health, model.config, a_day)
            yield VersionSummary(name, version, part, state.outcomes.get(version, 0), usual, since_change, word, shows)
        if not state.outcomes and not healths:
            yield VersionSummary(name, "", "", 0, None, None, Reason.LEARNING)


def _losses(state: ModelState, version: str, health: Health | None) -> tuple[float | None, float | None]:
    if health is not None:
        return overall_baseline(health), overall_since_change(health)
    record = state.past.records.get(version)
    n = 0.0 if record is None else float(sum(stretch.n[0, 0] for stretch in record.stretches))
    k = 0.0 if record is None else float(sum(stretch.k[0, 0] for stretch in record.stretches))
    return (k / n if n else None), None
