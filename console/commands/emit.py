"""`unship emit` and `unship keys new`."""

import sys

import click
import msgspec

from console.logs import configured_log, embedded_folder, kafka_access, keys_folder
from console.settings import Settings
from streams.config.file import load
from streams.config.resolved import Config
from unship.codec import decode_value
from unship.errors import ConfigurationError
from unship.events import Deployment, Feedback, Prediction
from unship.keys import new_keys
from unship.log.embedded.log import EmbeddedLog, Message
from unship.log.kafka.access import SCHEME
from unship.rejections import Rejection

TOPICS = {"prediction": "predictions", "feedback": "feedback", "deployment": "deployments"}


def emit_command(settings: Settings, kind: str, text: str) -> int:
    """Append one event to its topic, if the monitor would take it."""
    value = sys.stdin.buffer.read(1_000_000) if text == "-" else text.encode()
    event = decode_value(kind, value)
    if isinstance(event, Rejection):
        raise ConfigurationError(f"the {kind} would be rejected: {event.code} {event.detail}".rstrip())
    assert isinstance(event, Prediction | Feedback | Deployment)
    key = event.model if isinstance(event, Deployment) else event.id
    partition, offset = append(settings, load(settings.config), TOPICS[kind], key.encode(), value)
    if settings.as_json:
        click.echo(msgspec.json.encode({"topic": TOPICS[kind], "partition": partition, "offset": offset}).decode())
    else:
        settings.tell(f"emit: {TOPICS[kind]}, offset {offset}")
    return 0


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
        from streams.kafka.clients import append_one

        return append_one(kafka_access(settings, config), topic, key, value, headers)
    with EmbeddedLog(embedded_folder(settings, config)) as log:
        (offset,) = log.append(topic, [Message(value, key, headers)])
    return 0, offset


def keys_command(settings: Settings, audience: str) -> int:
    """Make keys in the configured folder."""
    folder = keys_folder(settings, load(settings.config))
    trust = new_keys(folder, audience)
    settings.tell(
        f"keys: {', '.join(key.name for key in trust.keys)} in {folder}; give replicas {folder / 'trust.json'} only"
    )
    return 0
