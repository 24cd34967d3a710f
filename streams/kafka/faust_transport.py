"""How Faust reads: its own consumer, which loses nothing at a rebalance and stops in bounded time."""

from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP

from streams.kafka.clients import end_consumer


async def go_back(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int | None]:
    """Go back to what was committed, or to the beginning where nothing was; return the committed positions.

    While partitions change hands, Faust throws away what it has read and goes back to what it committed. The client
    stays where it is in a partition of which nothing was committed yet: what was thrown away would never come again.
    """
    committed: dict[TopicPartition, int | None] = await consumer.seek_to_committed()
    if unknown := [place for place, offset in committed.items() if not offset]:
        await consumer.seek_to_beginning(*unknown)
    return committed


class _ConsumerThread(AIOKafkaConsumerThread):
    async def seek_to_committed(self) -> Mapping[TP, int]:
        found: Mapping[TP, int] = await self.call_thread(go_back, self._ensure_consumer())
        return found

    async def on_thread_stop(self) -> None:
        """Stop in bounded time: a consumer without its broker ends as cancelled, and Faust waits a minute for that."""
        consumer, self._consumer = self._consumer, None
        await super().on_thread_stop()
        if consumer is not None:
            await end_consumer(consumer)


class _Consumer(Consumer):
    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class FaustTransport(Transport):
    """Faust's transport with the consumer of this module."""

    Consumer = _Consumer
