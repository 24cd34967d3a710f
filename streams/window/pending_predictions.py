"""The predictions that a window keeps, by request and model, and how many it keeps of one request.

A request is a key (id, row, target). Of a version only the first prediction of each *interval* of the join clock is
kept, an eighth of the horizon or of the early time, whichever is longer, and of a model the first 16 versions. Models
that are not configured share one more limit: of one request, the first 16 of them in an interval. So what one event
costs, and what a label of it can join, has a limit whatever was sent before. Whether a prediction is kept follows from
its own interval alone: not from what was read before that, nor in which blocks.

Where labels may be replaced, a feedback f *revises* a prediction p iff it belongs to p, p is the first kept prediction
of its version that f belongs to, f came before p's cohort is judged, and its truth, or that it takes the label back,
differs from what is in force. Only the source of the label in force may do so, or one that the configuration lists, and
only the first few do. That depends on the predictions up to p and the feedback up to f alone. So revisions are rows as
other outcomes are: of those of one prediction the last one counts, and batches that overlap bring each once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

import msgspec

from streams.window.early_labels import PendingFeedback
from streams.window.fingerprints import Key
from streams.window.series import SeriesTable, WindowRule
from unship.budgets.table import MODELS_OF_REQUEST, VERSIONS_OF_REQUEST
from unship.rejections import RejectCode

VERSIONS_MAX: Final = VERSIONS_OF_REQUEST.limit
UNLISTED_MAX: Final = MODELS_OF_REQUEST.limit

REVISIONS_MAX: Final = 8
"""So many labels of one prediction are in force one after the other; each is a row in the ledger."""

NOTHING_GIVEN: Final = (None, 0)

_ByModel: TypeAlias = dict[str, "list[PendingPrediction]"]


class PendingPrediction(msgspec.Struct, gc=False):
    """A prediction in the window.

    `labelled_by` is the position of the first feedback within its reach, or -1. Where labels may be replaced, it and
    `truth` are of the label in force. `given` is (latency in ms, the number of the unit that the answer is for, 0 for
    none). `held` is (source of the label in force, how many were in force so far, the positions of the feedback that
    is an outcome with it: it is its version's first prediction within reach of that, too).
    """

    key: Key
    position: int
    at: int
    series: int
    output: Any
    score: float | None
    scores: dict[str, float] | None
    slices: tuple[Any, ...]
    given: tuple[float | None, int] = NOTHING_GIVEN
    labelled_by: int = -1
    truth: Any = None
    engagement: float | None = None
    held: tuple[str, int, tuple[int, ...]] = ("", 0, ())

    @property
    def latency_ms(self) -> float | None:
        """Return how long the answer took, None if that is not kept."""
        return self.given[0]

    @property
    def unit(self) -> int:
        """Return the number of the unit that it is for, 0 if none was named."""
        return self.given[1]

    @property
    def source(self) -> str:
        """Return the source of the label in force."""
        return self.held[0]

    @property
    def revisions(self) -> int:
        """Return how many labels were in force so far."""
        return self.held[1]

    @property
    def retracted(self) -> bool:
        """Return whether its label was taken back."""
        return self.revisions > 0 and self.truth is None and self.engagement is None

    def is_outcome_of(self, feedback: int) -> bool:
        """Return whether it and the feedback of that position are an outcome."""
        return feedback in self.held[2]

    def label(self, position: int, truth: Any, engagement: float | None) -> None:
        """Note the first feedback within reach."""
        self.labelled_by, self.truth, self.engagement = position, truth, engagement

    def close(self) -> None:
        """Take no label any more."""
        self.labelled_by = self.position

    def join(self) -> None:
        """Note that prediction and feedback are the first of each other."""
        source, revisions, outcomes = self.held
        self.held = (source, revisions, (*outcomes, self.labelled_by))

    def put_in_force(self, source: str) -> None:
        """Note that another label is in force, and its source."""
        self.held = (source, self.revisions + 1, self.held[2])


class PendingPredictions:
    """The kept predictions; those of a request and model are in the order of their log.

    Args:
        series: The series of the predictions.
        listed: The configured models.
    """

    def __init__(self, series: SeriesTable, listed: Collection[str]) -> None:
        self._series = series
        self._listed = listed
        # One model answers most requests; a table by model would take more memory than what is in it.
        self._of_one: dict[Key, list[PendingPrediction]] = {}
        self._of_many: dict[Key, _ByModel] = {}
        # One queue for each pair of limits: only predictions with equal limits are evicted in the order of arrival.
        self._leaving: dict[tuple[int, int], deque[PendingPrediction]] = {}

    def __len__(self) -> int:
        """Return how many requests there are."""
        return len(self._of_one) + len(self._of_many)

    def __iter__(self) -> Iterator[PendingPrediction]:
        """Yield all predictions."""
        for queue in self._leaving.values():
            yield from queue

    def __contains__(self, key: Key) -> bool:
        """Return whether any prediction of a request is kept."""
        return key in self._of_one or key in self._of_many

    @property
    def tables(self) -> tuple[Collection[Key], Collection[Key]]:
        """The requests, in one of two tables each."""
        return self._of_one, self._of_many

    def of(self, key: Key, model: str) -> Sequence[PendingPrediction]:
        """Return the predictions of a request and a model."""
        kept = self._of_one.get(key)
        if kept is not None:
            return kept if self._model(kept[0]) == model else ()
        many = self._of_many.get(key)
        return () if many is None else many.get(model, ())

    def all_of(self, key: Key) -> Sequence[PendingPrediction]:
        """Return the predictions of a request, in the order of their log."""
        kept = self._of_one.get(key)
        if kept is not None:
            return kept
        many = self._of_many.get(key)
        return () if many is None else sorted(chain.from_iterable(many.values()), key=_position)

    def _model(self, pending: PendingPrediction) -> str:
        return self._series[pending.series].model

    def has_room(self, key: Key, model: str, version: str, at: int, rule: WindowRule) -> bool:
        """Return whether a prediction is kept that is the first of its version in its interval."""
        begin = at - at % rule.interval_ms
        kept = [each for each in self.of(key, model) if each.at >= begin]
        if kept:
            versions = {self._series[each.series].version for each in kept}
            return len(versions) < VERSIONS_MAX or version in versions
        if model in self._listed:
            return True
        one = self._of_one.get(key)
        by_model: _ByModel = self._of_many.get(key, {}) if one is None else {self._model(one[0]): one}
        # All of these models have one rule, so their intervals are the same.
        others = [other for other, each in by_model.items() if other not in self._listed and each[-1].at >= begin]
        return len(others) < UNLISTED_MAX

    def add(self, pending: PendingPrediction, rule: WindowRule) -> None:
        """Keep a prediction, the newest of its request; perhaps behind newer ones of others, which it then outlives."""
        self._insert(pending)
        limits = rule.horizon_ms, rule.early_ms
        queue = self._leaving.get(limits)
        if queue is None:
            queue = self._leaving[limits] = deque()
        queue.append(pending)

    def _insert(self, pending: PendingPrediction) -> None:
        key, many = pending.key, self._of_many.get(pending.key)
        if many is None:
            one = self._of_one.get(key)
            if one is None:
                self._of_one[key] = [pending]
                return
            model = self._model(one[0])
            if model == self._model(pending):
                one.append(pending)
                return
            many = self._of_many[key] = {model: self._of_one.pop(key)}
        many.setdefault(self._model(pending), []).append(pending)

    def evict(self, before: int) -> None:
        """Evict predictions that no record can belong to from a join clock of both logs on."""
        for (horizon, early), queue in self._leaving.items():
            while queue and before > queue[0].at + horizon + early:
                self._remove(queue.popleft())

    def _remove(self, pending: PendingPrediction) -> None:
        key, many = pending.key, self._of_many.get(pending.key)
        kept = self._of_one[key] if many is None else many[self._model(pending)]
        if len(kept) > 1:
            del kept[bisect_left(kept, pending.position, key=_position)]
        elif many is None:
            del self._of_one[key]
        else:
            del many[self._model(pending)]
            if not many:
                del self._of_many[key]

    def save(self) -> list[tuple[int, int, list[PendingPrediction]]]:
        """Return the predictions by their limits (horizon, early)."""
        return [(horizon, early, list(queue)) for (horizon, early), queue in self._leaving.items()]

    def load(self, saved: list[tuple[int, int, list[PendingPrediction]]]) -> dict[int, PendingPrediction]:
        """Load what `save` returned; return the predictions by their positions."""
        everything = sorted((pending for _, _, queue in saved for pending in queue), key=_position)
        for pending in everything:
            self._insert(pending)
        for horizon, early, queue in saved:
            self._leaving[horizon, early] = deque(queue)
        return {pending.position: pending for pending in everything}


def _position(pending: PendingPrediction) -> int:
    return pending.position


def why_kept(pending: PendingPrediction, feedback: PendingFeedback, rule: WindowRule) -> RejectCode | None:
    """Return why a further feedback does not change the label in force, None if it does."""
    if feedback.retract and pending.retracted:
        return RejectCode.RETRACTED
    if not (feedback.retract or pending.retracted) and is_same(pending, feedback):
        return RejectCode.DUPLICATE_FEEDBACK
    if feedback.source != pending.source and feedback.source not in rule.revised_by:
        return RejectCode.RETRACTED if feedback.retract else RejectCode.CONFLICTING_FEEDBACK
    if feedback.at - pending.at > rule.revised_ms:
        return RejectCode.REVISED_LATE
    return RejectCode.REQUEST_LIMIT if pending.revisions >= REVISIONS_MAX else None


def is_same(pending: PendingPrediction, feedback: PendingFeedback) -> bool:
    """Return whether a feedback has the truth of the label in force; engagements decide where neither has one."""
    by_truth = pending.truth is not None or feedback.truth is not None
    return bool(pending.truth == feedback.truth if by_truth else pending.engagement == feedback.engagement)
