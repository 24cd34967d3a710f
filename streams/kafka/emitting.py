"""Append one record from a shell."""

import asyncio

from aiokafka.errors import KafkaError

from streams.kafka.clients import Access, answered, explained, producing
from unship.errors import BrokerUnreachable


def append_one(access: Access, topic: str, key: bytes, value: bytes) -> tuple[int, int]:
    """Append a record to a topic; return its partition, which the client chooses as Java's do, and its offset.

    Raises:
        BrokerUnreachable: no broker took it.
    """
    try:
        return asyncio.run(_append(access, access.names.of(topic), key, value))
    except (KafkaError, OSError) as error:
        raise BrokerUnreachable(explained(error, access)) from error


async def _append(access: Access, name: str, key: bytes, value: bytes) -> tuple[int, int]:
    async with producing(access) as producer:
        placed = await answered(producer.send_and_wait(name, value, key))
        return placed.partition, placed.offset
