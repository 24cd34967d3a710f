"""What the fold remembers of a model: its live period, what came before, and what still waits for time to pass."""

from typing import TypeVar

import msgspec
import numpy as np

from actions.desired import DesiredState
from actions.replicas import Replicas
from detectors.multiplicity import stream_weights
from detectors.rows.concurrent import Comparison
from detectors.rows.label_share import LabelHealth, Silence, new_label_health
from detectors.rows.types import Baselines, Rules
from detectors.rows.watch import Health, new_health
from streams.config.resolved import ModelConfig
from streams.evaluation.cohorts import Layout, OpenCohort
from streams.evaluation.slices import OTHER, SourceTable, slice_table
from streams.evaluation.track_records import TrackRecord, track_record

#: Versions whose baselines and records are remembered; the oldest are forgotten first.
BASELINES_MAX = 20
T = TypeVar("T")


class Beside(msgspec.Struct):
    """A holdback or shadow version during a live period: its own health, its labels, and the comparison with it."""

    role: str
    health: Health
    labels: LabelHealth
    comparison: Comparison


class LivePeriod(msgspec.Struct):
    """The time one version is live, from its deployment or a change of the desired state to the next."""

    version: str
    since: int
    health: Health
    labels: LabelHealth
    beside: dict[str, Beside]
    written_once: list[str]
    observed: str | None = None


class Standing(msgspec.Struct, frozen=True):
    """What the last decision said: another one is written only if one of these differs."""

    verdict: str
    reason: str
    action: str
    version: str
    to: str | None
    slice: dict[str, bool | int | float | str] | None


class ModelState(msgspec.Struct):
    """Everything the fold knows of a model.

    `replaced` is the version that was live before, as long as its last outcomes are still to be counted, and
    `replaced_coverage` the labelled share of its newest cohorts.
    """

    desired: DesiredState
    layout: Layout
    open_cohorts: dict[int, OpenCohort]
    closed_until: int
    live: LivePeriod | None
    replaced: Health | None
    left: dict[str, Baselines]
    left_healthy: dict[str, Baselines]
    standing: Standing | None
    digest: str
    counts: dict[str, int]
    clock: int = -1
    outcomes: dict[str, int] = {}
    refused: Standing | None = None
    silence: Silence = msgspec.field(default_factory=Silence)
    records: dict[str, TrackRecord] = {}
    replaced_coverage: float | None = None
    replicas: Replicas = msgspec.field(default_factory=Replicas)


def new_model_state(config: ModelConfig) -> ModelState:
    """Return a model nothing is known of yet."""
    layout = Layout([], slice_table(config.slices_by, config.slices_cap), SourceTable([]))
    return ModelState(DesiredState({}), layout, {}, -1, None, None, {}, {}, None, "", {})


def new_period(state: ModelState, config: ModelConfig, version: str, now: int) -> LivePeriod:
    """Return the live period that starts now."""
    binary = [spec.binary for spec in config.losses]
    health = new_health(version, "live", now, binary, len(state.layout.slices.streams), config.outcomes_labelled)
    return LivePeriod(version, now, health, new_label_health(), {}, [])


def rules_for(state: ModelState, config: ModelConfig, alarming: bool) -> Rules:
    """Return what an alarm takes, for the streams known at present."""
    streams = state.layout.slices.streams
    overall, slice_weight = stream_weights(len(config.losses), config.slices_cap if config.slices_by else 0)
    weights = np.array([0.0 if stream.value == OTHER and stream.dimension else slice_weight for stream in streams])
    weights[0] = overall
    unlabelled = tuple(config.latency_losses)
    return Rules(config.promise, weights, config.worse_by, config.promise_in_time, alarming, unlabelled)


def leave(state: ModelState, health: Health) -> None:
    """Remember what the replaced version leaves behind when its last cohort was counted."""
    baselines = health.leave()
    _remember(state.left, health.version, baselines)
    if baselines.healthy:
        _remember(state.left_healthy, health.version, baselines)
    record = track_record(health, state.replaced_coverage, state.records.get(health.version))
    _remember(state.records, health.version, record)


def _remember(table: dict[str, T], version: str, what: T) -> None:
    table.pop(version, None)
    table[version] = what
    while len(table) > BASELINES_MAX:
        del table[next(iter(table))]


def hand_over(state: ModelState) -> None:
    """Let the live version be the replaced one; what was replaced before it is remembered."""
    if state.replaced is not None:
        leave(state, state.replaced)
    live = state.live
    state.replaced = live.health if live is not None else None
    state.replaced_coverage = live.labels.share if live is not None else None


def forget_all(state: ModelState) -> None:
    """Forget what versions left behind: what was usual among other labels says nothing of those of now."""
    state.replaced = None
    state.left.clear()
    state.left_healthy.clear()
    state.records.clear()
    state.silence = Silence()
