"""Run `unship check`: inspect the configuration, the keys, the log, the rights and the labels."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from console.checks.budgets import limit_text, limits_of
from console.checks.installation import (
    Line,
    Volume,
    beyond,
    holdback_lines,
    memory_lines,
    rights_lines,
    topics_lines,
    worst,
)
from console.checks.labels import delays_in, label_lines, unseen_lines
from console.commands.status import read_reported
from console.commands.topics import kafka_of, steps_of
from console.logs import configured_log, embedded_folder, keys_folder, log_of, open_topics
from console.settings import Exit, Settings
from streams.config.file import load
from streams.config.resolved import Config
from streams.config.units import DAY_MS, HOUR_MS
from streams.kafka.admin import LATEST, Admin, administer
from streams.topics.rights import ROLES, rights
from unship.errors import BrokerUnreachable, TimedOut, UnshipError
from unship.keys import load_private_key, load_trust
from unship.log.kafka.access import SCHEME
from unship.signing import public_bytes

SPANS_MS = (HOUR_MS, DAY_MS)
"""The rate is that of the busier span, so that neither a quiet hour nor a quiet day hides the peak."""

LOCAL = ("127.0.0.1", "localhost", "[::1]")


def check_command(settings: Settings, role: str, timeout_s: float) -> Exit:
    """Print a line for each finding; FINDING if one is an error, UNREACHABLE or TIMED_OUT if no broker answers."""
    config = load(settings.config)
    where = log_of(settings, config)
    lines = [_configuration_line(settings, config), *holdback_lines(config)]
    if role == "monitor":
        lines += _key_lines(settings, config)
    code = Exit.GOOD
    try:
        if where.startswith(SCHEME):
            found, whole = _kafka_lines(settings, config, role, timeout_s)
        else:
            found, whole = _embedded(settings, config)
        lines += found
        if whole:
            lines += _label_lines(settings, config)
    except (BrokerUnreachable, TimedOut) as error:
        # The lines before it still help.
        lines.append(Line("error", "brokers", str(error)))
        code = Exit.UNREACHABLE if isinstance(error, BrokerUnreachable) else Exit.TIMED_OUT
    if settings.as_json:
        limits = list(limits_of(config))
        click.echo(msgspec.json.encode({"lines": lines, "worst": worst(lines), "limits": limits}).decode())
    else:
        click.echo("\n".join([*map(_text, lines), *map(limit_text, limits_of(config))]))
    return code or (Exit.FINDING if worst(lines) == "error" else Exit.GOOD)


def _text(line: Line) -> str:
    fix = f"\n{'':<9}fix: {line.fix}" if line.fix else ""
    return f"{line.level:<8} {line.what}: {line.found}{fix}"


def _configuration_line(settings: Settings, config: Config) -> Line:
    name = "the defaults (no file)" if settings.config is None else str(settings.config)
    return Line("ok", "configuration", f"{name}; {len(config.models)} models named; digest {config.digest()[:12]}")


def _key_lines(settings: Settings, config: Config) -> list[Line]:
    folder = keys_folder(settings, config)
    acting = sorted({model.mode for model in (config.defaults, *config.models.values())} - {"observe"})
    if not (folder / "controller.key").exists():
        found = f"none in {folder}, so no command can be issued"
        if acting:
            return [
                Line("error", "keys", f"{found}, and policy.mode is {' and '.join(acting)}", "run: unship keys new")
            ]
        return [Line("warning", "keys", found, "run: unship keys new; not needed in mode observe")]
    try:
        key, trust = load_private_key(folder / "controller.key"), load_trust(folder / "trust.json")
    except UnshipError as error:
        return [Line("error", "keys", str(error), "see the message")]
    known = [each.name for each in trust.keys if each.public == public_bytes(key) and "controller" in each.roles]
    if not known:
        found = (
            f"{folder / 'trust.json'} does not list controller.key as a controller: replicas would refuse every command"
        )
        return [Line("error", "keys", found, "take both files from one run of: unship keys new")]
    return [Line("ok", "keys", f"{folder}, controller {known[0]}, audience {trust.audience}")]


def _kafka_lines(settings: Settings, config: Config, role: str, timeout_s: float) -> tuple[list[Line], bool]:
    """Return the lines, and whether all topics exist and can be read."""
    access = kafka_of(settings, config)

    async def job(admin: Admin) -> tuple[list[Line], bool]:
        whole = False
        names = config.kafka.topics.names
        lines = [_broker_line(access.options, await admin.brokers())]
        every = {name: rights(name, names) for name in ROLES}
        lacks = await admin.missing(every[role])
        more = beyond(role, every)
        refused = await admin.missing(more)
        lines += rights_lines(role, lacks, [right for right in more if right not in refused])
        if ROLES[role].looks and not lacks:
            steps, facts = await steps_of(admin, config)
            lines += topics_lines(steps, facts)
            whole = role == "monitor" and len(facts) == len(steps)
            if names.of("predictions") in facts and role == "monitor":
                lines += memory_lines(config, await _volume(admin, names.of("predictions")), _memory_bytes())
        elif ROLES[role].looks:
            lines.append(Line("warning", "topics", "not checked: rights are missing", "see the lines above"))
        return lines, whole

    return administer(access, job, timeout_s)


def _broker_line(options: dict[str, Any], brokers: int) -> Line:
    addresses, protocol = options["bootstrap_servers"], options["security_protocol"]
    found = f"{brokers} at {', '.join(addresses)}, {protocol}"
    elsewhere = [address for address in addresses if address.rpartition(":")[0] not in LOCAL]
    if elsewhere and not protocol.endswith("SSL"):
        fix = "use SASL_SSL, or SSL with certificates: docs/how-to/kafka.md"
        return Line("warning", "brokers", f"{found}: anyone on the network path can read and change everything", fix)
    return Line("ok", "brokers", found)


async def _volume(admin: Admin, name: str) -> Volume:
    """Return the number of predictions in the busier of the spans."""
    now_ms = time.time_ns() // 1_000_000
    ends = await admin.offsets([name], LATEST)
    volumes = []
    for span_ms in SPANS_MS:
        starts = await admin.offsets([name], now_ms - span_ms)
        volumes.append(Volume(sum(ends[key] - start for key, start in starts.items()), span_ms))
    return max(volumes, key=lambda volume: volume.predictions / volume.span_ms)


def _label_lines(settings: Settings, config: Config) -> list[Line]:
    """Return lines on label delays, from the newest ledger records and the counts."""
    status, _ = read_reported(settings, config)
    outcomes = {name: sum(model.outcomes.values()) for name, model in status.models.items()}
    with open_topics(settings, config, configured_log(settings, config)) as topics:
        lines = label_lines(config, delays_in(topics), outcomes, status.rejected)
    return lines + unseen_lines({name: model.unseen for name, model in status.models.items()})


def _embedded(settings: Settings, config: Config) -> tuple[list[Line], bool]:
    from unship.log.embedded.file import FILE_NAME
    from unship.log.embedded.log import EmbeddedLog

    folder = embedded_folder(settings, config)
    if not (folder / FILE_NAME).is_file():
        return [Line("ok", "log", f"none in {folder} yet; created by unship run or by the first emitter")], False
    with EmbeddedLog(folder) as log:
        ends = log.ends()
        first = log.first("predictions")
        oldest = log.read("predictions", first, limit=1)
        newest = log.read("predictions", ends["predictions"] - 1, limit=1) if oldest else []
    size = sum(file.stat().st_size for file in Path(folder).glob(f"{FILE_NAME}*"))
    lines = [Line("ok", "log", f"{folder}, {sum(ends.values()):,} records so far, {size / 1e6:,.1f} MB")]
    span_ms = newest[0].append_ts - oldest[0].append_ts if newest else 0
    return lines + memory_lines(config, Volume(ends["predictions"] - first, span_ms), _memory_bytes()), True


def _memory_bytes() -> int | None:
    """Return the memory of this machine; None where the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None
