"""Run faults on three brokers: `python -m tests.faults rows 9 10`, or all of them with `rows`."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.oracle import shown
from tests.faults.rows import FAULTS, play
from tests.faults.scene import Scene
from tests.kafka.cluster import Cluster


def run_row(number: int, seed: int) -> bool:
    """Run one fault on brokers of its own; return whether everything held."""
    what, fault = FAULTS[number]
    print(f"fault {number}: {what}", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="unship-faults-") as folder, Cluster(3) as cluster:
        with Scene(Path(folder), cluster, seed) as scene:
            try:
                asyncio.run(play(scene, fault))
            except AssertionError as error:
                print(f"fault {number}: FAILED after {time.monotonic() - begun:.0f} s: {error}", flush=True)
                return False
            print(f"fault {number}: held, {time.monotonic() - begun:.0f} s, {shown(scene.figures)}", flush=True)
    return True


def main() -> int:
    """Run what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    rows = commands.add_parser("rows", help="one fault after another")
    rows.add_argument("numbers", nargs="*", type=int, help="numbers of faults; all if none is given")
    rows.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    return 0 if all([run_row(number, given.seed) for number in given.numbers or sorted(FAULTS)]) else 1


if __name__ == "__main__":
    sys.exit(main())
