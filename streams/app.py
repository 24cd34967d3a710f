"""The Faust application: one process of the monitor on Kafka. Nothing else knows Faust, but for how it reads.

Faust owns the life of the process. The two services move what is much, in batches; the agents carry what is little:
deployments, operators' acts and news of acks into the ledger, decisions to those who are alerted. No rule of the
product is here.
"""

import gc
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn

import faust
import mode
from faust.types import StreamT

import detectors
from actions.alerts import alert_text
from actions.reconcile import Signer, Timing
from streams.config.resolved import Config
from streams.kafka.clients import Access
from streams.kafka.control_service import Controller
from streams.kafka.copier import Copier, Place
from streams.kafka.faust_transport import FaustTransport
from streams.kafka.ingest_service import Ingest
from streams.kafka.supervisor import Lives
from unship.log.kafka.access import SCHEME

log = logging.getLogger("unship")


class Monitor(NamedTuple):
    """The application, and the two services that it hosts."""

    app: faust.App
    lives: tuple[Lives, ...]


def make_app(access: Access, config: Config, signer: Signer | None, clock_ms: Callable[[], int]) -> Monitor:
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
    app.transport = FaustTransport(app.conf.broker_consumer, app)
    _load_detectors(config)
    ingest = Ingest(access, config, clock_ms, tick_s=tick_s(config))
    controller = Controller(access, config, clock_ms, signer, Timing())
    copier = Copier(access, config, None if signer is None else signer.trust)
    lives = (
        Lives("ingest", access, ingest.run, ingest.stop),
        Lives("control", access, controller.run, controller.stop),
    )
    for each in lives:
        app.service(_service(each))
    app.on_before_shutdown.connect(_closing(copier))

    def copying(topic: str) -> None:
        @app.agent(_topic(app, names.of(topic)), name=f"copy-{topic}")
        async def copy(stream: StreamT[bytes]) -> None:
            # One after the other: what is committed rests on that, and so does what the fold takes for copied.
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

    return Monitor(app, lives)


def work(monitor: Monitor, level: str, on_start: Callable[[Callable[[], None]], None]) -> NoReturn:
    """Run the application as this process, which ends with it.

    Args:
        monitor: what to run.
        level: the least level that is logged.
        on_start: called once it runs, with what begins its end, from any thread.
    """

    class Worker(faust.Worker):
        """Hands over what ends it instead of leaving that to signals alone."""

        def install_signal_handlers(self) -> None:
            super().install_signal_handlers()
            on_start(self._end_soon)

        def _end_soon(self) -> None:
            # A loop that is closed has ended already.
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._end)

        def _end(self) -> None:
            # At once, and not one after the other as the application comes to them.
            for each in monitor.lives:
                each.finish()
            self._on_sigterm()

    worker = Worker(monitor.app, loglevel=level.upper(), quiet=True, redirect_stdouts=False)
    # It writes to a log as it does to a terminal.
    worker.spinner = None
    _collect_rarely()
    worker.execute_from_commandline()


def _closing(copier: Copier) -> Callable[..., Awaitable[None]]:
    async def closed(*_: Any, **__: Any) -> None:
        await copier.stop()

    return closed


def _collect_rarely() -> None:
    """Let the collector of cycles pass over what is there for good, and look seldom at what the windows hold.

    That is millions of small objects without a cycle; walking through them stops everything for a good part of a
    second, again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def _load_detectors(config: Config) -> None:
    """Import what the detectors need before the loop runs: in the middle of the work it would stand still for it."""
    for name in sorted({name for model in (config.defaults, *config.models.values()) for name in model.detectors}):
        detectors.create(name)


def tick_s(config: Config) -> float:
    """Return how often an idle partition says that time passes: often enough to close the narrowest cohort."""
    widths = [model.cohort_ms for model in (config.defaults, *config.models.values()) if model.mature_after_ms]
    return min(max(min(widths, default=5_000) / 1_000, 1.0), 5.0)


def _service(lives: Lives) -> Any:
    class Running(mode.Service):
        """The same under a name of its own: Faust makes services from classes."""

        @mode.Service.task
        async def _live(self) -> None:
            await lives.live()

        async def on_stop(self) -> None:
            await lives.finished()

    Running.__name__ = lives.what
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
