"""Look at the topics of a broker and change them: the only module that opens aiokafka's administration client."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError, RequestTimedOutError, for_code
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest

from streams.kafka.clients import REQUEST_MS, Access, answered, run
from streams.kafka.private_parts import probe, send_request
from streams.topics.plan import Step, TopicFacts
from streams.topics.rights import Right
from unship.errors import BrokerUnreachable, ConfigurationError, TimedOut

SET_ON_TOPIC = 1
"""Source of a setting, in Kafka's numbering: it was set on this topic, not on the broker or by default."""

LATEST = -1
NO_ERROR, UNKNOWN_TOPIC, NO_LEADER, NOT_LEADER, NOT_ALLOWED, EXISTS = 0, 3, 5, 6, 29, 36
NO_GROUP, NO_CLUSTER, NO_TRANSACTIONAL_ID = 30, 31, 53
REFUSED = (NOT_ALLOWED, NO_GROUP, NO_CLUSTER, NO_TRANSACTIONAL_ID)
EXAMPLE = "check"
"""The rest of a name where a right holds for all names that begin with a prefix."""

TRANSIENT = (UNKNOWN_TOPIC, NO_LEADER, NOT_LEADER)
LOOK_EVERY_S = 0.1

_T = TypeVar("_T")


class Admin:
    """A connection to the brokers of a log; made by `administering`. `client` is aiokafka's."""

    def __init__(self, client: AIOKafkaAdminClient) -> None:
        """Take a client that is started."""
        self.client = client

    async def brokers(self) -> int:
        """Return how many brokers there are."""
        return len((await self.client.describe_cluster())["brokers"])

    async def facts(self, names: Sequence[str]) -> dict[str, TopicFacts]:
        """Return what the topics are like that exist among these names.

        Raises:
            ConfigurationError: This principal may not see one of them.
        """
        topics = await self._metadata(names)
        settings = await self._settings(list(topics))
        ends = await self.offsets(list(topics), LATEST)
        return {
            name: TopicFacts(
                partitions=len(partitions),
                replication=len(partitions[0]["replicas"]),
                settings={setting: value for setting, (value, _) in settings[name].items()},
                empty=all(end == 0 for (topic, _), end in ends.items() if topic == name),
            )
            for name, partitions in topics.items()
        }

    async def offsets(self, names: Sequence[str], at_ms: int) -> dict[tuple[str, int], int]:
        """Return for each (topic, partition) the first offset appended at or after a time (ms), or at `LATEST` the end.

        A partition without such a record is left out.
        """
        found: dict[tuple[str, int], int] = {}
        waiting = set(names)
        while waiting:
            waiting = await self._offsets_once(sorted(waiting), at_ms, found)
            if waiting:
                await asyncio.sleep(LOOK_EVERY_S)
        return found

    async def _offsets_once(self, names: Sequence[str], at_ms: int, found: dict[tuple[str, int], int]) -> set[str]:
        """Ask once; return the topics of which some partition has no leader that serves yet, as after a change."""
        by_leader: dict[int, dict[str, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
        for name, partitions in (await self._metadata(names)).items():
            for each in partitions:
                by_leader[each["leader"]][name].append((each["partition"], at_ms))
        waiting = set(by_leader.pop(-1, ()))
        for leader, asked in by_leader.items():
            response = await send_request(self.client, OffsetRequest(-1, 0, list(asked.items())), leader)
            for name, partitions in response.topics:
                for partition, code, *_, offset in partitions:
                    if code in TRANSIENT:
                        waiting.add(name)
                        continue
                    _raise_for(code, name)
                    if offset >= 0:
                        found[name, partition] = offset
        return waiting

    async def _metadata(self, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """Return the partitions of those of the topics that exist.

        aiokafka's own question makes topics that do not exist, with whatever settings the broker has at hand.
        """
        response = await send_request(self.client, MetadataRequest(list(names), allow_auto_topic_creation=False))
        found = {}
        for topic in response.to_object()["topics"]:
            if topic["error_code"] not in (NO_ERROR, UNKNOWN_TOPIC, NO_LEADER):
                _raise_for(topic["error_code"], topic["topic"])
            if topic["partitions"]:
                found[topic["topic"]] = topic["partitions"]
        return found

    async def _settings(self, names: list[str]) -> dict[str, dict[str, tuple[str, int]]]:
        """Return each topic's settings, value and source."""
        if not names:
            return {}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        (response,) = await self.client.describe_configs(resources)
        found = {}
        for code, _, _, name, entries in response.resources:
            if code == NOT_ALLOWED:
                raise _not_allowed(name, "DESCRIBE_CONFIGS")
            _raise_for(code, name)
            found[name] = {setting: (value, source) for setting, value, _, source, *_ in entries}
        return found

    async def missing(self, rights: Iterable[Right]) -> list[Right]:
        """Return which of the rights this principal lacks, without doing what they allow.

        Kafka lists the rights of a principal only to those that may see everybody's. But every broker checks the right
        before it looks at the rest of a request, so the answer to a request that cannot succeed shows which of the two
        refused it: an append of no records, a heartbeat of no member, the end of a transaction that never began.
        """
        found = []
        for right in rights:
            name = right.name + EXAMPLE if right.prefixed else right.name
            if await probe(self.client, right.resource, right.operation, name) in REFUSED:
                found.append(right)
        return found

    async def apply(self, steps: Iterable[Step]) -> None:
        """Apply the steps, and return when the brokers serve the result.

        Raises:
            ConfigurationError: The broker refuses, or this principal may not.
        """
        todo = [step for step in steps if step.action in ("create", "change")]
        new = [step for step in todo if step.action == "create"]
        if new:
            await self._create(new)
        for step in todo:
            if step.grows:
                try:
                    await self.client.create_partitions({step.name: NewPartitions(step.partitions)})
                except KafkaError as error:
                    raise ConfigurationError(f"{step.name}: the broker refuses more partitions: {error}") from error
        await self._change([step for step in todo if step.action == "change" and step.settings])
        await self._until_served({step.name: step.partitions for step in todo})

    async def _create(self, steps: list[Step]) -> None:
        topics = [
            NewTopic(
                step.name,
                step.partitions,
                step.replication,
                topic_configs={name: value for name, (_, value) in step.settings.items()},
            )
            for step in steps
        ]
        response = await self.client.create_topics(topics)
        for name, code, message in response.topic_errors:
            if code == NOT_ALLOWED:
                raise _not_allowed(name, "CREATE")
            # Another one may have made it meanwhile; the next plan shows what it is like.
            if code not in (NO_ERROR, EXISTS):
                raise ConfigurationError(f"{name}: the broker refuses to make it: {message or for_code(code).__name__}")

    async def _change(self, steps: list[Step]) -> None:
        """Change settings. The request replaces all of a topic's own settings, so those that stay are sent along."""
        before = await self._settings([step.name for step in steps])
        resources = []
        for step in steps:
            own = {name: value for name, (value, source) in before[step.name].items() if source == SET_ON_TOPIC}
            wanted = own | {name: value for name, (_, value) in step.settings.items()}
            resources.append(ConfigResource(ConfigResourceType.TOPIC, step.name, configs=wanted))
        if not resources:
            return
        (response,) = await self.client.alter_configs(resources)
        for code, message, _, name in response.resources:
            if code == NOT_ALLOWED:
                raise _not_allowed(name, "ALTER_CONFIGS")
            if code:
                why = message or for_code(code).__name__
                raise ConfigurationError(f"{name}: the broker refuses to change its settings: {why}")

    async def _until_served(self, partitions: Mapping[str, int]) -> None:
        """Wait until every partition has a leader that answers, because a client that comes earlier gets errors."""
        while True:
            found = await self._metadata(list(partitions))
            if all(len(found.get(name, ())) == count for name, count in partitions.items()):
                break
            await asyncio.sleep(LOOK_EVERY_S)
        await self.offsets(list(partitions), LATEST)


@asynccontextmanager
async def administering(access: Access) -> AsyncIterator[Admin]:
    """Yield a connection that is closed at the end.

    Raises:
        BrokerUnreachable: No broker answers, or none lets this client in.
        TimedOut: A broker that is connected does not answer.
    """
    client = access.admin()
    with _aiokafka_logged() as logged:
        try:
            await answered(client.start())
        except KafkaConnectionError as error:
            await client.close()
            # The exception names only the addresses; why it failed is what aiokafka logs.
            why = "; ".join(dict.fromkeys(logged)) or str(error)
            raise BrokerUnreachable(
                f"no broker can be used as {_who(access.options)}: {why}; check the address, that it runs, and the "
                "security settings"
            ) from error
        except BaseException:
            await client.close()
            raise
        try:
            yield Admin(client)
        except (KafkaConnectionError, NodeNotReadyError) as error:
            raise BrokerUnreachable(
                f"the connection to the broker broke: {error}; try again when it is back"
            ) from error
        except RequestTimedOutError as error:
            raise TimedOut(
                f"a broker did not answer within {REQUEST_MS // 1000} s; is it overloaded or frozen?"
            ) from error
        finally:
            await client.close()


async def reachable(access: Access) -> None:
    """Return if a broker answers; raise what is wrong if none does."""
    async with administering(access):
        pass


def administer(access: Access, job: Callable[[Admin], Awaitable[_T]], limit_s: float) -> _T:
    """Connect, do something, and disconnect, in an event loop of its own.

    Raises:
        BrokerUnreachable: No broker answers, or none lets this client in.
        TimedOut: It took longer than `limit_s`, in seconds.
    """

    async def work() -> _T:
        async with administering(access) as admin:
            return await job(admin)

    return run(access, work(), limit_s)


@contextmanager
def _aiokafka_logged() -> Iterator[list[str]]:
    """Collect what aiokafka logs about failures, which would run across the terminal."""
    logged: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage().rstrip(" .")
            # A wait that ended without an answer is an error without a message.
            logged.append(f"{text} no answer" if text.endswith(":") else text)

    logger, handler = logging.getLogger("aiokafka"), Collect(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield logged
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _who(options: Mapping[str, Any]) -> str:
    user = options.get("sasl_plain_username")
    return f"{options.get('security_protocol', 'PLAINTEXT')}{f' {user}' if user else ''}"


def _not_allowed(name: str, operation: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name}: this principal lacks the right {operation}; see docs/how-to/kafka.md for each role's"
    )


def _raise_for(code: int, name: str) -> None:
    if code == NOT_ALLOWED:
        raise _not_allowed(name, "DESCRIBE")
    if code:
        raise BrokerUnreachable(f"{name}: the broker answers {for_code(code).__name__}; try again")
