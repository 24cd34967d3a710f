"""Turn facts about an installation into lines that an operator can act upon.

Pure: the command collects the facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from streams.config.resolved import Config, HoldbackPolicy, ModelConfig
from streams.config.units import HOUR_MS, NEVER, percent, span_text
from streams.topics.plan import DOWNTIME_MS, REPLICATION, Step, TopicFacts
from streams.topics.rights import ROLES, Right
from unship.topics import SOURCES

Level = Literal["ok", "warning", "error"]

BYTES_PER_PREDICTION = 650
"""Memory of the join per prediction in its window, its truth included; measured in docs/performance.md."""

RIGHTS_SHOWN = 6


class Line(msgspec.Struct, frozen=True):
    """State one finding: `what` was checked, what was `found`, and the `fix` if there is one."""

    level: Level
    what: str
    found: str
    fix: str = ""


class Volume(msgspec.Struct, frozen=True):
    """Count the predictions of the newest `span_ms` milliseconds."""

    predictions: int
    span_ms: int


def holdback_lines(config: Config) -> list[Line]:
    """Return a line for each model, and one for the defaults, that is to hold a version back."""
    return [
        _holdback_line(f"holdback of {name}", rules, rules.holdback)
        for name, rules in (("the defaults", config.defaults), *config.models.items())
        if rules.holdback is not None
    ]


def _holdback_line(what: str, rules: ModelConfig, holdback: HoldbackPolicy) -> Line:
    rises = f", raised to {percent(holdback.raise_to)} after an alarm" if holdback.raise_to > holdback.share else ""
    kept = "always" if holdback.keep_ms >= NEVER else f"for {span_text(holdback.keep_ms)}"
    found = f"the version before answers {percent(holdback.share)} after a release{rises}, {kept}"
    if rules.mode == "observe":
        fix = "set policy.mode to approve or act, or leave policy.holdback out"
        return Line("warning", what, "none: mode observe sends no command", fix)
    if holdback.keep_ms <= rules.mature_after_ms:
        found += f", and outcomes are judged after {span_text(rules.mature_after_ms)}: it ends before the first one"
        return Line("warning", what, found, "raise policy.holdback.keep well above labels.mature_after")
    return Line("ok", what, found)


def topics_lines(steps: Sequence[Step], facts: Mapping[str, TopicFacts]) -> list[Line]:
    """Return a line for each topic, and lines for co-partitioning and replication."""
    lines = [_topic_line(step) for step in steps]
    counts = {step.topic: facts[step.name].partitions for step in steps if step.name in facts}
    if all(topic in counts for topic in SOURCES):
        predictions, feedback = (counts[topic] for topic in SOURCES)
        if predictions == feedback:
            lines.append(Line("ok", "co-partitioning", f"predictions and feedback have {predictions} partitions each"))
        else:
            found = f"{predictions} partitions of predictions, {feedback} of feedback: truths would not join"
            fix = "use another kafka.topics.prefix, with equal counts"
            lines.append(Line("error", "co-partitioning", found, fix))
    few = sorted(name for name, topic in facts.items() if topic.replication < REPLICATION)
    if few:
        least = min(topic.replication for topic in facts.values())
        found = f"{len(few)} topics have a replication factor below {REPLICATION}, the lowest {least}"
        fix = "use three brokers, and kafka-reassign-partitions.sh for existing topics: a disk may fail"
        lines.append(Line("warning", "replication", found, fix))
    lone = sorted(
        name
        for name, topic in facts.items()
        if topic.replication >= REPLICATION and int(topic.settings.get("min.insync.replicas", 2)) < 2
    )
    if lone:
        found = f"min.insync.replicas is 1 for {', '.join(lone)}: an acknowledged record may exist on one broker only"
        lines.append(Line("warning", "replication", found, "set min.insync.replicas=2 on these topics"))
    return lines


def _topic_line(step: Step) -> Line:
    what = f"topic {step.name}"
    if step.action == "create":
        return Line("error", what, "does not exist", "run: unship topics apply")
    if step.action == "refuse":
        return Line("error", what, step.why, "unship topics plan shows the details")
    if step.action == "none":
        return Line("ok", what, f"{step.partitions} partitions, replication factor {step.replication}")
    differences = [_difference(name, before, after) for name, (before, after) in sorted(step.settings.items())]
    if step.grows:
        differences.insert(0, f"too few partitions, expected {step.partitions}")
    return Line("error", what, "; ".join(differences), "run: unship topics apply")


def _difference(name: str, before: str | None, after: str) -> str:
    if name != "retention.ms":
        return f"{name} is {before}, expected {after}"
    # The arithmetic is part of the message, because a shorter horizon may be the fix.
    downtime = span_text(DOWNTIME_MS)
    kept = [span_text(int(value)) if value and int(value) >= 0 else "for ever" for value in (before, after)]
    return (
        f"retention.ms is {before} ({kept[0]}), expected {after} ({kept[1]}: the longest labels.horizon and early, and "
        f"{downtime} of monitor downtime)"
    )


def rights_lines(role: str, missing: Sequence[Right], beyond: Sequence[Right]) -> list[Line]:
    """Return a line for each right that the role needs and lacks, and one for those that it has and does not need."""
    lines = [
        Line(
            "error",
            f"right {right.operation}",
            f"missing on {right.resource} {right.name}{'*' if right.prefixed else ''}",
            f"grant it to this principal: the role {role} needs it",
        )
        for right in missing
    ]
    if not missing:
        lines.append(Line("ok", "rights", f"all that the role {role} needs"))
    if beyond:
        named = ", ".join(f"{right.operation} {right.name}" for right in beyond[:RIGHTS_SHOWN])
        more = f" and {len(beyond) - RIGHTS_SHOWN} more" if len(beyond) > RIGHTS_SHOWN else ""
        lines.append(
            Line(
                "warning",
                "rights",
                f"more than the role {role} needs: {named}{more}; these credentials could forge events",
                "give each role a principal of its own with only its rights: docs/how-to/kafka.md",
            )
        )
    return lines


def beyond(role: str, of_all: Mapping[str, Sequence[Right]]) -> list[Right]:
    """Return the rights to write that other roles have and this one has not."""
    own = set(of_all[role])
    others = {right for name in ROLES for right in of_all[name] if right.operation == "WRITE"}
    return sorted(others - own)


def memory_lines(config: Config, volume: Volume, memory_bytes: int | None) -> list[Line]:
    """Return a line on the memory of the join: predictions of the longest window, at the recent rate."""
    name, model = max([("defaults", config.defaults), *config.models.items()], key=lambda item: _window_ms(item[1]))
    if not volume.predictions or not volume.span_ms:
        return [Line("ok", "memory", "no recent predictions, so no estimate")]
    per_s = volume.predictions * 1000 / volume.span_ms
    needed = per_s * _window_ms(model) / 1000 * BYTES_PER_PREDICTION
    found = (
        f"{per_s:,.1f} predictions/s x {_window_ms(model) / HOUR_MS:,.1f} h (horizon and early of {name}) x "
        f"{BYTES_PER_PREDICTION} bytes = {_size(needed)} in the join"
    )
    if memory_bytes is None or needed <= memory_bytes / 2:
        return [Line("ok", "memory", found)]
    level: Level = "error" if needed > memory_bytes else "warning"
    fix = f"shorten labels.horizon of {name}, add memory, or share the partitions among several monitors"
    return [Line(level, "memory", f"{found}; this machine has {_size(memory_bytes)}", fix)]


def _window_ms(model: ModelConfig) -> int:
    return model.horizon_ms + model.early_ms


def _size(count: float) -> str:
    """Return a number of bytes in words.

    Example:
        >>> _size(3_200_000_000), _size(5_000)
        ('3.2 GB', '0.0 MB')
    """
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def worst(lines: Iterable[Line]) -> Level:
    """Return the most severe level among the lines."""
    order: tuple[Level, ...] = ("ok", "warning", "error")
    return max((line.level for line in lines), key=order.index, default="ok")
