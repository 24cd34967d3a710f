"""Run `unship emit` and `unship keys new`."""

from __future__ import annotations

import sys

import click
import msgspec

from console.logs import configured_log, embedded_folder, kafka_access, keys_folder
from console.settings import Exit, Settings
from streams.config.file import load
from streams.config.resolved import Config
from unship.codec import decode_value
from unship.errors import ConfigurationError
from unship.keys import new_keys
from unship.log.embedded.log import EmbeddedLog, Message
from unship.log.kafka.access import SCHEME
from unship.rejections import Rejection
from unship.topics import TOPIC_OF, key_of


def emit_command(settings: Settings, kind: str, text: str) -> Exit:
    """Append one event to its topic, unless the monitor would reject it."""
    value = sys.stdin.buffer.read(1_000_000) if text == "-" else text.encode()
    event = decode_value(kind, value)
    if isinstance(event, Rejection):
        raise ConfigurationError(f"the {kind} would be rejected: {event.code} {event.detail}".rstrip())
    topic = TOPIC_OF[kind]
    partition, offset = append(settings, load(settings.config), topic, key_of(event), value)
    if settings.as_json:
        click.echo(msgspec.json.encode({"topic": topic, "partition": partition, "offset": offset}).decode())
    else:
        settings.report(f"emit: {topic}, offset {offset}")
    return Exit.GOOD


def append(
    settings: Settings,
    config: Config,
    topic: str,
    key: bytes,
    value: bytes,
    headers: tuple[tuple[str, bytes], ...] = (),
) -> tuple[int, int]:
    """Append a record to a topic of the configured log; return its partition and offset."""
    if configured_log(settings, config).startswith(SCHEME):
        from streams.kafka.append import append_one

        return append_one(kafka_access(settings, config), topic, key, value, headers)
    with EmbeddedLog(embedded_folder(settings, config)) as log:
        (offset,) = log.append(topic, [Message(value, key, headers)])
    return 0, offset


def keys_command(settings: Settings, audience: str) -> Exit:
    """Make keys in the configured folder."""
    folder = keys_folder(settings, load(settings.config))
    trust = new_keys(folder, audience)
    settings.report(
        f"keys: {', '.join(key.name for key in trust.keys)} in {folder}; give replicas {folder / 'trust.json'} only"
    )
    return Exit.GOOD
