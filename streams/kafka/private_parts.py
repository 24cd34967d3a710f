"""Every use of aiokafka's private parts, each a function of its own: no public name offers the same.

A minor release may change any of them, so its version is capped where it is required, and a test for each function
fails with a sentence that names what is gone. What is overridden of Faust is in `streams.kafka.faust_transport`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.protocol.admin import (
    AlterConfigsRequest,
    CreatePartitionsRequest,
    CreateTopicsRequest,
    DescribeConfigsRequest,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import EndTxnRequest

PROBE_MS = 5_000
NOBODY = "check"
"""A member that no group has."""


async def all_metadata(consumer: AIOKafkaConsumer) -> Any:
    """Return what the brokers know of all topics; the public call knows only topics that the consumer reads."""
    return await consumer._client.fetch_all_metadata()


def leader_of(consumer: AIOKafkaConsumer, place: TopicPartition) -> int | None:
    """Return the broker that leads a partition as far as the consumer knows, None if it knows none."""
    leader: int | None = consumer._client.cluster.leader_for_partition(place)
    return None if leader is None or leader < 0 else leader


def group_of(consumer: AIOKafkaConsumer) -> str | None:
    """Return the group that a consumer was made for."""
    group: str | None = consumer._group_id
    return group


def read_committed(consumer: AIOKafkaConsumer) -> None:
    """Let a consumer that was made by others, and is not started, read no record of an aborted transaction."""
    consumer._isolation_level = "read_committed"


def cancel_sending(producer: AIOKafkaProducer) -> None:
    """End the task that appends, of a producer that waits for an answer without end."""
    task = producer._sender._sender_task
    if task is not None:
        task.cancel()


async def send_request(admin: AIOKafkaAdminClient, request: Any, node: int | None = None) -> Any:
    """Send one request of aiokafka's protocol to a broker, or to any; the client's own methods send others only."""
    client = admin._client
    return await client.send(client.get_random_node() if node is None else node, request)


async def probe(admin: AIOKafkaAdminClient, resource: str, operation: str, name: str) -> int:
    """Return the code with which a broker answers a request that needs a right, and that changes nothing."""
    request, code_in = PROBES[resource, operation]
    return int(code_in(await send_request(admin, request(name))))


def _code_of_partition(response: Any) -> int:
    ((_, ((_, code, *_),)),) = response.topics
    return int(code)


Probe = tuple[Callable[[str], Any], Callable[[Any], int]]
PROBES: dict[tuple[str, str], Probe] = {
    ("group", "READ"): (
        lambda name: HeartbeatRequest(name, -1, NOBODY),
        lambda response: response.error_code,
    ),
    ("transactional_id", "WRITE"): (
        lambda name: EndTxnRequest(name, -1, -1, False),
        lambda response: response.error_code,
    ),
    ("topic", "READ"): (
        lambda name: FetchRequest(0, 0, 1, 0, [(name, [(0, 0, 1)])]),
        _code_of_partition,
    ),
    ("topic", "WRITE"): (
        lambda name: ProduceRequest(None, -1, PROBE_MS, [(name, [(0, b"")])]),
        _code_of_partition,
    ),
    ("topic", "DESCRIBE_CONFIGS"): (
        lambda name: DescribeConfigsRequest([(ConfigResourceType.TOPIC, name, ["cleanup.policy"])], False),
        lambda response: response.resources[0][0],
    ),
    ("topic", "CREATE"): (
        lambda name: CreateTopicsRequest([(name, 1, 1, [], [])], PROBE_MS, True),
        lambda response: response.topic_errors[0][1],
    ),
    ("topic", "ALTER"): (
        lambda name: CreatePartitionsRequest([(name, (1, None))], PROBE_MS, True),
        lambda response: response.topic_errors[0][1],
    ),
    ("topic", "ALTER_CONFIGS"): (
        lambda name: AlterConfigsRequest([(ConfigResourceType.TOPIC, name, [])], True),
        lambda response: response.resources[0][0],
    ),
}
"""By resource and operation: the request, and where the code is in its response. The last argument of the requests that
make or alter something: only check it."""
