"""A program that is asked to stop does, whatever it was doing in that instant."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import unship
from tests.waiting import HANG_S

# The event's own lock is held when the signal comes, as it is for a moment at the end of each wait.
HOLDING = """
import signal, sys
from unship.system.signals import stop_by_signal
stop = stop_by_signal()
with stop._cond:
    signal.raise_signal(int(sys.argv[1]))
sys.exit(0 if stop.wait(20) else 1)
"""


@pytest.mark.parametrize("number", [2, 15])
def test_signal_that_comes_while_the_event_is_locked_stops_the_program(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLDING, str(number)],
        env={**os.environ, "PYTHONPATH": str(Path(unship.__file__).parents[1])},
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0
