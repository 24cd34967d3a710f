"""Logs as commands name them, opened to be read: `embedded:DIR`, or the Kafka log of the configuration."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from console.logs import open_source
from console.running import embedded_folder, kafka_access
from streams.config.resolved import Config
from streams.embedded.topics import EmbeddedTopics, open_log
from streams.recordings.lines import Topics, line_of
from streams.recordings.opening import LineStream
from streams.recordings.writing import taken_of
from unship.log.address import EMBEDDED
from unship.log.kafka.access import SCHEME


def is_log(source: str) -> bool:
    """Whether a source is a log, not a recording."""
    return source.startswith((EMBEDDED, SCHEME))


def configured_log(settings: Any, config: Config) -> str:
    """Return the log that the options or the configuration name; a folder is relative to the configuration."""
    where: str = settings.log or config.log
    return where if where.startswith(SCHEME) else f"{EMBEDDED}{embedded_folder(settings, config)}"


@contextmanager
def open_topics(settings: Any, config: Config, source: str) -> Iterator[Topics]:
    """Open a log's topics; a broker is reached as the configuration says.

    Raises:
        RecordingError: there is no such embedded log.
        BrokerUnreachable: no broker answers.
    """
    if source.startswith(SCHEME):
        from streams.kafka.topic_reader import KafkaTopics

        with KafkaTopics(kafka_access(settings, config, source)) as topics:
            yield topics
    else:
        with open_log(source) as log:
            yield EmbeddedTopics(log)


@contextmanager
def open_lines(settings: Any, config: Config, source: str) -> Iterator[BinaryIO]:
    """Open what can be replayed: a recording, `-`, or a log, read as its own recording."""
    if source.startswith(SCHEME):
        with open_topics(settings, config, source) as topics:
            yield cast(BinaryIO, LineStream(line_of(taken) + b"\n" for taken in taken_of(topics)))
    else:
        with open_source(source) as stream:
            yield stream
