"""The status of all models, as operators and scripts read it."""

from typing import Any

import msgspec

from streams.fold import Fold
from streams.model import ModelFold
from streams.pipeline import Pipeline
from streams.rows import rounded


class ModelStatus(msgspec.Struct, frozen=True):
    """One model: what should serve, what was counted, and how the evidence stands.

    `outcomes` counts the labelled answers of each version, all roles, exactly once each. `evidence` is that of the
    deciding detector on all requests, as a share of what raises the alarm; None where the detector has no such number.
    """

    state: str
    desired: str | None
    epoch: tuple[int, int, int]
    outcomes: dict[str, int]
    label_coverage: float | None
    evidence: float | None
    quarantine: list[str]


class Status(msgspec.Struct, frozen=True):
    """All models; `served` is what each replica's own predictions say: (model, version, epoch)."""

    clock: int
    models: dict[str, ModelStatus]
    rejected: dict[str, int]
    served: dict[str, tuple[str, str, list[int] | None]]


def status_of(pipeline: Pipeline, served: dict[str, tuple[str, str, list[int] | None]]) -> Status:
    """Return the status as the ledger has it now."""
    counts = pipeline.sources.counts + pipeline.fold.counts()
    return Status(
        clock=pipeline.sources.clock.now,
        models={name: _model_status(model) for name, model in sorted(pipeline.fold.models.items())},
        rejected=dict(sorted((str(reason), count) for reason, count in counts.items())),
        served=dict(sorted(served.items())),
    )


def fold_status(fold: Fold) -> Status:
    """Return the status of the models of one ledger partition."""
    return Status(
        clock=fold.clock,
        models={name: _model_status(model) for name, model in sorted(fold.models.items())},
        rejected=dict(sorted((str(reason), count) for reason, count in fold.counts().items() if count)),
        served={},
    )


def _model_status(model: ModelFold) -> ModelStatus:
    state, live = model.state, model.state.live
    return ModelStatus(
        state=_word(model),
        desired=state.desired.serve,
        epoch=state.desired.epoch,
        outcomes=dict(sorted(state.outcomes.items())),
        label_coverage=None if live is None or live.labels.share is None else rounded(live.labels.share),
        evidence=_evidence(model),
        quarantine=[entry.version for entry in state.desired.quarantine],
    )


def _word(model: ModelFold) -> str:
    """Return the reason that stands for the model, HEALTHY if nothing does."""
    standing, live = model.state.standing, model.state.live
    if standing is None or live is None or standing.version != live.version:
        return "LEARNING" if live is not None and live.health.learning else "HEALTHY"
    return standing.reason


def _evidence(model: ModelFold) -> Any:
    live = model.state.live
    if live is None or model.config.detectors[0] != "e_detector":
        return None
    return rounded(float(live.health.banks[0].totals[0]) / model.config.promise)
