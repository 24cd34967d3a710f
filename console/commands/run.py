"""`unship run`; on the embedded log it is one process and one loop, ended by a signal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from console.alerting import Alerts
from console.keyring import Keyring
from console.logs import embedded_folder, kafka_access, keys_folder
from console.sentences import clean
from console.settings import Exit, Settings
from console.web.start import address, serving
from streams.config.file import load
from streams.embedded.lasting_clock import LastingClock
from streams.embedded.monitor import EmbeddedMonitor
from unship.log.embedded.link import EmbeddedLink
from unship.log.embedded.log import EmbeddedLogError, LogUnavailable
from unship.log.kafka.access import SCHEME
from unship.log.link import boot_ms, wall_ms
from unship.system.signals import stop_by_signal
from unship.topics import EVENT_TOPICS

if TYPE_CHECKING:
    from console.web.vitals import Vitals
    from streams.alerts.follower import AlertTopic

SNAPSHOT_EVERY_S = 30.0
IDLE_S = 1.0
RETRY_S = 1.0
TICK_S = 5.0
LOCK_S = 5.0


def run_command(
    settings: Settings, now_ms: Callable[[], int] | None = None, listen: str | None = None, *, web: bool = True
) -> Exit:
    """Run the monitor until SIGTERM or SIGINT.

    Args:
        settings: the global options.
        now_ms: the clock of everybody who writes to the log, in milliseconds since the epoch; that of the machine if
            None, to which the clocks of others are compared then.
        listen: where the web listens, HOST:PORT; None for where the configuration has it.
        web: whether there is a web.
    """
    config = load(settings.config)
    keys = Keyring(keys_folder(settings, config), settings.report)
    where = address(config.web, listen, web)
    if (settings.log or config.log).startswith(SCHEME):
        from console.commands.run_on_kafka import run_on_kafka

        run_on_kafka(settings, kafka_access(settings, config), config, keys, now_ms or wall_ms, where)
    stop = stop_by_signal()
    folder = embedded_folder(settings, config)
    clock = LastingClock(wall_ms, boot_ms) if now_ms is None else now_ms
    with closing(EmbeddedLink(folder, busy_timeout_s=LOCK_S, now_ms=clock)) as link:
        monitor = EmbeddedMonitor(link.log(), config, clock, keys.signer)
        settings.report(f"run: watching {link.folder}, {monitor.pipeline.fold.offset} ledger records so far")
        with (
            closing(Alerts(config.alerts, settings, lambda sink: _alert_topic(folder, sink))),
            serving(where, settings, keys, folder) as vitals,
        ):
            _loop(_Rounds(settings, clock if now_ms is None else None, vitals), monitor, link, keys, stop)
    return Exit.GOOD


def _alert_topic(folder: Path, sink: str) -> AlertTopic:
    from streams.alerts.embedded_topic import EmbeddedAlertTopic

    return EmbeddedAlertTopic(folder, sink)


def _loop(rounds: _Rounds, monitor: EmbeddedMonitor, link: EmbeddedLink, keys: Keyring, stop: threading.Event) -> None:
    save_at = time.monotonic() + SNAPSHOT_EVERY_S
    while not stop.is_set():
        _check_in_place(monitor, link)
        try:
            if keys.current() is not monitor.signer:
                monitor.change_keys(keys.signer)
            rounds.next(monitor)
            if time.monotonic() >= save_at:
                began = time.monotonic()
                with rounds.timed("snapshot"):
                    monitor.save_snapshot()
                # A large one is saved less often, so that most of the time is for reading.
                save_at = time.monotonic() + max(SNAPSHOT_EVERY_S, 10 * (time.monotonic() - began))
            monitor.log.wait({topic: monitor.positions[topic] for topic in EVENT_TOPICS}, IDLE_S, stop=stop)
        except LogUnavailable as error:
            rounds.unavailable(error)
            stop.wait(RETRY_S)
        else:
            rounds.available()
    monitor.save_snapshot()


class _Rounds:
    """Runs rounds of a monitor and reports what is new in them; `clock` is written into the log now and then."""

    def __init__(self, settings: Settings, clock: Callable[[], int] | None, vitals: Vitals | None) -> None:
        self._settings = settings
        self._vitals = vitals
        self._clock = clock
        self._tick_at = 0.0
        self._conflicts: list[str] = []
        self._epochs: dict[str, tuple[int, int, int]] = {}
        self._unavailable = False

    def next(self, monitor: EmbeddedMonitor) -> None:
        """Run one round: read, decide and publish."""
        if self._clock is not None and time.monotonic() >= self._tick_at:
            monitor.log.tick(self._clock())
            self._tick_at = time.monotonic() + TICK_S
        report = self._settings.report
        with self.timed("step"):
            decisions = monitor.step()
        for decision in decisions:
            report(f"run: {clean(decision.model)} {clean(decision.version)}: {decision.reason}, {decision.action}")
        with self.timed("publish"):
            commands = monitor.publish()
        for command in commands:
            if self._epochs.get(command.model) != command.epoch:
                self._epochs[command.model] = command.epoch
                report(f"run: {clean(command.model)}: {clean(command.serve)} is to serve, epoch {list(command.epoch)}")
        if (conflicts := monitor.conflicts()) != self._conflicts:
            for sentence in conflicts:
                report(f"run: {sentence}")
            self._conflicts = conflicts
        if self._vitals is not None:
            lag = {topic: max(0, end - monitor.positions[topic]) for topic, end in monitor.log.ends().items()
                   if topic in monitor.positions}  # fmt: skip
            # The first round has read what there was.
            self._vitals.beat(lag, caught_up=self._vitals.caught_up or not any(lag.values()))

    def timed(self, stage: str) -> AbstractContextManager[None]:
        """Note how long the block takes, where there is a web that shows it."""
        return nullcontext() if self._vitals is None else self._vitals.timed(stage)

    def unavailable(self, error: LogUnavailable) -> None:
        """Report once that the log takes nothing."""
        if not self._unavailable:
            self._settings.report(f"run: {error}; it is tried again until it takes records")
        self._unavailable = True

    def available(self) -> None:
        """Report once that the log takes records again."""
        if self._unavailable:
            self._settings.report("run: the log takes records again")
        self._unavailable = False


def _check_in_place(monitor: EmbeddedMonitor, link: EmbeddedLink) -> None:
    """End where the log's file is gone or another: what replicas write is not read any more, and must not seem to be.

    Raises:
        EmbeddedLogError: always then.
    """
    try:
        replaced = link.log() is not monitor.log
    except EmbeddedLogError as error:
        raise EmbeddedLogError(
            f"{error}, and start the monitor again; started without it, it would begin a new log there"
        ) from error
    if replaced:
        raise EmbeddedLogError(
            f"{link.folder}: another log took the place of the one that was watched; start the monitor again"
        )
