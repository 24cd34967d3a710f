"""Measure the default detector: does it keep its promise, and how long does it take to see a rise?

Promise: the mean run length to a false alarm at each base rate, with a reference of 1,000 and of 5,000 fresh healthy
outcomes, against the promised 10,000. Delay: reference, then 5,000 healthy outcomes, then the rise; mean delay of the
runs without a false alarm, relative to the CUSUM that knows both rates and is tuned to the same run length. That CUSUM
is computed, not simulated: its score is rounded to a lattice, on which run length and delay solve linear equations.

The run length is measured of rows as well, which step blocks of 32 outcomes and keep the reference next to the
baseline that grows. What rows see of a rise at a release is measured by `release.py`.

Run: python benchmarks/e_detector.py [--quick] [--runs 400] [--json FILE] [--plot FILE.svg]. Exit code 1 when a bound is
missed.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from figures import Bars, Measured, Table, options_of, publish, tell
from numpy.typing import NDArray

from detectors.betting import GRID_BINARY, reaches, total
from tests.row_steps import released, step_rows

Floats = NDArray[np.float64]

PROMISE = 10_000
REFERENCES = (1_000, 5_000)
HEALTHY = 5_000
BASE_RATES = (0.02, 0.05, 0.1, 0.2)
RISING_FROM = (0.05, 0.1, 0.2)
RISES = (1.5, 2.0)
LONGEST_RUN = 200_000
LONGEST_DELAY = 20_000
LARGEST_DELAY_RATIO = 1.35
NORMAL_99 = 2.3263478740408408
CHUNK = 256


@dataclass(frozen=True, slots=True)
class RunLength:
    """Hold the runs of one base rate and reference size; a censored run counts as ending at the limit."""

    base_rate: float
    reference: int
    runs: int
    mean: float
    lower_99: float
    upper_99: float
    censored_share: float
    alarmed_by_a_tenth: float

    @property
    def kept(self) -> bool:
        """Whether the mean is not below the promise, at the one-sided 99 % level."""
        return self.upper_99 >= PROMISE

    @property
    def proven(self) -> bool:
        """Whether the mean is above the promise, at the one-sided 99 % level: what enough runs should show."""
        return self.lower_99 >= PROMISE


@dataclass(frozen=True, slots=True)
class Delay:
    """Hold the delays of one rise: of the runs that had no false alarm before it."""

    base_rate: float
    rise: float
    reference: int
    runs: int
    false_alarm_share: float
    mean: float
    standard_error: float
    censored_share: float
    clairvoyant: float
    ratio: float

    @property
    def kept(self) -> bool:
        """Whether the delay is within the bound."""
        return self.ratio <= LARGEST_DELAY_RATIO


def first_alarms(
    rng: np.random.Generator, reference: Floats, before: Floats, after: Floats, change: int, limit: int, name: str
) -> NDArray[np.int64]:
    """Return, per row, the outcome at which the detector first alarms; ``limit`` where it does not.

    Args:
        rng: source of the outcomes.
        reference: shape (r,), reference sizes; the references are drawn at the rate ``before``.
        before, after: shape (r,), the loss rate until and from outcome ``change``.
        change: outcomes before the change.
        limit: outcomes after which a run is cut off.
        name: the name on the progress line.
    """
    alarms = np.full(reference.size, limit, dtype=np.int64)
    alive = np.arange(reference.size)
    losses_sum, count = rng.binomial(reference.astype(np.int64), before).astype(np.float64), reference.copy()
    evidence = np.zeros((reference.size, GRID_BINARY.size))
    for start in range(0, limit, CHUNK):
        if alive.size == 0:
            break
        width = min(CHUNK, limit - start)
        draws = rng.random((width, alive.size))
        for offset in range(width):
            rate = before[alive] if start + offset < change else after[alive]
            evidence, losses_sum, count = step_rows(
                evidence, losses_sum, count, (draws[offset] < rate).astype(np.float64), GRID_BINARY
            )
            hit = reaches(total(evidence), PROMISE)
            if hit.any():
                alarms[alive[hit]] = start + offset
                rest = ~hit
                alive, draws = alive[rest], draws[:, rest]
                evidence, losses_sum, count = evidence[rest], losses_sum[rest], count[rest]
        print(f"\r{name}: outcome {start + width:,} of {limit:,}, {alive.size:,} runs left   ", end="", file=sys.stderr)
    print(file=sys.stderr)
    return alarms


def run_lengths(rng: np.random.Generator, runs: int) -> list[RunLength]:
    """Measure the run length to a false alarm for every base rate and reference size."""
    cases = [(rate, size) for size in REFERENCES for rate in BASE_RATES]
    rates = np.repeat([rate for rate, _ in cases], runs)
    sizes = np.repeat([float(size) for _, size in cases], runs)
    alarms = first_alarms(rng, sizes, rates, rates, LONGEST_RUN, LONGEST_RUN, "run length")
    return _run_lengths(cases, list(alarms.reshape(len(cases), runs)))


def run_lengths_of_rows(rng: np.random.Generator, runs: int) -> list[RunLength]:
    """Measure the same of rows that inherited their baseline."""
    cases, alarms = [(rate, size) for size in REFERENCES for rate in BASE_RATES], []
    for rate, size in cases:
        tell(f"run length of rows: base rate {rate}, reference {size:,}")
        # The place of the alarm, as above.
        alarms.append(released(rng, size, (rate, rate), 0.0, PROMISE, runs, LONGEST_RUN) - 1)
    return _run_lengths(cases, alarms)


def _run_lengths(cases: list[tuple[float, int]], alarms: list[NDArray[np.int64]]) -> list[RunLength]:
    found = []
    for (rate, size), mine in zip(cases, alarms, strict=True):
        runs = mine.size
        lengths = np.minimum(mine + 1.0, LONGEST_RUN)
        mean, error = float(lengths.mean()), float(lengths.std(ddof=1)) / math.sqrt(runs)
        found.append(
            RunLength(
                base_rate=rate,
                reference=size,
                runs=runs,
                mean=mean,
                lower_99=mean - NORMAL_99 * error,
                upper_99=mean + NORMAL_99 * error,
                censored_share=float((mine >= LONGEST_RUN).mean()),
                alarmed_by_a_tenth=float((lengths <= PROMISE / 10).mean()),
            )
        )
    return found


def delays(rng: np.random.Generator, runs: int) -> list[Delay]:
    """Measure the delay for every base rate, rise and reference size, next to the clairvoyant CUSUM's."""
    cases = [(rate, rise, size) for size in REFERENCES for rate in RISING_FROM for rise in RISES]
    # About two thirds of the runs have no false alarm in the healthy part; twice as many leave enough.
    rows = 2 * runs
    rates = np.repeat([rate for rate, _, _ in cases], rows)
    risen = np.repeat([rate * rise for rate, rise, _ in cases], rows)
    sizes = np.repeat([float(size) for _, _, size in cases], rows)
    alarms = first_alarms(rng, sizes, rates, risen, HEALTHY, HEALTHY + LONGEST_DELAY, "delay")
    optimum = {(rate, rise): clairvoyant_delay(rate, rate * rise) for rate in RISING_FROM for rise in RISES}
    found = []
    for (rate, rise, size), mine in zip(cases, alarms.reshape(len(cases), rows), strict=True):
        waited = np.minimum(mine[mine >= HEALTHY] - HEALTHY + 1.0, LONGEST_DELAY)
        mean = float(waited.mean())
        found.append(
            Delay(
                base_rate=rate,
                rise=rise,
                reference=size,
                runs=waited.size,
                false_alarm_share=1.0 - waited.size / rows,
                mean=mean,
                standard_error=float(waited.std(ddof=1)) / math.sqrt(waited.size),
                censored_share=float((waited >= LONGEST_DELAY).mean()),
                clairvoyant=optimum[rate, rise],
                ratio=mean / optimum[rate, rise],
            )
        )
    return found


def clairvoyant_delay(p0: float, p1: float) -> float:
    """Return the mean delay, after 5,000 healthy outcomes without an alarm, of the CUSUM tuned to the promise.

    A right outcome lowers the CUSUM by ``down`` lattice steps and a wrong one raises it by ``up``, in the ratio of the
    log-likelihood ratios rounded to under 1 %, which costs the CUSUM a negligible part of its power. Its thresholds
    are whole steps, so the delay is interpolated in log run length between the two around the promise.
    """
    ratio = math.log(p1 / p0) / -math.log((1.0 - p1) / (1.0 - p0))
    down = max(1, round(60.0 / ratio))
    up = round(ratio * down)
    low, high = up, up
    while _mean_steps(p0, up, down, high)[0] < PROMISE:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _mean_steps(p0, up, down, middle)[0] >= PROMISE else (middle, high)
    (length_low, delay_low), (length_high, delay_high) = (
        (float(_mean_steps(p0, up, down, bar)[0]), _steady_delay(p0, p1, up, down, bar)) for bar in (low, high)
    )
    share = math.log(PROMISE / length_low) / math.log(length_high / length_low)
    return delay_low + share * (delay_high - delay_low)


def _mean_steps(p: float, up: int, down: int, bar: int) -> Floats:
    """Return the mean steps to the threshold ``bar`` from each lattice point 0 ... bar - 1 when losses have mean p."""
    return np.asarray(np.linalg.solve(np.eye(bar) - _kernel(p, up, down, bar), np.ones(bar)), dtype=np.float64)


def _kernel(p: float, up: int, down: int, bar: int) -> Floats:
    points = np.arange(bar)
    kernel = np.zeros((bar, bar))
    np.add.at(kernel, (points, np.maximum(points - down, 0)), 1.0 - p)
    inside = points + up < bar
    kernel[points[inside], points[inside] + up] += p
    return kernel


def _steady_delay(p0: float, p1: float, up: int, down: int, bar: int) -> float:
    # The distribution of the CUSUM after the healthy outcomes, given that it has not alarmed.
    stays: Floats = np.linalg.matrix_power(_kernel(p0, up, down, bar), HEALTHY)[0]
    return float(stays / stays.sum() @ _mean_steps(p1, up, down, bar))


def length_table(lengths: list[RunLength], of: str) -> Table:
    """Return the run lengths as a table."""
    return Table(
        (
            "reference",
            "base rate",
            "runs",
            "mean",
            "99 % from",
            "99 % to",
            "censored",
            "by 1,000 (<= .10)",
            "kept",
            "proven",
        ),
        [
            (
                f"{r.reference:,}",
                f"{r.base_rate:.2f}",
                f"{r.runs:,}",
                f"{r.mean:,.0f}",
                f"{r.lower_99:,.0f}",
                f"{r.upper_99:,.0f}",
                f"{r.censored_share:.3f}",
                f"{r.alarmed_by_a_tenth:.3f}",
                "yes" if r.kept else "NO",
                "yes" if r.proven else "no",
            )
            for r in lengths
        ],
        f"Run length of {of} to a false alarm, promised {PROMISE:,}, censored at {LONGEST_RUN:,}; by 1,000: share, "
        "<= .10",
    )


def delay_table(waits: list[Delay]) -> Table:
    """Return the delays as a table."""
    return Table(
        ("reference", "base rate", "rise", "runs", "false alarms", "delay", "+-", "CUSUM", "ratio", "kept"),
        [
            (
                f"{d.reference:,}",
                f"{d.base_rate:.2f}",
                f"x{d.rise}",
                f"{d.runs:,}",
                f"{d.false_alarm_share:.2f}",
                f"{d.mean:,.0f}",
                f"{d.standard_error:,.0f}",
                f"{d.clairvoyant:,.0f}",
                f"{d.ratio:.2f}",
                "yes" if d.kept else "NO",
            )
            for d in waits
        ],
        f"Delay after {HEALTHY:,} healthy outcomes, relative to the CUSUM that knows both rates "
        f"(<= {LARGEST_DELAY_RATIO})",
    )


def plot(waits: list[Delay]) -> Bars:
    """Return the delays next to those of the CUSUM."""
    shown = [wait for wait in waits if wait.reference == REFERENCES[-1]]
    return Bars(
        "Delay until a rise is seen",
        "outcomes",
        [f"{wait.base_rate:.2f} x{wait.rise}" for wait in shown],
        {"e-detector": [wait.mean for wait in shown], "CUSUM that knows": [wait.clairvoyant for wait in shown]},
    )


def main(arguments: list[str] | None = None, clock: Callable[[], float] = time.perf_counter) -> int:
    """Run both measurements, print them, and return an exit code: 0 if every bound held."""
    parser = options_of("Measure the default detector's promise and delay.")
    parser.add_argument("--runs", type=int, default=400, help="runs per case (default 400; --quick 60)")
    parser.add_argument("--seed", type=int, default=20_260_101, help="seed of all outcomes")
    options = parser.parse_args(arguments)
    runs = 60 if options.quick else options.runs
    rng = np.random.default_rng(options.seed)
    started = clock()
    lengths, waits = run_lengths(rng, runs), delays(rng, runs)
    of_rows = run_lengths_of_rows(rng, runs)
    kept = all(length.kept for length in (*lengths, *of_rows)) and all(wait.kept for wait in waits)
    figures = {
        "promise": PROMISE,
        "run_lengths": [asdict(item) for item in lengths],
        "run_lengths_of_rows": [asdict(item) for item in of_rows],
        "delays": [asdict(item) for item in waits],
        "kept": kept,
        "seconds": round(clock() - started, 1),
    }
    tables = [length_table(lengths, "the detector"), length_table(of_rows, "rows"), delay_table(waits)]
    publish(Measured("e-detector", figures, tables, plot(waits)), options)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
