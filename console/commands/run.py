"""`unship run`; on the embedded log it is one process and one loop, ended by a signal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import closing

from actions.reconcile import Signer
from console.logs import embedded_folder, kafka_access, keys_folder
from console.sentences import clean
from console.settings import Exit, Settings
from streams.config.file import load
from streams.config.resolved import Config
from streams.embedded.monitor import EmbeddedMonitor
from unship.errors import ConfigurationError
from unship.log.embedded.link import EmbeddedLink
from unship.log.embedded.log import EmbeddedLogError, LogUnavailable
from unship.log.kafka.access import SCHEME
from unship.log.link import wall_ms
from unship.signing import COMMAND_TYPE, DECISION_TYPE, key_id, public_bytes, sign
from unship.system.signals import stop_by_signal
from unship.topics import EVENT_TOPICS

SNAPSHOT_EVERY_S = 30.0
IDLE_S = 1.0
RETRY_S = 1.0
LOCK_S = 5.0


def run_command(settings: Settings, now_ms: Callable[[], int] = wall_ms) -> Exit:
    """Run the monitor until SIGTERM or SIGINT.

    Args:
        settings: the global options.
        now_ms: the clock, in milliseconds since the epoch; that of everybody who writes to the log.
    """
    config = load(settings.config)
    signer = _signer(settings, config)
    if (settings.log or config.log).startswith(SCHEME):
        from console.commands.run_on_kafka import run_on_kafka

        run_on_kafka(settings, kafka_access(settings, config), config, signer, now_ms)
    stop = stop_by_signal()
    folder = embedded_folder(settings, config)
    with closing(EmbeddedLink(folder, busy_timeout_s=LOCK_S, now_ms=now_ms)) as link:
        monitor = EmbeddedMonitor(link.log(), config, now_ms, signer)
        settings.report(f"run: watching {link.folder}, {monitor.pipeline.fold.offset} ledger records so far")
        _loop(settings, monitor, link, stop)
    return Exit.GOOD


def _loop(settings: Settings, monitor: EmbeddedMonitor, link: EmbeddedLink, stop: threading.Event) -> None:
    reports = _Reports(settings)
    save_at = time.monotonic() + SNAPSHOT_EVERY_S
    while not stop.is_set():
        _check_in_place(monitor, link)
        try:
            reports.round(monitor)
            if time.monotonic() >= save_at:
                began = time.monotonic()
                monitor.save_snapshot()
                # A large one is saved less often, so that most of the time is for reading.
                save_at = time.monotonic() + max(SNAPSHOT_EVERY_S, 10 * (time.monotonic() - began))
            monitor.log.wait({topic: monitor.positions[topic] for topic in EVENT_TOPICS}, IDLE_S, stop=stop)
        except LogUnavailable as error:
            reports.unavailable(error)
            stop.wait(RETRY_S)
        else:
            reports.available()
    monitor.save_snapshot()


class _Reports:
    """Runs rounds of a monitor and reports what is new in them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._conflicts: list[str] = []
        self._epochs: dict[str, tuple[int, int, int]] = {}
        self._unavailable = False

    def round(self, monitor: EmbeddedMonitor) -> None:
        """Run one round: read, decide and publish."""
        report = self._settings.report
        for decision in monitor.step():
            report(f"run: {clean(decision.model)} {clean(decision.version)}: {decision.reason}, {decision.action}")
        for command in monitor.publish():
            if self._epochs.get(command.model) != command.epoch:
                self._epochs[command.model] = command.epoch
                report(f"run: {clean(command.model)}: {clean(command.serve)} is to serve, epoch {list(command.epoch)}")
        if (conflicts := monitor.conflicts()) != self._conflicts:
            for sentence in conflicts:
                report(f"run: {sentence}")
            self._conflicts = conflicts

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


def _signer(settings: Settings, config: Config) -> Signer | None:
    from unship.keys import load_private_key, load_trust

    folder = keys_folder(settings, config)
    if not (folder / "controller.key").exists():
        settings.report(f"run: no keys in {folder}, so nothing is commanded; make them with: unship keys new")
        return None
    key, trust = load_private_key(folder / "controller.key"), load_trust(folder / "trust.json")
    trusted = trust.having("controller")
    if public_bytes(key) not in [each.public for each in trusted]:
        raise ConfigurationError(
            f"{folder}: controller.key has the id {key_id(public_bytes(key))}, and trust.json has "
            f"{', '.join(each.id for each in trusted) or 'none'}: replicas would refuse every command; "
            "bring together what one `unship keys new` made"
        )
    return Signer(
        trust.audience,
        lambda value: sign(value, key, COMMAND_TYPE),
        trust,
        lambda value: sign(value, key, DECISION_TYPE),
    )
