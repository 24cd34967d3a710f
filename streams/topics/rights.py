"""Say what each role may do with the topics, and nothing more: the table of rights that a broker is to enforce.

The same table is asked by `unship check`, printed in the documentation and tried out against a real broker.
"""

from typing import Literal, NamedTuple

import msgspec

from unship.topics import TOPICS, TopicNames

Resource = Literal["topic", "group", "transactional_id"]
Operation = Literal["READ", "WRITE", "CREATE", "ALTER", "ALTER_CONFIGS", "DESCRIBE_CONFIGS"]

INGEST_GROUP, CONTROL_GROUP, AGENTS_GROUP = GROUPS = ("ingest", "control", "monitor")
"""Consumer groups of the monitor, after the prefix: its two services, and the agents on the quiet topics."""

TRANSACTION_PREFIX = "control-"
"""Transactional ids of the monitor, which fence earlier writers of `control`, begin with the prefix and this."""


class Right(NamedTuple):
    """One permission: `prefixed` if it holds for every name that begins with `name`."""

    resource: Resource
    name: str
    operation: Operation
    prefixed: bool = False


class Role(msgspec.Struct, frozen=True):
    """Who does what; `reads` and `writes` are topics.

    Attributes:
        groups: joins the consumer groups of the monitor.
        fences: writes in transactions, whose ids fence earlier writers.
        looks: reads the topics' settings.
        makes: makes topics and changes their settings.
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
        writes=("ledger", "decisions", "control", "rewind", "snapshots", "rejected"),
        groups=True,
        fences=True,
        looks=True,
    ),
    "operator": Role(
        "A person: `unship ctl`, `status`, `explain`.",
        reads=("ledger", "decisions", "control", "acks", "rewind", "snapshots"),
        writes=("operator",),
    ),
    "auditor": Role("Whoever checks decisions: `unship record`, `audit`.", reads=TOPICS),
    "installer": Role("Whoever runs `unship topics apply`, and nobody else.", makes=True, looks=True),
}


def rights(role: str, names: TopicNames) -> list[Right]:
    """Return the permissions of one of `ROLES` in a broker whose topics have these names.

    >>> rights("labeler", TopicNames())
    [Right(resource='topic', name='unship.feedback', operation='WRITE', prefixed=False)]
    """
    spec = ROLES[role]
    found = [Right("topic", names.of(topic), "READ") for topic in spec.reads]
    found += [Right("topic", names.of(topic), "WRITE") for topic in spec.writes]
    if spec.groups:
        found += [Right("group", names.prefix + group, "READ") for group in GROUPS]
    if spec.fences:
        found.append(Right("transactional_id", names.prefix + TRANSACTION_PREFIX, "WRITE", prefixed=True))
    if spec.looks:
        found += [Right("topic", names.of(topic), "DESCRIBE_CONFIGS") for topic in TOPICS]
    if spec.makes:
        makes: tuple[Operation, ...] = ("CREATE", "ALTER", "ALTER_CONFIGS")
        found += [Right("topic", names.of(topic), operation) for operation in makes for topic in TOPICS]
    return found
