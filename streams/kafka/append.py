"""Append one record from a shell."""

from streams.kafka.clients import Access, answered, producing, run

Headers = tuple[tuple[str, bytes], ...]


def append_one(access: Access, topic: str, key: bytes, value: bytes, headers: Headers = ()) -> tuple[int, int]:
    """Append a record to a topic; return its partition, which the client chooses as Java's do, and its offset.

    Raises:
        BrokerUnreachable: no broker took it.
    """
    return run(access, _append(access, access.names.of(topic), key, value, headers))


async def _append(access: Access, name: str, key: bytes, value: bytes, headers: Headers) -> tuple[int, int]:
    async with producing(access) as producer:
        placed = await answered(producer.send_and_wait(name, value, key, headers=headers))
        return placed.partition, placed.offset
