"""Measure how fast a backlog on a real Kafka becomes decisions: `unship run`, a plain file and a bare floor.

All three read the same topics, one after the other and in turns, each on one core; the broker has the other one. From
the processor time of the worker that of a start without a backlog is taken off. What carries over between machines are
the ratios of one run.

With `--catch-up S` the backlog is what comes in an outage of S seconds at `--rate`, and traffic goes on at that rate
while the worker catches up: the table shows how long that takes, and how far the ledger is behind afterwards.

Run: python benchmarks/live.py [--quick] [--pairs 300000] [--mature-after 1m] [--rounds 2] [--catch-up 600 --rate 2000]
[--json FILE] [--plot FILE.svg] [--markdown]. KAFKA_BOOTSTRAP_SERVERS names a broker; without it one is started (Java
needed).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backlog import (
    HANG_S,
    PARTITIONS,
    PROGRAM_CORE,
    Loader,
    Worked,
    blocks,
    load,
    new_site,
    pin,
    watch,
)
from figures import Bars, Measured, Table, options_of, processor_seconds, publish, quantiles
from kafka_machine import broker

from streams.config.units import duration_ms
from streams.kafka.clients import read_all
from streams.ledger.entries import read_entry
from streams.ledger.records import Batch
from tests.kafka.site import KafkaSite

PEERS = Path(__file__).with_name("live_peers.py")
SLICE_S = 0.05
"""How often live traffic sends a block."""

NORMAL_MS = 2_500
"""A ledger that is less behind than this is caught up: a reader that is states a second less than now."""

TAIL_S = 15.0
OURS, PLAIN, FLOOR = "unship run", "plain file", "floor"


def peer(mode: str, site: KafkaSite, pairs: int) -> dict[str, float]:
    """Run one of the peers on the topics of a site."""
    names = site.access.names
    topics = [names.of("predictions"), names.of("feedback")]
    command = [sys.executable, str(PEERS), mode, site.access.servers, *topics, str(2 * pairs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        pin(process.pid, PROGRAM_CORE)
        output = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"the {mode} peer failed")
    found: dict[str, float] = json.loads(output)
    return found


def figures_of(worked: Worked, startup_s: float, pairs: int) -> dict[str, float]:
    """Return what workers took for a backlog."""
    return {
        "us": 1e6 * (worked.processor_s - startup_s) / (2 * pairs),
        "per_s": 2 * pairs / worked.took_s(startup_s),
        "memory_mb": worked.memory_mb,
    }


def backlog(options: argparse.Namespace, bootstrap: str, folder: Path) -> dict[str, Any]:
    """Measure all three in turns; return the figures of every round, and the medians."""
    mature, mature_s = options.mature_after, duration_ms(options.mature_after, "--mature-after") / 1_000
    startup_s = watch(new_site(folder / "empty", bootstrap, "empty", mature), 1, 0, mature_s).processor_s
    rounds: dict[str, list[dict[str, float]]] = {OURS: [], PLAIN: [], FLOOR: []}
    for number in range(options.rounds):
        site = new_site(folder / f"round-{number}", bootstrap, "live", mature)
        asyncio.run(load(site, options.pairs))
        rounds[PLAIN].append(peer("plain", site, options.pairs))
        rounds[FLOOR].append(peer("floor", site, options.pairs))
        worked = watch(site, 1, options.pairs, mature_s)
        rounds[OURS].append(figures_of(worked, startup_s, options.pairs))
        rounds[OURS][-1]["ledger_records"] = len(asyncio.run(read_all(site.access, "ledger")))
        rounds[PLAIN].append(peer("plain", site, options.pairs))
        rounds[FLOOR].append(peer("floor", site, options.pairs))
    median = {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]}
        for name, found in rounds.items()
    }
    return {
        "pairs": options.pairs,
        "mature_after": mature,
        "startup_s": round(startup_s, 2),
        "rounds": rounds,
        "median": median,
        "times_plain": median[PLAIN]["us"] / median[OURS]["us"],
        "times_plain_clock": median[OURS]["per_s"] / median[PLAIN]["per_s"],
        "share_of_floor": median[FLOOR]["us"] / median[OURS]["us"],
    }


def measured_backlog(figures: dict[str, Any]) -> Measured:
    """Return what is published of a backlog."""
    median = figures["median"]
    plain = median[PLAIN]
    rows = [
        [name, f"{found['us']:.2f}", f"{found['per_s']:,.0f}", f"{found['memory_mb']:.0f}",
         f"{plain['us'] / found['us']:.2f}", f"{found['per_s'] / plain['per_s']:.2f}"]
        for name, found in median.items()
    ]  # fmt: skip
    columns = [
        "one core",
        "µs/event (processor)",
        "events/s (clock)",
        "peak MB",
        "x plain (processor)",
        "x plain (clock)",
    ]
    text = (
        f"{figures['pairs']:,} pairs, `mature_after: {figures['mature_after']}`; a start takes {figures['startup_s']} "
        f"s of processor time, and the ledger had {median[OURS]['ledger_records']:,.0f} records."
    )
    plot = Bars("A backlog on Kafka", "µs/event", list(median), {"processor": [each["us"] for each in median.values()]})
    return Measured("live", figures, [Table(columns, rows)], plot, text)


# An outage


async def traffic(site: KafkaSite, seed: int, rate: int, until: asyncio.Event) -> int:
    """Send events at a rate until an event; return how many."""
    sent, began = 0, asyncio.get_running_loop().time()
    async with Loader(site) as loader:
        for predictions, feedback in blocks(sys.maxsize, seed, max(int(rate * SLICE_S / 2), 1)):
            await loader.send(predictions, feedback)
            sent += len(predictions) + len(feedback)
            if until.is_set():
                break
            await asyncio.sleep(max(began + sent / rate - asyncio.get_running_loop().time(), 0.0))
    return sent


async def caught_up_after(site: KafkaSite, began_ms: float) -> dict[str, Any]:
    """Return when every source partition was less behind than `NORMAL_MS`, and how far they were from then on."""
    clocks: dict[int, int] = {}
    moments: list[tuple[int, int]] = []
    records = sorted(await read_all(site.access, "ledger"), key=lambda record: record.timestamp)
    for record in records:
        batch = read_entry(record.value).record
        if isinstance(batch, Batch):
            clocks[batch.partition] = max(batch.clock, clocks.get(batch.partition, -1))
            if len(clocks) == PARTITIONS:
                moments.append((record.timestamp, record.timestamp - min(clocks.values())))
    late = [at for at, behind in moments if behind >= NORMAL_MS]
    caught_at = max(late, default=began_ms)
    return {
        "caught_up_s": (caught_at - began_ms) / 1_000,
        "behind_ms": quantiles([float(behind) for at, behind in moments if at > caught_at]),
    }


async def outage(options: argparse.Namespace, bootstrap: str, folder: Path) -> dict[str, Any]:
    """Load what comes in an outage, let a worker begin while traffic goes on, and see when it has caught up."""
    pairs = int(options.catch_up * options.rate / 2)
    site = await asyncio.to_thread(new_site, folder / "outage", bootstrap, "outage", options.mature_after)
    await load(site, pairs)
    done = asyncio.Event()
    live = asyncio.create_task(traffic(site, 8, options.rate, done))
    began_ms = time.time() * 1_000
    started = await asyncio.to_thread(site.start)
    pin(started.pid, PROGRAM_CORE)
    try:
        end = time.monotonic() + HANG_S
        while (behind := await caught_up_after(site, began_ms))["behind_ms"]["max"] != behind["behind_ms"]["max"]:
            if time.monotonic() > end:
                raise SystemExit(f"not caught up within {HANG_S:g} s\n{site.output()}")
            await asyncio.sleep(1.0)
        used = processor_seconds(started.pid)
        await asyncio.sleep(TAIL_S)
        share = (processor_seconds(started.pid) - used) / TAIL_S
    finally:
        done.set()
        sent = await live
        await asyncio.to_thread(site.stop)
    found = await caught_up_after(site, began_ms)
    return {"outage_s": options.catch_up, "rate": options.rate, "backlog": 2 * pairs,
            "sent_meanwhile": sent, "cores_afterwards": share, **found}  # fmt: skip


def measured_outage(figures: dict[str, Any]) -> Measured:
    """Return what is published of an outage."""
    behind = figures["behind_ms"]
    text = (
        f"{figures['backlog']:,} events of {figures['outage_s']:g} s at {figures['rate']:,}/s were caught up "
        f"{figures['caught_up_s']:.1f} s after the start of the worker, with {figures['sent_meanwhile']:,} new ones "
        f"meanwhile. Afterwards the ledger was {behind['p50']:.0f} ms behind at the median, {behind['p99']:.0f} at "
        f"p99, and the worker used {figures['cores_afterwards']:.2f} cores."
    )
    return Measured("live-outage", figures, [], text=text)


def arguments_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = options_of("Measure how fast a backlog on a real Kafka becomes decisions.")
    parser.add_argument("--pairs", type=int, help="default 300000; --quick 20000")
    parser.add_argument("--mature-after", help="default 1m; --quick 2s")
    parser.add_argument("--rounds", type=int, help="default 2; --quick 1")
    parser.add_argument("--catch-up", type=float, metavar="SECONDS", help="an outage that has to be caught up")
    parser.add_argument("--rate", type=int, default=2_000, help="events/s of the outage and of the live traffic")
    options = parser.parse_args(arguments)
    pairs, rounds, mature_after = (20_000, 1, "2s") if options.quick else (300_000, 2, "1m")
    options.pairs, options.rounds = options.pairs or pairs, options.rounds or rounds
    options.mature_after = options.mature_after or mature_after
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and publish."""
    options = arguments_of(arguments)
    with TemporaryDirectory() as folder, broker() as bootstrap:
        if options.catch_up:
            measured = measured_outage(asyncio.run(outage(options, bootstrap, Path(folder))))
        else:
            measured = measured_backlog(backlog(options, bootstrap, Path(folder)))
    publish(measured, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
