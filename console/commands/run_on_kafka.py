"""`unship run` on Kafka: one worker as this process, which ends in bounded time whatever its broker does.

An end that is cut off loses nothing: what was not handed over is read again by whoever comes next.
"""

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from actions.reconcile import Signer
from console.settings import TIMED_OUT, UNREACHABLE, Settings
from streams.config.resolved import Config

if TYPE_CHECKING:
    from streams.kafka.clients import Access
    from streams.kafka.supervisor import Supervisor

#: From the signal to the end, however the broker is; less than what supervisors wait before they kill.
LIMIT_S = 10.0
LEFT_OVER = "what was not handed over is read again"


def run_on_kafka(
    settings: Settings, access: "Access", config: Config, signer: Signer | None, now_ms: Callable[[], int]
) -> NoReturn:
    """Run one worker until SIGTERM or SIGINT ends it.

    Raises:
        BrokerUnreachable: no broker answers to begin with.
    """
    from streams.app import make_app, work
    from streams.kafka.admin import reachable
    from streams.kafka.clients import run

    run(access, reachable(access))
    monitor = make_app(access, config, signer, now_ms)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    settings.tell(f"run: watching kafka://{access.servers}")

    def cut_off() -> NoReturn:
        code, text = last_words(monitor.services) or (TIMED_OUT, f"cut off; {LEFT_OVER}")
        # Nothing that takes a lock: the main thread may hold any of them.
        os.write(2, f"run: {text}\n".encode())
        os._exit(code)

    try:
        work(monitor, settings.level, lambda begin: end_by_signal(begin, cut_off))
    except SystemExit as ended:
        words = last_words(monitor.services)
        if ended.code or words is None:
            raise
        settings.tell(f"run: {words[1]}")
        sys.exit(words[0])
    except BaseException:  # noqa: BLE001 - nobody is left to take it
        # Out of memory, say: Faust's own thread goes on, and would keep a process that does nothing any more.
        try:
            traceback.print_exc()
        finally:
            os._exit(1)


def last_words(services: Iterable["Supervisor"]) -> tuple[int, str] | None:
    """Return the exit code and what to say where a service could not hand over what it had, None where all could."""
    from streams.kafka.supervisor import NO_BROKER

    for each in services:
        if isinstance(each.error, NO_BROKER):
            return UNREACHABLE, f"{each.what} ended without its broker; {LEFT_OVER}; {each.explained(each.error)}"
    late = [each.what for each in services if not each.ended]
    return (TIMED_OUT, f"{' and '.join(late)} did not end in time; {LEFT_OVER}") if late else None


def end_by_signal(begin: Callable[[], None], cut_off: Callable[[], NoReturn], limit_s: float = LIMIT_S) -> None:
    """End by SIGTERM or SIGINT from now on: in order within a time, by a second one at once. For the main thread only.

    Args:
        begin: begins the end in order; called by another thread.
        cut_off: ends the process.
        limit_s: how long the end in order may take.
    """
    told = False

    def in_order() -> None:
        begin()
        time.sleep(limit_s)
        cut_off()

    def take(*_: Any) -> None:
        nonlocal told
        if told:
            cut_off()
        told = True
        threading.Thread(target=in_order, name="unship-end", daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, take)
