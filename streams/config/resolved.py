"""Hold the configuration as the core reads it: every default filled in, every duration in milliseconds."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

from streams.config.kafka import KafkaSection
from streams.losses.columns import LossSpec
from unship.budgets.table import MODELS, RECORDING, REPLICAS, VERSIONS, WINDOW

FOLD_VERSION = 7
"""Raised with every change that can alter a decision's bytes."""

WATCHED = ("models", "defaults", "max_simultaneous", "places")
"""The fields of a configuration that decisions depend on: no other is in a ledger, a snapshot or a recording."""

CONFIG_DIGITS = 16
"""The number of digits of a configuration's digest in every batch."""


OTHER = "__other__"
"""The name of what has no place of its own: values of slices and sources of labels beyond their limits."""


class HoldbackPolicy(msgspec.Struct, frozen=True):
    """Hold the share of all units, as a fraction, that an earlier version goes on answering, to what it rises while an
    alarm is not confirmed, and for how long it is kept; `NEVER` for as long as the version serves that replaced it."""

    share: float
    raise_to: float
    keep_ms: int


class ModelConfig(msgspec.Struct, frozen=True):
    """Hold the resolved configuration of one model. Times are milliseconds.

    `promise` is the run length promised without a false alarm: outcomes, or seconds if `promise_in_time`.
    """

    kind: str
    losses: list[LossSpec]
    horizon_ms: int
    mature_after_ms: int
    early_ms: int
    slices_by: list[str]
    slices_cap: int
    worse_by: float
    promise: float
    promise_in_time: bool
    detectors: list[str]
    mode: str
    cooldown_ms: int
    switches_max: int
    switches_span_ms: int
    without_control: str
    confirm_within_ms: int
    proposal_ttl_ms: int
    missing: str = "ignore"
    sources: list[str] = []
    deployments: str = "any"
    on_conflict: str = "first"
    holdback: HoldbackPolicy | None = None

    @property
    def revises(self) -> bool:
        """Return whether a later label replaces an earlier one until the cohort is judged."""
        return self.on_conflict == "last"

    @property
    def negative(self) -> bool:
        """Return whether a prediction without a label at maturity counts as labelled: no, or not used."""
        return self.missing == "negative"

    @property
    def latency_losses(self) -> list[int]:
        """Return the numbers of the losses that need no label."""
        return [number for number, spec in enumerate(self.losses) if spec.of_latency]

    @property
    def compares_classes(self) -> bool:
        """Return whether a loss compares the class that was answered with the true one."""
        return self.kind in ("binary", "multiclass") and self.needs_truth

    @property
    def slices_by_seen(self) -> list[str]:
        """Return the slices by which predictions are counted, to see which ones lose their labels."""
        return self.slices_by if self.mature_after_ms and self.needs_labels else []

    @property
    def needs_truth(self) -> bool:
        """Return whether a loss needs a truth, and so the answer."""
        return not all(spec.of_engagement or spec.of_latency for spec in self.losses)

    @property
    def tells_use(self) -> bool:
        """Return whether labels report use alone, so that fewer of them are the decay and no matter of labels."""
        return self.negative and self.losses[0].of_use

    @property
    def needs_labels(self) -> bool:
        """Return whether any loss needs a label."""
        return len(self.latency_losses) < len(self.losses)

    @property
    def judges_unlabelled(self) -> bool:
        """Return whether predictions without a label are judged too, so that the ledger must carry each prediction."""
        return self.negative or bool(self.latency_losses)

    @property
    def outcomes_labelled(self) -> bool | None:
        """Return which judged rows are outcomes: those with a label (True), those without (False), or all (None).

        With latency as the first loss, each prediction is one outcome. Without a maturity it is judged before its
        label comes, and the label's row is only for the other losses.
        """
        if self.losses[0].of_latency:
            return None if self.mature_after_ms else False
        return None if self.negative or not self.judges_unlabelled else True

    def judges_as(self, other: ModelConfig) -> bool:
        """Return whether state judged under the other configuration stays valid: both differ only in the policy."""
        free = {"mode", "cooldown_ms", "switches_max", "switches_span_ms", "without_control", "confirm_within_ms"}
        free |= {"proposal_ttl_ms", "deployments", "holdback"}
        mine, theirs = msgspec.structs.asdict(self), msgspec.structs.asdict(other)
        return all(mine[name] == theirs[name] for name in mine if name not in free)

    @property
    def cohort_ms(self) -> int:
        """Return the width of a cohort: a twentieth of the maturity, at least a second."""
        return max(1_000, self.mature_after_ms // 20)


class Places(msgspec.Struct, frozen=True):
    """Hold how many names from outside the fold keeps: unlisted models, versions and replicas of a model."""

    models: int = MODELS.limit
    versions: int = VERSIONS.limit
    replicas: int = REPLICAS.limit


class AlertSink(msgspec.Struct, frozen=True):
    """Hold one place to which alerts go; `target` is the command, or one URL, and `secret` signs what goes there."""

    kind: Literal["command", "webhook", "alertmanager", "apprise"]
    target: list[str]
    timeout_ms: int
    environment: dict[str, str] = {}
    secret: str | None = None


class Web(msgspec.Struct, frozen=True):
    """Hold where the monitor's web listens, None for nowhere; `token_file` is relative to the configuration file."""

    host: str | None = None
    port: int = 0
    token_file: str | None = None

    def url(self, path: str) -> str | None:
        """Return the address of a path, None where there is none, or one that listens everywhere.

        >>> Web("127.0.0.1", 8700).url("/healthz"), Web("0.0.0.0", 8700).url("/healthz")
        ('http://127.0.0.1:8700/healthz', None)
        """
        if self.host in (None, "0.0.0.0", "::") or not self.port:  # noqa: S104 - such an address leads nowhere
            return None
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}{path}"


class Config(msgspec.Struct, frozen=True):
    """Hold the resolved configuration of all models."""

    models: dict[str, ModelConfig]
    defaults: ModelConfig
    log: str = "embedded:./unship-data"
    keys: str = "./unship-keys"
    max_simultaneous: int = 3
    kafka: KafkaSection = KafkaSection()
    alerts: list[AlertSink] = []
    web: Web = Web()
    window_bytes: int = WINDOW.limit
    recording_bytes: int = RECORDING.limit
    places: Places = Places()

    def of(self, model: str) -> ModelConfig:
        """Return the configuration a model is watched with."""
        return self.models.get(model, self.defaults)

    def digest(self) -> str:
        """Return the SHA-256 of what decisions depend on, as hexadecimal text."""
        relevant = [FOLD_VERSION, sorted(self.models.items()), self.defaults, self.max_simultaneous, self.places]
        return hashlib.sha256(msgspec.json.encode(relevant)).hexdigest()

    def recorded(self) -> dict[str, Any]:
        """Return the part that the ledger records, as plain data: where the log and the keys are is not in it."""
        plain: dict[str, Any] = msgspec.to_builtins(self.watched())
        return {name: plain[name] for name in WATCHED}

    def watched(self) -> Config:
        """Return the same without what a fold does not depend on, which is nothing for its snapshots either."""
        return Config(**{name: getattr(self, name) for name in WATCHED})
