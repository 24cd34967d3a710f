"""The Faust application: one process of the monitor on Kafka. Only this module and kafka/faust_transport import Faust.

Faust runs the process. The two services move the many records, in batches; the agents carry the few: deployments,
operators' acts and news of acks into the ledger, decisions into the worker's own log. No rule of the product is here.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, Protocol

import faust
import mode
from faust.types import StreamT

import detectors
from actions.control_records import is_authentic
from actions.incidents import alert_text
from actions.reconcile import Signer, Timing
from streams.config.resolved import Config
from streams.kafka.clients import Access
from streams.kafka.control_service import ControlService
from streams.kafka.copier import Copier, Place
from streams.kafka.faust_transport import FaustTransport
from streams.kafka.ingest_service import IngestService
from streams.kafka.supervisor import Supervisor
from streams.topics.rights import AGENTS_GROUP
from unship.log.kafka.access import SCHEME

log = logging.getLogger("unship")


BEAT_S = 1.0

LIBRARIES: Final = {
    "aiokafka": "CRITICAL",
    "asyncio": "WARNING",
    "faust": "WARNING",
    "mode": "WARNING",
    # Faust's services that are made here are named by the module; our own lines are of `unship`.
    "streams": "WARNING",
}
"""The least level shown of each. Their starts, stops and retries help nobody who watches models: they are shown with
`debug`. What a broker that is away means is reported by the services, once."""


class Watch(Protocol):
    """Takes how long stages take, and once a second how far behind the worker is."""

    def observe(self, stage: str, seconds: float) -> None:
        """Note how long a stage took."""

    def beat(self, lag: Mapping[str, int], *, caught_up: bool) -> None:
        """Note how many records of each topic are not read yet, and whether that was ever all of them."""


class Monitor(NamedTuple):
    """The application, and the two services that it hosts."""

    app: faust.App
    services: tuple[Supervisor, ...]


def make_app(
    access: Access,
    config: Config,
    signer: Callable[[], Signer | None],
    clock_ms: Callable[[], int],
    window_folder: Path | None = None,
    watch: Watch | None = None,
) -> Monitor:
    """Return the application: services, and agents on the quiet topics.

    Args:
        access: The broker, and the names of the topics.
        config: The configuration in force.
        signer: Returns what signs commands now, None where none are published; another object for other keys.
        clock_ms: The wall clock.
        window_folder: Where windows are kept beyond memory; None for nowhere.
        watch: Takes what the process knows of itself; None for nobody.
    """
    names = access.names
    app = faust.App(
        f"{names.prefix}{AGENTS_GROUP}",
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
    ingest = IngestService(access, config, clock_ms, tick_s=tick_s(config))
    if window_folder is not None:
        ingest.keep_windows(window_folder)
    control = ControlService(access, config, clock_ms, signer(), Timing())
    control.follow_keys(signer)
    copier = Copier(access, config, lambda: None if (keys := signer()) is None else keys.trust)
    if watch is not None:
        control.time_stages(watch.observe)
        _beat(app, ingest, control, watch)
    services = (
        Supervisor("ingest", access, ingest.run, ingest.stop),
        Supervisor("control", access, control.run, control.stop),
    )
    for each in services:
        app.service(_service(each))
    app.on_before_shutdown.connect(_closing(copier))

    def copying(topic: str) -> None:
        @app.agent(_topic(app, names.of(topic)), name=f"copy-{topic}")
        async def copy(stream: StreamT[bytes]) -> None:
            # One after the other: what is committed depends on that, and so does what the fold takes for copied.
            async for event in stream.events():
                message = event.message
                place = Place(topic, message.partition, message.offset, round(message.timestamp * 1_000))
                await copier.copy_surely(place, message.value, _headers(message.headers))

    copying("deployments")
    copying("operator")
    copying("acks")

    _report(app, names.of("decisions"), signer)
    return Monitor(app, services)


def _beat(app: faust.App, ingest: IngestService, control: ControlService, watch: Watch) -> None:
    @app.timer(BEAT_S)  # type: ignore[untyped-decorator]
    async def beat() -> None:
        watch.beat({"sources": ingest.unread, "ledger": control.unread}, caught_up=control.caught_up)


def _report(app: faust.App, journal: str, signer: Callable[[], Signer | None]) -> None:
    """Log what the journal holds for people; alerts are sent by the followers of `alerts`."""

    @app.agent(_topic(app, journal), name="alert")
    async def report(stream: StreamT[bytes]) -> None:
        async for event in stream.events():
            message, keys = event.message, signer()
            if not is_authentic(message.value, _headers(message.headers), None if keys is None else keys.trust):
                continue
            if (text := alert_text(message.value)) is not None:
                log.warning("%s", text)


def work(monitor: Monitor, level: str, on_start: Callable[[Callable[[], None]], None]) -> NoReturn:
    """Run the application as this process, which ends with it.

    Args:
        monitor: what to run.
        level: the least level that is logged.
        on_start: called once it runs, with a function that stops it, for any thread.
    """

    class Worker(faust.Worker):
        """Can be stopped by a call, not by signals alone."""

        def install_signal_handlers(self) -> None:
            super().install_signal_handlers()
            on_start(self._stop_soon)

        def _stop_soon(self) -> None:
            # A loop that is closed has ended already.
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._stop_services)

        def _stop_services(self) -> None:
            # All at once, not one after the other in the application's order.
            for each in monitor.services:
                each.stop()
            self._on_sigterm()

    worker = Worker(
        monitor.app, loglevel=level.upper(), quiet=True, redirect_stdouts=False, logging_config=log_settings(level)
    )
    # The same lines on a terminal as in a log file.
    worker.spinner = None
    _collect_rarely()
    worker.execute_from_commandline()


class _UtcFormatter(logging.Formatter):
    """Write times as the events have them."""

    converter = staticmethod(time.gmtime)


def log_settings(level: str) -> dict[str, Any]:
    """Return the settings of `logging.config.dictConfig` that show lines of a level and above on stderr.

    Args:
        level: The name of the least level, in any case.

    Example:
        >>> log_settings("info")["loggers"]["faust"]
        {'level': 'WARNING'}
    """
    least = level.upper()
    known = logging.getLevelNamesMapping()

    def least_of(own: str) -> str:
        return least if least == "DEBUG" else max(own, least, key=known.__getitem__)

    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": _UtcFormatter,
                "format": "%(asctime)s %(levelname)s %(name)s: %(message)s",
                "datefmt": "%Y-%m-%dT%H:%M:%SZ",
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {name: {"level": least_of(own)} for name, own in LIBRARIES.items()},
        "root": {"level": least, "handlers": ["stderr"]},
    }


def _closing(copier: Copier) -> Callable[..., Awaitable[None]]:
    async def closed(*_: Any, **__: Any) -> None:
        await copier.stop()

    return closed


def _collect_rarely() -> None:
    """Exempt from the collector of cycles what is never freed, and let it run seldom over what the windows hold.

    That is millions of small objects without a cycle; a full collection stops the process for most of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def _load_detectors(config: Config) -> None:
    """Import what the detectors need before the loop runs: an import in the middle of the work blocks it."""
    for name in sorted({name for model in (config.defaults, *config.models.values()) for name in model.detectors}):
        detectors.create(name)


def tick_s(config: Config) -> float:
    """Return how often an idle partition states that time passes: often enough to close the narrowest cohort."""
    widths = [model.cohort_ms for model in (config.defaults, *config.models.values()) if model.mature_after_ms]
    return min(max(min(widths, default=5_000) / 1_000, 1.0), 5.0)


def _service(supervisor: Supervisor) -> Any:
    class Running(mode.Service):
        """One class for each supervisor: Faust makes services from classes, and names them by those."""

        @mode.Service.task
        async def _run(self) -> None:
            await supervisor.run()

        async def on_stop(self) -> None:
            await supervisor.join()

    Running.__name__ = supervisor.what
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
