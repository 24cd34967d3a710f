"""Stop a program when SIGTERM or SIGINT asks for it."""

from __future__ import annotations

import signal
import threading


def stop_by_signal() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set from now on; called by the main thread, as all handlers are.

    A handler runs in the main thread between any two of its steps, even while it holds the lock of the very event that
    it waits for. An event set there would wait for this lock, and the program would never stop. Another thread
    that sets it waits only until the main thread goes on.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=stop.set, name="unship-stop", daemon=True).start())
    return stop
