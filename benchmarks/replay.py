"""Measure how fast a recording is folded on one core, where the time goes, and what sets the memory.

A synthetic recording (one model, a live version and a holdback, two slice dimensions of 6 and 3 values, three label
sources, two losses, the default detectors) is written to a temporary folder and replayed by the code that
`unship replay` runs. Times are processor time of this process, because other programs may share the machine; the ratio
to a floor of the same run, a bare typed parse of the same lines, is the figure that carries over between machines.

Stages: reading and decoding are measured alone on the same lines; record building, digests and the parts of the fold
are clocked inside a replay, a few calls for each ledger record; the join is what is left, so that the stages add up.

Run: python benchmarks/replay.py [--quick] [--events 1000000] [--rate 2000 --rate 20] [--expect N] [--markdown |
--json]. Exit code 1 when `--expect N` events/s are missed at the highest rate.
"""

from __future__ import annotations

import argparse
import gc
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
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np

import detectors
import streams.fold.judging
import streams.pipeline
from detectors.rows.concurrent import Comparison
from detectors.rows.watch import Health
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.evaluation.opinions import Opinions
from streams.fold.fold import Fold
from streams.join.rows import PartBuilder
from streams.join.window import JoinWindow
from streams.ledger.digests import RangeDigest
from streams.recordings.replay import Replay
from unship.codec import decode_line
from unship.events import Deployment, Feedback, Prediction

COUNTRIES = ("DE", "FR", "IT", "ES", "PL", "NL")
CHANNELS = ("app", "web", "shop")
SOURCES = ("chargebacks", "reviews", "desk")
START_MS = 1_767_571_200_000
HOLDBACK_SHARE, LABELLED_SHARE, WRONG_SHARE = 0.1, 0.95, 0.1
DELAY_MS = (1_000, 16_000)
CHUNK = 50_000
MEMORY_SHARES = (0.25, 0.5, 1.0)
MEMORY_HORIZONS_S = (60, 120)
BATCH = 4_096

READ, DECODE, JOIN = "read lines", "decode", "join"
BUILD, SOURCE_DIGEST, RECORD_DIGEST = "losses and columns", "digest of source lines", "digest of records"
COHORTS, ROWS, COMPARE = "cohorts", "e-detector rows", "comparison"
OPINIONS, POLICY = "second opinions", "findings and policy"
STAGES = (
    READ, DECODE, JOIN, BUILD, SOURCE_DIGEST, RECORD_DIGEST, COHORTS, ROWS, COMPARE, OPINIONS, POLICY,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A source rate in events/s, and how the labels are configured."""

    rate: int
    horizon: str
    early: str
    mature_after: str

    @property
    def config(self) -> Config:
        """The configuration a replay of this case runs under."""
        labels = f"{{horizon: {self.horizon}, early: {self.early}, mature_after: {self.mature_after}}}"
        return parse(
            f"log: embedded:./unship-data\ndefaults: {{labels: {labels}}}\nmodels:\n  fraud:\n"
            "    target: {kind: binary}\n    losses: [zero_one, brier]\n    slices: {by: [country, channel]}\n"
        )


@dataclass(slots=True)
class Speed:
    """Hold one case: processor seconds of the whole, of its stages (a replay of its own) and of the floor."""

    rate: int
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


def tell(text: str, end: str = "\n") -> None:
    """Print on standard error how far it is."""
    print(f"\r{text}   ", end=end, file=sys.stderr, flush=True)


def write_recording(path: Path, events: int, rate: int, seed: int) -> None:
    """Write at least `events` lines, at `rate` predictions and feedback together in each second of source time."""
    rng = np.random.default_rng(seed)
    reference = '"reference":{"zero_one":{"mean":0.1,"n":50000},"brier":{"mean":0.133,"n":50000}}'
    gap = 1_000 * (1 + LABELLED_SHARE) / rate
    with path.open("w") as out:
        for version, rest in (("v41", '"status":"holdback"'), ("v42", f'"status":"live",{reference}')):
            out.write(f'{{"type":"deployment","ts":{START_MS},"model":"fraud","version":"{version}",{rest}}}\n')
        made, written = 0, 2
        waiting: list[tuple[int, str]] = []
        while written < events:
            at = START_MS + ((made + np.arange(CHUNK)) * gap).astype(np.int64)
            # Feedback to predictions of later chunks comes later than this one's last; equal times stay as they are.
            lines = sorted([*waiting, *_lines(rng, made, at)], key=lambda line: line[0])
            ready = sum(line[0] <= at[-1] for line in lines)
            out.writelines([line[1] for line in lines[:ready]])
            waiting, made, written = lines[ready:], made + CHUNK, written + ready
            tell(f"writing a recording at {rate:,}/s: {min(written, events):,} of {events:,} events", end="")
    tell("")


def _lines(rng: np.random.Generator, first: int, at: np.ndarray) -> Iterator[tuple[int, str]]:
    """Yield (time, line) of predictions made at `at` and of the feedback to most of them."""
    size = at.size
    score = rng.integers(1, 1_000, size) / 1_000
    held, labelled, wrong = (rng.random(size) < share for share in (HOLDBACK_SHARE, LABELLED_SHARE, WRONG_SHARE))
    country, channel, source = (rng.integers(0, len(names), size) for names in (COUNTRIES, CHANNELS, SOURCES))
    later = at + rng.integers(*DELAY_MS, size)
    for i, ts in enumerate(at.tolist()):
        output = int(score[i] >= 0.5)
        version = '"v41","role":"holdback"' if held[i] else '"v42","role":"live"'
        yield (
            ts,
            f'{{"type":"prediction","id":"p-{first + i:09d}","ts":{ts},"model":"fraud","version":{version},'
            f'"output":{output},"score":{score[i]},"slices":{{"country":"{COUNTRIES[country[i]]}",'
            f'"channel":"{CHANNELS[channel[i]]}"}},"replica":"r-{i % 8}"}}\n',
        )
        if labelled[i]:
            yield (
                int(later[i]),
                f'{{"type":"feedback","id":"p-{first + i:09d}","ts":{later[i]},"model":"fraud",'
                f'"truth":{output ^ int(wrong[i])},"source":"{SOURCES[source[i]]}"}}\n',
            )


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
        parts: list[tuple[Any, str, str]] = [
            (PartBuilder, "part", BUILD),
            (JoinWindow, "evict", JOIN),
            (RangeDigest, "_digest", SOURCE_DIGEST),
            (streams.pipeline, "entry_of", RECORD_DIGEST),
            (Fold, "step", COHORTS),
            (Health, "judge", ROWS),
            (Comparison, "step_blocks", COMPARE),
            (Opinions, "step", OPINIONS),
            (streams.fold.judging, "evaluate", POLICY),
        ]
        with ExitStack() as stack:
            for owner, name, stage in parts:
                stack.enter_context(patch.object(owner, name, self.wrap(stage, getattr(owner, name))))
            yield


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep Python's garbage collector off, as a replay does."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def chunks(path: Path, events: int) -> Iterator[list[bytes]]:
    """Yield the first `events` lines as a replay reads them."""
    with path.open("rb") as stream:
        left = events
        while left and (lines := [line for _, line in zip(range(min(BATCH, left)), stream, strict=False)]):
            left -= len(lines)
            yield lines


def clocked(work: Callable[[], object]) -> float:
    """Return the processor seconds of a piece of work."""
    with no_collector():
        started = time.process_time()
        work()
        return time.process_time() - started


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


def memory_child(path: Path, events: int, horizon_s: int, rate: int) -> Memory:
    """Replay in this process and return what it took."""
    load_libraries()
    idle = peak_mb()
    case = memory_case(rate, horizon_s)
    replay = fold(case, path, events)
    assert replay.pipeline is not None
    held = len(replay.pipeline.cutter.join.window.waiting)
    return Memory(events, case.horizon, held, round(idle, 1), round(peak_mb(), 1))


def memory_case(rate: int, horizon_s: int) -> Case:
    """Return the case that memory is measured with: windows shorter than the recording."""
    return Case(rate, f"{horizon_s}s", "10s", "20s")


def load_libraries() -> None:
    """Load what the second opinions load at first use: it is a cost of the start, not of the events."""
    for name in detectors.names():
        detectors.create(name)


def memories(path: Path, events: int, rate: int) -> list[Memory]:
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


def processor() -> str:
    """Name the processor as the system does, without its frequency."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def markdown_table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, rule, *rows))


def tables(speeds: list[Speed], taken: list[Memory]) -> str:
    """Return all figures as Markdown tables."""
    rates = [f"{speed.rate:,}/s, mature after {speed.mature_after}" for speed in speeds]
    whole = [
        ["events", *[f"{speed.events:,}" for speed in speeds]],
        ["ledger records", *[f"{speed.records:,}" for speed in speeds]],
        ["**events/s of processor time**", *[f"**{speed.per_second:,.0f}**" for speed in speeds]],
        ["events/s on the clock", *[f"{speed.events / speed.wall_seconds:,.0f}" for speed in speeds]],
        ["µs per event", *[f"{1e6 * speed.seconds / speed.events:.2f}" for speed in speeds]],
        ["bare parse, µs per event", *[f"{1e6 * speed.floor_seconds / speed.events:.2f}" for speed in speeds]],
        ["**times the bare parse**", *[f"**{speed.seconds / speed.floor_seconds:.1f}**" for speed in speeds]],
        ["µs per ledger record, beyond the join", *[f"{_per_record(speed):,.0f}" for speed in speeds]],
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
    return "\n\n".join(
        [
            markdown_table(["source rate", *rates], whole),
            "Microseconds per event by stage (a replay of its own, with clocks inside):",
            markdown_table(["stage", *rates], stages),
            f"Peak memory at {speeds[0].rate:,}/s, each replay in a process of its own:",
            markdown_table(["events", "horizon", "ids in the window", "MB before", "MB at most", "MB more"], memory),
        ]
    )


def _per_record(speed: Speed) -> float:
    return 1e6 * sum(speed.stages[stage] for stage in STAGES[3:]) / speed.records


def document(speeds: list[Speed], taken: list[Memory]) -> str:
    """Return the reference page."""
    python = f"Python {platform.python_version()}, numpy {np.__version__}, msgspec {msgspec.__version__}"
    return f"""# Performance

How fast a recording is folded into decisions on one core, where the time goes, and what sets the memory. This page
is written by `python benchmarks/replay.py --markdown > docs/reference/performance.md`; run it to get the figures of
your machine.

What is folded: one model, a live version and a holdback with a tenth of the traffic, slices by two names (6 and 3
values), three label sources, the losses `zero_one` and `brier`, the default detectors, feedback 1 to 16 seconds
after 95 % of the predictions. Everything that `unship replay` does is in it, from reading the lines to the
decisions. The bare parse is a typed parse of the same lines in the same run that keeps nothing: ratios to it carry
over between machines, seconds do not.

Measured on one core of a shared virtual machine ({processor()}; {python}), in processor time.

{tables(speeds, taken)}

How to read it:

- A ledger record is cut every second of source time, so a slow source makes many small records, and what a record
  costs whatever its size is shared by few events. Live it does not matter: one record a second, at the price of the
  last column, is {_per_record(speeds[-1]) / 1e4:.2f} % of a core.
- With a maturity whole cohorts are judged at once. Without one each record is judged by itself, which is where the
  e-detector rows and the comparison of the last column come from.
- Memory follows the join window (horizon + early) and the cohorts that wait for their labels, not the length of the
  recording: about {_bytes_per_id(taken):,.0f} bytes for each prediction in the window, its truth included. What the
  libraries take is in "MB before"; most of it is what the second opinions load.
"""


def _bytes_per_id(taken: list[Memory]) -> float:
    short, long = taken[-2:]
    return 1e6 * (long.peak_mb - short.peak_mb) / max(long.held - short.held, 1)


def arguments_of(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure a replay on one core.")
    parser.add_argument("--events", type=int, default=1_000_000, help="lines of each recording (default 1000000)")
    parser.add_argument("--rate", type=int, action="append", help="events/s of source time (default 2000 and 20)")
    parser.add_argument("--rounds", type=int, default=3, help="the best of so many counts (default 3)")
    parser.add_argument("--seed", type=int, default=20_260_101, help="seed of the recording")
    parser.add_argument("--quick", action="store_true", help="100,000 events, one round: a look, not a measurement")
    parser.add_argument(
        "--expect", type=float, help="events/s of processor time; exit code 1 if the highest rate has less"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="JSON alone on standard output")
    form.add_argument("--markdown", action="store_true", help="the reference page on standard output")
    parser.add_argument(
        "--memory-child", nargs=4, metavar=("FILE", "EVENTS", "HORIZON_S", "RATE"), help=argparse.SUPPRESS
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return an exit code: 0 if the expected speed was reached."""
    options = arguments_of(arguments)
    if options.memory_child:
        path, size, horizon, rate = options.memory_child
        print(json.dumps(asdict(memory_child(Path(path), int(size), int(horizon), int(rate)))))
        return 0
    events, rounds = (100_000, 1) if options.quick else (options.events, options.rounds)
    load_libraries()
    rates = sorted(options.rate or (2_000, 20), reverse=True)
    speeds = []
    with tempfile.TemporaryDirectory() as folder:
        for rate in rates:
            path = Path(folder) / f"{rate}.ndjson"
            write_recording(path, events, rate, options.seed)
            # The fastest source is measured with short cohorts as well, which close while it is being read; slower ones
            # also without a maturity, where every ledger record is judged by itself.
            for mature_after in ("1h", "1m") if rate == rates[0] else ("1h", "0s"):
                speeds.append(measure(Case(rate, "1d", "10m", mature_after), path, events, rounds))
        taken = memories(Path(folder) / f"{rates[0]}.ndjson", events, rates[0])
    if options.json:
        shown = {"speeds": [asdict(speed) for speed in speeds], "memories": [asdict(memory) for memory in taken]}
        print(json.dumps(shown))
    else:
        print(
            document(speeds, taken) if options.markdown else tables(speeds, taken), end="" if options.markdown else "\n"
        )
    return 1 if options.expect and speeds[0].per_second < options.expect else 0


if __name__ == "__main__":
    sys.exit(main())
