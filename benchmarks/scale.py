"""Measure what a second worker costs: the same backlog on a real Kafka, worked off by one worker and by two.

Each worker has a core of its own, and the broker shares them. What counts is the total processor time: the second
worker's start is taken off as the first one's is, so what is left above one is what sharing the work costs. The clock
shows more only where there are cores for all.

Run: python benchmarks/scale.py [--pairs 300000] [--mature-after 2s] [--workers 1 --workers 2] [--rounds 1] [--quick]
[--json FILE]. KAFKA_BOOTSTRAP_SERVERS names a broker; without it one is started (Java needed).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backlog import load, new_site, watch
from kafka_machine import broker, machine, markdown_table

from streams.config.units import duration_ms


def measure(options: argparse.Namespace, bootstrap: str, folder: Path) -> dict[str, Any]:
    """Return what each number of workers took, with the start of each of them taken off."""
    mature, mature_s = options.mature_after, duration_ms(options.mature_after, "--mature-after") / 1_000
    startup_s = watch(new_site(folder / "empty", bootstrap, "empty", mature), 1, 0, mature_s).processor_s
    found: dict[int, list[dict[str, float]]] = {workers: [] for workers in options.workers}
    for number in range(options.rounds):
        for workers, rounds in found.items():
            site = new_site(folder / f"{number}-{workers}", bootstrap, "scale", mature)
            asyncio.run(load(site, options.pairs))
            worked = watch(site, workers, options.pairs, mature_s)
            used = worked.processor_s - workers * startup_s
            rounds.append(
                {
                    "us": 1e6 * used / (2 * options.pairs),
                    "per_s": 2 * options.pairs / worked.took_s(workers * startup_s),
                    "memory_mb": worked.memory_mb,
                }
            )
    median = {
        workers: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        for workers, rounds in found.items()
    }
    first = median[options.workers[0]]
    return {
        "machine": machine(),
        "pairs": options.pairs,
        "mature_after": mature,
        "startup_s": round(startup_s, 2),
        "rounds": found,
        "median": median,
        "times_processor": {workers: each["us"] / first["us"] for workers, each in median.items()},
        "times_clock": {workers: each["per_s"] / first["per_s"] for workers, each in median.items()},
    }


def shown(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    rows = [
        [
            str(workers),
            f"{each['us']:.2f}",
            f"{figures['times_processor'][workers]:.2f}",
            f"{each['per_s']:,.0f}",
            f"{figures['times_clock'][workers]:.2f}",
            f"{each['memory_mb']:.0f}",
        ]
        for workers, each in figures["median"].items()
    ]
    columns = ["workers", "us/event (processor, all)", "x", "events/s (clock)", "x", "peak MB of the largest"]
    return "\n".join(
        [
            f"{figures['machine']}; {figures['pairs']:,} pairs, mature_after {figures['mature_after']}; a start takes "
            f"{figures['startup_s']} s of processor time.",
            "",
            markdown_table(columns, rows),
        ]
    )


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure what a second worker costs.")
    parser.add_argument("--pairs", type=int, default=300_000)
    parser.add_argument("--mature-after", default="2s")
    parser.add_argument(
        "--workers", type=int, action="append", help="a number of workers; the first is what counts as 1"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few pairs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    options = parser.parse_args(arguments)
    options.workers = options.workers or [1, 2]
    if options.quick:
        options.pairs = 20_000
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = arguments_of(arguments)
    with TemporaryDirectory() as folder, broker() as bootstrap:
        figures = measure(options, bootstrap, Path(folder))
    print(shown(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
