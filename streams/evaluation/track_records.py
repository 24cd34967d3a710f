"""Keep what a version did while it was live, for the time when its successor has no concurrent holdback or shadow.

A record is the newest outcomes of a version's live periods, as sums over a few stretches of time: bounded, whatever the
traffic. It shows how good the version *was*. Before it is compared with the live version it is reweighted to the mix of
requests of today, and what it cannot know, because it is short, is part of the evidence: see `record_evidence`.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import Floats, rounded
from detectors.betting import LARGEST_MEAN
from detectors.comparison import record_evidence
from detectors.rows.bank import BASELINE_LEAST
from detectors.rows.history import Block
from detectors.rows.label_share import SHIFT
from detectors.rows.types import SOURCE_CELLS, Alarm
from detectors.rows.watch import Health
from streams.evaluation.slices import Stream

#: Newest outcomes that a record holds, and how old they may be when they are asked.
OUTCOMES_MAX = 5_000.0
AGE_MAX_MS = 30 * 86_400_000
#: A record is kept in this many stretches of about equal size, so that it ages by parts.
STRETCHES = 5
#: A slice that the record knows less of is taken to be like the whole record.
SLICE_LEAST = 100.0


class Stretch(msgspec.Struct, frozen=True):
    """Hold outcomes predicted from `start` on (ms) in the live period begun at `period`, shape (losses, streams)."""

    period: int
    start: int
    n: NDArray[np.float64]
    k: NDArray[np.float64]

    @property
    def outcomes(self) -> float:
        """Return how many outcomes it holds; a loss that is about some of them only counts fewer."""
        return float(self.n[:, 0].max())


class TrackRecord(msgspec.Struct, frozen=True):
    """Hold what a version left behind when it was live last, oldest stretch first.

    `degraded` means that its live period ended so: then it is no version to go back to. `coverage` is the share of its
    predictions that had a label at the end, None where that is not known.
    """

    version: str
    degraded: bool
    coverage: float | None
    stretches: list[Stretch]


class Known(msgspec.Struct, frozen=True):
    """Hold what is young enough of a record: sums of shape (losses, streams), and when the oldest part began."""

    since: int
    n: Floats
    k: Floats


class RecordComparison(msgspec.Struct, frozen=True):
    """Hold the comparison of the live version since its change point with the record of `target`.

    `mean` is the record's mean as it was, over `n` outcomes predicted from `since` on (ms). `today` is its mean
    reweighted to the mix of today on `dimension`, the one that favours the live version most; `worth` is the number
    of outcomes that it rests on. `coverage` is the labelled share on record.
    """

    target: str
    evidence: float
    threshold: float
    mean: float
    n: float
    since: int
    today: float
    worth: float
    dimension: str | None
    coverage: float | None


def track_record(health: Health, coverage: float | None, before: TrackRecord | None) -> TrackRecord:
    """Return a version's record at the end of a live period.

    Args:
        health: the period that ended. Asking again for the same period replaces what it left then.
        coverage: labelled share of its newest cohorts.
        before: what it left behind earlier; it counts on if it ended well and its labels were as complete.
    """
    health.settle()
    kept: list[Stretch] = []
    if before is not None and not before.degraded:
        coverage = before.coverage if coverage is None else coverage
        if before.coverage is None or coverage is None or abs(before.coverage - coverage) <= SHIFT:
            kept = [stretch for stretch in before.stretches if stretch.period != health.since]
    stretches = [*kept, *_stretches(health)]
    room, first = OUTCOMES_MAX, len(stretches)
    while first and stretches[first - 1].outcomes <= room:
        first -= 1
        room -= stretches[first].outcomes
    return TrackRecord(health.version, health.degraded, coverage, stretches[first:])


def _stretches(health: Health) -> list[Stretch]:
    """Return the newest outcomes of a live period, oldest stretch first."""
    losses = len(health.rows.banks)
    found: list[Stretch] = []
    n, k = np.zeros((losses, health.rows.streams)), np.zeros((losses, health.rows.streams))
    start, total = 0, 0.0
    for block in reversed(health.history.blocks()):
        size = _overall(block, losses)
        if total + size > OUTCOMES_MAX:
            break
        total += size
        stream = block.cells // SOURCE_CELLS
        for loss in range(losses):
            n[loss] += np.bincount(stream, weights=block.sums[loss], minlength=health.rows.streams)
            k[loss] += np.bincount(stream, weights=block.sums[losses + loss], minlength=health.rows.streams)
        start = block.start
        if n[:, 0].max() >= OUTCOMES_MAX / STRETCHES:
            found.append(Stretch(health.since, start, n, k))
            n, k = np.zeros_like(n), np.zeros_like(k)
    if n.any():
        found.append(Stretch(health.since, start, n, k))
    return found[::-1]


def _overall(block: Block, losses: int) -> float:
    mine = block.cells < SOURCE_CELLS
    return max(float(block.sums[loss, mine].sum()) for loss in range(losses))


def young_part(record: TrackRecord | None, now: int, streams: int) -> Known | None:
    """Return what is young enough of a record, None if that is too little to go by, or the version ended badly."""
    if record is None or record.degraded:
        return None
    young = [stretch for stretch in record.stretches if stretch.start >= now - AGE_MAX_MS]
    if sum(stretch.outcomes for stretch in young) < BASELINE_LEAST:
        return None
    losses = young[0].n.shape[0]
    n, k = np.zeros((losses, streams)), np.zeros((losses, streams))
    for stretch in young:
        # A record may be older than a slice, and a slice that appeared in the open cohort has no row yet.
        width = min(stretch.n.shape[1], streams)
        n[:, :width] += stretch.n[:, :width]
        k[:, :width] += stretch.k[:, :width]
    return Known(young[0].start, n, k)


def why_unknown(record: TrackRecord | None, now: int) -> str | None:
    """Return why nothing can be compared with a record, None if it can be.

    >>> why_unknown(None, 0)
    'nothing is on record of it'
    """
    if record is None:
        return "nothing is on record of it"
    if record.degraded:
        return "it had got worse itself when it served last"
    young = sum(stretch.outcomes for stretch in record.stretches if stretch.start >= now - AGE_MAX_MS)
    known = sum(stretch.outcomes for stretch in record.stretches)
    if young >= BASELINE_LEAST:
        return None
    needed = f"expected {BASELINE_LEAST:.0f} outcomes on record, was {known:.0f}"
    if known < BASELINE_LEAST:
        return needed
    return f"its record is older than {AGE_MAX_MS // 86_400_000} days"


def weigh(
    record: TrackRecord,
    known: Known,
    health: Health,
    alarm: Alarm,
    streams: list[Stream],
    dimensions: list[str],
    threshold: float,
) -> RecordComparison:
    """Weigh "the live version, since its change point, is worse than the record" in the alarmed stream.

    An alarm over all requests is compared with the record reweighted on each dimension, and the dimension that favours
    the live version most counts. An alarm inside a slice is compared with the record of that slice. Which values of
    the other dimensions it is made of is not known, so all the losses that harder requests explain on one of them are
    taken to be in this slice.
    """
    losses = len(health.rows.banks)
    counts, sums = alarm.window[alarm.loss].sum(axis=1), alarm.window[losses + alarm.loss].sum(axis=1)
    n, k = known.n[alarm.loss], known.k[alarm.loss]
    size = float(n[alarm.stream])
    plain, whole = _mean(n, k, alarm.stream), _mean(n, k, 0)
    tried: list[tuple[float, float, str | None]] = []
    for name in dimensions:
        members = [i for i, stream in enumerate(streams) if stream.dimension == name]
        if not members or name == streams[alarm.stream].dimension:
            continue
        mean, worth = reweighted(n, k, counts, members)
        if alarm.stream != 0:
            explained = max(mean - whole, 0.0) * float(counts[0]) / max(float(counts[alarm.stream]), 1.0)
            mean, worth = min(plain + explained, LARGEST_MEAN), size + 1.0
        tried.append((mean, worth, name))
    if not tried:
        tried.append((plain, size + 1.0, None))
    seen, lost, grid = float(counts[alarm.stream]), float(sums[alarm.stream]), health.rows.banks[alarm.loss].grid
    weighed = [(rounded(record_evidence(seen, lost, mean, worth, grid)), i) for i, (mean, worth, _) in enumerate(tried)]
    evidence, least = min(weighed)
    today, worth, dimension = tried[least]
    return RecordComparison(
        target=record.version,
        evidence=evidence,
        threshold=threshold,
        mean=float(k[alarm.stream]) / size if size else 0.0,
        n=size,
        since=known.since,
        today=today,
        worth=worth,
        dimension=dimension,
        coverage=record.coverage,
    )


def _mean(n: Floats, k: Floats, stream: int) -> float:
    return (float(k[stream]) + 0.5) / (float(n[stream]) + 1.0)


def reweighted(n: Floats, k: Floats, counts: Floats, members: list[int]) -> tuple[float, float]:
    """Return a record's mean under another mix, and the number of outcomes that it is worth.

    Each slice's Krichevsky-Trofimov mean counts by its share of `counts`. A slice that the record hardly knows counts
    with the overall mean, and so do requests outside all slices. From the variance of the sum follows how many plain
    outcomes would give the mean as well; it is never taken to be more than the record has.

    Args:
        n: shape (streams,), the record's outcomes; stream 0 is all of them.
        k: shape (streams,), their losses.
        counts: shape (streams,), outcomes by slice under the mix that counts.
        members: numbers of the slices of one dimension.

    >>> n, k = np.array([1_000.0, 500.0, 500.0]), np.array([200.0, 50.0, 150.0])
    >>> mean, worth = reweighted(n, k, np.array([100.0, 0.0, 100.0]), [1, 2])
    >>> round(mean, 3), round(worth)
    (0.3, 501)
    """
    everything = max(float(counts[0]), 1.0)
    left, mean, variance = 1.0, 0.0, 0.0
    for stream in members:
        share, size = float(counts[stream]) / everything, float(n[stream])
        if size >= SLICE_LEAST:
            usual = _mean(n, k, stream)
            left -= share
            mean += share * usual
            variance += share * share * usual * (1.0 - usual) / (size + 2.0)
    left, size = max(left, 0.0), float(n[0])
    usual = _mean(n, k, 0)
    mean += left * usual
    variance += left * left * usual * (1.0 - usual) / (size + 2.0)
    worth = mean * (1.0 - mean) / variance - 1.0
    return mean, min(max(worth, 1.0), size + 1.0)
