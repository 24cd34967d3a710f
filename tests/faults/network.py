"""A network between brokers and clients that can be cut: every connection runs through a proxy that knows both ends.

Cut means that nothing arrives any more, and nobody is told: connections stay open, as they do where a cable is pulled.
What was sent meanwhile arrives when the cut is healed, as it does by TCP's repetitions.
"""

import asyncio
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from tests.kafka.cluster import HOST, Broker, Cluster, free_port

CHUNK = 65_536
#: Who sends, and to whom: numbers of brokers, 0 for everybody else.
Way: TypeAlias = tuple[int, int]
CLIENTS = 0


class Network:
    """Proxies on a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()
        self._cut: set[Way] = set()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.brokers: list[Broker] = []

    def open(self, port: int, to: int, node: int) -> None:
        """Listen on `port`, and let through what comes to port `to` of a broker."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._join(reader, writer, to, node)

        async def listen() -> None:
            await asyncio.start_server(accept, HOST, port)

        asyncio.run_coroutine_threadsafe(listen(), self._loop).result()

    def cut(self, ways: Iterable[Way]) -> None:
        """Let nothing more through on these ways, in both directions."""
        asyncio.run_coroutine_threadsafe(self._change({*ways}), self._loop).result()

    def heal(self) -> None:
        """Let everything through again."""
        asyncio.run_coroutine_threadsafe(self._change(set()), self._loop).result()

    def close(self) -> None:
        """End the thread, and with it all connections."""

        async def end() -> None:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _change(self, cut: set[Way]) -> None:
        async with self._changed:
            self._cut = cut
            self._changed.notify_all()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: int, node: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            source = await asyncio.to_thread(self._source, writer.get_extra_info("peername")[1])
            await self._open(source, node)
            far_reader, far_writer = await asyncio.open_connection(HOST, to)
            try:
                ways = (self._pump(reader, far_writer, source, node), self._pump(far_reader, writer, source, node))
                pumps = [asyncio.ensure_future(way) for way in ways]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
            finally:
                far_writer.close()
        except OSError:
            # The broker is not there; the client sees its connection end.
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _open(self, source: int, node: int) -> None:
        if (source, node) in self._cut:
            async with self._changed:
                await self._changed.wait_for(lambda: (source, node) not in self._cut)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: int, node: int) -> None:
        try:
            while data := await reader.read(CHUNK):
                await self._open(source, node)
                writer.write(data)
                await writer.drain()
        except OSError:
            return

    def _source(self, port: int) -> int:
        """Return which broker a connection from a port of this machine comes from, `CLIENTS` if from none."""
        # Java's sockets stand in the second table.
        tables = [Path(f"/proc/net/{name}").read_text(encoding="ascii") for name in ("tcp", "tcp6")]
        rows = [row.split() for table in tables for row in table.splitlines()[1:]]
        inodes = {row[9] for row in rows if int(row[1].rpartition(":")[2], 16) == port}
        for broker in self.brokers:
            if broker.alive and inodes & _sockets(broker.pid):
                return broker.node_id
        return CLIENTS


def _sockets(pid: int) -> set[str]:
    """Return the inodes of a process's sockets."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


class CutCluster(Cluster):
    """Three brokers whose every connection, among them too, runs through a network that can be cut."""

    def __init__(self) -> None:
        super().__init__(3)
        self.network = Network()
        self.network.brokers = self.brokers
        self._outside = {broker.node_id: (free_port(), free_port()) for broker in self.brokers}
        for broker in self.brokers:
            port, controller_port = self._outside[broker.node_id]
            self.network.open(port, broker.port, broker.node_id)
            self.network.open(controller_port, broker.controller_port, broker.node_id)

    @property
    def bootstrap(self) -> str:
        """Return the addresses of the brokers' proxies."""
        return ",".join(f"{HOST}:{port}" for port, _ in self._outside.values())

    def close(self) -> None:
        """End the brokers, then the network."""
        super().close()
        self.network.close()

    def isolate(self, node: int, *, clients: bool) -> None:
        """Cut a broker off from the others, or from everybody."""
        others = [broker.node_id for broker in self.brokers if broker.node_id != node]
        ways = [(node, other) for other in others] + [(other, node) for other in others]
        self.network.cut([*ways, (CLIENTS, node)] if clients else ways)

    def _properties(self, broker: Broker) -> dict[str, str]:
        voters = ",".join(f"{node}@{HOST}:{port}" for node, (_, port) in self._outside.items())
        advertised = f"PLAINTEXT://{HOST}:{self._outside[broker.node_id][0]}"
        return super()._properties(broker) | {"controller.quorum.voters": voters, "advertised.listeners": advertised}
