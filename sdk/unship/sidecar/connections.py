"""Bound the connections of a sidecar, and read requests within limits, so that no client keeps the replica out.

Where all places are taken, the connection whose request began longest ago loses its place to the new one. An honest
request takes milliseconds, so that is an idle connection, or one that sends or reads slowly on purpose. Requests that
wait for news are not closed, but only some places are theirs.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from contextlib import suppress
from http.client import LineTooLong
from typing import Final

from unship.budgets.table import SIDECAR_CONNECTIONS, SIDECAR_HEAD

CONNECTIONS_MAX: Final = SIDECAR_CONNECTIONS.limit
"""Connections served at a time, each on a thread."""

WAITING_MAX: Final = CONNECTIONS_MAX * 3 // 4
"""Requests that wait for news at a time."""

THREADS_MAX: Final = 2 * CONNECTIONS_MAX
"""Threads at a time, with those that are about to end because their connection lost its place."""

REQUEST_S: Final = 10.0
"""Deadline for a whole request, from its connection or from the answer before it to its last byte."""

HEAD_BYTES_MAX: Final = SIDECAR_HEAD.limit
"""Bytes of a request line and its headers."""

RECV_BYTES: Final = 65_536


class Connections:
    """Hand out places; every method may be called from any thread."""

    def __init__(self) -> None:
        """Start with every place free."""
        # Times are of the monotonic clock; a connection that waits for news has none.
        self._since: dict[socket.socket, float | None] = {}
        self._threads = 0
        self._lock = threading.Lock()

    @property
    def open(self) -> int:
        """Return how many places are taken."""
        return len(self._since)

    def admit(self, connection: socket.socket) -> bool:
        """Give a connection a place, if need be that of another; return whether it has one."""
        with self._lock:
            if self._threads >= THREADS_MAX:
                return False
            if len(self._since) >= CONNECTIONS_MAX:
                began = {each: since for each, since in self._since.items() if since is not None}
                if not began:
                    return False
                slowest = min(began, key=began.__getitem__)
                del self._since[slowest]
                with suppress(OSError):
                    slowest.shutdown(socket.SHUT_RDWR)
            self._threads += 1
            self._since[connection] = time.monotonic()  # noqa: TID251
            return True

    def leave(self, connection: socket.socket) -> None:
        """Free the place of a connection whose thread ends."""
        with self._lock:
            self._threads -= 1
            self._since.pop(connection, None)

    def begin(self, connection: socket.socket) -> None:
        """Note that the next request of a connection begins now."""
        with self._lock:
            if connection in self._since:
                self._since[connection] = time.monotonic()  # noqa: TID251

    def wait(self, connection: socket.socket) -> bool:
        """Let a request wait for news without a deadline; False where too many wait, or it lost its place."""
        with self._lock:
            waiting = sum(since is None for since in self._since.values())
            if waiting >= WAITING_MAX or connection not in self._since:
                return False
            self._since[connection] = None
            return True


class RequestReader(io.BufferedIOBase):
    """Read requests from a connection, each within a deadline and its head within a number of bytes."""

    def __init__(self, connection: socket.socket) -> None:
        """Take the connection, which its handler closes."""
        self._connection = connection
        self._held = bytearray()
        self._deadline = 0.0
        self._head_left = 0

    def begin(self) -> None:
        """Begin a request now."""
        self._deadline = time.monotonic() + REQUEST_S  # noqa: TID251
        self._head_left = HEAD_BYTES_MAX

    def readable(self) -> bool:
        """Return True."""
        return True

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return a line of the head; an empty one if the connection ended before the first.

        Raises:
            LineTooLong: The head has more than `HEAD_BYTES_MAX` bytes.
            TimeoutError: The request took too long.
            ConnectionError: The connection ended within the head.
        """
        while (end := self._held.find(b"\n") + 1) == 0:
            if len(self._held) > self._head_left:
                raise LineTooLong("head of a request")
            if not self._more():
                if self._held or self._head_left < HEAD_BYTES_MAX:
                    raise ConnectionResetError("the head of a request ended early")
                return b""
        self._head_left -= end
        if self._head_left < 0:
            raise LineTooLong("head of a request")
        return self._taken(end)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return so many bytes of the body, fewer if the connection ended.

        Raises:
            TimeoutError: The request took too long.
        """
        wanted = 0 if size is None or size < 0 else size
        while len(self._held) < wanted and self._more():
            pass
        return self._taken(wanted)

    def _more(self) -> bool:
        left_s = self._deadline - time.monotonic()  # noqa: TID251
        if left_s <= 0:
            raise TimeoutError
        self._connection.settimeout(left_s)
        found = self._connection.recv(RECV_BYTES)
        self._held += found
        return bool(found)

    def _taken(self, count: int) -> bytes:
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken
