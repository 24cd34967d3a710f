"""Answer the sidecar's HTTP: a few paths, bounded in everything, on the loopback interface.

A client that can connect may send events in the replica's name, so the sidecar listens where only the replica is.
A web page in a browser on the same machine can reach that place too: requests that a browser marks as a page's, and
requests that call the loopback by a name of the network, are refused.
"""

from __future__ import annotations

import re
import socket
import sys
from contextlib import suppress
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from unship.events import Epoch
from unship.replica.fence import NO_EPOCH
from unship.sidecar import ofrep
from unship.sidecar.cloudevents import data_of
from unship.sidecar.connections import CONNECTIONS_MAX, Connections, RequestReader
from unship.sidecar.sidecar import BODY_BYTES_MAX, WAIT_S_MAX, Confirmation, Desired, Full, Sidecar

WRITE_S: Final = 10.0
"""Deadline for writing an answer."""

CONFIRMATION_BYTES_MAX: Final = 4_096

_ABSOLUTE = re.compile(r"http://([^/?#@\s]+)(/[^#\s]*)?", re.IGNORECASE)
_EPOCH = re.compile(r"(\d{1,16})[.,](\d{1,16})[.,](\d{1,16})")
_CODES: Final = {
    400: "BAD_REQUEST",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    409: "NOT_WANTED",
    411: "LENGTH_REQUIRED",
    413: "TOO_LARGE",
    503: "TRY_LATER",
}
_PATHS: Final = {
    "/v1/events": "POST",
    "/v1/desired": "GET",
    "/v1/ack": "PUT",
    "/healthz": "GET",
    ofrep.EVALUATE: "POST",
    ofrep.STREAM: "GET",
}
_FLAG: Final = f"{ofrep.EVALUATE}/"


class _Refusal(Exception):
    """End a request with a code and a fixed sentence, nothing of which comes from the client."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class SidecarServer(ThreadingHTTPServer):
    """Serve one sidecar."""

    daemon_threads = True
    # So many may arrive at once: with the standard library's five, a few clients would keep others from connecting.
    request_queue_size = 2 * CONNECTIONS_MAX
    block_on_close = False

    def __init__(self, address: tuple[str, int], sidecar: Sidecar) -> None:
        """Bind the address; nothing is answered before `serve_forever`.

        Raises:
            OSError: The address is taken, or is none of this machine.
        """
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.sidecar = sidecar
        self.connections = Connections()
        super().__init__(address, _Requests)

    def server_bind(self) -> None:
        """Bind without asking the name service who this machine is."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "sidecar", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection on a thread, or close it where it gets no place."""
        if not self.connections.admit(request):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self.connections.leave(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, then make room for another; report one that broke, without what the client sent."""
        try:
            self.finish_request(request, client_address)
        except Exception as error:  # noqa: BLE001 (one connection may not end the others)
            sys.stderr.write(f"unship-replica: a connection ended with {type(error).__name__}\n")
        finally:
            self.connections.leave(request)
            self.shutdown_request(request)


class _Requests(BaseHTTPRequestHandler):
    """Answer the requests of one connection."""

    server: SidecarServer
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """Read with deadlines: those of the standard library begin again with each byte."""
        super().setup()
        self.rfile.close()
        self.rfile = self.reader = RequestReader(self.connection)

    def handle_one_request(self) -> None:
        """Answer the next request."""
        self.reader.begin()
        self.server.connections.begin(self.connection)
        try:
            super().handle_one_request()
        except LineTooLong:
            self.requestline, self.request_version, self.command = "", self.protocol_version, ""
            self.send_error(431)
        except OSError:
            self.close_connection = True

    def do_GET(self) -> None:
        """Answer `/v1/desired` and `/healthz`."""
        self._route("GET")

    def do_POST(self) -> None:
        """Take events."""
        self._route("POST")

    def do_PUT(self) -> None:
        """Take a confirmation."""
        self._route("PUT")

    def version_string(self) -> str:
        """Name the program, not its versions."""
        return "unship-replica"

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: lines of requests are the client's text."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Refuse without quoting the request, as the standard library would."""
        self.close_connection = True
        code = code if code in _CODES else 400
        self._answer(code, {"code": _CODES[code], "detail": "the request cannot be read"})

    def _route(self, method: str) -> None:
        try:
            target = self._checked_target()
            if method == "GET" and ("Content-Length" in self.headers or "Transfer-Encoding" in self.headers):
                # An unread body must not be taken for the next request.
                self.close_connection = True
            url = urlsplit(target)
            one_flag = url.path.startswith(_FLAG)
            wanted = "POST" if one_flag else _PATHS.get(url.path)
            if wanted is None:
                raise _Refusal(404, f"there are {', '.join(_PATHS)}")
            if wanted != method:
                raise _Refusal(405, f"this path takes {wanted}")
            if one_flag:
                self._flag(unquote(url.path.removeprefix(_FLAG)))
            elif url.path == ofrep.EVALUATE:
                self._flags(url.query)
            elif url.path == ofrep.STREAM:
                self._stream()
            elif url.path == "/v1/events":
                self._events()
            elif url.path == "/v1/desired":
                self._desired(url.query)
            elif url.path == "/v1/ack":
                self._confirm()
            else:
                self._answer(200, self.server.sidecar.health())
        except _Refusal as refusal:
            # Here too a body may be left unread.
            self.close_connection = True
            with suppress(OSError):
                self._answer(refusal.code, {"code": _CODES[refusal.code], "detail": refusal.detail})
                self.reader.discard()
        except (OSError, TimeoutError):
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 (a client gets no traceback, whatever broke)
            self.close_connection = True
            sys.stderr.write(f"unship-replica: a request failed with {type(error).__name__}\n")
            self._answer(503, {"code": "TRY_LATER", "detail": "the sidecar could not answer"})

    def _events(self) -> None:
        data = data_of(self.headers, self._body(BODY_BYTES_MAX))
        try:
            done = self.server.sidecar.accept(data) if isinstance(data, bytes) else data
        except Full:
            raise _Refusal(503, "the queue is full: the log is slow or away; send the same events again") from None
        if isinstance(done, int):
            self._answer(202, {"accepted": done})
        else:
            index, rejection = done
            self._answer(400, {"code": rejection.code.value, "detail": rejection.detail, "index": index, "accepted": 0})

    def _desired(self, query: str) -> None:
        asked = _asked(query)
        try:
            wait_s = float(asked.get("wait", ["0"])[-1])
        except ValueError:
            raise _Refusal(400, "wait: expected seconds") from None
        if not 0 <= wait_s <= WAIT_S_MAX:
            raise _Refusal(400, f"wait: expected 0 to {WAIT_S_MAX:g} seconds")
        epoch = _epoch(asked["epoch"][-1]) if "epoch" in asked else None
        tag = self.headers.get("If-None-Match")

        def known(desired: Desired) -> bool:
            if epoch is not None:
                return (desired.epoch or NO_EPOCH) <= epoch
            return tag is not None and tag.strip() in (f'"{desired.mark}"', f'W/"{desired.mark}"')

        if wait_s > 0 and not self.server.connections.wait(self.connection):
            raise _Refusal(503, "too many requests wait for news; ask again, or without a wait")
        desired = self.server.sidecar.wait_beyond(known, wait_s)
        self.server.connections.begin(self.connection)
        if desired is None:
            self._answer(304, None, self.server.sidecar.desired().mark)
        else:
            self._answer(200, msgspec.to_builtins(desired), desired.mark)

    def _confirm(self) -> None:
        if not self.server.sidecar.confirms:
            raise _Refusal(409, "this sidecar switches by itself (--exec, --file or --flags) and confirms by itself")
        try:
            confirmation = msgspec.json.decode(self._body(CONFIRMATION_BYTES_MAX), type=Confirmation)
        except (ValueError, RecursionError, OverflowError):
            raise _Refusal(400, 'expected {"version": TEXT, "epoch": [N, N, N], "ok": BOOL, "detail": TEXT}') from None
        answer = self.server.sidecar.confirm(confirmation)
        if answer is None:
            raise _Refusal(503, "the sidecar is busy; confirm again")
        if answer == "NOT_WANTED":
            raise _Refusal(409, "this version under this epoch is not what is desired now; ask /v1/desired")
        self._answer(200, {"stage": "serving" if answer == "SWITCHED" else "refused"})

    def _flag(self, key: str) -> None:
        sidecar = self.server.sidecar
        answer = ofrep.flag(key, self._body(ofrep.CONTEXT_BYTES_MAX), sidecar.model, sidecar.loaded, sidecar.choose)
        self._answer(answer.code, answer.content)

    def _flags(self, query: str) -> None:
        sidecar = self.server.sidecar
        body = self._body(ofrep.CONTEXT_BYTES_MAX)
        known = self.headers.get("If-None-Match", "")
        trigger = _asked(query).get("flagConfigEtag", [None])[-1]
        answer = ofrep.flags(body, sidecar.model, sidecar.loaded, sidecar.choose, known, trigger)
        self._answer(answer.code, answer.content, answer.mark)

    def _stream(self) -> None:
        """Send an event with each change, for as long as the client reads."""
        sidecar = self.server.sidecar
        if not self.server.connections.wait(self.connection):
            raise _Refusal(503, "too many requests wait for news; ask again later")
        self.close_connection = True
        self.connection.settimeout(WRITE_S)
        loaded = sidecar.loaded
        mark = ofrep.mark_of(loaded)
        self.send_response(200)
        for name, value in (("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")):
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        missed = self.headers.get("Last-Event-ID", mark) != mark
        self.wfile.write(ofrep.refetch(mark) if missed else ofrep.ALIVE)
        while not sidecar.closing:
            loaded = sidecar.changed(loaded, ofrep.ALIVE_S)
            now = ofrep.mark_of(loaded)
            self.wfile.write(ofrep.ALIVE if now == mark else ofrep.refetch(now))
            mark = now

    def _body(self, limit: int) -> bytes:
        if self.headers.get("Transfer-Encoding") is not None:
            raise _Refusal(411, "send a Content-Length, not chunks")
        lengths = self.headers.get_all("Content-Length", [])
        if len(lengths) != 1 or not re.fullmatch(r"[0-9]{1,12}", lengths[0]):
            raise _Refusal(411, "expected one Content-Length")
        length = int(lengths[0])
        if length > limit:
            raise _Refusal(413, f"the body is larger than {limit} bytes")
        body = self.rfile.read(length)
        if len(body) != length:
            raise _Refusal(400, "the body ended early")
        return body

    def _checked_target(self) -> str:
        """Return the path and the query that are asked for, or refuse a request of a page or for another host."""
        if self.headers.defects:
            raise _Refusal(400, "a line of the head is no header")
        if self.headers.get("Origin") is not None or self.headers.get("Sec-Fetch-Site") not in (None, "none"):
            raise _Refusal(403, "requests of web pages are not answered")
        hosts = self.headers.get_all("Host", [])
        if len(hosts) > 1:
            raise _Refusal(400, "expected one Host")
        self._check_host(hosts[0] if hosts else "")
        if self.path.startswith("/"):
            return self.path
        # As it is sent to a proxy. This is none, so the host in it has to be this one.
        found = _ABSOLUTE.fullmatch(self.path)
        if found is None or (hosts and hosts[0] != found[1]):
            raise _Refusal(400, "expected a path, or the address of this host")
        self._check_host(found[1])
        return found[2] or "/"

    def _check_host(self, host: str) -> None:
        if not is_loopback(self.server.server_address[0]):
            return
        name = host.rpartition(":")[0] if re.search(r":\d*$", host) else host
        if name and not is_loopback(name.strip("[]")):
            raise _Refusal(403, "the Host is not the loopback")

    def _answer(self, code: int, content: dict[str, Any] | None, mark: str | None = None) -> None:
        body = b"" if content is None else msgspec.json.encode(content) + b"\n"
        self.connection.settimeout(WRITE_S)
        self.send_response(code)
        if mark is not None:
            self.send_header("ETag", f'"{mark}"')
        if code != 304:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        if code == 503:
            self.send_header("Retry-After", "1")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)


def is_loopback(host: str | Any) -> bool:
    """Return whether a host is this machine only.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("example.org")
        (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _asked(query: str) -> dict[str, list[str]]:
    try:
        return parse_qs(query, max_num_fields=8, errors="replace")
    except ValueError:
        raise _Refusal(400, "the query has too many fields") from None


def _epoch(text: str) -> Epoch:
    found = _EPOCH.fullmatch(text)
    if found is None:
        raise _Refusal(400, "epoch: expected three numbers, such as 1.7.0")
    return int(found[1]), int(found[2]), int(found[3])
