"""Open logs as commands name them: `embedded:DIR`, or the Kafka log of the configuration.

Each function imports what it opens a log with: most commands only need the name of the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from console.settings import Settings
from streams.config.file import load
from streams.config.resolved import Config
from unship.budgets.table import RECORDING
from unship.errors import ConfigurationError
from unship.log.address import EMBEDDED
from unship.log.kafka.access import SCHEME

if TYPE_CHECKING:
    from streams.kafka.clients import Access
    from streams.recordings.lines import Topics


def is_log(source: str) -> bool:
    """Return whether a source is a log, not a recording."""
    return source.startswith((EMBEDDED, SCHEME))


def configured_log(settings: Settings, config: Config) -> str:
    """Return the log that the options or the configuration name; a folder is relative to the configuration."""
    where: str = settings.log or config.log
    return where if where.startswith(SCHEME) else f"{EMBEDDED}{embedded_folder(settings, config)}"


def settings_for_reading(settings: Settings, source: str | None) -> tuple[Settings, Config]:
    """Return the settings for a command that only reads a source, and what they configure; no code is imported.

    Args:
        settings: Those of the command line.
        source: A recording or a log; None for the log that the options or the configuration name. A configuration
            that was not named is read only for the address of one's own log and of a broker.
    """
    source = source or settings.log
    settings = settings if source is None or source.startswith(SCHEME) else settings.for_evidence()
    return settings, load(settings.config, imports=False)


@contextmanager
def open_topics(settings: Settings, config: Config, source: str) -> Iterator[Topics]:
    """Open the topics of a log; connect to a broker by the settings of the configuration.

    Raises:
        RecordingError: There is no such embedded log.
        BrokerUnreachable: No broker answers.
    """
    if source.startswith(SCHEME):
        from streams.kafka.topic_reader import KafkaTopics

        with KafkaTopics(kafka_access(settings, config, source)) as topics:
            yield topics
    else:
        from streams.embedded.topics import EmbeddedTopics, open_log

        with open_log(source) as log:
            yield EmbeddedTopics(log)


@contextmanager
def open_lines(settings: Settings, config: Config, source: str) -> Iterator[BinaryIO]:
    """Open a source of `unship replay`: a recording, `-`, or a log, which is read as its own recording."""
    if source.startswith(SCHEME):
        with open_topics(settings, config, source) as topics:
            yield _lines_of(topics)
    else:
        with open_source(source, config.recording_bytes) as stream:
            yield stream


@contextmanager
def open_source(source: str, limit: int = RECORDING.limit) -> Iterator[BinaryIO]:
    """Open a source without a broker: a recording, `-` for standard input, or `embedded:DIR`.

    Args:
        source: The path or the address.
        limit: How many bytes of a compressed recording are unpacked.

    Raises:
        RecordingError: It cannot be opened.
    """
    if source.startswith(EMBEDDED):
        from streams.embedded.topics import EmbeddedTopics, open_log

        with open_log(source) as log:
            yield _lines_of(EmbeddedTopics(log))
    else:
        from streams.recordings.file_formats import open_recording

        with open_recording(source, limit) as stream:
            yield stream


def _lines_of(topics: Topics) -> BinaryIO:
    from streams.recordings.lines import line_of
    from streams.recordings.opening import LineStream
    from streams.recordings.writing import taken_of

    return cast(BinaryIO, LineStream(line_of(taken) + b"\n" for taken in taken_of(topics)))


def kafka_access(settings: Settings, config: Config, log: str | None = None) -> Access:
    """Return how to reach a Kafka log: the one given, or that of the options or the configuration."""
    from streams.kafka.clients import Access
    from unship.log.kafka.settings import client_options

    folder = settings.config.parent if settings.config is not None else Path()
    options = client_options(
        log or settings.log or config.log, config.kafka.security_given, client_id="unship-monitor", folder=folder
    )
    return Access(options, config.kafka.topics.names)


def embedded_folder(settings: Settings, config: Config) -> Path:
    """Return the folder of the embedded log.

    Raises:
        ConfigurationError: The log is of another kind.
    """
    where = log_of(settings, config)
    if not where.startswith(EMBEDDED):
        raise ConfigurationError(f"log: expected embedded:DIR or kafka://HOST:PORT, was {where}")
    folder = Path(where.removeprefix(EMBEDDED))
    base = settings.config.parent if settings.config is not None and not settings.log else Path()
    return base / folder


def log_of(settings: Settings, config: Config) -> str:
    """Return the address of the log: that of the command line before that of the configuration."""
    return str(settings.log or config.log)


def window_folder(settings: Settings, config: Config) -> Path | None:
    """Return where a worker keeps windows beyond memory, relative to the configuration file; None for nowhere."""
    base = settings.config.parent if settings.config is not None else Path()
    return None if config.kafka.window_dir is None else base / config.kafka.window_dir


def keys_folder(settings: Settings, config: Config) -> Path:
    """Return the folder of the keys, which is relative to the configuration file."""
    base = settings.config.parent if settings.config is not None else Path()
    return base / config.keys
