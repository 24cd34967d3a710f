"""Ask a broker what this principal may do, without doing it.

Kafka tells a principal its rights only if it may look at everybody's. But every broker checks the right before it looks
at the rest of a request, so a request that cannot succeed tells which of the two refused it: an append of no records, a
heartbeat of no member, the end of a transaction that never began. Nothing is written by any of these.
"""

from collections.abc import Awaitable, Callable, Iterable

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

from streams.kafka.admin import Admin
from streams.topics.rights import Right

TOPIC_REFUSED, GROUP_REFUSED, CLUSTER_REFUSED, ID_REFUSED = 29, 30, 31, 53
REFUSED = frozenset((TOPIC_REFUSED, GROUP_REFUSED, CLUSTER_REFUSED, ID_REFUSED))
TIMEOUT_MS = 5_000
EXAMPLE = "check"
"""A member that no group has; and the rest of a name where a right holds for all that begin with a prefix."""


async def missing(admin: Admin, rights: Iterable[Right]) -> list[Right]:
    """Return which of the rights this principal lacks."""
    return [right for right in rights if await _code(admin, right) in REFUSED]


async def _code(admin: Admin, right: Right) -> int:
    """Return the code with which a broker answers a request that needs the right."""
    name = right.name + EXAMPLE if right.prefixed else right.name
    if right.resource == "group":
        response = await admin.send(HeartbeatRequest(name, -1, EXAMPLE))
        return int(response.error_code)
    if right.resource == "transactional_id":
        response = await admin.send(EndTxnRequest(name, -1, -1, False))
        return int(response.error_code)
    return await _TOPIC_PROBES[right.operation](admin, name)


async def _read(admin: Admin, name: str) -> int:
    response = await admin.send(FetchRequest(0, 0, 1, 0, [(name, [(0, 0, 1)])]))
    ((_, ((_, code, *_),)),) = response.topics
    return int(code)


async def _write(admin: Admin, name: str) -> int:
    response = await admin.send(ProduceRequest(None, -1, TIMEOUT_MS, [(name, [(0, b"")])]))
    ((_, ((_, code, *_),)),) = response.topics
    return int(code)


async def _look(admin: Admin, name: str) -> int:
    response = await admin.send(DescribeConfigsRequest([(ConfigResourceType.TOPIC, name, ["cleanup.policy"])], False))
    return int(response.resources[0][0])


async def _create(admin: Admin, name: str) -> int:
    # The last argument of this request and of the next two: only check it.
    response = await admin.send(CreateTopicsRequest([(name, 1, 1, [], [])], TIMEOUT_MS, True))
    return int(response.topic_errors[0][1])


async def _alter(admin: Admin, name: str) -> int:
    response = await admin.send(CreatePartitionsRequest([(name, (1, None))], TIMEOUT_MS, True))
    return int(response.topic_errors[0][1])


async def _alter_configs(admin: Admin, name: str) -> int:
    response = await admin.send(AlterConfigsRequest([(ConfigResourceType.TOPIC, name, [])], True))
    return int(response.resources[0][0])


_TOPIC_PROBES: dict[str, Callable[[Admin, str], Awaitable[int]]] = {
    "READ": _read,
    "WRITE": _write,
    "DESCRIBE_CONFIGS": _look,
    "CREATE": _create,
    "ALTER": _alter,
    "ALTER_CONFIGS": _alter_configs,
}
