"""Serve the monitor's web: what the topics show, and what the process knows of itself. Nothing can be changed by it.

It listens on this machine only, unless a token is configured; then every path but the two of health asks for it. In a
browser a page of another site could send requests to an address of this machine under its own name, so without a token
the name in the request must be one of this machine.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry

from console.loops import LoopThread
from console.web.board import Board, Kept
from console.web.metrics import exposition, registry_of
from console.web.sources import Source, fill
from console.web.status_json import status_shown
from console.web.verdict import Gate, passes, verdict_on
from console.web.vitals import Vitals
from streams.config.reports import LOOPBACK
from streams.config.resolved import Web
from unship.budgets.table import WEB_BODY, WEB_CONNECTIONS
from unship.errors import ConfigurationError
from unship.log.link import wall_ms
from unship.signing import Trust

OPEN_PATHS: Final = ("/healthz", "/readyz")
SHOWN_MAX: Final = 1_000
CLOSING_S: Final = 2.0
PATHS: Final = ("/metrics", "/healthz", "/readyz", "/v1/status", "/v1/decisions", "/v1/verdict/MODEL")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Pages:
    """Answers requests from a board and the vitals of the process."""

    def __init__(self, board: Board, vitals: Vitals, now_ms: Callable[[], int]) -> None:
        self._board, self._vitals, self._now_ms = board, vitals, now_ms
        self._registry: CollectorRegistry = registry_of(board, vitals)

    def routes(self) -> list[web.RouteDef]:
        """Return the paths; gates of releases send a POST, which is answered like a GET."""
        return [
            web.get("/", self.index),
            web.get("/metrics", self.metrics),
            web.get("/healthz", self.health),
            web.get("/readyz", self.readiness),
            web.get("/v1/status", self.status),
            web.get("/v1/decisions", self.decisions),
            web.get("/v1/verdict/{model:.+}", self.verdict),
            web.post("/v1/verdict/{model:.+}", self.verdict),
        ]

    async def index(self, request: web.Request) -> web.Response:
        """List the paths."""
        return _json({"paths": PATHS})

    async def metrics(self, request: web.Request) -> web.Response:
        """Return the metrics of Prometheus."""
        body = exposition(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(self, request: web.Request) -> web.Response:
        """Return 200 while the monitor works."""
        silent_s = self._vitals.silent_s
        found = {"alive": self._vitals.alive, "silent_s": None if silent_s is None else round(silent_s, 3)}
        return _json(found, 200 if self._vitals.alive else 503)

    async def readiness(self, request: web.Request) -> web.Response:
        """Return 200 once the monitor has decided about what was there at its start, and the web shows it."""
        found = {"monitor": self._vitals.alive and self._vitals.caught_up, "web": self._board.caught_up}
        return _json(found, 200 if all(found.values()) else 503)

    async def status(self, request: web.Request) -> web.Response:
        """Return the status, as `unship status --json` does."""
        return _json(status_shown(self._board, self._vitals.lag, request.query.get("model")))

    async def decisions(self, request: web.Request) -> web.Response:
        """Return the newest decisions, the newest last."""
        query = request.query
        limit, since = _number(query.get("limit"), 100), _number(query.get("since"), 0)

        def wanted(kept: Kept) -> bool:
            head = kept.head
            given = {"model": head.model, "version": head.version, "action": head.action, "id": head.id}
            return head.ts >= since and all(query.get(name, value) == value for name, value in given.items())

        found = [kept.value for kept in self._board.decisions if wanted(kept)][-min(limit, SHOWN_MAX) :]
        return _json({"decisions": [msgspec.Raw(value) for value in found if limit]})

    async def verdict(self, request: web.Request) -> web.Response:
        """Return the verdict on a version; with `gate` the code is 200 if that is to be passed, else 412."""
        answer = verdict_on(self._board, request.match_info["model"], request.query.get("version"), self._now_ms())
        code = 200
        if (name := request.query.get("gate")) is not None:
            if name not in ("promote", "rollback"):
                return _json({"error": f"gate: expected promote or rollback, was {name!r}"}, 400)
            gate: Gate = "promote" if name == "promote" else "rollback"
            code = 200 if passes(answer, gate) else 412
        return _json({"data": answer}, code)


def _number(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise web.HTTPBadRequest(text="expected a whole number\n")
    return int(text)


def _json(found: object, code: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(found), status=code, content_type="application/json")


def guard(token: bytes | None, connections: Callable[[], int]) -> Middleware:
    """Return the middleware that lets requests in.

    Args:
        token: What requests have to carry; None for none.
        connections: Returns how many are open.
    """

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if connections() > WEB_CONNECTIONS.limit:
            busy = web.Response(status=503, text="too many connections\n")
            busy.force_close()
            return busy
        if token is None:
            host = request.host.rpartition(":")[0] if not request.host.endswith("]") else request.host
            if (host or request.host).strip("[]") not in LOOPBACK:
                return web.Response(status=403, text="not a name of this machine; configure web.token_file\n")
        elif request.path not in OPEN_PATHS and not _carries(request, token):
            headers = {"WWW-Authenticate": "Bearer"}
            return web.Response(status=401, text="expected Authorization: Bearer TOKEN\n", headers=headers)
        found = await handler(request)
        found.headers["X-Content-Type-Options"] = "nosniff"
        found.headers["Cache-Control"] = "no-store"
        return found

    return guarded


def _carries(request: web.Request, token: bytes) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token)


class WebThread:
    """Serves in a thread of its own until it is closed."""

    def __init__(
        self,
        where: Web,
        folder: Path,
        make: Callable[[], Source],
        trust: Callable[[], Trust | None],
        report: Callable[[str], None],
        *,
        alone: bool = False,
    ) -> None:
        """Listen, and start to read the log.

        Args:
            where: The address.
            folder: What the file of the token is relative to.
            make: Returns the topics of the log.
            trust: Returns the keys that sign the journal.
            report: Takes a sentence.
            alone: Whether no other process decides on this log.

        Raises:
            ConfigurationError: It cannot listen there, or there is no token in the file.
        """
        self.vitals = Vitals()
        self._make, self._report = make, report
        self._board = Board(trust, lambda: wall_ms() if alone and self.vitals.alive else None)
        self._token = None if where.token_file is None else _token(folder / where.token_file)
        self._socket = _listening(where)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._thread = LoopThread("unship-web", self._run)

    async def _run(self, stop: asyncio.Event) -> None:
        pages = Pages(self._board, self.vitals, wall_ms)
        served: list[web.AppRunner] = []

        def connections() -> int:
            server = served[0].server if served else None
            return 0 if server is None else len(server.connections)

        app = web.Application(client_max_size=WEB_BODY.limit, middlewares=[guard(self._token, connections)])
        app.add_routes(pages.routes())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=30.0)
        served.append(runner)
        await runner.setup()
        await web.SockSite(runner, self._socket).start()
        filling = asyncio.create_task(fill(self._board, self._make, self._report, stop))
        try:
            await stop.wait()
        finally:
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
            await runner.cleanup()

    def close(self) -> None:
        """Stop to serve."""
        self._thread.close(CLOSING_S)
        self._socket.close()


def _listening(where: Web) -> socket.socket:
    host = where.host or ""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, where.port), family=family, backlog=64)
    except OSError as error:
        raise ConfigurationError(
            f"web: cannot listen on {host}:{where.port}: {error.strerror or error}; name another address with --web or "
            "web.listen, or use --without-web"
        ) from error


def _token(path: Path) -> bytes:
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(f"web.token_file: {path}: {error.strerror}") from error
    if len(token) < 16:
        raise ConfigurationError(
            f"web.token_file: {path}: expected at least 16 characters, was {len(token)}; make one with: "
            "openssl rand -base64 32"
        )
    return token
