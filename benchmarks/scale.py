"""Measure what a second worker costs: the same backlog on a real Kafka, worked off by one worker and by two.

Each worker has a core of its own, and the broker shares them. The backlog is loaded when they have shared out the
partitions. What counts is their total processor time from then on: what is above that of one worker is what sharing the
work costs. How much sooner they are done depends on how many cores the machine has.

Run: python benchmarks/scale.py [--quick] [--pairs 300000] [--mature-after 2s] [--workers 1 --workers 2] [--rounds 1]
[--json FILE] [--plot FILE.svg] [--markdown]. KAFKA_BOOTSTRAP_SERVERS names a broker; without it one is started (Java
needed).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backlog import load, new_site, watch
from figures import Bars, Measured, Table, options_of, publish
from kafka_machine import broker

from streams.config.units import duration_ms
from tests.kafka.site import KafkaSite


def _load(site: KafkaSite, pairs: int) -> None:
    asyncio.run(load(site, pairs))


def measure(options: argparse.Namespace, bootstrap: str, folder: Path) -> dict[str, Any]:
    """Return what each number of workers took, without their start."""
    mature, mature_s = options.mature_after, duration_ms(options.mature_after, "--mature-after") / 1_000
    found: dict[int, list[dict[str, float]]] = {workers: [] for workers in options.workers}
    for number in range(options.rounds):
        for workers, rounds in found.items():
            site = new_site(folder / f"{number}-{workers}", bootstrap, "scale", mature)
            worked = watch(site, workers, options.pairs, mature_s, partial(_load, site, options.pairs))
            us = 1e6 * worked.processor_s / (2 * options.pairs)
            rounds.append({"us": us, "memory_mb": worked.memory_mb})
    median = {
        workers: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        for workers, rounds in found.items()
    }
    first = median[options.workers[0]]
    return {
        "pairs": options.pairs,
        "mature_after": mature,
        "rounds": found,
        "median": median,
        "times_processor": {workers: each["us"] / first["us"] for workers, each in median.items()},
    }


def measured(figures: dict[str, Any]) -> Measured:
    """Return everything that is published."""
    rows = [
        [
            str(workers),
            f"{each['us']:.2f}",
            f"{figures['times_processor'][workers]:.2f}",
            f"{each['memory_mb']:.0f}",
        ]
        for workers, each in figures["median"].items()
    ]
    columns = ["workers", "µs/event (processor, all)", "x", "peak MB of the largest"]
    text = f"{figures['pairs']:,} pairs, `mature_after: {figures['mature_after']}`."
    median = figures["median"]
    plot = Bars(
        "Workers that share a backlog",
        "µs/event, all workers",
        [str(workers) for workers in median],
        {"processor": [each["us"] for each in median.values()]},
    )
    return Measured("scale", figures, [Table(columns, rows)], plot, text)


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = options_of("Measure what a second worker costs.")
    parser.add_argument("--pairs", type=int, help="default 300000; --quick 20000")
    parser.add_argument("--mature-after", default="2s")
    parser.add_argument(
        "--workers", type=int, action="append", help="a number of workers; the first is what counts as 1"
    )
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args(arguments)
    options.workers = options.workers or [1, 2]
    options.pairs = options.pairs or (20_000 if options.quick else 300_000)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and publish."""
    options = arguments_of(arguments)
    with TemporaryDirectory() as folder, broker() as bootstrap:
        figures = measure(options, bootstrap, Path(folder))
    publish(measured(figures), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
