"""How Faust reads: its own consumer, which loses nothing at a rebalance and stops in bounded time.

This is the only module that overrides or uses private parts of Faust.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport
from faust.types import TP

from streams.kafka.clients import end_consumer
from streams.kafka.private_parts import read_committed
from unship.errors import BrokerUnreachable

BEGINNING_S = 2.0
GO_BACK_S = 60.0
"""Below the time that Faust waits, which is that of a request."""


async def go_back(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int | None]:
    """Go back to what was committed, or to the beginning where nothing was; return the committed positions.

    During a rebalance Faust drops what it has read and goes back to what it committed. The client stays where it is in
    a partition of which nothing was committed yet: what was dropped would never come again.
    """
    committed: dict[TopicPartition, int | None] = await consumer.seek_to_committed()
    if unknown := [place for place, offset in committed.items() if not offset]:
        # It is noted at once, and done when each leader answers; where it waits long, Faust stops reading for good.
        with suppress(TimeoutError):
            await asyncio.wait_for(consumer.seek_to_beginning(*unknown), BEGINNING_S)
    return committed


class _ConsumerThread(AIOKafkaConsumerThread):
    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # A record of an aborted transaction is no deployment and no order.
        read_committed(consumer)
        return consumer

    async def seek_to_committed(self) -> Mapping[TP, int]:
        found: Mapping[TP, int] = await self.call_thread(go_back, self._ensure_consumer())
        return found

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Look whether a partition is read, as Faust does; one assigned just now has no position to look at."""
        # The client asserts that there is one, which would end the process.
        with suppress(AssertionError):
            super().verify_event_path(now, tp)

    async def on_thread_stop(self) -> None:
        """Stop in bounded time: a consumer without its broker ends as cancelled, and Faust waits a minute for that."""
        consumer, self._consumer = self._consumer, None
        await super().on_thread_stop()
        if consumer is not None:
            await end_consumer(consumer)


class _Consumer(Consumer):
    async def perform_seek(self) -> None:
        """Go back, or raise: where it takes longer still, Faust reads no more after a rebalance, without a line."""
        try:
            await asyncio.wait_for(super().perform_seek(), GO_BACK_S)
        except TimeoutError:
            raise BrokerUnreachable(
                f"the coordinator does not return the group's positions within {GO_BACK_S:g} s"
            ) from None

    def _new_offset(self, tp: TP) -> int | None:
        """Return what may be committed of a partition, as Faust does; but gaps are stepped over, not written out.

        Compaction leaves gaps of millions of offsets, of which Faust makes lists of so many integers.
        """
        acked = self._acked[tp]
        if not acked:
            return None
        acked.sort()
        gaps = sorted(self._gap[tp].overlap(0, acked[-1]))
        end = min(acked[0], gaps[0].begin) if gaps else acked[0]
        committed = self._committed_offset[tp]
        if committed and end - committed > 1:
            # Something before is not done yet.
            return None
        done = passed = 0
        while True:
            if passed < len(gaps) and gaps[passed].begin <= end:
                end, passed = max(end, gaps[passed].end), passed + 1
            elif done < len(acked) and acked[done] <= end:
                end, done = max(end, acked[done] + 1), done + 1
            else:
                break
        self._acked_index[tp].difference_update(acked[:done])
        acked[:done] = []
        self._gap[tp].chop(0, end)
        return end

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)


class FaustTransport(Transport):
    """Faust's transport with the consumer of this module."""

    Consumer = _Consumer
