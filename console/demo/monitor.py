"""The monitor of the demo: `unship run`, but for the clock, which is the traffic's."""

import os
import signal
import sys
import threading
from pathlib import Path

from console.commands.run import run_command
from console.demo.messages import Time, ToldClock, messages, read_begin
from console.settings import Settings


def listen(clock: ToldClock) -> None:
    """Set the clock as told; where the pipe ends, ask this process to end as an operator would."""
    for time in messages(Time):
        clock.now = time.now
    os.kill(os.getpid(), signal.SIGTERM)


def monitor() -> int:
    """Run the monitor under the configuration in the present folder."""
    begin = read_begin()
    clock = ToldClock(begin.now)
    threading.Thread(target=listen, args=(clock,), name="demo-clock", daemon=True).start()
    return run_command(Settings(Path("unship.yaml"), begin.log, as_json=False, quiet=False, color=False), clock)


if __name__ == "__main__":
    sys.exit(monitor())
