"""Follow the topics of an embedded log, or of a broker, that show what became of an act."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from console.commands.operating.tail import COMPACTED, GROWING, Tail
from console.logs import configured_log, embedded_folder, kafka_access
from console.settings import Settings
from streams.config.resolved import Config
from streams.embedded.topics import taken_of
from streams.recordings.lines import Taken
from unship.errors import ConfigurationError
from unship.log.embedded.file import FILE_NAME
from unship.log.embedded.log import EmbeddedLog
from unship.log.kafka.access import SCHEME


class EmbeddedTail:
    """The topics of an embedded log, which has one partition of each."""

    partition = 0

    def __init__(self, log: EmbeddedLog) -> None:
        ends = log.ends()
        self._log = log
        self._positions = {topic: ends[topic] for topic in GROWING}
        self._first: list[Taken] = []
        for topic in COMPACTED:
            newest = list(log.latest(topic).values())
            self._positions[topic] = max((record.offset for record in newest), default=-1) + 1
            self._first += [taken_of(topic, each) for each in newest]

    def next(self, topics: Sequence[str], timeout_s: float) -> list[Taken]:
        """Return new records of some topics; wait so long at most until there is one."""
        found, self._first = self._first, []
        wanted = {topic: self._positions[topic] for topic in topics}
        for topic in self._log.wait(wanted, 0.0 if found else timeout_s):
            found += self._read(topic)
        return found

    def rest(self, topic: str) -> list[Taken]:
        """Return the new records of a topic up to its end of now."""
        found: list[Taken] = []
        while records := self._read(topic):
            found += records
        return found

    def _read(self, topic: str) -> list[Taken]:
        records = self._log.read(topic, self._positions[topic])
        if records:
            self._positions[topic] = records[-1].offset + 1
        return [taken_of(topic, each) for each in records]


@contextmanager
def open_tail(settings: Settings, config: Config, model: str) -> Iterator[Tail]:
    """Begin to follow what becomes of acts on a model.

    Raises:
        ConfigurationError: There is no such log.
        BrokerUnreachable: No broker answers.
    """
    if configured_log(settings, config).startswith(SCHEME):
        from console.commands.operating.kafka_tail import KafkaTail

        with KafkaTail(kafka_access(settings, config), model) as tail:
            yield tail
        return
    folder = embedded_folder(settings, config)
    if not (folder / FILE_NAME).is_file():
        raise ConfigurationError(f"{folder}: there is no log; start one with: unship --log embedded:{folder} run")
    with EmbeddedLog(folder) as log:
        yield EmbeddedTail(log)
