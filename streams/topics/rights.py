"""List the rights of each role on the topics, for a broker to enforce.

The same table is checked by `unship check`, printed in the documentation and tested against a real broker.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from unship.topics import TOPICS, TopicNames

Resource = Literal["topic", "group", "transactional_id"]
Operation = Literal["READ", "WRITE", "CREATE", "ALTER", "ALTER_CONFIGS", "DESCRIBE_CONFIGS"]

INGEST_GROUP, CONTROL_GROUP, AGENTS_GROUP = GROUPS = ("ingest", "control", "monitor")
"""Consumer groups of the monitor, without the prefix: its two services, and the agents that copy the other topics."""

TRANSACTION_PREFIX = "control-"
"""Transactional ids of the monitor, which fence earlier writers of `control`, begin with the prefix and this."""

SINKS_PREFIX = "alerts-"
"""Consumer groups of the monitor that follow `alerts`, one for each sink, begin with the prefix and this."""


class Right(NamedTuple):
    """Permit one operation on a name; with `prefixed`, on every name that begins with it."""

    resource: Resource
    name: str
    operation: Operation
    prefixed: bool = False


class Role(msgspec.Struct, frozen=True):
    """Describe one role; `reads` and `writes` are topics.

    Attributes:
        groups: Whether it joins the consumer groups of the monitor.
        fences: Whether it writes in transactions, whose ids fence earlier writers.
        looks: Whether it reads the topics' settings.
        makes: Whether it creates topics and changes their settings.
    """

    meaning: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    groups: bool = False
    fences: bool = False
    looks: bool = False
    makes: bool = False


ROLES: dict[str, Role] = {
    "emitter": Role(
        "A replica of a model: sends events, obeys commands.",
        reads=("control",),
        writes=("predictions", "deployments", "acks"),
    ),
    "labeler": Role("A source of truths.", writes=("feedback",)),
    "monitor": Role(
        "The monitor: `unship run`, and `unship check` for it.",
        reads=TOPICS,
        writes=("ledger", "decisions", "alerts", "control", "rewind", "snapshots", "rejected"),
        groups=True,
        fences=True,
        looks=True,
    ),
    "operator": Role(
        "A person: `unship ctl`, `status`, `explain`.",
        reads=("ledger", "decisions", "control", "acks", "rewind", "snapshots"),
        writes=("operator",),
    ),
    "auditor": Role("Checks decisions and answers: `unship record`, `audit`, `prove`.", reads=TOPICS),
    "installer": Role("Runs `unship topics apply`; no other role creates topics.", makes=True, looks=True),
}


def rights(role: str, names: TopicNames) -> list[Right]:
    """Return the permissions of one of `ROLES` in a broker whose topics have these names.

    Example:
        >>> rights("labeler", TopicNames())
        [Right(resource='topic', name='unship.feedback', operation='WRITE', prefixed=False)]
    """
    spec = ROLES[role]
    found = [Right("topic", names.of(topic), "READ") for topic in spec.reads]
    found += [Right("topic", names.of(topic), "WRITE") for topic in spec.writes]
    if spec.groups:
        found += [Right("group", names.prefix + group, "READ") for group in GROUPS]
        found.append(Right("group", names.prefix + SINKS_PREFIX, "READ", prefixed=True))
    if spec.fences:
        found.append(Right("transactional_id", names.prefix + TRANSACTION_PREFIX, "WRITE", prefixed=True))
    if spec.looks:
        found += [Right("topic", names.of(topic), "DESCRIBE_CONFIGS") for topic in TOPICS]
    if spec.makes:
        makes: tuple[Operation, ...] = ("CREATE", "ALTER", "ALTER_CONFIGS")
        found += [Right("topic", names.of(topic), operation) for operation in makes for topic in TOPICS]
    return found
