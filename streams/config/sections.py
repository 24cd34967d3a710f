"""Define the sections of `unship.yaml` as they are written."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from streams.config.kafka import KafkaSection
from unship.budgets.table import MODELS, REPLICAS, SLICE_VALUES, VERSIONS

DETECTORS_BY_DEFAULT = ("e_detector", "adwin", "page_hinkley")


class Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Refuse unknown keys: what all sections share."""


class TargetSection(Section, forbid_unknown_fields=True, frozen=True):
    """Describe what is predicted."""

    kind: Literal["binary", "multiclass", "regression", "ranking", "custom"] = "binary"


class LabelsSection(Section, forbid_unknown_fields=True, frozen=True):
    """Describe when labels come, and when outcomes count."""

    horizon: str | int = "7d"
    mature_after: str | int = "0s"
    early: str | int = "10m"
    missing: Literal["ignore", "negative"] = "ignore"
    on_conflict: Literal["first", "last"] = "first"
    sources: list[str] | None = None


class SlicesSection(Section, forbid_unknown_fields=True, frozen=True):
    """Name the fields of `slices` that are watched on their own, and limit their values."""

    by: list[str] = []
    cap: int = SLICE_VALUES.limit


class HoldbackSection(Section, forbid_unknown_fields=True, frozen=True):
    """Name the share of an earlier version that goes on answering after another one was deployed."""

    share: str | float | None = None
    raise_to: str | float | None = None
    keep: str | int = "14d"


class PolicySection(Section, forbid_unknown_fields=True, frozen=True):
    """Limit what may be done, and how often."""

    mode: Literal["observe", "approve", "act"] = "observe"
    cooldown: str | int = "30m"
    max_switches: str = "2 per 1d"
    without_control: Literal["propose", "act", "page"] = "propose"
    confirm_within: str | int = "1d"
    proposal_ttl: str | int = "1d"
    deployments: Literal["signed", "any"] | None = None
    holdback: HoldbackSection | None = None


class ModelSection(Section, forbid_unknown_fields=True, frozen=True):
    """Hold everything that can be configured for one model."""

    target: TargetSection = TargetSection()
    losses: list[str | dict[str, Any]] = msgspec.field(default_factory=lambda: ["zero_one"])
    labels: LabelsSection = LabelsSection()
    slices: SlicesSection = SlicesSection()
    worse_by: float = 0.02
    one_false_alarm_per: int | str = 1_000_000
    detectors: list[str] = msgspec.field(default_factory=lambda: list(DETECTORS_BY_DEFAULT))
    policy: PolicySection = PolicySection()


class FleetSection(Section, forbid_unknown_fields=True, frozen=True):
    """Hold the limits over all models."""

    max_simultaneous: int = 3


class LimitsSection(Section, forbid_unknown_fields=True, frozen=True):
    """Hold the rows of the table of budgets that can be set, each by its key."""

    window: str | int = "1GiB"
    recording: str | int = "4GiB"
    models: int = MODELS.limit
    versions: int = VERSIONS.limit
    replicas: int = REPLICAS.limit


class AlertSection(Section, forbid_unknown_fields=True, frozen=True):
    """Name one place to which alerts go: a command, or a URL for a webhook, an Alertmanager or Apprise."""

    command: list[str] | None = None
    webhook: str | None = None
    alertmanager: str | None = None
    apprise: str | None = None
    timeout: str | int = "30s"
    environment: dict[str, str] = {}
    secret: str | None = None


class WebSection(Section, forbid_unknown_fields=True, frozen=True):
    """Name where the monitor's web listens; without a file with a token only on this machine."""

    listen: str | None = None
    token_file: str | None = None


class ConfigFile(Section, forbid_unknown_fields=True, frozen=True):
    """Hold the whole of `unship.yaml`."""

    log: str = "embedded:./unship-data"
    keys: str = "./unship-keys"
    defaults: ModelSection = ModelSection()
    models: dict[str, ModelSection] = {}
    fleet: FleetSection = FleetSection()
    limits: LimitsSection = LimitsSection()
    kafka: KafkaSection = KafkaSection()
    alerts: list[AlertSection] = []
    web: WebSection = WebSection()
