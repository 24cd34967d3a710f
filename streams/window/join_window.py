"""The join: predictions wait for their truth up to the horizon, truths for their prediction up to the early time.

A prediction p and a feedback f of one key belong together iff `-early <= b(f) - a(p) <= horizon`, where a and b are the
join clocks: running maxima of the append times of the prediction and the feedback log. Among all that belong together
the rule is *mutual first*: f is the earliest such feedback for p, and p the earliest such prediction for f. That
depends only on the records of one window, so it can be computed again from the middle of a log, and not on processing
time, so it is the same in every run. A repeated prediction therefore stays in the window, counted and mostly without an
outcome: whether it repeats another one must not depend on whether that one repeated a third.

The key is (id, row, target) and holds separately for each model and version: one truth yields one outcome for every
version that answered, and a shadow's outcome is paired with the live one. Feedback without what a model's losses need,
a truth or an engagement, does not belong to its predictions.

Memory: one `PendingPrediction` for each prediction of the last horizon + early, one `PendingFeedback` for each truth of
the last `early`.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter, deque
from heapq import heappop, heappush
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np

from detectors.base import Ints
from streams.window.series import Series, SeriesTable, WindowRule
from streams.window.tally import Tally
from unship.events import Feedback, Prediction
from unship.rejections import RejectCode

Key: TypeAlias = str | tuple[str, int, str]

WITNESSES: Final = 10_000
"""How many positions of a window are kept to find the prediction that shows that feedback is unmatched."""


class PendingPrediction(msgspec.Struct, gc=False):
    """A prediction in the window.

    `labelled_by` is the position of the first feedback within its reach, or -1; `joined` is true if it is its version's
    first prediction within reach of that feedback too, so that the two are an outcome.
    """

    key: Key
    position: int
    at: int
    series: int
    output: Any
    score: float | None
    scores: dict[str, float] | None
    slices: tuple[Any, ...]
    latency_ms: float | None = None
    labelled_by: int = -1
    truth: Any = None
    engagement: float | None = None
    joined: bool = False


class PendingFeedback(msgspec.Struct, gc=False):
    """A truth whose prediction may still be read; `code` is the one it is counted under until then.

    `late` and `unfit` are the reasons why it labelled no prediction: it came after the horizon, or has nothing that the
    model's losses need.
    """

    key: Key
    position: int
    at: int
    truth: Any
    source: str
    model: str | None
    engagement: float | None = None
    matched: bool = False
    code: str = ""
    late: bool = False
    unfit: bool = False


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """A prediction, with its truth in it, and when the label came."""

    prediction: PendingPrediction
    labelled_at: int
    source: str


class Pair(msgspec.Struct, frozen=True, gc=False):
    """The live and the shadow outcome of one request."""

    live: PendingPrediction
    shadow: PendingPrediction
    labelled_at: int


class Joined(NamedTuple):
    """What was joined since the last call of `take`.

    `seen_pairs` are the (live, shadow) predictions of one request, for models that are judged without labels.
    """

    outcomes: list[Outcome]
    pairs: list[Pair]
    seen_pairs: list[tuple[PendingPrediction, PendingPrediction]]


class JoinWindow:
    """The window of one pair of logs; what is not used is counted in `tally`, with the place that shows it."""

    def __init__(self, rules: dict[str, WindowRule], default: WindowRule, tally: Tally) -> None:
        every = (default, *rules.values())
        self.early_max = max(rule.early_ms for rule in every)
        self.engagement = any(rule.engagement for rule in every)
        self.series = SeriesTable(rules, default)
        self.waiting: dict[Key, list[PendingPrediction]] = {}
        self.early: dict[Key, list[PendingFeedback]] = {}
        # One queue for each pair of limits: only predictions with equal limits are evicted in the order of arrival.
        self.leaving: dict[tuple[int, int], deque[PendingPrediction]] = {}
        self.early_leaving: deque[PendingFeedback] = deque()
        # Labels that were joined elsewhere, by (time, position): they come in any order, and none is counted.
        self._adopted: list[tuple[int, int, PendingFeedback]] = []
        self.tally = tally
        self.closed_until = -1
        self._joined = Joined([], [], [])
        self.witnesses = Witnesses((self.early_max + max(rule.horizon_ms for rule in every)) // WITNESSES)

    @property
    def joined(self) -> int:
        """Return how many outcomes `take` would return."""
        return len(self._joined.outcomes)

    def take(self) -> Joined:
        """Return what was joined since the last call."""
        taken, self._joined = self._joined, Joined([], [], [])
        return taken

    def add_prediction(self, event: Prediction, position: int, at: int) -> PendingPrediction | None:
        """Add a prediction; return None if it repeats another one or if a limit is reached.

        Args:
            event: The decoded prediction.
            position: Its offset in the log; rises with every call.
            at: The join clock: the running maximum of append times of the prediction log, in milliseconds.
        """
        code = self.series.code_of(event, position, self.tally)
        if code < 0:
            return None
        key: Key = event.id if not event.row and not event.target else (event.id, event.row, event.target)
        rule = self.series.rules[code]
        others = self.waiting.get(key)
        repeats = others is not None and self._repeats(event, code, others, position, at, rule)
        slices = event.slices
        values = tuple(map(slices.get, rule.slices_by)) if slices else (None,) * len(rule.slices_by)
        took = event.latency_ms if rule.latency else None
        pending = PendingPrediction(key, position, at, code, event.output, event.score, event.scores, values, took)
        if others is None:
            self.waiting[key] = [pending]
        else:
            others.append(pending)
        self._queue(rule).append(pending)
        if rule.unlabelled and others is not None and not repeats:
            self._pair_seen(pending, others, rule)
        if at <= self.closed_until:
            pending.labelled_by = position
        else:
            for feedback in self.early.get(key, ()):
                if feedback.model is None or feedback.model == event.model:
                    self._meet(pending, feedback, rule)
        return None if repeats else pending

    def _queue(self, rule: WindowRule) -> deque[PendingPrediction]:
        queue = self.leaving.get((rule.horizon_ms, rule.early_ms))
        if queue is None:
            queue = self.leaving[rule.horizon_ms, rule.early_ms] = deque()
        return queue

    def _repeats(
        self, event: Prediction, code: int, others: list[PendingPrediction], position: int, at: int, rule: WindowRule
    ) -> bool:
        mine = self.series[code]
        for other in others:
            reached = at - other.at <= rule.horizon_ms + rule.early_ms
            if not reached or not self._same_version(self.series[other.series], mine):
                continue
            same = other.output == event.output and type(other.output) is type(event.output)
            reason = RejectCode.DUPLICATE if same else RejectCode.CONFLICTING_PREDICTION
            self.tally.add(reason, (position, -1))
            return True
        return False

    @staticmethod
    def _same_version(one: Series, other: Series) -> bool:
        return one.version == other.version and one.model == other.model

    def _is_first(
        self, pending: PendingPrediction, others: list[PendingPrediction], feedback_at: int, rule: WindowRule
    ) -> bool:
        """Return whether no earlier prediction of the same version is within reach of that feedback."""
        mine = self.series[pending.series]
        for other in others:
            if other is pending:
                return True
            reached = -rule.early_ms <= feedback_at - other.at <= rule.horizon_ms
            if reached and self._same_version(self.series[other.series], mine):
                return False
        return True

    def add_feedback(self, event: Feedback, position: int, at: int) -> bool:
        """Add a label at join clock `at`; return whether it is the first label of at least one prediction."""
        key: Key = event.id if not event.row and not event.target else (event.id, event.row, event.target)
        feedback = PendingFeedback(key, position, at, event.truth, event.source, event.model, event.engagement)
        for pending in self.waiting.get(key, ()):
            if event.model is None or self.series[pending.series].model == event.model:
                self._meet(pending, feedback, self.series.rules[pending.series])
        self._remember(feedback)
        self.early_leaving.append(feedback)
        return feedback.matched

    def _meet(self, pending: PendingPrediction, feedback: PendingFeedback, rule: WindowRule) -> None:
        """Apply a label to a prediction of its key; which of them was read first makes no difference.

        A label that repeats an earlier one of a prediction is counted by +1 at (p, f); if it is the first label of
        another prediction p', by -1 at (p', f). Both changes depend only on the prefixes of the logs below their
        places.
        """
        since = feedback.at - pending.at
        if since < -rule.early_ms:
            return
        if since > rule.horizon_ms:
            # Not as long as it happens to be in the window: what is counted must not depend on when that is evicted.
            in_time = since <= rule.horizon_ms + rule.early_ms
            feedback.late = feedback.late or (in_time and rule.takes(feedback.truth, feedback.engagement))
            return
        if not rule.takes(feedback.truth, feedback.engagement):
            feedback.unfit = True
            return
        if pending.labelled_by < 0 and self._answer(pending, feedback.position, feedback, feedback.at, rule):
            if feedback.code:
                self._count(feedback.code, -1, pending, feedback)
            feedback.matched, feedback.code = True, ""
        elif not feedback.matched and not feedback.code:
            # Of two labels with a truth, the truths decide whether they agree.
            by_truth = pending.truth is not None or feedback.truth is not None
            same = pending.truth == feedback.truth if by_truth else pending.engagement == feedback.engagement
            feedback.code = RejectCode.DUPLICATE_FEEDBACK if same else RejectCode.CONFLICTING_FEEDBACK
            self._count(feedback.code, 1, pending, feedback)

    def _count(self, code: str, change: int, pending: PendingPrediction, feedback: PendingFeedback) -> None:
        self.tally.add(code, (pending.position, feedback.position), change)

    @staticmethod
    def _why_unused(feedback: PendingFeedback) -> RejectCode:
        """Return the code of a label that labels no prediction and repeats no label."""
        if feedback.unfit:
            return RejectCode.UNUSABLE_TRUTH
        return RejectCode.LATE_FEEDBACK if feedback.late else RejectCode.UNMATCHED_FEEDBACK

    def _answer(
        self, pending: PendingPrediction, position: int, label: Feedback | PendingFeedback, at: int, rule: WindowRule
    ) -> bool:
        """Label a prediction by its first feedback; return whether each is the first of the other: an outcome."""
        pending.labelled_by, pending.truth, pending.engagement = position, label.truth, label.engagement
        others = self.waiting[pending.key]
        if len(others) > 1 and not self._is_first(pending, others, at, rule):
            return False
        pending.joined = True
        self._joined.outcomes.append(Outcome(pending, at, label.source))
        if len(others) > 1:
            self._pair(pending, others, at)
        return True

    def _pair(self, pending: PendingPrediction, others: list[PendingPrediction], at: int) -> None:
        for other in others:
            if other.joined and other.labelled_by == pending.labelled_by:
                pair = self._live_and_shadow(pending, other)
                if pair is not None:
                    self._joined.pairs.append(Pair(*pair, at))

    def _pair_seen(self, pending: PendingPrediction, others: list[PendingPrediction], rule: WindowRule) -> None:
        """Pair a prediction with the first of each other version within its reach."""
        taken = set()
        for other in others:
            version = self.series[other.series].version
            # Older ones may be evicted already, so the result must not depend on them.
            if version in taken or pending.at - other.at > rule.horizon_ms + rule.early_ms:
                continue
            pair = self._live_and_shadow(pending, other)
            if pair is not None:
                taken.add(version)
                self._joined.seen_pairs.append(pair)

    def _live_and_shadow(
        self, pending: PendingPrediction, other: PendingPrediction
    ) -> tuple[PendingPrediction, PendingPrediction] | None:
        """Return two predictions as (live, shadow), None if they are not of these roles and of one model."""
        mine, series = self.series[pending.series], self.series[other.series]
        if other is pending or series.model != mine.model:
            return None
        if mine.role == "shadow" and series.role == "live":
            return other, pending
        return (pending, other) if mine.role == "live" and series.role == "shadow" else None

    def evict(self, predictions_at: int, feedback_at: int) -> None:
        """Evict what no future record can belong to; a truth that is evicted unmatched is counted.

        Eviction never changes what is joined, so the caller may run it at any time.
        """
        for (horizon, early), queue in self.leaving.items():
            while queue and min(predictions_at, feedback_at) > queue[0].at + horizon + early:
                pending = queue.popleft()
                others = self.waiting[pending.key]
                if len(others) == 1:
                    del self.waiting[pending.key]
                else:
                    others.remove(pending)
        self.expire(predictions_at)

    def expire(self, predictions_at: int) -> None:
        """Evict feedback that no future prediction can belong to; what is evicted unmatched is counted.

        The place of the count is that of the feedback and of the prediction that shows it to be unmatched.
        """
        while self._adopted and predictions_at > self._adopted[0][0] + self.early_max:
            self._forget(heappop(self._adopted)[2])
        queued = self.early_leaving
        while queued and predictions_at > queued[0].at + self.early_max:
            witness = self.witnesses.after(queued[0].at + self.early_max)
            if witness < 0:
                return
            feedback = queued.popleft()
            if not feedback.matched and not feedback.code:
                self.tally.add(self._why_unused(feedback), (witness, feedback.position))
            self._forget(feedback)

    def _forget(self, feedback: PendingFeedback) -> None:
        others = self.early[feedback.key]
        if len(others) == 1:
            del self.early[feedback.key]
        else:
            others.remove(feedback)

    def unused(self) -> Counter[str]:
        """Return the counts of feedback that is late or unfit and will be counted when it is evicted."""
        waiting = (each for each in self.early_leaving if not each.matched and not each.code)
        return Counter(self._why_unused(each) for each in waiting if each.late or each.unfit)

    def witness(self, position: int, at: int) -> None:
        """Note a record of the prediction log: it may show that earlier feedback is unmatched."""
        self.witnesses.note(position, at)

    def witness_all(self, positions: Ints, at: Ints) -> None:
        """Note records of the prediction log, in their order."""
        for place in self.witnesses.firsts(at).tolist():
            self.witnesses.note(int(positions[place]), int(at[place]))

    def adopt(self, pending: PendingPrediction, feedback: PendingFeedback | None) -> None:
        """Add the only prediction of a key, and the label that it has; both were joined elsewhere."""
        rule = self.series.rules[pending.series]
        self.waiting[pending.key] = [pending]
        # Perhaps behind newer ones, so that it is evicted later than it could be.
        self._queue(rule).append(pending)
        if feedback is not None:
            self._remember(feedback)
            heappush(self._adopted, (feedback.at, feedback.position, feedback))

    def _remember(self, feedback: PendingFeedback) -> None:
        """Keep feedback for predictions that are read later: those of a key in the order of their log."""
        insort(self.early.setdefault(feedback.key, []), feedback, key=_position)

    def close_unanswered(self, until: int) -> None:
        """Label no pending prediction any more, and none that is read up to the join clock `until`.

        Lost feedback may have labelled them, and their outcomes may be in the ledger.
        """
        self.closed_until = until
        for pending in (pending for queue in self.leaving.values() for pending in queue if pending.labelled_by < 0):
            pending.labelled_by = pending.position

    def save(self) -> SavedWindow:
        """Return the window's contents; outcomes not taken yet are saved by the positions of their predictions."""
        outcomes, pairs, seen_pairs = self._joined
        return SavedWindow(
            self.series.save(),
            [(horizon, early, list(queue)) for (horizon, early), queue in self.leaving.items()],
            sorted([*self.early_leaving, *(each for _, _, each in self._adopted)], key=_position),
            self.closed_until,
            self.witnesses.save(),
            [(outcome.prediction.position, outcome.labelled_at, outcome.source) for outcome in outcomes],
            [(pair.live.position, pair.shadow.position, pair.labelled_at) for pair in pairs],
            [(live.position, shadow.position) for live, shadow in seen_pairs],
        )

    def load(self, saved: SavedWindow) -> dict[int, PendingPrediction]:
        """Load what `save` returned into a new window; return its predictions by their positions."""
        self.series.load(saved.series)
        everything = [pending for _, _, queue in saved.leaving for pending in queue]
        for pending in sorted(everything, key=lambda pending: pending.position):
            self.waiting.setdefault(pending.key, []).append(pending)
        for horizon, early, queue in saved.leaving:
            self.leaving[horizon, early] = deque(queue)
        for feedback in saved.early:
            self._remember(feedback)
        self.early_leaving = deque(saved.early)
        self.closed_until = saved.closed_until
        self.witnesses.load(saved.witnesses)
        at = {pending.position: pending for pending in everything}
        self._joined = Joined(
            [Outcome(at[position], labelled_at, source) for position, labelled_at, source in saved.outcomes],
            [Pair(at[live], at[shadow], labelled_at) for live, shadow, labelled_at in saved.pairs],
            [(at[live], at[shadow]) for live, shadow in saved.seen_pairs],
        )
        return at


def _position(feedback: PendingFeedback) -> int:
    return feedback.position


class Witnesses:
    """The first prediction in each interval of the prediction log's clock.

    A prediction that comes so late that feedback cannot belong to any after it shows that this feedback is unmatched.
    Which prediction is named must not depend on what was read first, so it is the first one of an interval.
    """

    def __init__(self, interval_ms: int) -> None:
        self.interval_ms = max(interval_ms, 1)
        self._firsts: deque[tuple[int, int]] = deque()

    def note(self, position: int, at: int) -> None:
        """Note a record of the prediction log at join clock `at`, in the order of positions."""
        interval = at // self.interval_ms
        if not self._firsts or interval > self._firsts[-1][0]:
            self._firsts.append((interval, position))
            if len(self._firsts) > 2 * WITNESSES:
                # Feedback that lags by more than two windows is unmatched by any later one as well.
                self._firsts.popleft()

    def firsts(self, at: Ints) -> Ints:
        """Return the places of the records that may be the first ones of their intervals."""
        intervals = at // self.interval_ms
        return np.flatnonzero(np.diff(intervals, prepend=intervals[:1] - 1))

    def after(self, at: int) -> int:
        """Return the position of the first prediction of an interval after `at`, -1 if none was read yet.

        `at` must not fall from call to call: earlier intervals are evicted.
        """
        possible = at // self.interval_ms
        # The last one is kept, because only the first of an interval is noted.
        while len(self._firsts) > 1 and self._firsts[0][0] <= possible:
            self._firsts.popleft()
        if not self._firsts or self._firsts[0][0] <= possible:
            return -1
        return self._firsts[0][1]

    def save(self) -> list[tuple[int, int]]:
        """Return (interval, position) of each."""
        return list(self._firsts)

    def load(self, saved: list[tuple[int, int]]) -> None:
        """Load what `save` returned."""
        self._firsts = deque(saved)


class SavedWindow(msgspec.Struct, frozen=True):
    """A saved `JoinWindow`."""

    series: tuple[list[str], list[Series]]
    leaving: list[tuple[int, int, list[PendingPrediction]]]
    early: list[PendingFeedback]
    closed_until: int
    witnesses: list[tuple[int, int]]
    outcomes: list[tuple[int, int, str]]
    pairs: list[tuple[int, int, int]]
    seen_pairs: list[tuple[int, int]]
