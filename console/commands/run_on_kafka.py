"""Run `unship run` on Kafka: one worker as this process, which shuts down in bounded time whatever its broker does.

A shutdown that is cut short loses nothing: what was not committed is read again after the next start.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from console.alerting import Alerts
from console.keyring import Keyring
from console.settings import Exit, Settings
from console.web.start import serve
from streams.config.resolved import Config, Web

if TYPE_CHECKING:
    from streams.kafka.clients import Access
    from streams.kafka.supervisor import Supervisor

LIMIT_S = 10.0
"""Longest shutdown after a signal; shorter than what supervisors wait before they kill."""

UNCOMMITTED = "what was not committed is read again"


def run_on_kafka(
    settings: Settings, access: Access, config: Config, keys: Keyring, now_ms: Callable[[], int], where: Web
) -> NoReturn:
    """Run one worker until SIGTERM or SIGINT.

    Raises:
        BrokerUnreachable: No broker answers at the start.
    """
    from console.logs import window_folder
    from console.web.sources import KafkaSource
    from streams.alerts.kafka_topic import KafkaAlertTopic
    from streams.app import make_app, work
    from streams.kafka.admin import reachable
    from streams.kafka.clients import run

    run(access, reachable(access))
    served = serve(where, settings, keys, lambda: KafkaSource(access))
    watch = None if served is None else served.vitals
    monitor = make_app(access, config, keys.current, now_ms, window_folder(settings, config), watch)
    alerts = Alerts(config.alerts, settings, lambda sink: KafkaAlertTopic(access, sink))
    settings.report(f"run: watching kafka://{access.servers}")

    def cut_off() -> NoReturn:
        code, text = shutdown_failure(monitor.services) or (
            Exit.TIMED_OUT,
            f"shutdown took longer than {LIMIT_S:g} s; {UNCOMMITTED}",
        )
        # Nothing that takes a lock: the main thread may hold any of them.
        os.write(2, f"run: {text}\n".encode())
        os._exit(code)

    try:
        work(monitor, settings.level, lambda begin: end_by_signal(begin, cut_off))
    except SystemExit as ended:
        failure = shutdown_failure(monitor.services)
        if ended.code or failure is None:
            raise
        settings.report(f"run: {failure[1]}")
        sys.exit(failure[0])
    except BaseException:  # noqa: BLE001 - no caller is left to catch it
        # Such as out of memory: Faust's thread would keep alive a process that does nothing any more.
        try:
            traceback.print_exc()
        finally:
            os._exit(1)
    finally:
        alerts.close()
        if served is not None:
            served.close()


def shutdown_failure(services: Iterable[Supervisor]) -> tuple[Exit, str] | None:
    """Return the exit code and message if a service ended without committing its progress, None if all committed."""
    from streams.kafka.supervisor import NO_BROKER

    for each in services:
        if isinstance(each.error, NO_BROKER):
            return Exit.UNREACHABLE, f"{each.what} ended without a broker; {UNCOMMITTED}; {each.explained(each.error)}"
    late = [each.what for each in services if not each.ended]
    return (Exit.TIMED_OUT, f"{' and '.join(late)} did not end in time; {UNCOMMITTED}") if late else None


def end_by_signal(begin: Callable[[], None], cut_off: Callable[[], NoReturn], limit_s: float = LIMIT_S) -> None:
    """Shut down on SIGTERM or SIGINT from now on, and exit at once on a second one. For the main thread only.

    Args:
        begin: Starts the shutdown; called by another thread.
        cut_off: Exits the process.
        limit_s: Longest shutdown, in seconds.
    """
    signalled = False

    def in_order() -> None:
        begin()
        time.sleep(limit_s)
        cut_off()

    def take(*_: Any) -> None:
        nonlocal signalled
        if signalled:
            cut_off()
        signalled = True
        threading.Thread(target=in_order, name="unship-end", daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, take)
