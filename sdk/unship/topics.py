"""Name the topics of a log, whatever kind of log it is, the events they hold and the keys of their records."""

from __future__ import annotations

import re
from typing import Final

from unship.errors import ConfigurationError
from unship.events import Ack, Event, Feedback, Prediction

COMPACTED: Final = ("control", "acks", "rewind", "snapshots")
"""Topics of which a reader wants the newest record of each key; the others keep their history."""

TOPICS: Final = (
    *("predictions", "feedback", "deployments", "operator", "ledger", "decisions", "alerts", "rejected"),
    *COMPACTED,
)

EVENT_TOPICS: Final = {
    "deployments": "deployment",
    "operator": "operator",
    "predictions": "prediction",
    "feedback": "feedback",
    "acks": "ack",
}
"""The topics whose records are events, with the kind of event, in causal order: a cause before its effects."""

TOPIC_OF: Final = {kind: topic for topic, kind in EVENT_TOPICS.items()}
"""The topic of each kind of event."""

SOURCES: Final = ("predictions", "feedback")
"""The topics that are joined, which have equally many partitions."""

PREFIX: Final = "unship."
"""Precedes the topics' names in a broker that is shared."""

PREFIX_CHARS_MAX: Final = 200
_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]*")


class TopicNames:
    """Translate between the names of this contract and those in a broker, which begin with a prefix.

    Example:
        >>> names = TopicNames("shop.unship.")
        >>> names.of("predictions")
        'shop.unship.predictions'
        >>> names.plain("shop.unship.acks"), names.plain("shop.orders")
        ('acks', None)
    """

    __slots__ = ("_plain", "_with_prefix", "prefix")

    def __init__(self, prefix: str = PREFIX) -> None:
        """Take the prefix: letters, digits and `._-`, or nothing at all.

        Raises:
            ConfigurationError: A broker would refuse names with this prefix.
        """
        if len(prefix) > PREFIX_CHARS_MAX or not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(
                f"prefix of the topics: expected at most {PREFIX_CHARS_MAX} of A-Z a-z 0-9 . _ -, was {prefix!r}"
            )
        self.prefix: Final = prefix
        self._with_prefix: Final = {topic: prefix + topic for topic in TOPICS}
        self._plain: Final = {name: topic for topic, name in self._with_prefix.items()}

    def of(self, topic: str) -> str:
        """Return the broker's name of one of `TOPICS`; KeyError for any other."""
        return self._with_prefix[topic]

    def plain(self, name: str) -> str | None:
        """Return which of `TOPICS` a broker's name means; None if it is not one of ours."""
        return self._plain.get(name)


def key_of(event: Event) -> bytes:
    """Return the key of an event's record: the prediction's id, the model, or model and replica.

    Example:
        >>> key_of(Feedback(id="p-1", truth=1))
        b'p-1'
        >>> key_of(Ack(model="fraud", replica="r-1", boot="", epoch=(0, 0, 0), stage="serving"))
        b'fraud/r-1'
    """
    if isinstance(event, Prediction | Feedback):
        return event.id.encode()
    return f"{event.model}/{event.replica}".encode() if isinstance(event, Ack) else event.model.encode()
