"""Join one pair of source partitions, record by record, and return batches for the ledger.

All drivers use this module. They differ only in what decides which record is read next, and when a batch ends:
`streams.join.source_reader` for two logs that grow, `streams.join.line_cutter` for records that are in one order
already.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgspec

from actions.replica_watch import ReplicaWatch, SavedWatch
from streams.config.resolved import CONFIG_DIGITS, Config
from streams.config.units import DAY_MS
from streams.join.rows import ModelJoined, PartBuilder, counted_rows
from streams.join.series import window_rule
from streams.join.tally import Row, Tally
from streams.join.window import JoinWindow, PendingPrediction, SavedWindow
from streams.ledger.coverage import ORIGIN, Corner
from streams.ledger.digests import RangeDigest, SavedDigest
from streams.ledger.records import Batch, Part, ReplicaFacts
from unship.events import Feedback, Prediction
from unship.rejections import RejectCode, Rejection
from unship.topics import SOURCES

PREDICTIONS: Final = 0
FEEDBACK: Final = 1


class Raw(NamedTuple):
    """A record of a source partition as the log holds it."""

    offset: int
    append_ts: int
    value: bytes | None


class SavedJoin(msgspec.Struct, frozen=True):
    """A saved `PartitionJoin`. `seen` are the positions of the predictions that are in no batch yet."""

    base: Corner
    end: Corner
    seen: list[int]
    window: SavedWindow
    replicas: SavedWatch
    digests: tuple[SavedDigest, SavedDigest]
    tally: list[Row]


class PartitionJoin:
    """Joins one pair of source partitions. `base` and `end` are the corners of the last batch and of now."""

    def __init__(self, config: Config, *, partition: int = 0, incarnation: int = 0) -> None:
        self.config = config
        self.partition = partition
        self.incarnation = incarnation
        self.base = self.end = ORIGIN
        self.replicas = ReplicaWatch()
        self.tally = Tally()
        rules = {name: window_rule(model) for name, model in config.models.items()}
        self.window = JoinWindow(rules, window_rule(config.defaults), self.tally)
        self._config = config.digest()[:CONFIG_DIGITS]
        self._seen: list[PendingPrediction] = []
        self._digests = (RangeDigest(), RangeDigest())

    # Reading

    def take(self, side: int, raw: Raw, event: Prediction | Feedback | Rejection, at: int) -> RejectCode | None:
        """Join the next record of a log; return the code if it is rejected.

        Args:
            side: `PREDICTIONS` or `FEEDBACK`.
            raw: The record; offsets of a side rise.
            event: What it was decoded to.
            at: The join clock of its log: the running maximum of append times, in milliseconds.
        """
        if side == PREDICTIONS:
            place = (raw.offset, -1)
            self.end = (raw.offset + 1, self.end[1])
            self.window.witness(raw.offset, at)
        else:
            place = (-1, raw.offset)
            self.end = (self.end[0], raw.offset + 1)
        self._digests[side].add(raw.value or b"")
        code = event.code if isinstance(event, Rejection) else refusal(event.ts, raw.append_ts)
        if code is not None:
            self.tally.add(code, place)
        elif isinstance(event, Prediction):
            self._predicted(event, raw.offset, at)
        elif isinstance(event, Feedback):
            self._labelled(event, raw.offset, at)
        return code

    def _predicted(self, event: Prediction, position: int, at: int) -> None:
        self.window.expire(at)
        pending = self.window.add_prediction(event, position, at)
        if pending is None:
            return
        self._seen.append(pending)
        if event.replica is not None and self.replicas.is_news(event, at):
            limits: Counter[str] = Counter()
            self.replicas.answered(event, (SOURCES[PREDICTIONS], self.partition, position), at, limits)
            for reason, count in limits.items():
                self.tally.add(reason, (position, -1), count)

    def _labelled(self, event: Feedback, position: int, at: int) -> None:
        if event.truth is None and not self.window.engagement:
            # No model has a loss of engagement, so feedback without a truth is unusable.
            self.tally.add(RejectCode.UNUSABLE_TRUTH, (-1, position))
        else:
            self.window.add_feedback(event, position, at)

    def skip(self, side: int, position: int, *, lost: int = 0) -> None:
        """Continue one log at a position, below which no record follows; the `lost` records among them are counted."""
        self.end = (position, self.end[1]) if side == PREDICTIONS else (self.end[0], position)
        if lost:
            place = (position - 1, -1) if side == PREDICTIONS else (-1, position - 1)
            self.tally.add(RejectCode.HOLE, place, lost)

    def counts(self) -> Counter[str]:
        """Return the counts, by reason, of what was not used and is in no batch yet."""
        return self.tally.total() + self.window.unused()

    # Batches

    @property
    def rows(self) -> int:
        """Return how many rows of outcomes and predictions the next batch would have."""
        return self.window.joined + len(self._seen)

    @property
    def waiting(self) -> int:
        """Return how many rows the next batch would have, counts included."""
        return self.rows + len(self.tally)

    def batches(self, clock: int, ledger_partitions: int, route: Callable[[str], int]) -> list[Batch]:
        """Return everything since the last call, one batch for each ledger partition, also for those without a row.

        All of them are between the same two corners, so that each fold's coverage grows by what was read. Counts belong
        to no model; they are in the batch of the first partition.

        Args:
            clock: The time up to which the partition was read.
            ledger_partitions: How many partitions the ledger has.
            route: The ledger partition of a model.
        """
        parts: list[list[Part]] = [[] for _ in range(ledger_partitions)]
        for model, joined in self._by_model():
            builder = PartBuilder(self.config.of(model), self.window.series, self.tally)
            parts[route(model)].append(builder.part(model, joined))
        counted = [counted_rows(self.tally.take() if k == 0 else []) for k in range(ledger_partitions)]
        digest = hashlib.sha256(b"".join(each.take() for each in self._digests)).hexdigest()
        base, self.base = self.base, self.end
        return [
            Batch(self.partition, self.incarnation, self._config, base, self.end, clock, digest, parts[k], counted[k])
            for k in range(ledger_partitions)
        ]

    def batch(self, clock: int) -> Batch:
        """Return everything since the last call as one batch, for a ledger of one partition."""
        return self.batches(clock, 1, lambda model: 0)[0]

    def facts(self, clock: int) -> list[ReplicaFacts]:
        """Return the replica facts from the answers read since the last call, one record for each model."""
        return [ReplicaFacts(clock, model, changes) for model, changes in self.replicas.take().items()]

    def begin_at(self, end: Corner) -> None:
        """Drop what was joined: it is in the ledger already, and the records were read only to fill the window."""
        self.end = end
        self.batch(-1)
        self.replicas.take()

    def _by_model(self) -> Iterator[tuple[str, ModelJoined]]:
        """Yield what was joined, by model in the order of names."""
        series, joined = self.window.series, self.window.take()
        seen, self._seen = self._seen, []
        found: dict[str, ModelJoined] = {}

        def of(pending: PendingPrediction) -> ModelJoined:
            model = series[pending.series].model
            if model not in found:
                found[model] = ModelJoined([], [], [], [])
            return found[model]

        for pending in seen:
            of(pending).seen.append(pending)
        for outcome in joined.outcomes:
            of(outcome.prediction).outcomes.append(outcome)
        for pair in joined.pairs:
            of(pair.live).pairs.append(pair)
        for live, shadow in joined.seen_pairs:
            of(live).seen_pairs.append((live, shadow))
        yield from sorted(found.items())

    # Snapshots

    def save(self) -> SavedJoin:
        """Return everything needed to continue with the next record of either log."""
        predictions, feedback = self._digests
        return SavedJoin(
            self.base,
            self.end,
            [pending.position for pending in self._seen],
            self.window.save(),
            self.replicas.save(),
            (predictions.save(), feedback.save()),
            self.tally.save(),
        )

    def load(self, saved: SavedJoin) -> None:
        """Load what `save` returned into a new join of the same configuration."""
        self.base, self.end = saved.base, saved.end
        pending = self.window.load(saved.window)
        self._seen = [pending[position] for position in saved.seen]
        self.replicas.load(saved.replicas)
        for digest, kept in zip(self._digests, saved.digests, strict=True):
            digest.load(kept)
        self.tally.load(saved.tally)


def refusal(ts: int | None, append_ts: int) -> RejectCode | None:
    """Return why an event's own time (ms) does not fit the append time of its record, None if it fits.

    >>> refusal(5_000, 4_000), refusal(4_000 + DAY_MS + 1, 4_000).value, refusal(None, -1).value
    (None, 'FUTURE_TS', 'BAD_TIME')
    """
    if ts is not None:
        return RejectCode.FUTURE_TS if ts > append_ts + DAY_MS else None
    # Only in a recording without append times: no line before it had a time.
    return RejectCode.BAD_TIME if append_ts < 0 else None
