"""Which source partitions a fold asks to be read again."""

import msgspec
from aiokafka import TopicPartition

from streams.kafka.clients import Access, partition_count


class Rewind(msgspec.Struct, frozen=True):
    """A ledger partition has a gap in a source partition: what was read from `corner` on is missing in part."""

    partition: int
    corner: tuple[int, int]
    at: int


class Rewinds:
    """Follows the topic `rewind` from now on; what was asked before now is healed by every start, or asked again."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._consumer = access.reader()

    async def start(self) -> None:
        """Begin at the topic's end."""
        name = self._access.names.of("rewind")
        await self._consumer.start()
        places = [TopicPartition(name, number) for number in range(await partition_count(self._consumer, name))]
        self._consumer.assign(places)
        for place, end in (await self._consumer.end_offsets(places)).items():
            self._consumer.seek(place, end)

    async def stop(self) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def asked(self) -> list[int]:
        """Return the source partitions asked for since the last call."""
        found: dict[int, None] = {}
        for records in (await self._consumer.getmany(timeout_ms=0)).values():
            for record in records:
                try:
                    found[msgspec.json.decode(record.value or b"", type=Rewind).partition] = None
                except (msgspec.DecodeError, ValueError):
                    continue
        return list(found)
