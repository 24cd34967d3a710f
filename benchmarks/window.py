"""Measure a window of weeks: predictions that wait for their labels, beyond the memory that they may take.

Predictions of one model are read at a steady rate for 30 days of append times, each block by the reader of a pair of
source partitions, as a worker does. Then labels come, each of any prediction of the window. Then the reader is saved,
another one begins from what it left on the disk, and joins as many labels again. That one is killed: the next one
begins from the same files and joins the same labels, and so does one without files, which fills its window from the
log. What each of them joins must be the same. Memory is the most that the process had, its libraries included.

Run: python benchmarks/window.py [--quick] [--rows 1000000] [--labels 200000] [--limit 1GiB] [--json FILE]
[--plot FILE.svg] [--markdown]. Exit code 1 when an outcome is missing or another one than the labels give.
"""

from __future__ import annotations

import gc
import hashlib
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from figures import Bars, Measured, Table, options_of, publish, tell

from streams.cache.residency import Residency
from streams.cache.window_cache import WindowCache
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.config.units import DAY_MS
from streams.join.partition import FEEDBACK, PREDICTIONS
from streams.join.source_reader import Position, SourceReader
from streams.join.source_records import SourceRecords
from streams.ledger.encoding import pack

BLOCK = 4_096
START_MS = 1_700_000_000_000
SPAN_MS = 30 * DAY_MS
TOPICS = ("predictions", "feedback")
CONFIG = """
limits: {{window: {limit}}}
models: {{fraud: {{losses: [zero_one, brier], slices: {{by: [country]}}, labels: {{horizon: 30d, mature_after: 30d}}}}}}
"""


@dataclass(slots=True)
class Figures:
    """Hold what was measured; times are seconds of processor time, a restart's are seconds of the clock too."""

    rows: int
    labels: int
    limit_bytes: int
    insert_seconds: float = 0.0
    label_seconds: float = 0.0
    save_seconds: float = 0.0
    restart_seconds: float = 0.0
    restart_clock_seconds: float = 0.0
    label_seconds_after: float = 0.0
    restart_killed_clock_seconds: float = 0.0
    filling_seconds: float = 0.0
    disk_bytes: int = 0
    peak_bytes: int = 0
    peak_bytes_filled: int = 0
    peak_bytes_saved: int = 0
    wrong: int = 0


class Clock:
    """Clocks a piece of work by processor time, the system's part included, and by the clock."""

    def __init__(self) -> None:
        self._used, self._at = time.process_time(), time.perf_counter()

    @property
    def used(self) -> float:
        """Return the processor seconds since the beginning."""
        return time.process_time() - self._used

    @property
    def passed(self) -> float:
        """Return the seconds since the beginning."""
        return time.perf_counter() - self._at


def predictions(rows: int) -> Iterator[SourceRecords]:
    """Yield predictions in blocks, evenly over the span."""
    for first in range(0, rows, BLOCK):
        offsets = np.arange(first, min(first + BLOCK, rows))
        at = START_MS + offsets * SPAN_MS // rows
        values: list[bytes | None] = [
            b'{"type":"prediction","id":"p-%09d","ts":%d,"model":"fraud","version":"v42","output":%d,"score":0.75,'
            b'"slices":{"country":"%s"}}' % (number, ts, number & 1, (b"DE", b"FR", b"IT")[number % 3])
            for number, ts in zip(offsets.tolist(), at.tolist(), strict=True)
        ]
        yield SourceRecords(offsets, at, values)


def labels(of: np.ndarray, first: int, at: int) -> Iterator[SourceRecords]:
    """Yield labels of some predictions in blocks, from an offset on."""
    for begin in range(0, of.size, BLOCK):
        some = of[begin : begin + BLOCK]
        offsets = np.arange(first + begin, first + begin + some.size)
        values: list[bytes | None] = [
            b'{"type":"feedback","id":"p-%09d","ts":%d,"truth":1,"source":"desk"}' % (number, at)
            for number in some.tolist()
        ]
        yield SourceRecords(offsets, np.full(some.size, at), values)


class Worker:
    """A reader with its cache; batches are counted and dropped."""

    def __init__(self, config: Config, folder: Path, committed: Position) -> None:
        half = config.window_bytes // 2
        self.cache = WindowCache(folder, TOPICS, 0, config.digest(), half, Residency(half))
        self.reader = SourceReader(config, 0, committed, secret=self.cache.secret, beyond=self.cache.beyond)
        self.joined = 0
        self.digest = hashlib.sha256()
        saved = self.cache.saved(committed)
        if saved is not None:
            self.reader.resume(saved)

    def read(self, side: int, records: SourceRecords) -> None:
        """Read and join records, and take the batch."""
        self.reader.give(side, records)
        self.reader.advance((True, True), 2 * BLOCK)
        for batch in self.reader.flush():
            self.joined += sum(part.outcomes.position.size for part in batch.parts)
            self.digest.update(pack(batch))

    def fill(self, side: int, records: SourceRecords) -> None:
        """Read and join records of which the ledger has the outcomes."""
        self.reader.give(side, records)
        self.reader.advance((True, True), 2 * BLOCK, fill_only=True)

    def save(self) -> Position:
        """Save the window as at the end of a worker; return what is committed."""
        committed = self.reader.position()
        self.cache.prepare(self.reader)
        self.cache.publish(committed)
        self.cache.close()
        return committed


def measure(rows: int, count: int, limit: str, folder: Path) -> Figures:
    """Fill a window, label some of its rows, save it, begin again from the disk, and label others."""
    config = parse(CONFIG.format(limit=limit))
    found = Figures(rows, count, config.window_bytes)
    picked = np.random.default_rng(7).permutation(rows)[: 2 * count].copy()
    worker = Worker(config, folder, Position(1))
    for records in predictions(rows):
        clock = Clock()
        worker.read(PREDICTIONS, records)
        found.insert_seconds += clock.used
        if int(records.offsets[0]) % (64 * BLOCK) == 0:
            tell(f"{int(records.offsets[0]):,} of {rows:,} predictions", end="")
    found.peak_bytes_filled = peak()
    found.label_seconds = _label(worker, picked[:count], 0)
    clock = Clock()
    committed = worker.save()
    found.save_seconds = clock.used
    found.peak_bytes_saved = peak()
    first = worker.joined
    del worker
    gc.collect()
    clock = Clock()
    worker = Worker(config, folder, committed)
    found.restart_seconds, found.restart_clock_seconds = clock.used, clock.passed
    found.wrong = abs(first - count)
    found.label_seconds_after = _label(worker, picked[count:], count)
    found.wrong += abs(worker.joined - count)
    found.disk_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    expected = worker.digest.hexdigest()
    worker.cache.close()
    del worker
    gc.collect()
    clock = Clock()
    worker = Worker(config, folder, committed)
    found.restart_killed_clock_seconds = clock.passed
    _label(worker, picked[count:], count)
    found.wrong += worker.digest.hexdigest() != expected
    worker.cache.discard()
    worker.cache.close()
    del worker
    gc.collect()
    worker = Worker(config, folder, committed)
    found.filling_seconds = _fill(worker, rows, picked[:count])
    _label(worker, picked[count:], count)
    found.wrong += worker.digest.hexdigest() != expected
    found.peak_bytes = peak()
    return found


def _fill(worker: Worker, rows: int, labelled: np.ndarray) -> float:
    seconds = 0.0
    feedback = labels(labelled, 0, START_MS + SPAN_MS)
    # The predictions can be read once the oldest feedback is known.
    worker.fill(FEEDBACK, next(feedback))
    for side, log in ((PREDICTIONS, predictions(rows)), (FEEDBACK, feedback)):
        for records in log:
            clock = Clock()
            worker.fill(side, records)
            seconds += clock.used
            if int(records.offsets[0]) % (64 * BLOCK) == 0:
                tell(f"{int(records.offsets[0]):,} read again", end="")
    assert not worker.reader.filling, "everything was read"
    return seconds


def _label(worker: Worker, of: np.ndarray, first: int) -> float:
    seconds = 0.0
    for records in labels(of, first, START_MS + SPAN_MS):
        clock = Clock()
        worker.read(FEEDBACK, records)
        seconds += clock.used
    return seconds


def peak() -> int:
    """Return the most memory that the process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table_of(found: Figures) -> Table:
    """Return the figures as a table."""
    rows = [
        ("reading a prediction", f"{1e6 * found.insert_seconds / found.rows:.2f} us"),
        ("labels of any row, per second", f"{found.labels / found.label_seconds:,.0f}"),
        ("the same after a restart", f"{found.labels / found.label_seconds_after:,.0f}"),
        ("saving the window", f"{found.save_seconds:.2f} s"),
        ("restart", f"{found.restart_clock_seconds:.2f} s"),
        ("restart of a killed worker", f"{found.restart_killed_clock_seconds:.2f} s"),
        ("filling from the log instead", f"{found.filling_seconds:.2f} s"),
        ("on disk", f"{found.disk_bytes / 2**20:,.0f} MiB"),
        ("memory at most", f"{found.peak_bytes / 2**20:,.0f} MiB"),
    ]
    title = f"{found.rows:,} predictions of 30 days, `limits.window` {found.limit_bytes / 2**20:,.0f} MiB"
    return Table(("what", "measured"), rows, title)


def main() -> int:
    """Measure and publish; return 1 if an outcome is missing."""
    parser = options_of(__doc__ or "")
    parser.add_argument("--rows", type=int, default=1_000_000, help="predictions in the window")
    parser.add_argument("--labels", type=int, default=200_000, help="labels ahead of the restart, and as many after it")
    parser.add_argument("--limit", default="1GiB", help="`limits.window`")
    parser.add_argument("--folder", type=Path, help="where the window's files are: a disk, not memory")
    options = parser.parse_args()
    rows, count = (100_000, 20_000) if options.quick else (options.rows, options.labels)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = measure(rows, min(count, rows // 2), options.limit, Path(folder))
    bars = Bars(
        "Labels of any prediction of 30 days",
        "labels per second",
        [f"{rows:,} predictions"],
        {
            "labels": [found.labels / found.label_seconds],
            "after a restart": [found.labels / found.label_seconds_after],
        },
    )
    publish(Measured("window", asdict(found), [table_of(found)], bars), options)
    if found.wrong:
        print(f"expected every label to be joined, and by all the same: {found.wrong} differ", file=sys.stderr)
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
