"""Which source partitions are to be read again: because a fold misses something, or because they begin anew."""

import hashlib
from contextlib import suppress

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition

from streams.join.source_reader import Position
from streams.kafka.admin import LATEST, connected
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
from unship.errors import ConfigurationError

#: Begins the keys of copies of committed positions.
POSITION = b"position/"
#: Begins the keys of what stops the reading of a partition until its next incarnation.
HALTED = b"halted/"
#: Hexadecimal digits of a digest that stand before a committed position.
CHECK_DIGITS = 16


class Rewind(msgspec.Struct, frozen=True):
    """A partition pair is read again from `corner` on; in a new incarnation, from its beginning.

    `at` is the ledger offset that shows the gap, -1 where an operator said that the topics were made again.
    """

    partition: int
    corner: tuple[int, int]
    at: int
    incarnation: int = 0


class Halt(msgspec.Struct, frozen=True):
    """A partition pair is not read any more in this incarnation, because its log is not the one that was read."""

    partition: int
    incarnation: int
    why: str


class Rewinds:
    """Follows the topic `rewind`. Gaps of before now are healed by every start, or asked again; incarnations stay.

    It also keeps a copy of every committed position: a broker forgets what a group committed for a topic that is
    deleted, and after a while without members, and with it how to tell a topic that was made again.
    """

    def __init__(self, access: Access) -> None:
        self.incarnations: dict[int, int] = {}
        self.positions: dict[int, Position] = {}
        self.halts: dict[int, Halt] = {}
        self._access = access
        self._consumer = access.reader()

    async def start(self) -> None:
        """Learn the incarnations, and follow from the topic's end."""
        name = self._access.names.of("rewind")
        await self.learn()
        await self._consumer.start()
        places = [TopicPartition(name, number) for number in range(await partition_count(self._consumer, name))]
        self._consumer.assign(places)
        for place, end in (await self._consumer.end_offsets(places)).items():
            self._consumer.seek(place, end)

    async def learn(self) -> None:
        """Read everything that the topic holds."""
        for record in await read_all(self._access, "rewind"):
            self._take(record.key or b"", record.value)

    def standing(self) -> list[str]:
        """Return why partitions are not read, of those that have not begun anew since."""
        halts = sorted(self.halts.items())
        return [halt.why for number, halt in halts if halt.incarnation >= self.incarnations.get(number, 0)]

    async def stop(self) -> None:
        """Disconnect."""
        await end_consumer(self._consumer)

    async def asked(self) -> list[int]:
        """Return the source partitions to be read again, asked for since the last call."""
        found: dict[int, None] = {}
        for records in (await self._consumer.getmany(timeout_ms=0)).values():
            for record in records:
                if (number := self._take(record.key or b"", record.value)) is not None:
                    found[number] = None
        return list(found)

    def _take(self, key: bytes, value: bytes | None) -> int | None:
        """Take note of a record; return the source partition that it asks to read again."""
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


def position_text(position: Position) -> str:
    """Return a position as it is committed: with a digest, because a low water that is wrong would lose pairs silently.

    >>> position_of(position_text(Position(4)).encode()) == Position(4)
    True
    >>> position_of(position_text(Position(4)).replace(":4,", ":5,").encode()) is None
    True
    """
    text = msgspec.json.encode(position).decode()
    return f"{_check(text.encode())} {text}"


def position_of(value: bytes | None) -> Position | None:
    """Return the position that was committed, None for what was changed: from the origin on everything is safe."""
    check, _, text = (value or b"").partition(b" ")
    if check != _check(text).encode():
        return None
    try:
        return msgspec.json.decode(text, type=Position)
    except (msgspec.DecodeError, ValueError):
        return None


async def tell_halt(access: Access, producer: AIOKafkaProducer, halt: Halt) -> None:
    """Tell every worker that a partition pair must not be read."""
    name, key = access.names.of("rewind"), HALTED + b"%d" % halt.partition
    await producer.send_and_wait(name, msgspec.json.encode(halt), key)


def _check(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:CHECK_DIGITS]


def renew_now(access: Access, partition: int) -> int:
    """Say that a pair of source partitions begins anew; return its new incarnation.

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
            async with connected(access.options) as admin:
                ends = await admin.offsets([access.names.of("ledger")], LATEST)
            if not all(ends.values()):
                raise ConfigurationError("the ledger is empty: nothing was read yet that could have changed; start it")
            return await renew(access, producer, partition)

    return run(access, job())


async def renew(access: Access, producer: AIOKafkaProducer, partition: int) -> int:
    """Say that a pair of source partitions begins anew; return its new incarnation.

    Every ledger partition is told first, so that batches of the new one find it there. Said twice by a retry, it only
    begins once more.
    """
    told = Rewinds(access)
    await told.learn()
    incarnation = told.incarnations.get(partition, 0) + 1
    ledger = access.names.of("ledger")
    for number in range(len(await producer.partitions_for(ledger))):
        value = entry_of(Begun(-1, partition, incarnation)).value
        await answered(producer.send_and_wait(ledger, value, partition=number))
    value = msgspec.json.encode(Rewind(partition, (0, 0), -1, incarnation))
    key = b"incarnation/%d" % partition
    await answered(producer.send_and_wait(access.names.of("rewind"), value, key))
    return incarnation
