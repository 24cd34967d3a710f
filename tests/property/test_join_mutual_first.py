"""The join against the rule it promises, written down by brute force over the whole log at once."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.ledger.encoding import pack, unpack
from streams.window import early_labels, pending_predictions
from streams.window.join_window import JoinWindow, SavedWindow
from streams.window.series import WindowRule
from streams.window.tally import Tally
from tests.request_limits import Asked, Told, kept_labels, kept_predictions
from unship.events import Feedback, Prediction
from unship.rejections import RejectCode

EARLY_MAX_MS = 6
HORIZON_MAX_MS = 12

#: (kind, advance of its clock, id, row, target, model, version, role, value); evict and save are steps of the caller.
Step = tuple[str, int, str, int, str, str | None, str, str, Any]

steps = st.lists(
    st.tuples(
        st.sampled_from(["prediction"] * 4 + ["feedback"] * 4 + ["evict", "save"]),
        st.sampled_from([0, 0, 1, 1, 2, 5]),
        st.sampled_from("aab"),
        st.sampled_from([0, 0, 0, 1]),
        st.sampled_from(["", "", "", "price"]),
        st.sampled_from([None, "m", "m", "n"]),
        st.sampled_from(["v1", "v2", "v2", "v3"]),
        st.sampled_from(["live", "live", "holdback"]),
        st.sampled_from([0, 1, True, "no"]),
    ),
    max_size=40,
)
limits = st.tuples(st.integers(0, HORIZON_MAX_MS), st.integers(0, EARLY_MAX_MS))


class Logged:
    """Everything that happened, with its place and clock, for the reference to look back on."""

    def __init__(self) -> None:
        self.predictions: list[tuple[Prediction, int, int]] = []
        self.feedback: list[tuple[Feedback, int, int]] = []


class Joined:
    """What the join said: pairs of positions."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[int, int, int, str]] = []
        self.pairs: list[tuple[int, int, int]] = []

    def take(self, window: JoinWindow) -> None:
        """Move what was joined out of the window."""
        taken = window.take()
        self.outcomes += [
            (o.prediction.position, o.prediction.labelled_by, o.labelled_at, o.source) for o in taken.outcomes
        ]
        self.pairs += [(p.live.position, p.shadow.position, p.labelled_at) for p in taken.pairs]


def new_window(first: tuple[int, int], second: tuple[int, int]) -> JoinWindow:
    return JoinWindow({"n": WindowRule(*second, ())}, WindowRule(*first, ()), Tally())


def run(
    script: list[Step],
    first: tuple[int, int],
    second: tuple[int, int],
    *,
    one_clock: bool,
    obey: frozenset[str] = frozenset(),
    evict_at_end: bool = False,
) -> tuple[Joined, Logged, Counter[str]]:
    """Drive a window; `obey` names the caller's steps that are followed, the others are passed over."""
    window, joined, logged = new_window(first, second), Joined(), Logged()
    predictions_at = feedback_at = 0
    for position, (kind, passed, key, row, target, model, version, role, value) in enumerate(script):
        if kind in ("prediction", "feedback"):
            predictions_at += passed if one_clock or kind == "prediction" else 0
            feedback_at += passed if one_clock or kind == "feedback" else 0
        if kind == "prediction" or (one_clock and kind == "feedback"):
            window.witness(position, predictions_at)
        if kind == "prediction":
            # One version is a shadow for good, so that requests are answered twice often.
            event = Prediction(
                id=key,
                row=row,
                target=target,
                model=model or "m",
                version=version,
                output=value,
                role="shadow" if version == "v3" else role,  # type: ignore[arg-type]
            )
            logged.predictions.append((event, position, predictions_at))
            window.add_prediction(event, position, predictions_at)
        elif kind == "feedback":
            truth = Feedback(id=key, row=row, target=target, model=model, truth=value, source=version)
            logged.feedback.append((truth, position, feedback_at))
            window.add_feedback(truth, position, feedback_at)
        elif kind == "evict" and kind in obey:
            window.evict(predictions_at, feedback_at)
        elif kind == "save" and kind in obey:
            joined.take(window)
            saved, counted = unpack(pack(window.save()), SavedWindow), window.tally
            window = new_window(first, second)
            window.tally = counted
            window.load(saved)
    joined.take(window)
    if evict_at_end:
        window.witness(len(script), predictions_at + 10_000)
        window.evict(predictions_at + 10_000, feedback_at + 10_000)
        assert not window.waiting
        assert not list(window.early)
    return joined, logged, window.tally.total() + window.unused()


class Reference:
    """The rule, over the whole log: the first feedback for a prediction, and the first prediction for a feedback."""

    def __init__(self, logged: Logged, first: tuple[int, int], second: tuple[int, int]) -> None:
        self.limits = {"m": first, "n": second}
        self.counts: Counter[str] = Counter()
        asked = [
            Asked((event.id, event.row, event.target), event.model, event.version, at)
            for event, _, at in logged.predictions
        ]
        kept, refused = kept_predictions(asked, self.limits.__getitem__, ["n"])
        told = [Told((event.id, event.row, event.target), event.model, at) for event, _, at in logged.feedback]
        taken = kept_labels(told, max(first[1], second[1]))
        self._count_repeats(logged, kept)
        self.counts["REQUEST_LIMIT"] += sum(refused) + taken.count(False)
        self.kept = [entry for entry, use in zip(logged.predictions, kept, strict=True) if use]
        self.taken = [entry for entry, use in zip(logged.feedback, taken, strict=True) if use]
        self.outcomes = self._outcomes()
        self.pairs = self._pairs()

    def _count_repeats(self, logged: Logged, kept: list[bool]) -> None:
        """Count predictions of a key, model and version of which another was kept before within the window.

        The first of each interval stays in the join, a repeat or not: an outcome goes to the first that is within reach
        of the feedback.
        """
        before: dict[tuple[Any, ...], list[tuple[Prediction, int]]] = defaultdict(list)
        for (event, _, at), stays in zip(logged.predictions, kept, strict=True):
            earlier = before[event.id, event.row, event.target, event.model, event.version]
            reach = [other for other, other_at in earlier if at - other_at <= sum(self.limits[event.model])]
            if reach:
                same = reach[0].output == event.output and type(reach[0].output) is type(event.output)
                self.counts["DUPLICATE" if same else "CONFLICTING_PREDICTION"] += 1
            if stays:
                earlier.append((event, at))

    def belong(self, prediction: Prediction, at: int, feedback: Feedback, labelled_at: int) -> bool:
        horizon, early = self.limits[prediction.model]
        keys = (prediction.id, prediction.row, prediction.target) == (feedback.id, feedback.row, feedback.target)
        named = feedback.model is None or feedback.model == prediction.model
        return keys and named and -early <= labelled_at - at <= horizon

    def _outcomes(self) -> set[tuple[int, int, int, str]]:
        found = set()
        for p, p_position, at in self.kept:
            fits = [entry for entry in self.taken if self.belong(p, at, entry[0], entry[2])]
            if not fits:
                continue
            f, f_position, labelled_at = fits[0]
            rivals = [
                position
                for other, position, other_at in self.kept
                if (other.model, other.version) == (p.model, p.version) and self.belong(other, other_at, f, labelled_at)
            ]
            if rivals[0] == p_position:
                found.add((p_position, f_position, labelled_at, f.source))
        return found

    def _pairs(self) -> set[tuple[int, int, int]]:
        """The first live outcome of one request, model and feedback, with each shadow one."""
        by_position = {position: event for event, position, _ in self.kept}
        by_feedback = defaultdict(list)
        for p_position, f_position, labelled_at, _ in sorted(self.outcomes):
            by_feedback[f_position, labelled_at, by_position[p_position].model].append(p_position)
        found = set()
        for (_, labelled_at, _), members in by_feedback.items():
            live = [position for position in members if by_position[position].role == "live"][:1]
            shadows = [position for position in members if by_position[position].role == "shadow"]
            found |= {(first, shadow, labelled_at) for first in live for shadow in shadows}
        return found


COUNTED = ("DUPLICATE", "CONFLICTING_PREDICTION", "REQUEST_LIMIT")


@settings(max_examples=300)
@given(script=steps, first=limits, second=limits, one_clock=st.booleans())
def test_join_is_the_mutual_first_rule(
    script: list[Step], first: tuple[int, int], second: tuple[int, int], one_clock: bool
) -> None:
    """Each outcome and each pair once, and whatever the order in which the two logs are read."""
    joined, logged, counts = run(script, first, second, one_clock=one_clock)
    expected = Reference(logged, first, second)
    assert len(set(joined.outcomes)) == len(joined.outcomes)
    assert set(joined.outcomes) == expected.outcomes
    assert len(set(joined.pairs)) == len(joined.pairs)
    assert set(joined.pairs) == expected.pairs
    assert {code: counts[code] for code in COUNTED if counts[code]} == +expected.counts


@settings(max_examples=200)
@given(script=steps, first=limits, second=limits, one_clock=st.booleans())
def test_eviction_at_any_moment_changes_nothing_that_is_joined(
    script: list[Step], first: tuple[int, int], second: tuple[int, int], one_clock: bool
) -> None:
    without, _, _ = run(script, first, second, one_clock=one_clock)
    evicting, _, _ = run(script, first, second, one_clock=one_clock, obey=frozenset({"evict"}), evict_at_end=True)
    assert evicting.outcomes == without.outcomes
    assert evicting.pairs == without.pairs


@settings(max_examples=200)
@given(script=steps, first=limits, second=limits, one_clock=st.booleans())
def test_saving_and_loading_at_any_moment_changes_nothing(
    script: list[Step], first: tuple[int, int], second: tuple[int, int], one_clock: bool
) -> None:
    without, _, counts = run(script, first, second, one_clock=one_clock, obey=frozenset({"evict"}))
    saving, _, counts_saving = run(script, first, second, one_clock=one_clock, obey=frozenset({"evict", "save"}))
    assert saving.outcomes == without.outcomes
    assert saving.pairs == without.pairs
    assert counts_saving == counts


FEEDBACK_CODES = (
    RejectCode.DUPLICATE_FEEDBACK,
    RejectCode.CONFLICTING_FEEDBACK,
    RejectCode.LATE_FEEDBACK,
    RejectCode.UNMATCHED_FEEDBACK,
)


@settings(max_examples=300)
@given(script=steps, first=limits, second=limits, one_clock=st.booleans())
def test_feedback_that_made_no_outcome_is_counted_once_under_one_reason(
    script: list[Step], first: tuple[int, int], second: tuple[int, int], one_clock: bool
) -> None:
    """Once all have left the window, each truth was either used or counted: never both, twice or neither."""
    joined, logged, counts = run(
        script, first, second, one_clock=one_clock, obey=frozenset({"evict", "save"}), evict_at_end=True
    )
    used = len({answered for _, answered, _, _ in joined.outcomes})
    told = [Told((event.id, event.row, event.target), event.model, at) for event, _, at in logged.feedback]
    taken = kept_labels(told, max(first[1], second[1])).count(True)
    unused = sum(counts[code] for code in FEEDBACK_CODES)
    assert used + unused == taken, dict(counts)


def random_script(rng: random.Random) -> list[Step]:
    ids, length = rng.choice(["a", "ab", "abcdefgh"]), rng.randrange(20, 80)
    return [
        (
            rng.choice(["prediction", "feedback"] * 4 + ["evict", "save"]),
            rng.choice([0, 0, 1, 2, 3]),
            rng.choice(ids),
            rng.choice([0, 0, 1]),
            rng.choice(["", "", "price"]),
            rng.choice([None, None, "m", "n"]),
            rng.choice(["v1", "v2", "v3"]),
            rng.choice(["live", "live", "holdback"]),
            rng.choice([0, 1, True, "no"]),
        )
        for _ in range(length)
    ]


@pytest.mark.parametrize(("limit", "seeds", "refused_least"), [(None, 1_000, -1), (2, 500, 5), (1, 500, 100)])
def test_long_random_schedules_agree_with_the_reference(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, seeds: int, refused_least: int
) -> None:
    """Denser than what is drawn above, with saves and evictions on the way: enough happens to mean something."""
    if limit is not None:
        monkeypatch.setattr(pending_predictions, "VERSIONS_MAX", limit)
        monkeypatch.setattr(early_labels, "LABELS_MAX", limit)
    outcomes = pairs = early = repeated = refused = 0
    for seed in range(seeds):
        rng = random.Random(seed)
        script = random_script(rng)
        first, second = [(rng.randrange(HORIZON_MAX_MS + 1), rng.randrange(EARLY_MAX_MS + 1)) for _ in range(2)]
        obey = frozenset({"evict", "save"})
        joined, logged, counts = run(script, first, second, one_clock=rng.random() < 0.5, obey=obey)
        expected = Reference(logged, first, second)
        assert set(joined.outcomes) == expected.outcomes, seed
        assert len(joined.outcomes) == len(expected.outcomes), seed
        assert set(joined.pairs) == expected.pairs, seed
        assert len(joined.pairs) == len(expected.pairs), seed
        assert {code: counts[code] for code in COUNTED if counts[code]} == +expected.counts, seed
        outcomes, pairs = outcomes + len(joined.outcomes), pairs + len(joined.pairs)
        early += sum(answered < position for position, answered, _, _ in joined.outcomes)
        repeated += expected.counts.total()
        refused += expected.counts["REQUEST_LIMIT"]
    assert outcomes > 1_000
    assert pairs > 100
    assert early > 100
    assert repeated > 1_000, repeated
    assert refused > refused_least, refused


@settings(max_examples=150)
@given(script=steps, limit=limits)
def test_window_never_remembers_longer_than_horizon_and_early(script: list[Step], limit: tuple[int, int]) -> None:
    """Memory is bounded by the traffic of one window, whatever the length of the log."""
    window, at = new_window(limit, limit), 0
    for position, (kind, passed, key, _, _, model, version, _, value) in enumerate(script):
        at += passed
        window.witness(position, at)
        if kind == "prediction":
            event = Prediction(id=key, model=model or "m", version=version, output=value)
            window.add_prediction(event, position, at)
        elif kind == "feedback":
            window.add_feedback(Feedback(id=key, truth=value), position, at)
        window.evict(at, at)
        assert all(at - pending.at <= sum(limit) for pending in window.waiting)
        assert all(at - label.at <= limit[1] for label in window.early)
