"""Specify the topics of a Kafka log, and plan the steps from a broker's topics to that specification.

Pure: facts about a broker come in, steps go out. No step deletes a topic, removes a partition or shortens retention.
Settings that only tune a topic are applied when it is created and then left to the broker's operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from streams.config.resolved import Config
from streams.config.units import HOUR_MS
from unship.topics import COMPACTED, SOURCES, TOPICS

DOWNTIME_MS = 24 * HOUR_MS
"""The longest downtime of the monitor without a loss of events that it has not joined yet."""

EVENT_BATCH_BYTES = 1_048_588
"""Largest batch of events: the broker's own default, sixteen events of the largest size that the decoder reads."""

RECORD_BYTES = 8 * 1_048_576
"""Largest record of the monitor: no request of its producers is larger than half of that."""

APPEND_TIME = ("predictions", "feedback", "deployments", "operator", "acks", "ledger")
"""Topics whose append time is a clock of the monitor, so that it must be the broker's and not the writer's."""

BY_MODEL = ("deployments", "operator", "ledger", "decisions", "alerts", "control", "acks", "snapshots", "rejected")
REPLICATION = 3
FOR_EVER = -1


class Setting(msgspec.Struct, frozen=True):
    """Hold one setting of a topic: the value of a new topic, and the bound for an existing one.

    `least` bounds a number from below, where -1 is more than any; `exactly` requires the value; with neither, an
    existing topic may have any value.
    """

    value: str
    least: int | None = None
    exactly: bool = False

    def kept_by(self, found: str | None) -> bool:
        """Return whether an existing topic's value is good; a value that the broker does not report is."""
        if found is None:
            return True
        if self.least is not None:
            return int(found) == FOR_EVER or (self.least != FOR_EVER and int(found) >= self.least)
        return not self.exactly or found == self.value

    @property
    def repaired(self) -> str:
        """Return the value to set in an existing topic whose own value is not good."""
        return self.value if self.least is None else str(self.least)


class TopicSpec(msgspec.Struct, frozen=True):
    """Specify a topic; `name` is the broker's, `topic` ours."""

    topic: str
    name: str
    partitions: int
    settings: dict[str, Setting]


class TopicFacts(msgspec.Struct, frozen=True):
    """Describe a broker's topic; `empty` if it never held a record."""

    partitions: int
    replication: int
    settings: dict[str, str]
    empty: bool


class Step(msgspec.Struct, frozen=True):
    """Change one topic, or explain why that needs an operator.

    Attributes:
        action: `create`, `change` (settings, or more partitions of an empty topic), `refuse` (it needs an operator), or
            `none`.
        partitions, replication: The numbers after the step.
        settings: For each setting that changes, its old value (None in a new topic) and its new value.
        why: For `refuse`, the obstacle and the fix.
    """

    topic: str
    name: str
    action: Literal["create", "change", "refuse", "none"]
    partitions: int
    replication: int
    grows: bool = False
    settings: dict[str, tuple[str | None, str]] = {}
    why: str = ""


def needed_ms(config: Config) -> int:
    """Return how long events must be kept: while a label can join them, plus the monitor's longest downtime."""
    every = [config.defaults, *config.models.values()]
    return max(model.horizon_ms + model.early_ms for model in every) + DOWNTIME_MS


def specs(config: Config) -> list[TopicSpec]:
    """Return the specification of every topic under a configuration, in the order of the contract."""
    section = config.kafka.topics
    names = section.names
    partitions = dict.fromkeys(SOURCES, section.partitions) | dict.fromkeys(BY_MODEL, section.ledger_partitions)
    return [
        TopicSpec(topic, names.of(topic), partitions.get(topic, 1), _settings(topic, needed_ms(config)))
        for topic in TOPICS
    ]


def _settings(topic: str, events_ms: int) -> dict[str, Setting]:
    large = topic in ("ledger", "decisions", "snapshots")
    size = RECORD_BYTES if large else EVENT_BATCH_BYTES
    settings = {
        "cleanup.policy": Setting("compact" if topic in COMPACTED else "delete", exactly=True),
        "max.message.bytes": Setting(str(size), least=size),
        # A replica that is not in sync must not become the leader: offsets would be assigned twice.
        "unclean.leader.election.enable": Setting("false", exactly=True),
    }
    if topic in APPEND_TIME:
        settings["message.timestamp.type"] = Setting("LogAppendTime", exactly=True)
    if topic in COMPACTED:
        # A reader that is back after a week still reads a key's tombstone; a new one reads an hour of repeats.
        settings["delete.retention.ms"] = Setting(str(7 * 24 * HOUR_MS))
        settings["max.compaction.lag.ms"] = Setting(str(HOUR_MS))
        settings["min.cleanable.dirty.ratio"] = Setting("0.1")
        # Compaction skips the newest segment, so segments are short.
        settings["segment.ms"] = Setting(str(HOUR_MS // 6))
        return settings
    # By time only: a limit by size would delete what is still to be joined on a busy day.
    settings["retention.bytes"] = Setting(str(FOR_EVER), least=FOR_EVER)
    kept_ms = events_ms if topic in (*SOURCES, "rejected") else FOR_EVER
    settings["retention.ms"] = Setting(str(kept_ms), least=events_ms)
    # Records are deleted by whole segments, so a segment of a week would keep personal data a week longer.
    settings["segment.ms"] = Setting(str(24 * HOUR_MS))
    return settings


def plan(wanted: Iterable[TopicSpec], facts: Mapping[str, TopicFacts], brokers: int, copies: int | None) -> list[Step]:
    """Return a step for each topic.

    Args:
        wanted: The specified topics.
        facts: The existing topics, by the broker's name.
        brokers: The number of brokers.
        copies: Of each record in a new topic; None for three, or one per broker where there are fewer.
    """
    replication = min(REPLICATION, brokers) if copies is None else copies
    return [_step(spec, facts.get(spec.name), replication, brokers) for spec in wanted]


def _step(spec: TopicSpec, found: TopicFacts | None, replication: int, brokers: int) -> Step:
    if found is None:
        if replication > brokers:
            why = f"{replication} copies need as many brokers, and there are {brokers}: lower kafka.topics.replication"
            return Step(spec.topic, spec.name, "refuse", spec.partitions, replication, why=why)
        settings: dict[str, tuple[str | None, str]] = {name: (None, each.value) for name, each in spec.settings.items()}
        settings["min.insync.replicas"] = (None, "2" if replication >= REPLICATION else "1")
        return Step(spec.topic, spec.name, "create", spec.partitions, replication, settings=settings)
    grows = found.partitions < spec.partitions and found.empty
    changes: dict[str, tuple[str | None, str]] = {
        name: (found.settings.get(name), setting.repaired)
        for name, setting in spec.settings.items()
        if not setting.kept_by(found.settings.get(name))
    }
    why = "" if grows or found.partitions == spec.partitions else _other_count(spec, found)
    action: Literal["change", "refuse", "none"] = "refuse" if why else "change" if grows or changes else "none"
    partitions = spec.partitions if grows else found.partitions
    return Step(spec.topic, spec.name, action, partitions, found.replication, grows, changes, why)


def _other_count(spec: TopicSpec, found: TopicFacts) -> str:
    """Return why a topic keeps its number of partitions, and the fix."""
    obstacle = "partitions cannot be taken away"
    if found.partitions < spec.partitions:
        obstacle = "it holds records, whose keys would move"
    keys = dict.fromkeys(SOURCES, "partitions") | dict.fromkeys(BY_MODEL, "ledger_partitions")
    way_out = ""
    if spec.topic in keys:
        way_out = f"set kafka.topics.{keys[spec.topic]}: {found.partitions} if all its topics have that many, or "
    return (
        f"{found.partitions} partitions, expected {spec.partitions}, and {obstacle}: "
        f"{way_out}start afresh under another kafka.topics.prefix"
    )
