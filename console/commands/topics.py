"""Run `unship topics`: compare the topics with what they should be, create and change them."""

from __future__ import annotations

import asyncio
from typing import Any

import click
import msgspec

from console.logs import kafka_access, log_of
from console.settings import Exit, Settings
from streams.config.file import load
from streams.config.resolved import Config
from streams.kafka.admin import LOOK_EVERY_S, Admin, run
from streams.topics.plan import Step, TopicFacts, plan, specs
from unship.errors import ConfigurationError
from unship.log.kafka.access import SCHEME

LOOKS = 50


def topics_command(settings: Settings, apply: bool, timeout_s: float) -> Exit:
    """Print the planned changes of the topics, or apply them; FINDING if any are left."""
    config = load(settings.config)
    options = kafka_options(settings, config)

    async def job(admin: Admin) -> list[Step]:
        steps, _ = await steps_of(admin, config)
        if apply:
            await admin.apply(steps)
            left = await _left(admin, config)
            _show(settings, steps, done=True)
            return left
        _show(settings, steps, done=False)
        return steps

    left = run(options, job, timeout_s)
    refused = [step for step in left if step.action != "none"]
    if apply and refused:
        for step in refused:
            settings.report(f"topics: {step.name}: {step.why or 'has not changed yet; run it again'}")
    return Exit.FINDING if refused else Exit.GOOD


async def _left(admin: Admin, config: Config) -> list[Step]:
    """Return the plan after it was applied, from what the brokers report."""
    for _ in range(LOOKS):
        left, _ = await steps_of(admin, config)
        if all(step.action in ("none", "refuse") for step in left):
            break
        # A change reaches the brokers one after another.
        await asyncio.sleep(LOOK_EVERY_S)
    return left


def renew_command(settings: Settings, partition: int) -> Exit:
    """Start a new incarnation of a pair of source partitions."""
    from streams.kafka.rewinds import renew_now

    config = load(settings.config)
    kafka_options(settings, config)
    incarnation = renew_now(kafka_access(settings, config), partition)
    if settings.as_json:
        click.echo(msgspec.json.encode({"partition": partition, "incarnation": incarnation}).decode())
    else:
        settings.report(
            f"topics: partition {partition} starts incarnation {incarnation}; it is read from its first record"
        )
    return Exit.GOOD


async def steps_of(admin: Admin, config: Config) -> tuple[list[Step], dict[str, TopicFacts]]:
    """Return the plan for the topics of a configuration, and the facts of the topics that exist."""
    wanted = specs(config)
    facts = await admin.facts([spec.name for spec in wanted])
    return plan(wanted, facts, await admin.brokers(), config.kafka.topics.replication), facts


def kafka_options(settings: Settings, config: Config) -> dict[str, Any]:
    """Return how to connect to the Kafka log of a configuration.

    Raises:
        ConfigurationError: The log is of another kind, or the security settings are wrong.
    """
    where = log_of(settings, config)
    if not where.startswith(SCHEME):
        raise ConfigurationError(
            f"log: {where} needs no topics: they are part of its file; for Kafka: --log kafka://HOST:PORT"
        )
    return kafka_access(settings, config).options


def _show(settings: Settings, steps: list[Step], done: bool) -> None:
    if settings.as_json:
        changes = sum(step.action in ("create", "change") for step in steps)
        text = msgspec.json.encode({"topics": steps, "changes": changes, "applied": done}).decode()
    else:
        text = "\n".join(line for step in steps for line in _lines(step, done))
    click.echo(text)


def _lines(step: Step, done: bool) -> list[str]:
    done_as = {"create": "created", "change": "changed", "refuse": "REFUSED", "none": "ok"}
    action = done_as[step.action] if done or step.action in ("refuse", "none") else step.action
    lines = [f"{action:<8} {step.name:<28} {step.partitions} partitions, {step.replication} copies"]
    if step.why:
        lines.append(f"{'':<8} {step.why}")
    for name, (before, after) in sorted(step.settings.items()):
        lines.append(f"{'':<8}   {name} = {after}" + (f" (was {before})" if before is not None else ""))
    return lines
