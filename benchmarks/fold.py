"""Measure how many outcomes the fold judges in a second of processor time, by numbers of models and of slices.

Ledger records are built in memory: one for each second of source time, with a live version and a holdback (a tenth of
the requests) of every model, three label sources, two losses, labels 1 to 16 seconds after the predictions, and the
default detectors. Slices are the values of dimensions that have at most four each: twelve are three by four. What is
measured is all that follows from the bytes of a record: reading them, the checks, cohorts, detectors, second opinions,
comparison and policy.

The floor is a program that does much less, in the same run: one ADWIN of river for each version, fed with the same
losses in a plain loop. Seconds depend on the machine; how many times the floor the fold takes carries over.

Run: python benchmarks/fold.py [--quick] [--outcomes 200000] [--rate 1000] [--models 1 --models 8] [--slices 0]
[--mature-after 1m] [--json FILE].
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import detectors
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.fold.fold import Fold
from streams.ledger.entries import entry_of, read_entry
from streams.ledger.records import Arm, Batch, Coded, Counted, OutcomeRows, Part, PredictionRows, Tick
from streams.pipeline import configuration_record

START_MS = 1_767_571_200_000
SOURCES = ("chargebacks", "reviews", "desk")
ARMS = [Arm("v42", "live"), Arm("v41", "holdback")]
HOLDBACK_SHARE, WRONG_SHARE = 0.1, 0.1
#: Most slices of one dimension.
VALUES = 4
DELAY_MS = (1_000, 16_000)
MODELS, SLICES = (1, 8, 64), (0, 2, 12)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Hold outcomes, one row each in the order of their predictions.

    `at` and `labelled` are in ms; `values` are slices, shape (dimensions, outcomes); `losses` has (losses, outcomes).
    """

    model: np.ndarray
    arm: np.ndarray
    at: np.ndarray
    labelled: np.ndarray
    source: np.ndarray
    values: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True, slots=True)
class Speed:
    """Hold one case: processor seconds of the fold, of reading the records alone, and of the floor."""

    models: int
    slices: int
    mature_after: str
    outcomes: int
    records: int
    seconds: float
    reading_seconds: float
    floor_seconds: float

    @property
    def per_second(self) -> float:
        """Outcomes folded in one second of processor time."""
        return self.outcomes / self.seconds


def dimensions(slices: int) -> int:
    """Return the number of dimensions that have so many slices together."""
    return -(-slices // VALUES)


def traffic_of(models: int, slices: int, outcomes: int, rate: int, seed: int) -> Traffic:
    """Return outcomes at `rate` a second, over all models."""
    rng = np.random.default_rng(seed)
    at = START_MS + np.arange(outcomes) * 1_000 // rate
    wrong = (rng.random(outcomes) < WRONG_SHARE).astype(float)
    return Traffic(
        model=rng.integers(0, models, outcomes),
        arm=(rng.random(outcomes) < HOLDBACK_SHARE).astype(np.int64),
        at=at,
        labelled=at + rng.integers(*DELAY_MS, outcomes),
        source=rng.integers(0, len(SOURCES), outcomes),
        values=rng.integers(0, min(slices, VALUES) or 1, (dimensions(slices), outcomes)),
        losses=np.stack([wrong, np.clip(wrong * 0.6 + rng.random(outcomes) * 0.3, 0, 1)]),
    )


def config_of(models: int, slices: int, mature_after: str) -> Config:
    """Return the configuration that the records are folded under."""
    by = ", ".join(f"slice{i}" for i in range(dimensions(slices)))
    cut = f", slices: {{by: [{by}]}}" if slices else ""
    named = "".join(
        f"  model{i}: {{target: {{kind: binary}}, losses: [zero_one, brier]{cut}}}\n" for i in range(models)
    )
    labels = f"{{horizon: 1d, early: 10m, mature_after: {mature_after}}}"
    return parse(f"log: embedded:./unship-data\ndefaults: {{labels: {labels}}}\nmodels:\n{named}")


def ledger_of(config: Config, traffic: Traffic, models: int) -> list[bytes]:
    """Return the records of a ledger: the configuration, a batch for each second, and the time until all is judged."""
    values = [entry_of(configuration_record(config)).value]
    position, feedback = np.arange(traffic.at.size), np.empty(traffic.at.size, np.int64)
    feedback[np.argsort(traffic.labelled, kind="stable")] = position
    last = int(traffic.labelled.max())
    base = (0, 0)
    seconds = range(START_MS, last + 1_000, 1_000)
    made, told = traffic.at // 1_000, traffic.labelled // 1_000
    by_made, by_told = np.argsort(made, kind="stable"), np.argsort(told, kind="stable")
    for begin in seconds:
        key = begin // 1_000
        new = by_made[slice(*np.searchsorted(made[by_made], [key, key + 1]))]
        labelled = np.sort(by_told[slice(*np.searchsorted(told[by_told], [key, key + 1]))])
        end = (base[0] + new.size, base[1] + labelled.size)
        parts = [
            _part(traffic, number, new, labelled, feedback)
            for number in range(models)
            if (traffic.model[new] == number).any() or (traffic.model[labelled] == number).any()
        ]
        nothing = np.zeros(0, np.int64)
        counted = Counted(Coded([], nothing), nothing, nothing, nothing)
        batch = Batch(0, 0, config.digest(), base, end, begin + 999, "", parts, counted)
        values.append(entry_of(batch).value)
        base = end
    mature = max(model.mature_after_ms for model in config.models.values())
    return [*values, entry_of(Tick(last + 2 * mature + 10_000)).value]


def _part(traffic: Traffic, number: int, new: np.ndarray, labelled: np.ndarray, feedback: np.ndarray) -> Part:
    new, labelled = new[traffic.model[new] == number], labelled[traffic.model[labelled] == number]
    names = [[f"value{i}" for i in range(VALUES)] for _ in traffic.values]
    rows = OutcomeRows(
        arm=traffic.arm[labelled],
        predicted_at=traffic.at[labelled],
        labelled_at=traffic.labelled[labelled],
        position=labelled,
        labelled_by=feedback[labelled],
        losses=traffic.losses[:, labelled],
        slices=[Coded(list(own), codes[labelled]) for own, codes in zip(names, traffic.values, strict=True)],
        source=Coded(list(SOURCES), traffic.source[labelled]),
    )
    return Part(f"model{number}", ARMS, rows, PredictionRows(traffic.arm[new], traffic.at[new], new))


def folded(config: Config, values: list[bytes]) -> Fold:
    """Fold a ledger from its bytes."""
    fold = Fold(config)
    for value in values:
        fold.step(read_entry(value))
    return fold


def floor(traffic: Traffic) -> int:
    """Feed one ADWIN for each version with its losses, one after the other; return the number of changes."""
    series: dict[int, Any] = {}
    changes = 0
    for key, loss in zip((traffic.model * 2 + traffic.arm).tolist(), traffic.losses[0].tolist(), strict=True):
        detector = series.get(key)
        if detector is None:
            detector = series[key] = _river_adwin()
        detector.update(loss)
        changes += detector.drift_detected
    return changes


def _river_adwin() -> Any:
    from river import drift

    adwin: Any = drift.ADWIN
    return adwin()


def clocked(work: Any) -> tuple[float, Any]:
    """Return the processor seconds of a piece of work, without Python's collector, and its result."""
    gc.collect()
    gc.disable()
    try:
        started = time.process_time()
        result = work()
        return time.process_time() - started, result
    finally:
        gc.enable()


def measure(models: int, slices: int, options: argparse.Namespace) -> Speed:
    """Measure one case: the best of some rounds, fold and floor in turns."""
    config = config_of(models, slices, options.mature_after)
    traffic = traffic_of(models, slices, options.outcomes, options.rate, options.seed)
    values = ledger_of(config, traffic, models)
    whole, reading, bare = [], [], []
    for _ in range(options.rounds):
        bare.append(clocked(lambda: floor(traffic))[0])
        reading.append(clocked(lambda: [read_entry(value) for value in values])[0])
        seconds, fold = clocked(lambda: folded(config, values))
        whole.append(seconds)
        counted = sum(sum(model.state.outcomes.values()) for model in fold.models.values())
        assert counted == traffic.at.size, (counted, traffic.at.size)
    return Speed(
        models, slices, options.mature_after, traffic.at.size, len(values), min(whole), min(reading), min(bare)
    )


def table(speeds: list[Speed]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| models | slices | mature after | outcomes/s | µs per outcome | µs to read a record | times the floor |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for speed in speeds:
        yield (
            f"| {speed.models} | {speed.slices} | {speed.mature_after} | {speed.per_second:,.0f} "
            f"| {1e6 / speed.per_second:.2f} | {1e6 * speed.reading_seconds / speed.records:.0f} "
            f"| {speed.seconds / speed.floor_seconds:.1f} |"
        )


def arguments_of(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure the fold on one core.")
    parser.add_argument("--outcomes", type=int, default=200_000, help="outcomes of each case (default 200000)")
    parser.add_argument("--rate", type=int, default=1_000, help="outcomes/s of source time (default 1000)")
    parser.add_argument("--models", type=int, action="append", help="number of models (default 1, 8 and 64)")
    parser.add_argument("--slices", type=int, action="append", help="number of slices (default 0, 2 and 12)")
    parser.add_argument("--mature-after", default="1m", help="maturity of labels (default 1m)")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts (default 3)")
    parser.add_argument("--seed", type=int, default=20_260_101, help="seed of the outcomes")
    parser.add_argument("--quick", action="store_true", help="20,000 outcomes, one round: a look, not a measurement")
    parser.add_argument("--json", type=Path, help="write the figures to a file as well")
    options = parser.parse_args(arguments)
    if options.quick:
        options.outcomes, options.rounds = 20_000, 1
    return options


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return an exit code."""
    options = arguments_of(arguments)
    for name in detectors.names():
        # What detectors load at first use is a cost of the start, not of the outcomes.
        detectors.create(name)
    speeds = []
    for models in options.models or MODELS:
        for slices in options.slices or SLICES:
            speeds.append(measure(models, slices, options))
            print(f"{models} models, {slices} slices measured", file=sys.stderr, flush=True)
    print("\n".join(table(speeds)))
    if options.json:
        options.json.write_text(json.dumps([asdict(speed) for speed in speeds]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
