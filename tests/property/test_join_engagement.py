"""Engagement as a label: the join's rule does not care what a label says, only whether the model needs it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streams.ledger.encoding import pack, unpack
from streams.window.join_window import JoinWindow, SavedWindow
from streams.window.series import WindowRule
from streams.window.tally import Tally
from unship.events import Feedback, Prediction

TRUTH = WindowRule(8, 3, ())
USE = WindowRule(8, 3, (), truth=False, engagement=True)

#: (kind, time that passes, id, model, version, value)
steps = st.lists(
    st.tuples(
        st.sampled_from(["prediction", "prediction", "truth", "use", "save"]),
        st.sampled_from([0, 1, 2, 5]),
        st.sampled_from("aab"),
        st.sampled_from(["m", "n"]),
        st.sampled_from(["v1", "v2"]),
        st.sampled_from([0.0, 0.5, 1.0]),
    ),
    max_size=30,
)


def outcomes(script: list[Any], rules: dict[str, WindowRule], kinds: dict[str, str], named: bool) -> list[Any]:
    """Return (model, version, truth, engagement, places of both, time); `kinds` says as what a label is told."""
    window, at = JoinWindow(rules, TRUTH, Tally()), 0
    found = []
    for position, (kind, passed, id, model, version, value) in enumerate(script):
        at += passed
        if kind == "prediction":
            event = Prediction(id=id, model=model, version=version, output=1)
            window.add_prediction(event, position, at)
        elif kind == "save":
            saved = unpack(pack(window.save()), SavedWindow)
            window = JoinWindow(rules, TRUTH, Tally())
            window.load(saved)
        elif kind in kinds:
            said = {kinds[kind]: value}
            window.add_feedback(Feedback(id=id, model=model if named else None, **said), position, at)
        for outcome in window.take().outcomes:
            known, series = outcome.prediction, window.series[outcome.prediction.series]
            label = (known.truth, known.engagement)
            found.append((series.model, series.version, label, known.position, known.labelled_by, outcome.labelled_at))
        window.evict(at, at)
    return found


@given(script=steps, named=st.booleans())
def test_engagement_joins_exactly_as_truth_does(script: list[Any], named: bool) -> None:
    by_truth = outcomes(script, {"m": TRUTH, "n": TRUTH}, {"use": "truth"}, named)
    by_use = outcomes(script, {"m": USE, "n": USE}, {"use": "engagement"}, named)
    assert [(*rest, (None, label[0])) for *rest, label in map(_label_last, by_truth)] == [
        tuple(_label_last(found)) for found in by_use
    ]


@given(script=steps, named=st.booleans())
def test_feedback_that_a_model_does_not_need_changes_nothing_for_it(script: list[Any], named: bool) -> None:
    rules = {"m": TRUTH, "n": USE}
    both = outcomes(script, rules, {"truth": "truth", "use": "engagement"}, named)
    for model, kinds in (("m", {"truth": "truth"}), ("n", {"use": "engagement"})):
        alone = outcomes(script, rules, kinds, named)
        assert [found for found in both if found[0] == model] == alone


def _label_last(found: Any) -> list[Any]:
    model, version, label, *rest = found
    return [model, version, *rest, label]
