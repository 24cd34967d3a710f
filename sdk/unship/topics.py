"""Name the topics of a log, whatever kind of log it is."""

from __future__ import annotations

import re
from typing import Final

from unship.errors import ConfigurationError

COMPACTED: Final = ("control", "acks", "rewind", "snapshots")
"""Topics of which a reader wants the newest record of each key; the others keep their history."""

TOPICS: Final = ("predictions", "feedback", "deployments", "operator", "ledger", "decisions", "rejected", *COMPACTED)

PREFIX: Final = "unship."
"""What stands before the topics' names in a broker that others use too."""

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


SOURCES = ("predictions", "feedback")
