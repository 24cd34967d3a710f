"""The join: predictions wait for their truth, truths wait a little for their prediction.

A prediction p and a feedback f of one key belong together iff `-early <= b(f) - a(p) <= horizon`, where a and b are the
join clocks: running maxima of the append times of the prediction and the feedback log. Among all that belong together
the rule is *mutual first*: f is the earliest such feedback for p, and p the earliest such prediction for f. That
depends on nothing outside of a window, so it can be rebuilt from the middle of a log, and on no processing time, so it
is the same in every run. A repeated prediction therefore stays in the window, counted and mostly without an outcome:
whether it repeats another one must not depend on whether that one repeated a third.

The key is (id, row, target) and holds separately for each model and version: one truth yields one outcome for every
version that answered, and a shadow's outcome is paired with the live one. Feedback without what a model's losses need,
a truth or an engagement, does not belong to its predictions.

Memory: one `Held` for each prediction of the last horizon + early, one `HeldFeedback` for each truth of the last
`early`.
"""

from collections import deque
from typing import Any

import msgspec

from streams.join.tally import Tally
from unship.events import Feedback, Prediction
from unship.rejections import RejectCode

Key = str | tuple[str, int, str]
#: More models or versions than this are a mistake or an attack: they are counted and left out.
MODELS_MAX = 1_000
SERIES_MAX = 100_000
#: How many places in a window are remembered, to know when it was seen that feedback stays alone.
WITNESSES = 10_000


class Series(msgspec.Struct, frozen=True):
    """Predictions of one version in one role."""

    model: str
    version: str
    role: str


class Held(msgspec.Struct, gc=False):
    """A prediction in the window.

    `answered` is the position of the first feedback within its reach, or -1; `joined` says that it is its version's
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
    answered: int = -1
    truth: Any = None
    engagement: float | None = None
    joined: bool = False


class HeldFeedback(msgspec.Struct, gc=False):
    """A truth that a prediction may still follow; `code` is what it was counted under meanwhile.

    `late` and `unfit` say of a truth that answers nothing why: it came after the horizon, or was of no use.
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
    """A joined pair: what was answered (`held`, which carries the truth) and when the label came."""

    held: Held
    labelled_at: int
    source: str


class Pair(msgspec.Struct, frozen=True, gc=False):
    """The live and the shadow outcome of one request."""

    live: Held
    shadow: Held
    labelled_at: int


class WindowRule(msgspec.Struct, frozen=True):
    """How long a model's predictions wait, how early labels may come, which slices are kept, and what is a label.

    `unlabelled` says that predictions are judged without a label too, and `latency` that how long they took is kept.
    """

    horizon_ms: int
    early_ms: int
    slices_by: tuple[str, ...]
    truth: bool = True
    engagement: bool = False
    unlabelled: bool = False
    latency: bool = False

    def takes(self, label: Feedback | HeldFeedback) -> bool:
        """Whether feedback carries something that the model's losses need.

        >>> WindowRule(0, 0, ()).takes(Feedback(id="a", engagement=0.5))
        False
        """
        return (self.truth and label.truth is not None) or (self.engagement and label.engagement is not None)


class JoinWindow:
    """The window of one pair of logs. `outcomes` and `pairs` collect what was joined until the caller takes it.

    `seen_pairs` collects the (live, shadow) predictions of one request, before any label, where they are judged so.
    """

    def __init__(self, rules: dict[str, WindowRule], default: WindowRule) -> None:
        self.rules = rules
        self.default = default
        self.early_max = max(rule.early_ms for rule in (default, *rules.values()))
        longest = self.early_max + max(rule.horizon_ms for rule in (default, *rules.values()))
        self.witness_ms = max(longest // WITNESSES, 1)
        self.engagement = any(rule.engagement for rule in (default, *rules.values()))
        self.series: list[Series] = []
        self.series_rules: list[WindowRule] = []
        self._codes: dict[tuple[str, str, str], int] = {}
        self._models: dict[str, None] = {}
        self.waiting: dict[Key, list[Held]] = {}
        self.early: dict[Key, list[HeldFeedback]] = {}
        # One queue for each pair of limits, because only predictions with equal limits leave in their order of arrival.
        self.leaving: dict[tuple[int, int], deque[Held]] = {}
        self.early_leaving: deque[HeldFeedback] = deque()
        self.outcomes: list[Outcome] = []
        self.pairs: list[Pair] = []
        self.seen_pairs: list[tuple[Held, Held]] = []
        self.counts = Tally()
        self.closed_until = -1
        # (interval, position) of the first prediction in each interval of its clock, see `witness`.
        self._witnesses: deque[tuple[int, int]] = deque()

    def series_of(self, event: Prediction) -> int:
        """Return the code of an event's series, or -1 if there is no room for another."""
        code = self._codes.get((event.model, event.version, event.role))
        return self.add_series(Series(event.model, event.version, event.role)) if code is None else code

    def admit(self, model: str) -> bool:
        """Take a model in; False and a count if there is no room for another."""
        if model not in self._models:
            if len(self._models) >= MODELS_MAX:
                self.counts[RejectCode.MODEL_LIMIT] += 1
                return False
            self._models[model] = None
        return True

    def add_series(self, series: Series) -> int:
        """Give a series its code; -1 and a count if the limit is reached."""
        if not self.admit(series.model):
            return -1
        if len(self.series) >= SERIES_MAX:
            self.counts[RejectCode.VERSION_LIMIT] += 1
            return -1
        rule = self.rules.get(series.model, self.default)
        code = self._codes[series.model, series.version, series.role] = len(self.series)
        self.series.append(series)
        self.series_rules.append(rule)
        self.leaving.setdefault((rule.horizon_ms, rule.early_ms), deque())
        return code

    def add_prediction(self, event: Prediction, position: int, at: int) -> Held | None:
        """Take a prediction at join clock `at`; None if it repeats one that is known, or finds no room.

        Args:
            event: the decoded prediction.
            position: its place in the log; rises with every call.
            at: running maximum of append times of the prediction log, in milliseconds.
        """
        code = self.series_of(event)
        if code < 0:
            return None
        key: Key = event.id if not event.row and not event.target else (event.id, event.row, event.target)
        rule = self.series_rules[code]
        others = self.waiting.get(key)
        repeats = others is not None and self._repeats(event, code, others, at, rule)
        slices = event.slices
        values = tuple(map(slices.get, rule.slices_by)) if slices else (None,) * len(rule.slices_by)
        took = event.latency_ms if rule.latency else None
        held = Held(key, position, at, code, event.output, event.score, event.scores, values, took)
        if others is None:
            self.waiting[key] = [held]
        else:
            others.append(held)
        self.leaving[rule.horizon_ms, rule.early_ms].append(held)
        if rule.unlabelled and others is not None and not repeats:
            self._pair_seen(held, others, rule)
        if at <= self.closed_until:
            held.answered = position
        else:
            for feedback in self.early.get(key, ()):
                if feedback.model is None or feedback.model == event.model:
                    self._meet(held, feedback, rule)
        return None if repeats else held

    def _repeats(self, event: Prediction, code: int, others: list[Held], at: int, rule: WindowRule) -> bool:
        mine = self.series[code]
        for other in others:
            reached = at - other.at <= rule.horizon_ms + rule.early_ms
            if not reached or not self._same_version(self.series[other.series], mine):
                continue
            same = other.output == event.output and type(other.output) is type(event.output)
            self.counts[RejectCode.DUPLICATE if same else RejectCode.CONFLICTING_PREDICTION] += 1
            return True
        return False

    @staticmethod
    def _same_version(one: Series, other: Series) -> bool:
        return one.version == other.version and one.model == other.model

    def _is_first(self, held: Held, others: list[Held], feedback_at: int, rule: WindowRule) -> bool:
        """Whether no earlier prediction of the same version is within reach of that feedback."""
        mine = self.series[held.series]
        for other in others:
            if other is held:
                return True
            reached = -rule.early_ms <= feedback_at - other.at <= rule.horizon_ms
            if reached and self._same_version(self.series[other.series], mine):
                return False
        return True

    def add_feedback(self, event: Feedback, position: int, at: int) -> bool:
        """Take a label at join clock `at`; return whether it is the first label of at least one prediction."""
        key: Key = event.id if not event.row and not event.target else (event.id, event.row, event.target)
        feedback = HeldFeedback(key, position, at, event.truth, event.source, event.model, event.engagement)
        for held in self.waiting.get(key, ()):
            if event.model is None or self.series[held.series].model == event.model:
                self._meet(held, feedback, self.series_rules[held.series])
        if (
            self.counts.rows is None
            and not feedback.matched
            and not feedback.code
            and (feedback.late or feedback.unfit)
        ):
            # Where no other reader may count it too, at once.
            feedback.code = self._why_unused(feedback)
            self.counts[feedback.code] += 1
        self.early.setdefault(key, []).append(feedback)
        self.early_leaving.append(feedback)
        return feedback.matched

    def _meet(self, held: Held, feedback: HeldFeedback, rule: WindowRule) -> None:
        """Take note of what a prediction and a label of one key are to each other, whichever was read first.

        A label that an answered prediction has no use for is counted at the place of the two, and no more as soon as
        another prediction has use for it: both follow from what stands before these places in either log.
        """
        since = feedback.at - held.at
        if since < -rule.early_ms:
            return
        if since > rule.horizon_ms:
            feedback.late = feedback.late or rule.takes(feedback)
            return
        if not rule.takes(feedback):
            feedback.unfit = True
            return
        if held.answered < 0 and self._answer(held, feedback.position, feedback, feedback.at, rule):
            if feedback.code:
                # It repeats what others knew, but for this prediction it is the first.
                self._count(feedback.code, -1, held, feedback)
            feedback.matched, feedback.code = True, ""
        elif not feedback.matched and not feedback.code:
            # Where truths are told, they decide whether two labels say the same.
            by_truth = held.truth is not None or feedback.truth is not None
            same = held.truth == feedback.truth if by_truth else held.engagement == feedback.engagement
            feedback.code = RejectCode.DUPLICATE_FEEDBACK if same else RejectCode.CONFLICTING_FEEDBACK
            self._count(feedback.code, 1, held, feedback)

    def _count(self, code: str, change: int, held: Held, feedback: HeldFeedback) -> None:
        self.counts.place = held.position, feedback.position
        self.counts[code] += change

    @staticmethod
    def _why_unused(feedback: HeldFeedback) -> RejectCode:
        """Return the code of a label that answers nothing, and that no prediction was there for that was answered."""
        if feedback.unfit:
            return RejectCode.UNUSABLE_TRUTH
        return RejectCode.LATE_FEEDBACK if feedback.late else RejectCode.UNMATCHED_FEEDBACK

    def _answer(self, held: Held, position: int, label: Feedback | HeldFeedback, at: int, rule: WindowRule) -> bool:
        """Take note of a prediction's first feedback; return whether the two are each other's first: an outcome."""
        held.answered, held.truth, held.engagement = position, label.truth, label.engagement
        others = self.waiting[held.key]
        if len(others) > 1 and not self._is_first(held, others, at, rule):
            return False
        held.joined = True
        self.outcomes.append(Outcome(held, at, label.source))
        if len(others) > 1:
            self._pair(held, others, at)
        return True

    def _pair(self, held: Held, others: list[Held], at: int) -> None:
        for other in others:
            if other.joined and other.answered == held.answered:
                pair = self._live_and_shadow(held, other)
                if pair is not None:
                    self.pairs.append(Pair(*pair, at))

    def _pair_seen(self, held: Held, others: list[Held], rule: WindowRule) -> None:
        """Pair a prediction with the first of each other version that is near enough to be of the same request."""
        taken = set()
        for other in others:
            version = self.series[other.series].version
            # What is older may be forgotten already, so it must play no part.
            if version in taken or held.at - other.at > rule.horizon_ms + rule.early_ms:
                continue
            pair = self._live_and_shadow(held, other)
            if pair is not None:
                taken.add(version)
                self.seen_pairs.append(pair)

    def _live_and_shadow(self, held: Held, other: Held) -> tuple[Held, Held] | None:
        """Return two predictions of one request as (live, shadow), None if they are not that."""
        mine, series = self.series[held.series], self.series[other.series]
        if other is held or series.model != mine.model:
            return None
        if mine.role == "shadow" and series.role == "live":
            return other, held
        return (held, other) if mine.role == "live" and series.role == "shadow" else None

    def evict(self, predictions_at: int, feedback_at: int) -> None:
        """Forget what no future record can belong to; a truth that leaves unmatched is counted.

        Eviction never changes what is joined, only what is remembered, so it may run whenever it suits the caller.
        """
        for (horizon, early), queue in self.leaving.items():
            while queue and predictions_at > queue[0].at + horizon + early and feedback_at > queue[0].at + horizon:
                held = queue.popleft()
                others = self.waiting[held.key]
                if len(others) == 1:
                    del self.waiting[held.key]
                else:
                    others.remove(held)
        self.expire(predictions_at)

    def expire(self, predictions_at: int) -> None:
        """Forget feedback that no future prediction can belong to; what leaves unmatched is counted."""
        queued = self.early_leaving
        while queued and predictions_at > queued[0].at + self.early_max:
            if self.counts.rows is not None:
                witness = self._witness_against(queued[0])
                if witness < 0:
                    return
                # The count comes from both: this feedback, and the prediction that shows it to be alone.
                self.counts.place = witness, queued[0].position
            feedback = queued.popleft()
            if not feedback.matched and not feedback.code:
                self.counts[self._why_unused(feedback)] += 1
            others_early = self.early[feedback.key]
            if len(others_early) == 1:
                del self.early[feedback.key]
            else:
                others_early.remove(feedback)

    def witness(self, position: int, at: int) -> None:
        """Take note of a record of the prediction log, the first in its interval of the join clock.

        One that comes so late that feedback cannot belong to any after it shows that this feedback is alone. Which one
        it is must not depend on what was read first, so of all that show it the first of an interval counts.
        """
        interval = at // self.witness_ms
        if not self._witnesses or interval > self._witnesses[-1][0]:
            self._witnesses.append((interval, position))

    def _witness_against(self, feedback: HeldFeedback) -> int:
        """Return the position of the prediction that shows that feedback is alone, -1 if none was read yet."""
        possible = (feedback.at + self.early_max) // self.witness_ms
        # Later feedback needs a later one. The last stays, because the next of its interval is none.
        while len(self._witnesses) > 1 and self._witnesses[0][0] <= possible:
            self._witnesses.popleft()
        if not self._witnesses or self._witnesses[0][0] <= possible:
            return -1
        return self._witnesses[0][1]

    def close_unanswered(self, until: int) -> None:
        """Let no prediction that waits, or that is made up to `until`, be answered any more.

        Feedback is gone that may have answered it, and its outcome may have been counted.
        """
        self.closed_until = until
        for held in (held for queue in self.leaving.values() for held in queue if held.answered < 0):
            held.answered = held.position

    def save(self) -> "SavedWindow":
        """Return the window's contents, to be saved between two batches (nothing may be left to take)."""
        assert not self.outcomes, len(self.outcomes)
        assert not self.pairs, len(self.pairs)
        assert not self.seen_pairs, len(self.seen_pairs)
        queues = [(horizon, early, list(queue)) for (horizon, early), queue in self.leaving.items()]
        return SavedWindow(list(self._models), self.series, queues, list(self.early_leaving), dict(self.counts))

    def load(self, saved: "SavedWindow") -> None:
        """Take over what `save` returned; the window must be new."""
        self._models = dict.fromkeys(saved.models)
        for series in saved.series:
            self.add_series(series)
        everything = [held for _, _, queue in saved.leaving for held in queue]
        for held in sorted(everything, key=lambda held: held.position):
            self.waiting.setdefault(held.key, []).append(held)
        for horizon, early, queue in saved.leaving:
            self.leaving[horizon, early] = deque(queue)
        for feedback in saved.early:
            self.early.setdefault(feedback.key, []).append(feedback)
        self.early_leaving = deque(saved.early)
        self.counts.update(saved.counts)


class SavedWindow(msgspec.Struct):
    """A `JoinWindow` at rest."""

    models: list[str]
    series: list[Series]
    leaving: list[tuple[int, int, list[Held]]]
    early: list[HeldFeedback]
    counts: dict[str, int]
