"""`unship topics plan` and `apply`: the topics as they are and as they should be."""

import asyncio

import click
import msgspec

from console.logs import kafka_access, log_of
from console.settings import Settings
from streams.config.file import load
from streams.config.resolved import Config
from streams.kafka.admin import LOOK_EVERY_S, Admin, administer
from streams.kafka.clients import Access
from streams.topics.plan import Step, TopicFacts, plan, specs
from unship.errors import ConfigurationError
from unship.log.kafka.access import SCHEME

LOOKS = 50


def topics_command(settings: Settings, apply: bool, timeout_s: float) -> int:
    """Print what has to be done to the topics, or do it; 1 if something is left to do."""
    config = load(settings.config)
    access = kafka_of(settings, config)

    async def job(admin: Admin) -> list[Step]:
        steps, _ = await steps_of(admin, config)
        if apply:
            await admin.apply(steps)
            left = await _left(admin, config)
            _show(settings, steps, done=True)
            return left
        _show(settings, steps, done=False)
        return steps

    left = administer(access, job, timeout_s)
    refused = [step for step in left if step.action != "none"]
    if apply and refused:
        for step in refused:
            settings.tell(f"topics: {step.name}: {step.why or 'is not yet as it should be; run it again'}")
    return 1 if refused else 0


async def _left(admin: Admin, config: Config) -> list[Step]:
    """Return the plan after it was carried out: the brokers' word counts, not ours."""
    for _ in range(LOOKS):
        left, _ = await steps_of(admin, config)
        if all(step.action in ("none", "refuse") for step in left):
            break
        # One of several brokers may not have heard of a change yet.
        await asyncio.sleep(LOOK_EVERY_S)
    return left


def renew_command(settings: Settings, partition: int) -> int:
    """Begin a new incarnation of a pair of source partitions."""
    from streams.kafka.rewinds import renew_now

    config = load(settings.config)
    incarnation = renew_now(kafka_of(settings, config), partition)
    if settings.as_json:
        click.echo(msgspec.json.encode({"partition": partition, "incarnation": incarnation}).decode())
    else:
        settings.tell(
            f"topics: partition {partition} begins anew, incarnation {incarnation}; it is read from its start"
        )
    return 0


async def steps_of(admin: Admin, config: Config) -> tuple[list[Step], dict[str, TopicFacts]]:
    """Return the plan for the topics of a configuration, and what the topics are like."""
    wanted = specs(config)
    facts = await admin.facts([spec.name for spec in wanted])
    return plan(wanted, facts, await admin.brokers(), config.kafka.topics.replication), facts


def kafka_of(settings: Settings, config: Config) -> Access:
    """Return how to connect to the Kafka log of a configuration.

    Raises:
        ConfigurationError: The log is of another kind, or the security settings are wrong.
    """
    where = log_of(settings, config)
    if not where.startswith(SCHEME):
        raise ConfigurationError(
            f"log: {where} has no topics to make, they come with its file; for Kafka: --log kafka://HOST:PORT"
        )
    return kafka_access(settings, config)


def _show(settings: Settings, steps: list[Step], done: bool) -> None:
    if settings.as_json:
        changes = sum(step.action in ("create", "change") for step in steps)
        text = msgspec.json.encode({"topics": steps, "changes": changes, "applied": done}).decode()
    else:
        text = "\n".join(line for step in steps for line in _lines(step, done))
    click.echo(text)


def _lines(step: Step, done: bool) -> list[str]:
    words = {"create": "created", "change": "changed", "refuse": "REFUSED", "none": "ok"}
    action = words[step.action] if done or step.action in ("refuse", "none") else step.action
    lines = [f"{action:<8} {step.name:<28} {step.partitions} partitions, {step.replication} copies"]
    if step.why:
        lines.append(f"{'':<8} {step.why}")
    for name, (before, after) in sorted(step.settings.items()):
        lines.append(f"{'':<8}   {name} = {after}" + (f" (was {before})" if before is not None else ""))
    return lines
