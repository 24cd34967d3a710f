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

Of one request only some predictions and labels are kept, so that nobody can make an event cost more than a fixed number
of steps, or join more than a fixed number of rows: `streams.window.pending_predictions` and
`streams.window.early_labels` have the limits. What is not kept is counted, and takes no part in the rule.

Memory: one `PendingPrediction` for each kept prediction of the last horizon + early, one `PendingFeedback` for each
label taken in the last `early`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from detectors.base import Ints
from streams.window.early_labels import EarlyLabels, PendingFeedback, SavedLabels
from streams.window.fingerprints import Key
from streams.window.pending_predictions import (
    NOTHING_GIVEN,
    PendingPrediction,
    PendingPredictions,
    is_same,
    why_kept,
)
from streams.window.records import unit_of
from streams.window.series import Series, SeriesTable, WindowRule
from streams.window.slice_values import shortened, text_bytes
from streams.window.tally import Tally, UnusedLabels
from unship.budgets.table import SHADOWS_OF_REQUEST
from unship.events import Feedback, Prediction
from unship.rejections import RejectCode

WITNESSES: Final = 10_000
"""How many positions of a window are kept to find the prediction that shows that feedback is unmatched."""


CLOCKS_APART_MS: Final = 600_000
"""How far the append times of two logs may be apart for records that were appended at one time."""


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
        self.rules = (default, *rules.values())
        self.engagement = any(rule.engagement for rule in self.rules)
        self.series = SeriesTable(rules, default)
        self.waiting = PendingPredictions(self.series, rules)
        self.early = EarlyLabels(max(rule.early_ms for rule in self.rules))
        self.tally = tally
        self.unused_labels = UnusedLabels()
        self.closed_until = -1
        self._joined = Joined([], [], [])
        reach_ms = self.early.early_ms + max(rule.horizon_ms for rule in self.rules)
        self.witnesses = Witnesses(reach_ms // WITNESSES)

    @property
    def joined(self) -> int:
        """Return how many outcomes `take` would return."""
        return len(self._joined.outcomes)

    def take(self) -> Joined:
        """Return what was joined since the last call."""
        taken, self._joined = self._joined, Joined([], [], [])
        return taken

    def add_prediction(self, event: Prediction, position: int, at: int) -> PendingPrediction | None:
        """Add a prediction; return None if it repeats another one or if a limit of its request is reached.

        Args:
            event: The decoded prediction.
            position: Its offset in the log; rises with every call.
            at: The join clock: the running maximum of append times of the prediction log, in milliseconds.
        """
        code = self.series.code(event.model, event.version, event.role)
        key: Key = event.id if not event.row and not event.target else (event.id, event.row, event.target)
        rule = self.series.rules[code]
        others = self.waiting.of(key, event.model)
        repeated = self._repeated(event, others, at, rule) if others else None
        if repeated is not None:
            same = repeated[0].output == event.output and type(repeated[0].output) is type(event.output)
            self.tally.add(RejectCode.DUPLICATE if same else RejectCode.CONFLICTING_PREDICTION, (position, -1))
            if repeated[-1].at // rule.interval_ms == at // rule.interval_ms:
                return None
        if (others or key in self.waiting) and not self.waiting.has_room(key, event.model, event.version, at, rule):
            if repeated is None:
                self.tally.add(RejectCode.REQUEST_LIMIT, (position, -1))
            return None
        slices = event.slices
        given = map(slices.get, rule.slices_by) if slices else [None] * len(rule.slices_by)
        values = tuple(map(shortened, given))
        took = event.latency_ms if rule.latency else None
        by_class = event.scores if rule.scores else None
        about = NOTHING_GIVEN if took is None and event.unit_hash is None else (took, unit_of(event.unit_hash))
        pending = PendingPrediction(key, position, at, code, event.output, event.score, by_class, values, about)
        if rule.unlabelled and others and repeated is None:
            self._pair_seen(pending, others, rule)
        self.waiting.add(pending, rule)
        if at <= self.closed_until:
            pending.close()
        elif key in self.early:
            for feedback in self.early.of(key, event.model, at - rule.early_ms, at + rule.reach_ms):
                self._meet(pending, feedback, rule)
        return None if repeated is not None else pending

    def _repeated(
        self, event: Prediction, others: Sequence[PendingPrediction], at: int, rule: WindowRule
    ) -> list[PendingPrediction] | None:
        """Return the kept predictions of the same version within reach, None if there are none."""
        version = event.version
        found = [
            other for other in others if at - other.at <= rule.reach_ms and self.series[other.series].version == version
        ]
        return found or None

    def _is_first(
        self, pending: PendingPrediction, others: Sequence[PendingPrediction], feedback_at: int, rule: WindowRule
    ) -> bool:
        """Return whether no earlier prediction of the same version is within reach of that feedback."""
        version = self.series[pending.series].version
        for other in others:
            if other is pending:
                return True
            reached = -rule.early_ms <= feedback_at - other.at <= rule.horizon_ms
            if reached and self.series[other.series].version == version:
                return False
        return True

    def add_feedback(self, event: Feedback, position: int, at: int) -> bool:
        """Add a label at join clock `at`; return whether it is the first label of at least one prediction."""
        key: Key = event.id if not event.row and not event.target else (event.id, event.row, event.target)
        if not self.early.take(key, event.model, at):
            self.tally.add(RejectCode.REQUEST_LIMIT, (-1, position))
            return False
        truth, engagement = (None, None) if event.retract else (event.truth, event.engagement)
        feedback = PendingFeedback(key, position, at, truth, event.source, event.model, engagement)
        for pending in self.waiting.all_of(key) if event.model is None else self.waiting.of(key, event.model):
            self._meet(pending, feedback, self.series.rules[pending.series])
        self.early.add(feedback)
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
            feedback.miss(late=since <= rule.reach_ms and rule.takes(feedback.truth, feedback.engagement))
            return
        if not feedback.retract and not rule.takes(feedback.truth, feedback.engagement):
            feedback.miss(unfit=True)
            return
        why = self._why_kept(pending, feedback, rule)
        if why is None and self._answer(pending, feedback, rule):
            if feedback.code:
                self._count(feedback.code, -1, pending, feedback)
            feedback.match()
        elif not feedback.matched and not feedback.code:
            feedback.repeat(why or self._repetition(pending, feedback))
            self._count(feedback.code, 1, pending, feedback)

    def _why_kept(self, pending: PendingPrediction, feedback: PendingFeedback, rule: WindowRule) -> RejectCode | None:
        """Return why a feedback does not label a prediction, None if it may."""
        if pending.labelled_by < 0:
            return RejectCode.RETRACTED if feedback.retract else None
        if rule.revised_ms >= 0 and pending.revisions:
            return why_kept(pending, feedback, rule)
        return RejectCode.RETRACTED if feedback.retract else self._repetition(pending, feedback)

    @staticmethod
    def _repetition(pending: PendingPrediction, feedback: PendingFeedback) -> RejectCode:
        same = is_same(pending, feedback)
        return RejectCode.DUPLICATE_FEEDBACK if same else RejectCode.CONFLICTING_FEEDBACK

    def _count(self, code: str, change: int, pending: PendingPrediction, feedback: PendingFeedback) -> None:
        self.tally.add(code, (pending.position, feedback.position), change)

    @staticmethod
    def _why_unused(feedback: PendingFeedback) -> RejectCode:
        """Return the code of a label that labels no prediction and repeats no label."""
        if feedback.unfit:
            return RejectCode.UNUSABLE_TRUTH
        return RejectCode.LATE_FEEDBACK if feedback.late else RejectCode.UNMATCHED_FEEDBACK

    def _answer(self, pending: PendingPrediction, feedback: PendingFeedback, rule: WindowRule) -> bool:
        """Label a prediction by a feedback, its first or one that revises it; return whether the two are an outcome."""
        revised = rule.revised_ms >= 0
        if revised:
            pending.put_in_force(feedback.source)
        pending.label(feedback.position, feedback.truth, feedback.engagement)
        others = self.waiting.of(pending.key, self.series[pending.series].model)
        if len(others) > 1 and not self._is_first(pending, others, feedback.at, rule):
            return False
        if feedback.matched and not feedback.takes(2 * (rule.row_bytes + text_bytes(pending.slices))):
            self._count(RejectCode.REQUEST_LIMIT, 1, pending, feedback)
            return False
        pending.join()
        # Of a label that may be replaced, what is joined keeps what is in force now.
        joined = msgspec.structs.replace(pending) if revised else pending
        self._joined.outcomes.append(Outcome(joined, feedback.at, feedback.source))
        if len(others) > 1:
            self._pair(pending, others, feedback.at, copied=revised)
        return True

    def _pair(
        self, pending: PendingPrediction, others: Sequence[PendingPrediction], at: int, *, copied: bool = False
    ) -> None:
        """Pair the live outcome of a label with its shadow outcomes: the first live one, and the first shadows."""
        same = [other for other in others if other.is_outcome_of(pending.labelled_by)]
        live = self._first_live(same)
        shadows = [other for other in same if self._role(other) == "shadow"][: SHADOWS_OF_REQUEST.limit]
        pairs: list[Pair] = []
        if live is pending:
            pairs = [Pair(pending, shadow, at) for shadow in shadows]
        elif live is not None and any(shadow is pending for shadow in shadows):
            pairs = [Pair(live, pending, at)]
        if copied:
            # The other one may have a later label in force already.
            label = {"labelled_by": pending.labelled_by, "truth": pending.truth, "engagement": pending.engagement}
            copy = msgspec.structs.replace
            pairs = [Pair(copy(pair.live, **label), copy(pair.shadow, **label), at) for pair in pairs]
        self._joined.pairs.extend(pairs)

    def _pair_seen(self, pending: PendingPrediction, others: Sequence[PendingPrediction], rule: WindowRule) -> None:
        """Pair a prediction with the live one of its request, or if it is that with the first shadows."""
        # Older ones may be evicted already, so the result must not depend on them.
        near = [other for other in others if pending.at - other.at <= rule.reach_ms]
        live, shadows = self._first_live(near), dict[str, PendingPrediction]()
        for other in near:
            if self._role(other) == "shadow":
                shadows.setdefault(self.series[other.series].version, other)
        if self._role(pending) == "shadow":
            if live is not None and len(shadows) < SHADOWS_OF_REQUEST.limit:
                self._joined.seen_pairs.append((live, pending))
        elif self._role(pending) == "live" and live is None:
            first = list(shadows.values())[: SHADOWS_OF_REQUEST.limit]
            self._joined.seen_pairs.extend((pending, shadow) for shadow in first)

    def _first_live(self, some: Sequence[PendingPrediction]) -> PendingPrediction | None:
        return next((each for each in some if self._role(each) == "live"), None)

    def _role(self, pending: PendingPrediction) -> str:
        return self.series[pending.series].role

    def evict(self, predictions_at: int, feedback_at: int) -> None:
        """Evict what no future record can belong to; a truth that is evicted unmatched is counted.

        Eviction never changes what is joined, so the caller may run it at any time.
        """
        self.waiting.evict(min(predictions_at, feedback_at))
        self.expire(predictions_at)

    def expire(self, predictions_at: int) -> None:
        """Evict feedback that no future prediction can belong to; what is evicted unmatched is counted.

        The place of the count is that of the feedback and of the prediction that shows it to be unmatched.
        """
        early = self.early
        early.evict_adopted(predictions_at)
        if not self.unused_labels.count(self.tally, self.witnesses.after):
            self._set_aside()
            return
        while (oldest := early.oldest) is not None and predictions_at > oldest.at + early.early_ms:
            witness = self.witnesses.after(oldest.at + early.early_ms)
            if witness < 0:
                break
            feedback = early.pop()
            if not feedback.matched and not feedback.code:
                self.tally.add(self._why_unused(feedback), (witness, feedback.position))
        self._set_aside()

    def _set_aside(self) -> None:
        """Keep no more than the counts of labels that are so old that no prediction follows that they belong to.

        Where predictions have ended, only the clock of the feedback goes on.
        """
        early = self.early
        while (oldest := early.oldest) is not None and early.newest_at > oldest.at + early.early_ms + CLOCKS_APART_MS:
            feedback = early.pop()
            if not feedback.matched and not feedback.code:
                after = feedback.at + early.early_ms
                self.unused_labels.add(self._why_unused(feedback), after, feedback.position)

    def unused(self) -> Counter[str]:
        """Return the counts of feedback that is late or unfit and will be counted when it is evicted."""
        waiting = (each for each in self.early if not each.matched and not each.code)
        found = Counter[str](self._why_unused(each) for each in waiting if each.late or each.unfit)
        return found + self.unused_labels.total()

    def series_in_use(self) -> set[int]:
        """Return the codes of the series of all predictions."""
        return {pending.series for pending in self.waiting}

    def tables(self) -> list[Container[Key]]:
        """Return what has the keys that anything is known of."""
        return [table for table in (*self.waiting.tables, *self.early.tables) if table]

    def begin_of(self, at: int) -> int:
        """Return when the intervals begin that predictions of a join clock are in: what is kept follows from there."""
        return min(at - at % rule.interval_ms for rule in self.rules)

    def witness(self, position: int, at: int) -> None:
        """Note a record of the prediction log: it may show that earlier feedback is unmatched."""
        self.witnesses.note(position, at)

    def witness_all(self, positions: Ints, at: Ints) -> None:
        """Note records of the prediction log, in their order."""
        for place in self.witnesses.firsts(at).tolist():
            self.witnesses.note(int(positions[place]), int(at[place]))

    def adopt(self, pending: PendingPrediction, feedback: PendingFeedback | None) -> None:
        """Add the only prediction of a key, and the label that it has; both were joined elsewhere."""
        self.waiting.add(pending, self.series.rules[pending.series])
        if feedback is not None:
            self.early.adopt(feedback)

    def close_unanswered(self, until: int) -> None:
        """Label no pending prediction any more, and none that is read up to the join clock `until`.

        Lost feedback may have labelled them, and their outcomes may be in the ledger.
        """
        self.closed_until = until
        for pending in self.waiting:
            if pending.labelled_by < 0:
                pending.close()

    def save(self) -> SavedWindow:
        """Return the window's contents; outcomes not taken yet are saved by the positions of their predictions."""
        outcomes, pairs, seen_pairs = self._joined
        return SavedWindow(
            self.series.save(),
            self.waiting.save(),
            self.early.save(),
            self.closed_until,
            self.witnesses.save(),
            [(outcome.prediction.position, outcome.labelled_at, outcome.source) for outcome in outcomes],
            [(pair.live.position, pair.shadow.position, pair.labelled_at) for pair in pairs],
            [(live.position, shadow.position) for live, shadow in seen_pairs],
            self.unused_labels.save(),
        )

    def load(self, saved: SavedWindow) -> dict[int, PendingPrediction]:
        """Load what `save` returned into a new window; return its predictions by their positions."""
        self.series.load(saved.series)
        at = self.waiting.load(saved.leaving)
        self.early.load(saved.early)
        self.closed_until = saved.closed_until
        self.witnesses.load(saved.witnesses)
        self.unused_labels.load(saved.unused_labels)
        self._joined = Joined(
            [Outcome(at[position], labelled_at, source) for position, labelled_at, source in saved.outcomes],
            [Pair(at[live], at[shadow], labelled_at) for live, shadow, labelled_at in saved.pairs],
            [(at[live], at[shadow]) for live, shadow in saved.seen_pairs],
        )
        return at


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
    early: SavedLabels
    closed_until: int
    witnesses: list[tuple[int, int]]
    outcomes: list[tuple[int, int, str]]
    pairs: list[tuple[int, int, int]]
    seen_pairs: list[tuple[int, int]]
    unused_labels: list[int] = []
