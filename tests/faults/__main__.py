"""Run faults on three brokers: `python -m tests.faults rows 9 10`, all of them with `rows`, or `soak --seed 7`."""

import argparse
import asyncio
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.faults.network import CutCluster
from tests.faults.oracle import shown
from tests.faults.plan import plan, told
from tests.faults.rows import ROWS
from tests.faults.scene import Scene
from tests.faults.soak import Soak


def run_row(name: str, seed: int) -> bool:
    """Run one fault on brokers of its own; return whether everything held."""
    row = ROWS[name]
    print(f"fault {name}: {row.what}, --seed {seed}", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="unship-faults-") as folder, row.brokers() as cluster:
        try:
            with Scene(Path(folder), cluster, seed) as scene:
                asyncio.run(row.story(scene))
        except Exception:  # noqa: BLE001 (the next fault is tried all the same)
            print(f"fault {name}: FAILED after {time.monotonic() - begun:.0f} s\n{traceback.format_exc()}", flush=True)
            return False
        print(f"fault {name}: held, {time.monotonic() - begun:.0f} s, {shown(scene.figures)}", flush=True)
    return True


def run_soak(seed: int, minutes: float) -> bool:
    """Run a soak; return whether everything held."""
    rounds = plan(seed, minutes)
    print(
        f"soak: --seed {seed} --minutes {minutes:g}, {len(rounds)} rounds, {sum(map(len, rounds))} faults", flush=True
    )
    print("\n".join(told(rounds)), flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="unship-faults-") as folder, CutCluster() as cluster:
        scene = Scene(Path(folder), cluster, seed)
        scene.site.patience_s = 60.0 * max(minutes, 2.0)
        try:
            with scene:
                asyncio.run(Soak(scene, rounds).run())
        except Exception:  # noqa: BLE001 (whatever it was, the seed has to be told)
            print(f"soak: FAILED after {time.monotonic() - begun:.0f} s, --seed {seed}", flush=True)
            print(traceback.format_exc(), flush=True)
            return False
        print(f"soak: held, {time.monotonic() - begun:.0f} s, --seed {seed}, {shown(scene.figures)}", flush=True)
    return True


def main() -> int:
    """Run what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    rows = commands.add_parser("rows", help="one fault after another")
    rows.add_argument("names", nargs="*", help="faults, by their names in the table; all if none is given")
    soak = commands.add_parser("soak", help="a random mix of faults; the same seed gives the same plan")
    everything = commands.add_parser("all", help="all rows, then the soak")
    for command in (rows, soak, everything):
        command.add_argument("--seed", type=int, default=int(time.time()), help="without it, the time")
    for command in (soak, everything):
        command.add_argument("--minutes", type=float, default=60.0)
    given = parser.parse_args()
    names = [] if given.command == "soak" else getattr(given, "names", None) or list(ROWS)
    # All of them, whatever becomes of one.
    held = [run_row(name, given.seed) for name in names]
    if given.command != "rows":
        held.append(run_soak(given.seed, given.minutes))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
