"""Define the section `kafka` of `unship.yaml`: access to a broker, and its topics.

Nothing of it can change a decision, so it is not part of the configuration's digest, and nothing of it is written into
the ledger: the ledger is read by auditors, and the section may hold a password.
"""

from __future__ import annotations

import msgspec

from unship.errors import ConfigurationError
from unship.log.kafka.access import Security
from unship.topics import PREFIX, TopicNames

PARTITIONS_MAX = 1_024
LEDGER_PARTITIONS_MAX = 256
REPLICATION_MAX = 16


class KafkaTopicsSection(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Name the topics, and the number of their partitions.

    Attributes:
        prefix: The beginning of every topic's name.
        partitions: Of `predictions` and of `feedback`; equally many, because they are joined pairwise.
        ledger_partitions: Of every topic that is keyed by the model.
        replication: Copies of every record; None for three, or one per broker where there are fewer.
    """

    prefix: str = PREFIX
    partitions: int = 8
    ledger_partitions: int = 8
    replication: int | None = None

    @property
    def names(self) -> TopicNames:
        """Return the topics' names in the broker."""
        return TopicNames(self.prefix)


class KafkaSection(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Hold how to connect to the broker that `log` names; not used by an embedded log.

    Attributes:
        security: How clients log in.
        window_dir: Where a worker keeps what does not fit into its memory, and what it need not read again after a
            restart; None for nowhere.
        topics: The topics.
    """

    security: Security = Security()
    window_dir: str | None = "./unship-window"
    topics: KafkaTopicsSection = KafkaTopicsSection()

    @property
    def security_given(self) -> Security | None:
        """Return the security settings; None if the section is absent, so that those of the environment apply."""
        return None if self.security == Security() else self.security

    def check(self) -> None:
        """Refuse settings that no broker accepts.

        Raises:
            ConfigurationError: A name or a number is outside its limits; with the path, both numbers and the fix.
        """
        self.security.check("kafka.security.")
        try:
            TopicNames(self.topics.prefix)
        except ConfigurationError as error:
            raise ConfigurationError(f"kafka.topics.prefix: {error}") from error
        limits = (("partitions", PARTITIONS_MAX), ("ledger_partitions", LEDGER_PARTITIONS_MAX))
        for name, most in (*limits, ("replication", REPLICATION_MAX)):
            value = getattr(self.topics, name)
            if value is not None and not 1 <= value <= most:
                raise ConfigurationError(f"kafka.topics.{name}: {value} is outside 1 .. {most}")
