"""Whether what a consumer waits for can come: a client may lose its brokers without a word, and then waits for ever."""

import asyncio
from collections.abc import Collection

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError

from streams.kafka.clients import Access, answered, reachable
from unship.errors import BrokerUnreachable

#: How often a consumer that is given nothing looks whether there is something.
LOOK_S = 10.0


class Stalls:
    """Watches one consumer from when it is made on."""

    def __init__(self, access: Access, consumer: AIOKafkaConsumer) -> None:
        self._access = access
        self._consumer = consumer
        self._looked_at = asyncio.get_running_loop().time()
        # Where it was at the last look in logs that went on.
        self._behind: dict[TopicPartition, int] = {}

    async def look(self, places: Collection[TopicPartition], fetched: bool) -> None:
        """Look whether a consumer that was given nothing for a while has read all; without partitions, ask the broker.

        Args:
            places: the partitions that it is to read now.
            fetched: whether it was given anything since the last call. Then it is not looked at: what it holds of one
                partition may keep it from another one for long.

        Raises:
            BrokerUnreachable: at two looks in a row it stood at the same record, or nobody answers.
        """
        now = asyncio.get_running_loop().time()
        if fetched:
            self._looked_at, self._behind = now, {}
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        if not places:
            await reachable(self._access)
            return
        try:
            ends = await answered(self._consumer.end_offsets(list(places)))
            reached = {place: await answered(self._consumer.position(place)) for place in places}
        except IllegalStateError:
            # Somebody else has one of them since a moment ago.
            return
        before, self._behind = self._behind, {place: at for place, at in reached.items() if at < ends[place]}
        for place, at in sorted(self._behind.items()):
            if before.get(place) == at:
                raise BrokerUnreachable(
                    f"{place.topic} partition {place.partition}: the log ends at {ends[place]}, and nothing is given "
                    f"out from offset {at} on"
                )
