"""Run the monitor of the demo: `unship run` with the clock of the traffic."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from console.commands.run import run_command
from console.demo.messages import DemoClock, Time, messages, read_begin
from console.settings import Settings


def listen(clock: DemoClock) -> None:
    """Set the clock by messages; when the pipe ends, send this process the SIGTERM of an operator."""
    for time in messages(Time):
        clock.set(time.now)
    os.kill(os.getpid(), signal.SIGTERM)


def monitor() -> int:
    """Run the monitor under the configuration in the current folder."""
    begin = read_begin()
    clock = DemoClock(begin.now)
    threading.Thread(target=listen, args=(clock,), name="demo-clock", daemon=True).start()
    return run_command(Settings(Path("unship.yaml"), begin.log, as_json=False, quiet=False, color=False), clock)


if __name__ == "__main__":
    sys.exit(monitor())
