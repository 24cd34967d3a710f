"""Report the status of all models, as operators and scripts read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from actions.desired import Proposal
from actions.evidence_tree import ComparisonReport, DetectableReport, HoldbackReport, LearningReport
from actions.reasons import Reason
from actions.replicas import Left, Replica, lagging
from detectors.base import rounded
from streams.evaluation.findings import find
from streams.evaluation.outlook import detectable_of, holdback_of, learning_of, missing_outcomes
from streams.evaluation.periods import LastAct
from streams.evaluation.report import comparison_of
from streams.fold.fold import Fold
from streams.fold.model import ModelFold

VERSIONS_SHOWN = 20


class ModelStatus(msgspec.Struct, frozen=True):
    """Hold what of one model should serve, what was counted, how much evidence there is, and what the replicas do.

    `outcomes` counts the labelled answers of each version, all roles, exactly once each. `evidence` is that of the
    deciding detector on all requests, as a share of what raises the alarm; None where the detector has no such number.
    After an alarm it is that of the `comparison`, as a share of what confirms it; None where there is no other version.
    `commanded` is false in mode `observe`, which sends no commands. `replicas` are those that live, `versions` the
    newest that were deployed, the last one last. `cut` has how many more replicas, versions in `outcomes` or entries in
    `quarantine` there are than are shown. `unseen` are classes that are answered and of which no truth ever came.

    `learning` is what is missing before a verdict is possible, `judged_ts` when the newest outcome was judged, by the
    source clock. `held` and `pinned` are by an operator; `stopped` is true where too many rollbacks, of this model or
    of others, forbid automatic acts until one resumes them.

    The states of versions that answer live next to the desired one are there by their names, and `not_judged` counts
    their outcomes that were not judged. `implied` means that what is desired only answers and was never deployed, so
    that no replica lags behind it. `left` are replicas that ended in order lately. `shares` is which part of the units
    an earlier version answers next to the desired one, `holdback` how long it does, and what is waited for.
    """

    state: str
    desired: str | None
    epoch: tuple[int, int, int]
    outcomes: dict[str, int]
    label_coverage: float | None
    evidence: float | None
    quarantine: list[str]
    commanded: bool
    replicas: dict[str, Replica]
    versions: list[str] = []
    cut: dict[str, int] = {}
    detectable: DetectableReport | None = None
    learning: LearningReport | None = None
    comparison: ComparisonReport | None = None
    judged_ts: int | None = None
    held: bool = False
    pinned: bool = False
    stopped: bool = False
    proposal: Proposal | None = None
    last_act: LastAct | None = None
    unseen: list[str] = []
    revised_labels: float | None = None
    beside: dict[str, str] = {}
    not_judged: dict[str, int] = {}
    implied: bool = False
    left: dict[str, Left] = {}
    shares: dict[str, float] = {}
    holdback: HoldbackReport | None = None

    def lagging(self, replicas: Mapping[str, Replica]) -> dict[str, str]:
        """Return those of some replicas that do not obey, with what each does instead; empty means converged."""
        if self.implied:
            return {}
        return lagging(replicas.items(), self.desired, self.epoch if self.commanded else None)


class Seen(msgspec.Struct, frozen=True):
    """Hold when the monitor reported last (ms), and how far the source clock was behind that, if it is known (ms)."""

    seen_ts: int
    lag: int | None = None


class Status(msgspec.Struct, frozen=True):
    """Hold all models, at the source clock `clock`.

    `halted` has sentences on what waits for an operator, `unread` on records that could not be read. `monitors` has by
    ledger partition when its monitor reported last, and `partitions` which one a model is in.
    """

    clock: int
    models: dict[str, ModelStatus]
    rejected: dict[str, int]
    halted: list[str] = []
    unread: list[str] = []
    monitors: dict[str, Seen] = {}
    partitions: dict[str, str] = {}

    def seen(self, model: str) -> Seen | None:
        """Return when the monitor of a model reported last, None if it never did."""
        return self.monitors.get(self.partitions.get(model, ""))


def fold_status(
    fold: Fold,
    now: int | None = None,
    counts: Counter[str] | None = None,
    models: dict[str, ModelStatus] | None = None,
    seen: Seen | None = None,
    number: int = 0,
) -> Status:
    """Return the status of the models of one ledger partition.

    Args:
        fold: the fold of that partition.
        now: the source clock in milliseconds, the fold's own if None.
        counts: what was counted of sources that the fold has not applied yet.
        models: the status of each model, in the order of names, if that was computed before.
        seen: when its driver reports this, and how far it is behind.
        number: of the ledger partition.
    """
    clock = fold.clock if now is None else now
    counted = fold.counts() + (Counter() if counts is None else counts)
    if models is None:
        models = {name: model_status(model, clock) for name, model in sorted(fold.models.items())}
    return Status(
        clock=clock,
        models=models,
        rejected=dict(sorted((str(reason), count) for reason, count in counted.items() if count)),
        monitors={} if seen is None else {str(number): seen},
        partitions=dict.fromkeys(models, str(number)),
    )


def model_status(model: ModelFold, now: int) -> ModelStatus:
    """Return the status of a model at a source clock."""
    state, live = model.state, model.state.live
    desired, comparison = state.desired, _comparison(model)
    return ModelStatus(
        state=state_of(model),
        desired=desired.serve,
        epoch=desired.epoch,
        outcomes=dict(sorted(state.outcomes.items())),
        revised_labels=_revised(model),
        label_coverage=None if live is None or live.labels.share is None else rounded(live.labels.share),
        evidence=_evidence(model, comparison),
        quarantine=list(dict.fromkeys(entry.version for entry in desired.quarantine)),
        commanded=model.commanded,
        replicas=dict(sorted(state.replicas.alive(now))),
        versions=list(desired.versions.deployed)[-VERSIONS_SHOWN:],
        detectable=None if live is None else detectable_of(live.health, model.config, live.pace.per_day(now)),
        learning=None if live is None else learning_of(live, now),
        comparison=comparison,
        judged_ts=None if live is None or live.pace.newest < 0 else live.pace.newest,
        held=desired.locks.held,
        pinned=desired.locks.pinned,
        stopped=desired.locks.stopped or desired.locks.frozen,
        proposal=desired.proposal,
        last_act=state.written.last_act,
        unseen=state.labels.outputs.unseen(),
        beside={v: s for v, s in states_beside(model).items() if desired.versions.answers(v)},
        not_judged=desired.versions.not_judged(),
        implied=desired.serve is not None and not desired.is_ordered,
        left=dict(sorted(state.replicas.left.items())),
        shares=desired.holdback.shares if model.commanded else {},
        holdback=_holdback(model),
    )


def state_of(model: ModelFold) -> str:
    """Return the reason of the last decision on the live version, LEARNING if there is none."""
    standing, live = model.state.written.standing, model.state.live
    if standing is None or live is None or standing.version != live.version:
        return Reason.LEARNING
    return standing.reason


def _revised(model: ModelFold) -> float | None:
    """Return the share of the live version's labels that were replaced, None where none is."""
    live = model.state.live
    if live is None or not model.config.revises or live.labels.revised_share is None:
        return None
    return rounded(live.labels.revised_share)


def states_beside(model: ModelFold) -> dict[str, str]:
    """Return the state of each version that answers live next to the live one, by the last decision on it."""
    found = {}
    for version, other in sorted(model.state.live.concurrent.items() if model.state.live is not None else ()):
        if other.beside is not None:
            standing = other.beside.standing
            known = Reason.LEARNING if missing_outcomes(other.health) else Reason.HEALTHY
            found[version] = known if standing is None else standing.reason
    return found


def _comparison(model: ModelFold) -> ComparisonReport | None:
    """Return what is waited for after an alarm; it is asked for here only, because it takes longer than to decide."""
    live, rules = model.state.live, model.rules(True)
    if live is None or not live.health.degraded:
        return None
    _, chosen = find(model.state, live, model.config, rules)
    return None if chosen is None else comparison_of(model.state, live, model.config, chosen)


def _holdback(model: ModelFold) -> HoldbackReport | None:
    """Return the share that an earlier version answers; when its comparison is decided is part of that one."""
    if not model.commanded:
        return None
    return holdback_of(model.state.desired.holdback)


def _evidence(model: ModelFold, comparison: ComparisonReport | None) -> Any:
    live = model.state.live
    if live is not None and live.health.degraded:
        return None if comparison is None else rounded(comparison.evidence / comparison.threshold)
    if live is None or model.config.detectors[0] != "e_detector":
        return None
    return rounded(float(live.health.rows.banks[0].totals[0]) / model.config.promise)
