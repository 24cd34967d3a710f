"""What a ledger and its recording lack: sentences on records that were there once, or that nothing accounts for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from actions.checkpoints import CHECKPOINT_MS, Checkpoint
from streams.audit.extent import Extent, hole_in_compacted
from streams.audit.result import records_are
from streams.fold.fold import Fold
from streams.ledger.coverage import Coverage
from streams.recordings.lines import Taken, place_of
from unship.topics import SOURCES

BEHIND_MS: Final = 5_000
BEHIND_KAFKA_MS: Final = 60_000
"""How far a monitor may be behind the newest record when a recording is made; on a broker, reading takes longer."""

_CONTIGUOUS: Final = ("deployments", "operator")


def beyond(coverage: Coverage, positions: Mapping[str, int]) -> Iterator[str]:
    """Yield a sentence for each source topic that was read further than batches cover."""
    for topic, covered in zip(SOURCES, (coverage.predictions, coverage.feedback), strict=True):
        if positions.get(topic, 0) > covered:
            yield (
                f"{topic}[0] was read up to offset {positions[topic]}, and batches cover it up to {covered}: the "
                "batches between are absent"
            )


def gaps(fold: Fold, number: int) -> Iterator[str]:
    """Yield a sentence for each source partition with a gap that is open at the end of the ledger."""
    for partition in sorted(fold.gaps):
        corners = fold.coverage[partition].corners
        yield (
            f"ledger[{number}]: a batch of source partition {partition} starts beyond what is covered, {corners}: the "
            "batches before it are absent"
        )


def unread(extent: Extent, fold: Fold, number: int, until: int, *, contiguous: bool) -> Iterator[str]:
    """Yield a sentence for each source partition with records up to a time (ms) that no batch covers.

    With `contiguous`, those after what is covered have no holes unless records were removed.
    """
    for side, topic in enumerate(SOURCES):
        for place in extent.places(topic):
            coverage = fold.coverage.get(place[1], Coverage())
            covered = (coverage.predictions, coverage.feedback)[side]
            count, first, expected = 0, "", covered
            for taken in extent.records(place, covered):
                if contiguous and taken.offset > expected and covered:
                    yield f"{topic}[{place[1]}]: {records_are(expected, taken.offset)} absent"
                expected = taken.offset + 1
                if taken.append_ts > until:
                    break
                count, first = count + 1, first or place_of(taken)
            if count:
                yield (
                    f"ledger[{number}]: {count} source records, the first {first}, are in no batch, although they are "
                    "not new: the ledger was cut off, or the monitor was behind; if so, record again when it has "
                    "caught up"
                )


def cut(extent: Extent, ends: Mapping[str, int], by: str) -> Iterator[str]:
    """Yield a sentence for each partition that does not reach as far as a record states."""
    for name, end in sorted(ends.items()):
        topic, _, partition = name.partition("/")
        place = (topic, int(partition) if partition.isdecimal() else 0)
        if extent.should_reach(place, end):
            found = extent.end(place)
            yield f"{topic}[{place[1]}]: {records_are(found, end)} absent, which {by} states"


def holes(extent: Extent, embedded: bool) -> Iterator[str]:
    """Yield a sentence for each hole in topics that are small, and that nothing but compaction makes holes in."""
    for topic in _CONTIGUOUS:
        for place in extent.places(topic):
            expected = extent.begins[place]
            for taken in extent.records(place):
                if taken.offset > expected:
                    yield f"{topic}[{place[1]}]: {records_are(expected, taken.offset)} absent"
                expected = taken.offset + 1
    # On a broker, each transaction of the writer of commands takes an offset of its own.
    for topic in ("acks", "control") if embedded else ("acks",):
        for place in extent.places(topic):
            hole = hole_in_compacted(extent.records(place))
            if hole is not None:
                yield f"{topic}[{place[1]}]: {records_are(hole, hole + 1)} absent, and compaction cannot have taken it"


def unproven(
    number: int, newest: tuple[Taken, Checkpoint] | None, first_ts: int, last: Taken | None, *, keys: bool
) -> Iterator[str]:
    """Yield a sentence if a ledger goes on for too long after its newest checkpoint."""
    if last is None or not keys:
        return
    if newest is None:
        if last.append_ts - first_ts >= CHECKPOINT_MS:
            yield (
                f"ledger[{number}]: it is {(last.append_ts - first_ts) / 3.6e6:.1f} hours long and has no signed "
                "checkpoint; a monitor with keys writes one in each hour at least"
            )
    elif last.append_ts - newest[0].append_ts > CHECKPOINT_MS and last.offset >= newest[1].ledger:
        yield (
            f"ledger[{number}]: its newest checkpoint, {place_of(newest[0])}, is "
            f"{(last.append_ts - newest[0].append_ts) / 3.6e6:.1f} hours older than its end, expected at most "
            f"{CHECKPOINT_MS / 3.6e6:g}: checkpoints are absent"
        )
