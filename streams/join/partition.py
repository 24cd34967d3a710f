"""Ingest: join one pair of source partitions, and hand over what was joined since the last time.

A recording takes what was joined as one ledger record for each model; a live log takes it as a batch, which also says
between which two corners of the partitions it stands, so that a fold can tell what it has applied already.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np

from actions.replica_watch import Place, ReplicaWatch, SavedWatch
from streams.config.resolved import CONFIG_DIGITS, Config, ModelConfig
from streams.join.rows import RecordBuilder, coded
from streams.join.tally import NOWHERE, Tally
from streams.join.window import Held, JoinWindow, Outcome, Pair, SavedWindow, WindowRule
from streams.ledger.coverage import ORIGIN, Corner
from streams.ledger.records import Batch, Counted, Outcomes, Part
from unship.events import Feedback, Prediction
from unship.rejections import RejectCode
from unship.topics import SOURCES


class SavedIngest(msgspec.Struct):
    """An `Ingest` at rest. What was joined and not handed over yet is kept by the places of its predictions."""

    base: Corner
    end: Corner
    seen: list[int]
    outcomes: list[tuple[int, int, str]]
    pairs: list[tuple[int, int, int]]
    seen_pairs: list[tuple[int, int]]
    window: SavedWindow
    replicas: SavedWatch


class Joined(msgspec.Struct):
    """What was joined of one model."""

    outcomes: list[Outcome]
    pairs: list[Pair]
    seen: list[Held]
    seen_pairs: list[tuple[Held, Held]]


class Ingest:
    """Joins one pair of source partitions. `base` and `end` are the corners of the last batch and of now."""

    def __init__(self, config: Config, *, partition: int = 0, incarnation: int = 0, placed: bool = False) -> None:
        """Begin with empty partitions; `placed` counts what is not used together with the place that made it."""
        self.config = config
        self.partition = partition
        self.incarnation = incarnation
        self.placed = placed
        self.replicas = ReplicaWatch()
        self.base = self.end = ORIGIN
        self._config = config.digest()[:CONFIG_DIGITS]
        rules = {name: window_rule(model) for name, model in config.models.items()}
        self.window = JoinWindow(rules, window_rule(config.defaults))
        if placed:
            self.window.counts = Tally.placed()
        self.counts = self.window.counts
        self.seen: list[Held] = []
        self._digests = [hashlib.sha256(), hashlib.sha256()]

    def prediction(self, event: Prediction, position: int, at: int) -> Held | None:
        """Take a prediction at join clock `at`; None if it repeats one that is known, or finds no room."""
        self.counts.place = (position, -1)
        if self.counts.rows is not None:
            self.window.expire(at)
            self.counts.place = (position, -1)
        held = self.window.add_prediction(event, position, at)
        if held is not None:
            self.seen.append(held)
            if event.replica is not None and self.replicas.is_news(event, at):
                place = (SOURCES[0], self.partition, position) if self.placed else _place_in_recording(event, position)
                self.replicas.answered(event, place, at, self.counts)
        return held

    def feedback(self, event: Feedback, position: int, at: int) -> bool:
        """Take feedback at join clock `at`; return whether it is the first label of at least one prediction."""
        self.counts.place = (-1, position)
        if event.truth is None and not self.window.engagement:
            # Engagement alone says nothing about right or wrong to the losses of any model.
            self.counts[RejectCode.UNUSABLE_TRUTH] += 1
            return False
        return self.window.add_feedback(event, position, at)

    def read(self, side: int, position: int, value: bytes) -> None:
        """Take note that a record of the log of predictions (side 0) or feedback (side 1) was read."""
        p, f = self.end
        self.end = (position + 1, f) if side == 0 else (p, position + 1)
        self.counts.place = (position, -1) if side == 0 else (-1, position)
        add_record(self._digests[side], value)

    def skip(self, side: int, position: int) -> None:
        """Take note that nothing comes any more below a position of one log."""
        p, f = self.end
        self.end = (position, f) if side == 0 else (p, position)
        self.counts.place = (position - 1, -1) if side == 0 else (-1, position - 1)

    @property
    def waiting(self) -> int:
        """How many rows the next batch would have."""
        return len(self.window.outcomes) + len(self.seen) + len(self.counts.rows or ())

    def _by_model(self) -> Iterator[tuple[str, Joined]]:
        """Yield what was joined, by model in the order of names, and forget it."""
        window, series = self.window, self.window.series
        found: dict[str, Joined] = {}

        def of(code: int) -> Joined:
            model = series[code].model
            if model not in found:
                found[model] = Joined([], [], [], [])
            return found[model]

        for held in self.seen:
            of(held.series).seen.append(held)
        for outcome in window.outcomes:
            of(outcome.held.series).outcomes.append(outcome)
        for pair in window.pairs:
            of(pair.live.series).pairs.append(pair)
        for live, shadow in window.seen_pairs:
            of(live.series).seen_pairs.append((live, shadow))
        window.outcomes, window.pairs, window.seen_pairs, self.seen = [], [], [], []
        yield from sorted(found.items())

    def records(self, clock: int, lines: tuple[int, int], digest: str) -> Iterator[Outcomes]:
        """Yield one record for each model that has anything new, as a recording's ledger has them."""
        for model, joined in self._by_model():
            yield self._builder(model).record(
                model, clock, lines, digest, joined.outcomes, joined.pairs, joined.seen, joined.seen_pairs
            )

    def batch(self, clock: int) -> Batch:
        """Return everything since the last batch; `clock` is the time up to which the partition was read."""
        (batch,) = self.batches(clock, 1, lambda model: 0)
        return batch

    def batches(self, clock: int, ledger_partitions: int, route: Callable[[str], int]) -> list[Batch]:
        """Return everything since the last time, one batch for each ledger partition, also for those without a row.

        All of them stand between the same two corners, so that a quiet model's fold learns as well what was read.
        Counts concern no model in particular; they go to the first partition.
        """
        parts: list[list[Part]] = [[] for _ in range(ledger_partitions)]
        for model, joined in self._by_model():
            part = self._builder(model).part(
                model, clock, joined.outcomes, joined.pairs, joined.seen, joined.seen_pairs
            )
            parts[route(model)].append(part)
        counted = [_counted(self.counts.take() if k == 0 else []) for k in range(ledger_partitions)]
        self.counts.place = NOWHERE
        digest = hashlib.sha256(b"".join(each.digest() for each in self._digests)).hexdigest()
        self._digests = [hashlib.sha256(), hashlib.sha256()]
        base, self.base = self.base, self.end
        return [
            Batch(self.partition, self.incarnation, self._config, base, self.end, clock, digest, parts[k], counted[k])
            for k in range(ledger_partitions)
        ]

    def forget(self) -> None:
        """Let go of what was joined: it is in the ledger already, and the records were read to fill the window."""
        self.batches(-1, 1, lambda model: 0)
        self.replicas.take()

    def _builder(self, model: str) -> RecordBuilder:
        return RecordBuilder(self.config.of(model), self.window.series, self.counts)

    def save(self) -> SavedIngest:
        """Return everything that the next record of either log needs."""
        window = self.window
        outcomes, pairs, seen_pairs = window.outcomes, window.pairs, window.seen_pairs
        window.outcomes, window.pairs, window.seen_pairs = [], [], []
        saved = SavedIngest(
            self.base,
            self.end,
            [held.position for held in self.seen],
            [(outcome.held.position, outcome.labelled_at, outcome.source) for outcome in outcomes],
            [(pair.live.position, pair.shadow.position, pair.labelled_at) for pair in pairs],
            [(live.position, shadow.position) for live, shadow in seen_pairs],
            window.save(),
            self.replicas.save(),
        )
        window.outcomes, window.pairs, window.seen_pairs = outcomes, pairs, seen_pairs
        return saved

    def load(self, saved: SavedIngest) -> None:
        """Take over what `save` returned; `self` must be new and have the same configuration."""
        self.window.load(saved.window)
        self.replicas.load(saved.replicas)
        self.base, self.end = saved.base, saved.end
        held = {entry.position: entry for queue in self.window.leaving.values() for entry in queue}
        self.seen = [held[position] for position in saved.seen]
        self.window.outcomes = [Outcome(held[position], at, source) for position, at, source in saved.outcomes]
        self.window.pairs = [Pair(held[live], held[shadow], at) for live, shadow, at in saved.pairs]
        self.window.seen_pairs = [(held[live], held[shadow]) for live, shadow in saved.seen_pairs]


def add_record(digest: Any, value: bytes) -> None:
    """Add a source record to the SHA-256 of its range, with its length, so that none can be cut otherwise."""
    digest.update(b"%d:" % len(value))
    digest.update(value)


def _place_in_recording(event: Prediction, line: int) -> Place:
    return ("", 0, line) if event.at is None else event.at[:3]


def _counted(rows: list[tuple[str, int, int, int]]) -> Counted:
    return Counted(coded([row[0] for row in rows]), *(np.array([row[i] for row in rows], np.int64) for i in (1, 2, 3)))


def window_rule(model: ModelConfig) -> WindowRule:
    """Return how long the join keeps what belongs to a model, and which feedback it takes."""
    return WindowRule(
        model.horizon_ms,
        model.early_ms,
        tuple(model.slices_by),
        truth=not all(spec.of_engagement or spec.of_latency for spec in model.losses),
        engagement=any(spec.of_engagement for spec in model.losses),
        unlabelled=model.judges_unlabelled,
        latency=bool(model.latency_losses),
    )
