"""Measure how fast a recording is folded on one core, where the time goes, and what sets the memory.

A synthetic recording (`synthetic.py`; the default detectors) is written to a temporary folder and replayed by the code
that `unship replay` runs. Times are processor time of this process, because other programs may share the machine; what
carries over between machines is the ratio to a floor of the same run, a bare typed parse of the same lines.

Stages: reading and decoding are measured alone on the same lines; record building, digests and the parts of the fold
are clocked inside a replay, a few calls for each ledger record; the join is what is left, so that the stages add up.

Run: python benchmarks/replay.py [--quick] [--events 1000000] [--rounds 3] [--expect N] [--json FILE] [--plot FILE.svg]
[--markdown]. Exit code 1 when `--expect N` events/s are missed at the highest rate.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

import msgspec
from figures import Bars, Measured, Table, clocked, options_of, publish, tell
from synthetic import Case, write_recording

import detectors
from streams.recordings.replay import Replay
from unship.codec import decode_line
from unship.events import Deployment, Feedback, Prediction

MEMORY_SHARES = (0.25, 0.5, 1.0)
MEMORY_HORIZONS_S = (60, 120)
BATCH = 4_096

CASES = (
    Case(2_000, "1d", "10m", "1m"),
    Case(20, "1d", "10m", "1h"),
    Case(20, "1d", "10m", "0s"),
    Case(0.1, "1d", "10m", "1m"),
)
"""Rates in events/s, and label times. The first is also the one whose memory is measured; slower sources write small
ledger records, and without a maturity each of these is judged by itself."""

READ, DECODE, JOIN = "read lines", "decode", "join"
BUILD, SOURCE_DIGEST, RECORD_DIGEST = "losses and columns", "digest of source lines", "digest of records"
COHORTS, ROWS, COMPARE = "cohorts", "e-detector rows", "comparison"
OPINIONS, POLICY = "second opinions", "findings and policy"
STAGES = (
    READ, DECODE, JOIN, BUILD, SOURCE_DIGEST, RECORD_DIGEST, COHORTS, ROWS, COMPARE, OPINIONS, POLICY,
)  # fmt: skip
PARTS = {
    "streams.join.rows:PartBuilder.part": BUILD,
    "streams.join.pending:parts_of": BUILD,
    "streams.join.partition:PartitionJoin.take": JOIN,
    "streams.ledger.digests:RangeDigest._digest": SOURCE_DIGEST,
    "streams.pipeline:entry_of": RECORD_DIGEST,
    "streams.fold.fold:Fold.step": COHORTS,
    "detectors.rows.watch:Health.judge": ROWS,
    "detectors.rows.watch:Health.judge_foreseen": ROWS,
    "streams.fold.model:look_ahead": ROWS,
    "detectors.rows.concurrent:Comparison.add": COMPARE,
    "streams.evaluation.opinions:Opinions.step": OPINIONS,
    "streams.fold.judging:evaluate": POLICY,
}
"""The functions that are clocked inside a replay, with the stage that their time belongs to."""


@dataclass(slots=True)
class Speed:
    """Hold one case: processor seconds of the whole, of its stages (a replay of its own) and of the floor."""

    rate: float
    mature_after: str
    events: int
    records: int
    wall_seconds: float
    seconds: float
    floor_seconds: float
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Events folded in one second of processor time."""
        return self.events / self.seconds

    def micros(self, stage: str) -> float:
        """Microseconds per event of a stage."""
        return 1e6 * self.stages[stage] / self.events


@dataclass(frozen=True, slots=True)
class Memory:
    """Hold the peak memory of one replay in a process of its own; `idle_mb` before the first line."""

    events: int
    horizon: str
    held: int
    idle_mb: float
    peak_mb: float


class Stopwatch:
    """Adds up the processor time of wrapped functions, each without what it calls that is wrapped as well."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = [0.0]

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its time added to a stage."""

        def timed(*arguments: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            started = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                spent = time.process_time() - started
                self.seconds[stage] += spent - self._inner.pop()
                self._inner[-1] += spent

        return timed

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Wrap the parts of the fold and of the cut while inside."""
        with ExitStack() as stack:
            for path, stage in PARTS.items():
                owner, _, name = path.replace(":", ".").rpartition(".")
                whole = resolve_name(path)
                stack.enter_context(patch.object(resolve_name(owner), name, self.wrap(stage, whole)))
            yield


def chunks(path: Path, events: int) -> Iterator[list[bytes]]:
    """Yield the first `events` lines as a replay reads them."""
    with path.open("rb") as stream:
        left = events
        while left and (lines := [line for _, line in zip(range(min(BATCH, left)), stream, strict=False)]):
            left -= len(lines)
            yield lines


def read_only(path: Path, events: int) -> None:
    """Read lines and hash them, as a replay does."""
    prefix = hashlib.sha256()
    for lines in chunks(path, events):
        prefix.update(b"".join(lines))


def parse_with(decode: Callable[[bytes], object], path: Path, events: int) -> None:
    """Parse lines and keep nothing."""
    for lines in chunks(path, events):
        for line in lines:
            decode(line)


def fold(case: Case, path: Path, events: int, told: str = "") -> Replay:
    """Replay the first `events` lines, then let the clock go on until every cohort has closed."""
    replay = Replay(case.config)
    done = 0

    def progress(size: int) -> None:
        nonlocal done
        done += 1
        if told and not done % 8:
            tell(f"{told}: {done * BATCH:,} of {events:,} events", end="")

    with path.open("rb") as stream:
        for _ in replay.decisions(stream, BATCH, events, progress):
            pass
    assert replay.pipeline is not None
    for _ in replay.advance(replay.pipeline.cutter.now + 2 * case.config.of("fraud").mature_after_ms):
        pass
    return replay


def measure(case: Case, path: Path, events: int, rounds: int) -> Speed:
    """Measure one case: the best of some rounds, floor and whole in turns, then once more by stages."""
    told = f"folding at {case.rate:,}/s, labels mature after {case.mature_after}"
    floor = msgspec.json.Decoder(Prediction | Feedback | Deployment).decode
    whole, wall, bare = [], [], []
    for _ in range(rounds):
        bare.append(clocked(lambda: parse_with(floor, path, events)))
        started = time.perf_counter()
        whole.append(clocked(lambda: fold(case, path, events, told)))
        wall.append(time.perf_counter() - started)
    reading = clocked(lambda: read_only(path, events))
    decoding = clocked(lambda: parse_with(decode_line, path, events)) - clocked(lambda: parse_with(len, path, events))
    watch = Stopwatch()
    replays: list[Replay] = []
    with watch.watching():
        everything = clocked(lambda: replays.append(fold(case, path, events, told)))
    inside = sum(watch.seconds.values())
    stages = {stage: watch.seconds[stage] for stage in STAGES}
    stages[READ], stages[DECODE] = reading, decoding
    stages[JOIN] += everything - inside - reading - decoding
    tell("")
    records = replays[0].ledger_records
    return Speed(case.rate, case.mature_after, events, records, min(wall), min(whole), min(bare), stages)


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, in MB of 1,000,000 bytes."""
    try:
        # On Linux the figure of `getrusage` begins at the peak of the process that started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:", 1)[1].split()[0]) * 1_024 / 1e6
    except (OSError, IndexError):
        return (
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1_024) / 1e6
        )


def memory_child(path: Path, events: int, horizon_s: int, rate: float) -> Memory:
    """Replay in this process and return what it took."""
    load_libraries()
    idle = peak_mb()
    case = memory_case(rate, horizon_s)
    replay = fold(case, path, events)
    assert replay.pipeline is not None
    window = replay.pipeline.cutter.join.window
    held = sum(generation.size for generation in window.generations) + len(window.slow.waiting)
    return Memory(events, case.horizon, held, round(idle, 1), round(peak_mb(), 1))


def memory_case(rate: float, horizon_s: int) -> Case:
    """Return the case that memory is measured with: windows shorter than the recording."""
    return Case(rate, f"{horizon_s}s", "10s", "20s")


def load_libraries() -> None:
    """Load what the second opinions load at first use: it is a cost of the start, not of the events."""
    for name in detectors.names():
        detectors.create(name)


def memories(path: Path, events: int, rate: float) -> list[Memory]:
    """Measure the memory of growing recordings under the shorter window, and of the longest under both."""
    first, second = MEMORY_HORIZONS_S
    sizes = [(int(events * share), first) for share in MEMORY_SHARES] + [(events, second)]
    found = []
    for size, horizon in sizes:
        tell(f"memory of {size:,} events, horizon {horizon} s", end="")
        child = [sys.executable, __file__, "--memory-child", str(path), str(size), str(horizon), str(rate)]
        answer = subprocess.run(child, check=True, capture_output=True, text=True).stdout
        found.append(msgspec.json.decode(answer, type=Memory))
    tell("")
    return found


def tables(speeds: list[Speed], taken: list[Memory]) -> list[Table]:
    """Return all figures."""
    rates = [name_of(speed) for speed in speeds]
    whole = [
        ["events", *[f"{speed.events:,}" for speed in speeds]],
        ["ledger records", *[f"{speed.records:,}" for speed in speeds]],
        ["**events/s of processor time**", *[f"**{speed.per_second:,.0f}**" for speed in speeds]],
        ["events/s on the clock", *[f"{speed.events / speed.wall_seconds:,.0f}" for speed in speeds]],
        ["µs per event", *[f"{1e6 * speed.seconds / speed.events:.2f}" for speed in speeds]],
        ["bare parse, µs per event", *[f"{1e6 * speed.floor_seconds / speed.events:.2f}" for speed in speeds]],
        ["**times the bare parse**", *[f"**{speed.seconds / speed.floor_seconds:.1f}**" for speed in speeds]],
        ["µs per ledger record, beyond the join", *[f"{per_record(speed):,.0f}" for speed in speeds]],
    ]
    stages = [[stage, *[f"{speed.micros(stage):.2f}" for speed in speeds]] for stage in STAGES]
    stages.append(["sum", *[f"{sum(map(speed.micros, STAGES)):.2f}" for speed in speeds]])
    memory = [
        [
            f"{m.events:,}",
            m.horizon,
            f"{m.held:,}",
            f"{m.idle_mb:.0f}",
            f"{m.peak_mb:.0f}",
            f"{m.peak_mb - m.idle_mb:.0f}",
        ]
        for m in taken
    ]
    return [
        Table(["source rate", *rates], whole),
        Table(["stage", *rates], stages, "Microseconds per event by stage (a replay of its own, with clocks inside):"),
        Table(
            ["events", "horizon", "ids in the window", "MB before", "MB at most", "MB more"],
            memory,
            f"Peak memory at {speeds[0].rate:,}/s, each replay in a process of its own:",
        ),
    ]


def name_of(speed: Speed) -> str:
    """Name a case."""
    return f"{speed.rate:,}/s, mature after {speed.mature_after}"


def per_record(speed: Speed) -> float:
    """Return the microseconds per ledger record that are no share of its events."""
    return 1e6 * sum(speed.stages[stage] for stage in STAGES[3:]) / speed.records


def memory_sentence(taken: list[Memory]) -> str:
    """Return what one more prediction in the window takes: the longer window less the shorter one."""
    short, long = taken[-2:]
    more = long.held - short.held
    if more < long.held / 4:
        return "The recording is too short to fill the longer window, so what an id in it takes is not known."
    size = 1e6 * (long.peak_mb - short.peak_mb) / more
    return f"A prediction in the window, its truth included, takes about {size:,.0f} bytes."


def measured(speeds: list[Speed], taken: list[Memory]) -> Measured:
    """Return everything that is published."""
    return Measured(
        "replay",
        {
            "speeds": [{**asdict(speed), "events_per_s": speed.per_second} for speed in speeds],
            "memories": [asdict(memory) for memory in taken],
        },
        tables(speeds, taken),
        Bars(
            "Replay: processor time by stage",
            "µs per event",
            [name_of(speed) for speed in speeds],
            {stage: [speed.micros(stage) for speed in speeds] for stage in STAGES},
        ),
        closing=memory_sentence(taken),
    )


def arguments_of(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = options_of("Measure a replay on one core.")
    parser.add_argument("--events", type=int, help="lines of each recording (default 1000000; --quick 100000)")
    parser.add_argument("--rounds", type=int, help="the best of so many counts (default 3; --quick 1)")
    parser.add_argument("--seed", type=int, default=20_260_101, help="seed of the recording")
    parser.add_argument(
        "--expect", type=float, help="events/s of processor time; exit code 1 if the highest rate has less"
    )
    parser.add_argument(
        "--memory-child", nargs=4, metavar=("FILE", "EVENTS", "HORIZON_S", "RATE"), help=argparse.SUPPRESS
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, publish, and return an exit code: 0 if the expected speed was reached."""
    options = arguments_of(arguments)
    if options.memory_child:
        path, size, horizon, rate = options.memory_child
        print(json.dumps(asdict(memory_child(Path(path), int(size), int(horizon), float(rate)))))
        return 0
    events = options.events or (100_000 if options.quick else 1_000_000)
    rounds = options.rounds or (1 if options.quick else 3)
    load_libraries()
    speeds = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            path = Path(folder) / f"{case.rate}.ndjson"
            # A record for each few lines of a sparse source: fewer lines take as long.
            size = events if case.rate >= 1 else max(events // 10, 1_000)
            if not path.exists():
                write_recording(path, size, case.rate, options.seed)
            speeds.append(measure(case, path, size, rounds))
        taken = memories(Path(folder) / f"{CASES[0].rate}.ndjson", events, CASES[0].rate)
    publish(measured(speeds, taken), options)
    return 1 if options.expect and speeds[0].per_second < options.expect else 0


if __name__ == "__main__":
    sys.exit(main())
