"""Which pairs of partitions hand over in a round."""

import asyncio
from typing import Any

from streams.config.parse import parse
from streams.kafka.clients import Access
from streams.kafka.ingest_service import Ingest, _Partition
from unship.topics import TopicNames

ACCESS = Access({"bootstrap_servers": ["nowhere:1"]}, TopicNames("t."))


class Pair:
    """A reader with so many rows that wait for the ledger."""

    filling = False

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting

    def advance(self, caught_up: tuple[bool, bool], records_max: int, *, fill_only: bool = False) -> int:
        return 0

    def queued(self, side: int) -> int:
        return 0


class Rounds(Ingest):
    """Hands over to nobody, and notes what."""

    async def _caught_up(self, partition: _Partition) -> tuple[bool, bool]:
        return True, True

    async def _send(self, partition: _Partition, caught_up: tuple[bool, bool]) -> None:
        self.sent.append(partition.number)

    sent: list[int]


def test_pair_with_few_rows_has_its_turn_beside_one_that_catches_up() -> None:
    async def main() -> None:
        ingest = Rounds(ACCESS, parse(""), lambda: 0, tick_s=3_600.0)
        ingest.sent = []
        pairs: list[Any] = [_Partition(0, Pair(ingest.rows_per_flush)), _Partition(1, Pair(1))]  # type: ignore[arg-type]
        for pair in pairs:
            pair.stated_at = asyncio.get_running_loop().time()
        await ingest._work(pairs[0], False)
        assert ingest._flushed_at == 0.0
        await asyncio.sleep(0)
        for pair in pairs:
            await ingest._work(pair, True)
        await asyncio.sleep(0)
        assert ingest.sent == [0, 0, 1]
        assert ingest._flushed_at > 0.0

    asyncio.run(main())
