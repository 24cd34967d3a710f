"""The configuration as the core reads it: every default filled in, every duration in milliseconds."""

import hashlib
from typing import Any

import msgspec

from streams.config.kafka import KafkaSection
from streams.losses.columns import LossSpec

#: Raised with every change that can alter a decision's bytes.
FOLD_VERSION = 4


#: So much of a configuration's digest stands in every batch.
CONFIG_DIGITS = 16


class ModelConfig(msgspec.Struct, frozen=True):
    """One model's configuration, resolved. Times are milliseconds.

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

    @property
    def negative(self) -> bool:
        """Whether a prediction without a label at maturity was answered by that: its truth is 0."""
        return self.missing == "negative"

    @property
    def latency_losses(self) -> list[int]:
        """Numbers of the losses that need no label."""
        return [number for number, spec in enumerate(self.losses) if spec.of_latency]

    @property
    def judges_unlabelled(self) -> bool:
        """Whether a prediction without a label is judged too, so that the ledger must carry each prediction."""
        return self.negative or bool(self.latency_losses)

    @property
    def outcomes_labelled(self) -> bool | None:
        """Which judged rows are outcomes: those with a label (True), those without (False), or all (None).

        Where latency stands first, each prediction is an outcome, once. Without a maturity it is judged before its
        label comes, and the label's row is only for the other losses.
        """
        if self.losses[0].of_latency:
            return None if self.mature_after_ms else False
        return None if self.negative or not self.judges_unlabelled else True

    def judges_as(self, other: "ModelConfig") -> bool:
        """Whether what the other one judged can go on: they differ in what may be done, not in what is seen."""
        free = ("mode", "cooldown_ms", "switches_max", "switches_span_ms", "without_control", "confirm_within_ms")
        mine, theirs = msgspec.structs.asdict(self), msgspec.structs.asdict(other)
        return all(mine[name] == theirs[name] for name in mine if name not in (*free, "proposal_ttl_ms"))

    @property
    def cohort_ms(self) -> int:
        """Width of a cohort: a twentieth of the maturity, at least a second."""
        return max(1_000, self.mature_after_ms // 20)


class Config(msgspec.Struct, frozen=True):
    """The resolved configuration of all models."""

    models: dict[str, ModelConfig]
    defaults: ModelConfig
    log: str = "embedded:./unship-data"
    keys: str = "./unship-keys"
    max_simultaneous: int = 3
    kafka: KafkaSection = KafkaSection()

    def of(self, model: str) -> ModelConfig:
        """Return the configuration a model is watched with."""
        return self.models.get(model, self.defaults)

    def digest(self) -> str:
        """Return the SHA-256 of what decisions depend on, as hexadecimal text."""
        relevant = [FOLD_VERSION, sorted(self.models.items()), self.defaults, self.max_simultaneous]
        return hashlib.sha256(msgspec.json.encode(relevant)).hexdigest()

    def recorded(self) -> dict[str, Any]:
        """Return what the ledger keeps of it, as plain data: everything but the way into the broker."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        del plain["kafka"]
        return plain
