"""Report the status of all models, as operators and scripts read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from actions.replicas import Replica, lagging
from detectors.base import rounded
from streams.fold.fold import Fold
from streams.fold.model import ModelFold

VERSIONS_SHOWN = 20


class ModelStatus(msgspec.Struct, frozen=True):
    """Hold what of one model should serve, what was counted, how much evidence there is, and what the replicas do.

    `outcomes` counts the labelled answers of each version, all roles, exactly once each. `evidence` is that of the
    deciding detector on all requests, as a share of what raises the alarm; None where the detector has no such number.
    `commanded` is false in mode `observe`, which sends no commands. `replicas` are those that live, `versions` the
    newest that were deployed, the last one last. `cut` has how many more replicas, versions in `outcomes` or entries in
    `quarantine` there are than are shown. The states of versions that answer live next to the desired one are there by
    their names, and `not_judged` counts their outcomes that were not judged. `implied` means that what is desired only
    answers and was never deployed, so that no replica lags behind it.
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
    beside: dict[str, str] = {}
    not_judged: dict[str, int] = {}
    implied: bool = False

    def lagging(self, replicas: Mapping[str, Replica]) -> dict[str, str]:
        """Return those of some replicas that do not obey, with what each does instead; empty means converged."""
        if self.implied:
            return {}
        return lagging(replicas.items(), self.desired, self.epoch if self.commanded else None)


class Status(msgspec.Struct, frozen=True):
    """Hold all models, at the source clock `clock`.

    `halted` has sentences on what waits for an operator, `unread` on records that could not be read.
    """

    clock: int
    models: dict[str, ModelStatus]
    rejected: dict[str, int]
    halted: list[str] = []
    unread: list[str] = []


def fold_status(
    fold: Fold,
    now: int | None = None,
    counts: Counter[str] | None = None,
    models: dict[str, ModelStatus] | None = None,
) -> Status:
    """Return the status of the models of one ledger partition.

    Args:
        fold: the fold of that partition.
        now: the source clock in milliseconds, the fold's own if None.
        counts: what was counted of sources that the fold has not applied yet.
        models: the status of each model, in the order of names, if that was computed before.
    """
    clock = fold.clock if now is None else now
    counted = fold.counts() + (Counter() if counts is None else counts)
    if models is None:
        models = {name: model_status(model, clock) for name, model in sorted(fold.models.items())}
    return Status(
        clock=clock,
        models=models,
        rejected=dict(sorted((str(reason), count) for reason, count in counted.items() if count)),
    )


def model_status(model: ModelFold, now: int) -> ModelStatus:
    """Return the status of a model at a source clock."""
    state, live = model.state, model.state.live
    return ModelStatus(
        state=state_of(model),
        desired=state.desired.serve,
        epoch=state.desired.epoch,
        outcomes=dict(sorted(state.outcomes.items())),
        label_coverage=None if live is None or live.labels.share is None else rounded(live.labels.share),
        evidence=_evidence(model),
        quarantine=list(dict.fromkeys(entry.version for entry in state.desired.quarantine)),
        commanded=model.commanded,
        replicas=dict(sorted(state.replicas.alive(now))),
        versions=list(state.desired.versions.deployed)[-VERSIONS_SHOWN:],
        beside={v: s for v, s in states_beside(model).items() if state.desired.versions.answers(v)},
        not_judged=state.desired.versions.not_judged(),
        implied=state.desired.serve is not None and not state.desired.is_ordered,
    )


def state_of(model: ModelFold) -> str:
    """Return the reason of the model's last decision, HEALTHY if there is none."""
    standing, live = model.state.written.standing, model.state.live
    if standing is None or live is None or standing.version != live.version:
        return "LEARNING" if live is not None and live.health.rows.learning else "HEALTHY"
    return standing.reason


def states_beside(model: ModelFold) -> dict[str, str]:
    """Return the state of each version that answers live next to the live one, by the last decision on it."""
    found = {}
    for version, other in sorted(model.state.live.concurrent.items() if model.state.live is not None else ()):
        if other.beside is not None:
            standing = other.beside.standing
            known = "LEARNING" if other.health.rows.learning else "HEALTHY"
            found[version] = known if standing is None else standing.reason
    return found


def _evidence(model: ModelFold) -> Any:
    live = model.state.live
    if live is None or model.config.detectors[0] != "e_detector":
        return None
    return rounded(float(live.health.rows.banks[0].totals[0]) / model.config.promise)
