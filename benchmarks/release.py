"""Measure how soon a version that is worse from its first outcome on alarms, and how often one that is not.

A version that was just released is judged by what it inherited: the outcomes of the version before it. Each run draws
these, and then outcomes of the new version, whose rate has risen by 0, 1, 2, 4 or 8 times `worse_by`. A rise of 0 or 1
times is healthy, so that an alarm is false; beyond that it is missed as long as there is no alarm. The second table has
what was promised at the edge: nothing has risen and `worse_by` is 0, so that every alarm is false. The rows are those
of `detectors.rows.bank`, one for each run.

Run: python benchmarks/release.py [--quick] [--runs 300] [--json FILE] [--plot FILE.svg]. Exit code 1 when a bound is
missed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from figures import Bars, Measured, Table, options_of, publish, tell

from tests.row_steps import released

PROMISE = 1_000_000
BASE_RATE, WORSE_BY = 0.19, 0.03
SIZES = (500, 750, 2_000, 20_000)
RISES = (0, 1, 2, 4, 8)
LOOKS = (1_000, 2_000, 4_000)
LONGEST = 20_000
#: The release of a real report: earlier outcomes, and the rates before and after.
REPORTED = (741, 0.19, 0.33)
LARGEST_MEDIAN, MISSED_BY = 1_000, {2_000: 0.05, 4_000: 0.01}
#: Nothing has risen and `worse_by` is 0: inherited outcomes, and the largest share of runs that may alarm by then.
EDGE_SIZES, EDGE_LENGTH, EDGE_SHARE = (500, 741, 2_000, 20_000), 100_000, 0.10


@dataclass(frozen=True, slots=True)
class Release:
    """Hold the runs of one inherited size and one rise; `alarmed` has the share of runs by outcomes since the release.

    `median` is that of the delay, None where half of the runs did not alarm.
    """

    inherited: int
    before: float
    after: float
    worse_by: float
    runs: int
    alarmed: dict[int, float]
    median: float | None

    @property
    def healthy(self) -> bool:
        """Whether the rise does not matter."""
        return self.after - self.before <= self.worse_by + 1e-12


def release(
    rng: np.random.Generator, inherited: int, before: float, after: float, worse_by: float, runs: int, limit: int
) -> Release:
    """Measure one inherited size and one rise."""
    alarms = released(rng, inherited, (before, after), worse_by, PROMISE, runs, limit)
    median = float(np.median(alarms))
    looks = [look for look in LOOKS if look < limit]
    alarmed = {look: float((alarms <= look).mean()) for look in (*looks, limit)}
    tell(f"{inherited:,} inherited, {before} to {after:.2f}, worse_by {worse_by}: {runs} runs")
    return Release(inherited, before, after, worse_by, runs, alarmed, median if median <= limit else None)


def bounds_of(reported: Release, steps: list[Release], edge: list[Release]) -> dict[str, bool]:
    """Return which bounds held."""
    found = {"reported: median": reported.median is not None and reported.median <= LARGEST_MEDIAN}
    for look, share in MISSED_BY.items():
        found[f"reported: missed by {look:,}"] = 1.0 - reported.alarmed[look] <= share
    # P(alarm by t) <= t / promise for a known rate, so that of the runs of all sizes together hardly one may alarm.
    calm = [each for each in steps if each.healthy and each.after == each.before]
    found["no rise: false alarms"] = sum(each.alarmed[LONGEST] for each in calm) / len(calm) <= LONGEST / PROMISE
    for each in edge:
        found[f"worse_by 0, {each.inherited:,} inherited"] = each.alarmed[EDGE_LENGTH] <= EDGE_SHARE
    return found


def tables(reported: Release, steps: list[Release], edge: list[Release]) -> list[Table]:
    """Return what was measured."""
    columns = ("inherited", "rate", "rise", "kind", *(f"by {look:,}" for look in (*LOOKS, LONGEST)), "median delay")
    rows = [
        (
            f"{each.inherited:,}",
            f"{each.before:.2f} to {each.after:.2f}",
            f"{(each.after - each.before) / WORSE_BY:.1f} x",
            "false" if each.healthy else "missed",
            *(f"{share if each.healthy else 1.0 - share:.3f}" for share in each.alarmed.values()),
            "-" if each.median is None else f"{each.median:,.0f}",
        )
        for each in (*steps, reported)
    ]
    first = Table(columns, rows, f"Share of false or of missed alarms, promise {PROMISE:,}, worse_by {WORSE_BY}")
    second = Table(
        ("inherited", "rate", f"alarmed by {EDGE_LENGTH:,}", f"kept (<= {EDGE_SHARE})"),
        [
            (
                f"{each.inherited:,}",
                f"{each.before:.2f}",
                f"{each.alarmed[EDGE_LENGTH]:.3f}",
                "yes" if each.alarmed[EDGE_LENGTH] <= EDGE_SHARE else "NO",
            )
            for each in edge
        ],
        f"Share of false alarms without a rise, worse_by 0, promise {PROMISE:,}",
    )
    return [first, second]


def plot(steps: list[Release]) -> Bars:
    """Return the share of rises that were missed by the last look, by inherited size."""
    rises = {f"{rise} x worse_by": BASE_RATE + rise * WORSE_BY for rise in RISES if rise > 1}
    series = {
        name: [1.0 - each.alarmed[LOOKS[-1]] for each in steps if each.after == after] for name, after in rises.items()
    }
    return Bars(f"Rises at the release missed by {LOOKS[-1]:,} outcomes", "share", [f"{n:,}" for n in SIZES], series)


def main(arguments: list[str] | None = None, clock: Callable[[], float] = time.perf_counter) -> int:
    """Measure, print, and return an exit code: 0 if every bound held."""
    parser = options_of("Measure alarms at the release of a version, by what it inherited.")
    parser.add_argument("--runs", type=int, default=300, help="runs of each case (default 300; --quick 60)")
    parser.add_argument("--seed", type=int, default=20_260_101, help="seed of all outcomes")
    options = parser.parse_args(arguments)
    runs = 60 if options.quick else options.runs
    rng = np.random.default_rng(options.seed)
    started = clock()
    reported = release(rng, *REPORTED, WORSE_BY, runs, LONGEST)
    steps = [
        release(rng, size, BASE_RATE, BASE_RATE + rise * WORSE_BY, WORSE_BY, runs, LONGEST)
        for rise in RISES
        for size in SIZES
    ]
    edge = [release(rng, size, BASE_RATE, BASE_RATE, 0.0, runs, EDGE_LENGTH) for size in EDGE_SIZES]
    bounds = bounds_of(reported, steps, edge)
    figures = {
        "promise": PROMISE,
        "worse_by": WORSE_BY,
        "reported": asdict(reported),
        "steps": [asdict(each) for each in steps],
        "edge": [asdict(each) for each in edge],
        "bounds": bounds,
        "kept": all(bounds.values()),
        "seconds": round(clock() - started, 1),
    }
    missed = ", ".join(name for name, held in bounds.items() if not held)
    closing = f"Missed: {missed}." if missed else "Every bound held."
    publish(Measured("release", figures, tables(reported, steps, edge), plot(steps), closing=closing), options)
    return 0 if all(bounds.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
