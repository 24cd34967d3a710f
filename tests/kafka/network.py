"""A bad network between a client and a broker: slow, narrow, silent, reset, or losing replies to what was done.

It stands between them as a proxy that reads whole requests and replies, and puts its own address where the broker
tells its own, so that clients of a shared broker can be sent through it.
"""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import msgspec
import pytest

from streams.kafka.clients import Access

HOST = "127.0.0.1"
PRODUCE = 0
FETCH = 1
INIT_PRODUCER_ID = 22
BEGIN_BYTES = 256
#: Numbers of requests whose replies did not come yet, and how they begin.
Asked: TypeAlias = dict[int, bytes]
#: What ends a connection.
ENDED = (ConnectionError, asyncio.IncompleteReadError, OSError)


class Network:
    """What happens to all that goes through; may be changed at any time.

    Attributes:
        delay_s: each reply comes so much later.
        bytes_per_s: how fast replies come; None for as fast as they can.
        silent: nothing comes through in either direction, and no connection ends.
        replies_lost: of so many appends the reply is lost, and the connection with it.
        unanswered: requests of this kind with these bytes near their begin are not answered, however often sent.
    """

    def __init__(self, broker: str) -> None:
        host, port = broker.rsplit(":", 1)
        assert host == HOST, "the address must be as long as that of the proxy"
        self.broker_port, self.port = int(port), 0
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.silent = False
        self.replies_lost = 0
        self.lost = 0
        self.unanswered: tuple[int, bytes] | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def bootstrap(self) -> str:
        """Return the address that clients take."""
        return f"{HOST}:{self.port}"

    def reset(self) -> None:
        """End all connections at once, as a firewall does that forgets them."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection of a client."""
        from_broker, to_broker = await asyncio.open_connection(HOST, self.broker_port)
        asked: Asked = {}
        self._writers |= {writer, to_broker}
        pumps = [
            asyncio.create_task(self._requests(reader, to_broker, asked)),
            asyncio.create_task(self._replies(from_broker, writer, asked)),
        ]
        self._tasks.update(pumps)
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        for each in (writer, to_broker):
            self._writers.discard(each)
            each.transport.abort()

    async def close(self) -> None:
        """End everything."""
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _requests(self, reader: asyncio.StreamReader, broker: asyncio.StreamWriter, asked: Asked) -> None:
        with suppress(*ENDED):
            while True:
                frame = await _frame(reader)
                _, _, number = struct.unpack_from(">hhi", frame)
                asked[number] = frame[:BEGIN_BYTES]
                await self._while_silent()
                broker.write(struct.pack(">i", len(frame)) + frame)
                await broker.drain()

    async def _replies(self, broker: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> None:
        ours, theirs = (b"\x00\x09127.0.0.1" + struct.pack(">i", port) for port in (self.port, self.broker_port))
        with suppress(*ENDED):
            while True:
                frame = (await _frame(broker)).replace(theirs, ours)
                await asyncio.sleep(self.delay_s + len(frame) / (self.bytes_per_s or float("inf")))
                await self._while_silent()
                request = asked.pop(struct.unpack_from(">i", frame)[0])
                kind = struct.unpack_from(">h", request)[0]
                if self.unanswered is not None and kind == self.unanswered[0] and self.unanswered[1] in request:
                    continue
                if kind == PRODUCE and self.replies_lost:
                    self.replies_lost -= 1
                    self.lost += 1
                    return
                writer.write(struct.pack(">i", len(frame)) + frame)
                await writer.drain()

    async def _while_silent(self) -> None:
        while self.silent:
            await asyncio.sleep(0.02)


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


@asynccontextmanager
async def network(broker: str) -> AsyncIterator[Network]:
    """Give a network to a broker."""
    made = Network(broker)
    server = await asyncio.start_server(made.serve, HOST, 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.close()


@asynccontextmanager
async def behind(access: Access) -> AsyncIterator[tuple[Network, Access]]:
    """Give a network to the broker of a log, and the access of a client behind it."""
    if not access.servers.startswith(f"{HOST}:"):
        pytest.skip("the broker is on another machine")
    async with network(access.servers) as net:
        yield net, msgspec.structs.replace(access, options={"bootstrap_servers": [net.bootstrap]})
