"""Run `unship emit`."""

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
from unship.events import Deployment
from unship.keys import DEPLOYER_FILE, TRUST_FILE, deployment_key, load_trust, new_nonce
from unship.log.embedded.log import EmbeddedLog, Message
from unship.log.kafka.access import SCHEME
from unship.log.link import wall_ms
from unship.rejections import Rejection
from unship.signing import sign_event
from unship.topics import TOPIC_OF, key_of


def emit_command(settings: Settings, kind: str, text: str) -> Exit:
    """Append one event to its topic, unless the monitor would reject it."""
    value = sys.stdin.buffer.read(1_000_000) if text == "-" else text.encode()
    event = decode_value(kind, value)
    if isinstance(event, Rejection):
        raise ConfigurationError(f"the {kind} would be rejected: {event.code} {event.detail}".rstrip())
    topic, config = TOPIC_OF[kind], load(settings.config)
    headers: tuple[tuple[str, bytes], ...] = ()
    if isinstance(event, Deployment):
        value, headers = _signed(settings, config, event, value)
    partition, offset = append(settings, config, topic, key_of(event), value, headers)
    if settings.as_json:
        click.echo(msgspec.json.encode({"topic": topic, "partition": partition, "offset": offset}).decode())
    else:
        settings.report(f"emit: {topic}, offset {offset}")
    return Exit.GOOD


def _signed(
    settings: Settings, config: Config, event: Deployment, value: bytes
) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    """Return the record of a deployment, signed if there is a key for it."""
    folder = keys_folder(settings, config)
    key = deployment_key(folder)
    if key is None:
        if config.of(event.model).deployments == "signed":
            settings.report(
                f"emit: no {DEPLOYER_FILE} in {folder}, so the deployment is not signed, and the monitor will ignore "
                "it (UNSIGNED_DEPLOYMENT)"
            )
        return value, ()
    return sign_event(event, key, load_trust(folder / TRUST_FILE).audience, wall_ms(), new_nonce())


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
