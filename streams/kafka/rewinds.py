"""Which source partitions are read again: because a fold has a gap, or because a new incarnation begins."""

from __future__ import annotations

from contextlib import suppress

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams.join.source_reader import Position
from streams.kafka.admin import LATEST, administering
from streams.kafka.clients import (
    Access,
    answered,
    end_consumer,
    partition_count,
    producing,
    read_all,
    run,
)
from streams.ledger.entries import entry_of
from streams.ledger.records import Begun
from streams.rounds.rewind import HALTED, POSITION, Halt, Rewind, position_of
from unship.errors import ConfigurationError


class Rewinds:
    """Follows the topic `rewind`. Gaps of before now are healed by every start, or requested again; incarnations stay.

    It also keeps a copy of every committed position: a broker forgets what a group committed for a topic that is
    deleted, and after a while without members, and with it how to recognise a topic that was made again.
    """

    def __init__(self, access: Access) -> None:
        self.incarnations: dict[int, int] = {}
        self.positions: dict[int, Position] = {}
        self.halts: dict[int, Halt] = {}
        self._access = access
        self._consumer: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        """Learn the incarnations, and follow from the topic's end."""
        name = self._access.names.of("rewind")
        await self.learn()
        consumer = self._consumer = self._access.reader()
        await consumer.start()
        places = [TopicPartition(name, number) for number in range(await partition_count(consumer, name))]
        consumer.assign(places)
        for place, end in (await consumer.end_offsets(places)).items():
            consumer.seek(place, end)

    async def learn(self) -> None:
        """Read everything that the topic holds."""
        for record in await read_all(self._access, "rewind"):
            self._take(record.key or b"", record.value)

    def halted(self) -> list[str]:
        """Return why partitions are not read, of those without a new incarnation since."""
        halts = sorted(self.halts.items())
        return [halt.why for number, halt in halts if halt.incarnation >= self.incarnations.get(number, 0)]

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await end_consumer(self._consumer)

    async def requested(self) -> list[int]:
        """Return the source partitions to be read again, requested since the last call."""
        assert self._consumer is not None, "not started"
        found: dict[int, None] = {}
        for records in (await self._consumer.getmany(timeout_ms=0)).values():
            for record in records:
                if (number := self._take(record.key or b"", record.value)) is not None:
                    found[number] = None
        return list(found)

    def _take(self, key: bytes, value: bytes | None) -> int | None:
        """Apply a record; return the source partition that it requests to be read again."""
        if key.startswith(POSITION):
            position, number = position_of(value), key.removeprefix(POSITION)
            if position is not None and number.isdigit():
                self.positions[int(number)] = position
            return None
        if key.startswith(HALTED):
            with suppress(msgspec.DecodeError, ValueError):
                halt = msgspec.json.decode(value or b"", type=Halt)
                self.halts[halt.partition] = halt
            return None
        try:
            rewind = msgspec.json.decode(value or b"", type=Rewind)
        except (msgspec.DecodeError, ValueError):
            return None
        known = self.incarnations.get(rewind.partition, 0)
        self.incarnations[rewind.partition] = max(known, rewind.incarnation)
        return rewind.partition


async def publish_halt(access: Access, producer: AIOKafkaProducer, halt: Halt) -> None:
    """Report to every worker that a partition pair must not be read."""
    name, key = access.names.of("rewind"), HALTED + b"%d" % halt.partition
    await answered(producer.send_and_wait(name, msgspec.json.encode(halt), key))


def renew_now(access: Access, partition: int) -> int:
    """Begin a new incarnation of a pair of source partitions; return it.

    Raises:
        ConfigurationError: there is no such partition.
        BrokerUnreachable: no broker answers.
    """

    async def job() -> int:
        async with producing(access) as producer:
            name = access.names.of("predictions")
            count = len(await producer.partitions_for(name))
            if partition >= count:
                raise ConfigurationError(
                    f"{name} has {count} partitions, the last is {count - 1}, asked for {partition}"
                )
            async with administering(access) as admin:
                ends = await admin.offsets([access.names.of("ledger")], LATEST)
            if not all(ends.values()):
                raise ConfigurationError("the ledger is empty: nothing was read yet that could have changed; start it")
            return await renew(access, producer, partition)

    return run(access, job())


async def renew(access: Access, producer: AIOKafkaProducer, partition: int) -> int:
    """Begin a new incarnation of a pair of source partitions; return it.

    Every ledger partition gets the record first, so that batches of the new incarnation follow it. A retry only begins
    one more.
    """
    known = Rewinds(access)
    await known.learn()
    incarnation = known.incarnations.get(partition, 0) + 1
    ledger = access.names.of("ledger")
    for number in range(len(await producer.partitions_for(ledger))):
        value = entry_of(Begun(-1, partition, incarnation)).value
        await answered(producer.send_and_wait(ledger, value, partition=number))
    value = msgspec.json.encode(Rewind(partition, (0, 0), -1, incarnation))
    key = b"incarnation/%d" % partition
    await answered(producer.send_and_wait(access.names.of("rewind"), value, key))
    return incarnation
