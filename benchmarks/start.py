"""Measure how long commands take to start: processor time and time on the clock, each in a process of its own.

The commands are the installed `unship` of this environment. `run` is measured until it watches an embedded log; the
imports of a worker on Kafka are measured alone, because what follows depends on the broker.

Run: python benchmarks/start.py [--quick] [--rounds 7] [--json FILE] [--plot FILE.svg] [--markdown].
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from figures import Bars, Measured, Table, options_of, processor_seconds, publish

COMMAND = [sys.executable, "-c", "from console.cli import main; main()"]
WATCHING = "run: watching"
ENDING = {
    "unship --help": [*COMMAND, "--help"],
    "unship run --help": [*COMMAND, "run", "--help"],
    "unship version": [*COMMAND, "version"],
    "unship schema config": [*COMMAND, "schema", "config"],
    "unship keys new": [*COMMAND, "keys", "new"],
    "unship status": [*COMMAND, "--log", "embedded:log", "status"],
    "unship check": [*COMMAND, "--log", "embedded:log", "check"],
    "imports of a worker on Kafka, with its default detectors": [
        sys.executable,
        "-c",
        "import streams.app, console.commands.run_on_kafka, detectors\n"
        "for name in ('e_detector', 'adwin', 'page_hinkley'): detectors.create(name)",
    ],
}
RUN = "unship run, until it watches"


def ended(command: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run a command to its end; return its processor time and its time on the clock, in seconds."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    spent = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, spent


def watching(folder: Path) -> tuple[float, float]:
    """Start `unship run`; return both times until it watches."""
    started = time.perf_counter()
    with subprocess.Popen(
        [*COMMAND, "--log", "embedded:log", "run"],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while WATCHING not in (line := process.stderr.readline()):
            if not line:
                raise SystemExit("the monitor ended before it watched")
        spent = time.perf_counter() - started
        used = processor_seconds(process.pid)
        process.send_signal(signal.SIGTERM)
    return used, spent


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and publish."""
    parser = options_of("Measure how long commands take to start.")
    parser.add_argument("--rounds", type=int, help="rounds, of which the fastest counts (default 7; --quick 2)")
    options = parser.parse_args(arguments)
    rounds = options.rounds or (2 if options.quick else 7)
    found: dict[str, list[tuple[float, float]]] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        starts: dict[str, Callable[[], tuple[float, float]]] = {RUN: partial(watching, folder)}
        starts |= {what: partial(ended, command, folder) for what, command in ENDING.items()}
        for _ in range(rounds):
            for what, start in starts.items():
                found.setdefault(what, []).append(start())
    rows = [
        [what, *(f"{figure:.2f}" for index in (0, 1) for figure in summary([time[index] for time in times]))]
        for what, times in found.items()
    ]
    columns = ["command", "processor s, least", "median", "clock s, least", "median"]
    bars = {"processor": [min(time[0] for time in times) for times in found.values()]}
    plot = Bars("Start", "s of processor time", list(found), bars)
    publish(Measured("start", {"starts": found}, [Table(columns, rows)], plot), options)
    return 0


def summary(values: Sequence[float]) -> tuple[float, float]:
    """Return the least and the median."""
    return min(values), median(values)


if __name__ == "__main__":
    sys.exit(main())
