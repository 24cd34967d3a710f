"""Measure what a call of `Fleet.predicted` costs a serving process, with the log there and with the log gone.

Each call is timed alone, by the wall clock, in the thread that answers requests, while the fleet's threads work at the
same time: one writes events, one follows the commands. Three cases on an embedded log: it is there; its folder was
removed under the running fleet, and both threads look for it again and again; and the queue is full (the log gone, and
more events than it holds). Three on Kafka: no broker listens; one listens and never answers; and, with `--broker
HOST:PORT` and the topics made there, one that answers. A row with the log gone counts only if nothing was sent since
and the follower reports it as lost. Each is run flat out and at a pace of 1,000 calls a second: flat out the emitter
competes for the interpreter all the time; at a pace each call finds the processor's caches cold. Other programs of the
machine only ever add time, so each row is the run with the lowest p99 of `--repeat`.

Run: python benchmarks/predicted.py [--quick] [--calls 50000] [--repeat 3] [--expect-us 20] [--broker HOST:PORT]
[--json FILE] [--plot FILE.svg]. Exit code 1 when a p99 passes `--expect-us` microseconds.
"""

from __future__ import annotations

import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from figures import Bars, Measured, Table, options_of, publish

from unship import Fleet
from unship.keys import new_keys

QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
PACE_S = 0.001
PACED_CALLS = 2_000
QUEUE = 10_000
CASES = ("log there", "log gone", "queue full", "broker gone", "broker silent")


def timed(fleet: Fleet, calls: int, pace_s: float) -> list[int]:
    """Return the nanoseconds of each call."""
    slices: dict[str, str | int | bool] = {"country": "DE", "channel": "web"}
    clock = time.perf_counter_ns
    spent = []
    for number in range(calls):
        now = fleet.current
        begun = clock()
        fleet.predicted(number & 1, score=0.93, slices=slices, latency_ms=1.5, as_=now)
        spent.append(clock() - begun)
        if pace_s:
            time.sleep(pace_s)
    return sorted(spent)


@contextmanager
def log_of(case: str, folder: Path, broker: str) -> Iterator[str]:
    """Give the address of the case's log."""
    if case == "broker there":
        yield f"kafka://{broker}"
    elif case.startswith("broker"):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            if case == "broker silent":
                listener.listen()
            yield f"kafka://127.0.0.1:{listener.getsockname()[1]}"
    else:
        yield f"embedded:{folder}"


def measure(case: str, calls: int, pace_s: float, broker: str) -> dict[str, float | int | str]:
    """Run one case in a folder of its own and return its figures, times in microseconds."""
    with TemporaryDirectory() as name, log_of(case, Path(name) / "log", broker) as log:
        trust = new_keys(Path(name) / "keys")
        room = QUEUE if case == "queue full" else QUEUE + calls
        fleet = Fleet("fraud", "v42", log=log, trust=trust, replica="r-1", queue=room)
        with fleet:
            fleet.predicted(0)
            fleet.flush(0.5)
            if case in ("log gone", "queue full"):
                shutil.rmtree(Path(name) / "log")
                while fleet.control_health != "LOST":
                    time.sleep(PACE_S)
            for _ in range(QUEUE + 1_000 if case == "queue full" else 1_000):
                fleet.predicted(0)
            spent = timed(fleet, calls, pace_s)
            stats = fleet.stats
            sent_before = 1 if case in ("log gone", "queue full") else 0
            if not case.endswith("there") and (stats.sent, fleet.control_health) != (sent_before, "LOST"):
                raise RuntimeError(f"the log was to be gone: {stats.sent} events sent, control {fleet.control_health}")
            fleet.close(timeout_s=30.0 if case.endswith("there") else 0.0)
    figures = {name: round(spent[int(share * (len(spent) - 1))] / 1_000, 2) for name, share in QUANTILES.items()}
    dropped = sum(stats.dropped.values())
    return {"case": case, "pace": "1,000/s" if pace_s else "flat out", "calls": calls, **figures, "dropped": dropped}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all cases and print a table; return 1 if one is slower than expected."""
    parser = options_of("Measure what a call of Fleet.predicted costs a serving process.")
    parser.add_argument("--calls", type=int, help="calls of each case (default 50000; --quick 5000)")
    parser.add_argument("--repeat", type=int, help="the best of so many runs (default 3; --quick 1)")
    parser.add_argument("--expect-us", type=float, help="highest p99 expected, in microseconds")
    parser.add_argument("--broker", metavar="HOST:PORT", default="")
    options = parser.parse_args(arguments)
    calls = options.calls or (5_000 if options.quick else 50_000)
    repeat = options.repeat or (1 if options.quick else 3)
    rows = [
        min(
            (
                measure(case, min(calls, PACED_CALLS) if pace_s else calls, pace_s, options.broker)
                for _ in range(repeat)
            ),
            key=lambda row: float(row["p99"]),
        )
        for case in (*CASES, *(("broker there",) if options.broker else ()))
        for pace_s in (0.0, PACE_S)
    ]
    table = Table(
        ["case", "pace", "calls", "p50, µs", "p99, µs", "p99.9, µs", "dropped"],
        [[str(value) for value in row.values()] for row in rows],
    )
    plot = Bars(
        "A call of Fleet.predicted",
        "µs",
        [f"{row['case']}, {row['pace']}" for row in rows],
        {name: [float(row[name]) for row in rows] for name in QUANTILES},
    )
    publish(Measured("predicted", {"rows": rows}, [table], plot), options)
    return int(options.expect_us is not None and any(float(row["p99"]) > options.expect_us for row in rows))


if __name__ == "__main__":
    sys.exit(main())
