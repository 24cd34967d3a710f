"""`unship run`; on the embedded log it is one process and one loop, ended by a signal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing

from console.keyring import Keyring
from console.logs import embedded_folder, kafka_access, keys_folder
from console.sentences import clean
from console.settings import Exit, Settings
from streams.config.file import load
from streams.embedded.monitor import EmbeddedMonitor
from unship.log.embedded.link import EmbeddedLink
from unship.log.embedded.log import EmbeddedLogError
from unship.log.kafka.access import SCHEME
from unship.log.link import wall_ms
from unship.system.signals import stop_by_signal
from unship.topics import EVENT_TOPICS

SNAPSHOT_EVERY_S = 30.0
IDLE_S = 1.0
LOCK_S = 5.0


def run_command(settings: Settings, now_ms: Callable[[], int] = wall_ms) -> Exit:
    """Run the monitor until SIGTERM or SIGINT.

    Args:
        settings: the global options.
        now_ms: the clock, in milliseconds since the epoch; that of everybody who writes to the log.
    """
    config = load(settings.config)
    keys = Keyring(keys_folder(settings, config), settings.report)
    if (settings.log or config.log).startswith(SCHEME):
        from console.commands.run_on_kafka import run_on_kafka

        run_on_kafka(settings, kafka_access(settings, config), config, keys, now_ms)
    stop = stop_by_signal()
    folder = embedded_folder(settings, config)
    with closing(EmbeddedLink(folder, busy_timeout_s=LOCK_S, now_ms=now_ms)) as link:
        monitor = EmbeddedMonitor(link.log(), config, now_ms, keys.signer)
        settings.report(f"run: watching {link.folder}, {monitor.pipeline.fold.offset} ledger records so far")
        _loop(settings, monitor, link, keys, stop)
    return Exit.GOOD


def _loop(
    settings: Settings, monitor: EmbeddedMonitor, link: EmbeddedLink, keys: Keyring, stop: threading.Event
) -> None:
    saved_at = time.monotonic()
    told: list[str] = []
    epochs: dict[str, tuple[int, int, int]] = {}
    while not stop.is_set():
        _check_in_place(monitor, link)
        if keys.current() is not monitor.signer:
            monitor.change_keys(keys.signer)
        for decision in monitor.step():
            settings.report(
                f"run: {clean(decision.model)} {clean(decision.version)}: {decision.reason}, {decision.action}"
            )
        for command in monitor.publish():
            if epochs.get(command.model) != command.epoch:
                epochs[command.model] = command.epoch
                settings.report(
                    f"run: {clean(command.model)}: {clean(command.serve)} is to serve, epoch {list(command.epoch)}"
                )
        if (conflicts := monitor.conflicts()) != told:
            for sentence in conflicts:
                settings.report(f"run: {sentence}")
            told = conflicts
        if time.monotonic() - saved_at >= SNAPSHOT_EVERY_S:
            monitor.save_snapshot()
            saved_at = time.monotonic()
        monitor.log.wait({topic: monitor.positions[topic] for topic in EVENT_TOPICS}, IDLE_S, stop=stop)
    monitor.save_snapshot()


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
