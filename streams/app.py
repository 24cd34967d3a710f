"""The Faust application: one process of the monitor on Kafka. The only module that knows Faust.

Faust owns the life of the process. The two services move what is much, in batches; the agents carry what is little:
deployments, operators' acts and news of acks into the ledger, decisions to those who are alerted. No rule of the
product is here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import faust
import mode
from aiokafka.errors import KafkaError
from faust.types import StreamT

import detectors
from actions.reconcile import Timing
from streams.config import Config
from streams.kafka.alerts import alert_text
from streams.kafka.clients import Access, explained
from streams.kafka.controller import Controller, LedgerConflict
from streams.kafka.copying import Copier, Place
from streams.kafka.ingest import Ingest, SourceChanged
from streams.live import Signer
from unship.errors import UnshipError
from unship.kafka_access import SCHEME

log = logging.getLogger("unship")

#: Between two tries. Where brokers come back, this is time in which nothing is decided.
RETRY_MIN_S, RETRY_MAX_S = 0.5, 5.0
#: A life that lasted so long was a good one, and the first pause after it is the shortest again.
GOOD_LIFE_S = 15.0
#: What takes a person: every life ends in it, until somebody has done what it says.
HALTS = (SourceChanged, LedgerConflict)
#: What ends one life of a service and begins another; anything else is a bug, and ends the process.
TROUBLE = (KafkaError, OSError, TimeoutError, UnshipError, *HALTS)


class Lives(mode.Service):
    """Runs something crash-only: whatever the broker does to it, it begins again, and says why once."""

    def __init__(self, what: str, access: Access, run: Callable[[], Awaitable[None]], stop: Callable[[], None]) -> None:
        super().__init__()
        self._what, self._access, self._run, self._end = what, access, run, stop
        self._ended = asyncio.Event()

    @mode.Service.task
    async def _live(self) -> None:
        pause, said = RETRY_MIN_S, ""
        while not self.should_stop:
            began = asyncio.get_running_loop().time()
            try:
                await self._run()
                said = ""
            except TROUBLE as error:
                text = explained(error, self._access)
                if text != said:
                    again = "it looks again" if isinstance(error, HALTS) else "it begins again by itself"
                    log.warning("%s stopped: %s; %s", self._what, text, again)
                    said = text
                lasted = asyncio.get_running_loop().time() - began
                pause = RETRY_MIN_S if lasted > GOOD_LIFE_S else min(2 * pause, RETRY_MAX_S)
                await self.sleep(pause)
        self._ended.set()

    async def on_stop(self) -> None:
        """Let the life end in order: it hands over and commits what it has."""
        self._end()
        try:
            await asyncio.wait_for(self._ended.wait(), 10.0)
        except TimeoutError:
            log.warning("%s did not end in time; what it had is read again", self._what)


def make_app(access: Access, config: Config, signer: Signer | None, clock_ms: Callable[[], int]) -> faust.App:
    """Return the application: services, and agents on the quiet topics."""
    names = access.names
    app = faust.App(
        f"{names.prefix}monitor",
        broker=[f"{SCHEME}{server}" for server in access.options["bootstrap_servers"]],
        broker_credentials=_credentials(access.options),
        broker_session_timeout=access.session_ms / 1_000,
        broker_heartbeat_interval=max(access.session_ms / 6_000, 0.5),
        consumer_auto_offset_reset="earliest",
        # Topics are made by `unship topics apply`, with the settings that the guarantees rest on.
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        web_enabled=False,
        value_serializer="raw",
        key_serializer="raw",
    )
    _load_detectors(config)
    ingest = Ingest(access, config, clock_ms, tick_s=tick_s(config))
    controller = Controller(access, config, clock_ms, signer, Timing())
    copier = Copier(access, config, None if signer is None else signer.trust)
    app.service(_service("ingest", access, ingest.run, ingest.stop))
    app.service(_service("control", access, controller.run, controller.stop))
    app.on_before_shutdown.connect(_closing(copier))

    def copying(topic: str) -> None:
        @app.agent(_topic(app, names.of(topic)), name=f"copy-{topic}")
        async def copy(stream: StreamT[bytes]) -> None:
            async for event in stream.events():
                message = event.message
                place = Place(topic, message.partition, message.offset, round(message.timestamp * 1_000))
                await copier.copy_surely(place, message.value, _headers(message.headers))

    copying("deployments")
    copying("operator")
    copying("acks")

    @app.agent(_topic(app, names.of("decisions")), name="alert")
    async def alert(stream: StreamT[bytes]) -> None:
        async for value in stream:
            if (text := alert_text(value)) is not None:
                log.warning("%s", text)

    return app


def _closing(copier: Copier) -> Callable[..., Awaitable[None]]:
    async def closed(*_: Any, **__: Any) -> None:
        await copier.stop()

    return closed


def _load_detectors(config: Config) -> None:
    """Import what the detectors need before the loop runs: in the middle of the work it would stand still for it."""
    for name in sorted({name for model in (config.defaults, *config.models.values()) for name in model.detectors}):
        detectors.create(name)


def tick_s(config: Config) -> float:
    """Return how often an idle partition says that time passes: often enough to close the narrowest cohort."""
    widths = [model.cohort_ms for model in (config.defaults, *config.models.values()) if model.mature_after_ms]
    return min(max(min(widths, default=5_000) / 1_000, 1.0), 5.0)


def _service(what: str, access: Access, run: Callable[[], Awaitable[None]], stop: Callable[[], None]) -> Any:
    class Running(Lives):
        """The same under a name of its own: Faust makes services from classes."""

        def __init__(self, *arguments: Any, **settings: Any) -> None:
            Lives.__init__(self, what, access, run, stop)

    Running.__name__ = what
    return Running


def _topic(app: faust.App, name: str) -> Any:
    return app.topic(name, value_type=bytes, key_type=bytes, value_serializer="raw", key_serializer="raw")


def _headers(headers: Any) -> tuple[tuple[str, bytes], ...]:
    pairs = headers.items() if isinstance(headers, dict) else headers or ()
    return tuple((str(name), bytes(value)) for name, value in pairs)


def _credentials(options: dict[str, Any]) -> Any:
    protocol, context = options.get("security_protocol", "PLAINTEXT"), options.get("ssl_context")
    if protocol.startswith("SASL_"):
        return faust.SASLCredentials(
            username=options["sasl_plain_username"],
            password=options["sasl_plain_password"],
            mechanism=options["sasl_mechanism"],
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if protocol == "SSL" else None
