"""A version with nothing beside it, from its events to its decisions: what the past proves, and what it does not."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from msgspec import UNSET

from actions.evidence_tree import ComparisonReport, DetectorReport, Mean, MeanIfAny
from actions.journal import Decision
from console.commands.explain import page
from console.sentences import sentence
from streams.config.parse import parse
from streams.recordings.replay import Replay
from unship.codec import encode_line
from unship.events import Deployment, Event, Feedback, OperatorAct, Prediction, Reference

START = 1_772_409_600_000
#: Milliseconds between two predictions.
STEP = 100


class Story:
    """Events of one model in the order of their time, and the decisions they lead to."""

    def __init__(self, mature: str = "0s", **policy: str) -> None:
        text = ", ".join(f"{key}: {value}" for key, value in {"mode": "act", "confirm_within": "2m", **policy}.items())
        self.config = parse(
            f"models: {{m: {{labels: {{mature_after: {mature}}}, slices: {{by: [kind]}}, worse_by: 0.02, "
            f"one_false_alarm_per: 10000, detectors: [e_detector], policy: {{{text}}}}}}}"
        )
        self.now, self.rng, self.events = START, np.random.default_rng(7), list[Event]()

    def live(self, version: str, status: Any = "live", **more: Any) -> Story:
        self.events.append(Deployment(model="m", version=version, status=status, ts=self.now, **more))
        return self

    def answers(
        self, version: str, count: int, wrong: float, labelled: float = 1.0, hard: float = 0.1, role: Any = "live"
    ) -> Story:
        """Let a version answer; hard questions are wrong three times as often as `wrong`."""
        for _ in range(count):
            self.now += STEP
            kind = "hard" if self.rng.random() < hard else "easy"
            error = self.rng.random() < wrong * (3 if kind == "hard" else 1)
            name = str(self.now)
            slices: Any = {"kind": kind}
            said = Prediction(
                id=name, model="m", version=version, output=int(error), slices=slices, role=role, ts=self.now
            )
            self.events.append(said)
            if self.rng.random() < labelled:
                self.events.append(Feedback(id=name, truth=0, ts=self.now))
        return self

    def act(self, act: Any, **more: Any) -> Story:
        self.events.append(OperatorAct(act=act, model="m", reason="test", by="me", ts=self.now, **more))
        return self

    def wait(self, days: int, version: str) -> Story:
        """Let days pass in which a version answers once in a while, for no clock believes a leap of a day."""
        for _ in range(2 * days):
            self.now += 43_200_000
            self.answers(version, 1, 0.05)
        return self

    def told(self) -> list[Decision]:
        """Replay, and let ten more minutes pass."""
        replay = Replay(self.config)
        recording = b"\n".join(map(encode_line, self.events)) + b"\n"
        return [*replay.decisions(io.BytesIO(recording)), *replay.advance(self.now + 600_000)]


def decay(mature: str = "0s", **policy: str) -> Story:
    """v1 was live for long, then v2 was as good, and then it was not."""
    story = Story(mature, **policy).live("v1").answers("v1", 2_500, 0.05).live("v2")
    return story.answers("v2", 1_500, 0.05).answers("v2", 900, 0.3)


def acts(decisions: Iterable[Decision]) -> list[tuple[str, str, str | None]]:
    return [(d.reason, d.action, d.to) for d in decisions if d.action in ("rollback", "propose", "observe", "page")]


def compared(decision: Decision) -> ComparisonReport:
    assert decision.evidence.comparison
    return decision.evidence.comparison


def row(decision: Decision) -> DetectorReport:
    """Return what the e-detector has of the only loss."""
    assert decision.evidence.detectors
    rows = decision.evidence.detectors["e_detector"]
    assert isinstance(rows, dict)
    report = rows["zero_one"]
    assert isinstance(report, DetectorReport)
    return report


@pytest.mark.parametrize("mature", ["0s", "20s"])
@pytest.mark.parametrize(
    ("policy", "first"),
    [
        ({}, ("RECORD_BETTER", "propose", "v1")),
        ({"without_control": "act"}, ("RECORD_BETTER", "rollback", "v1")),
        ({"without_control": "page"}, ("RECORD_BETTER", "page", None)),
        ({"without_control": "act", "mode": "observe"}, ("RECORD_BETTER", "observe", "v1")),
    ],
)
def test_decay_with_nothing_beside_goes_as_far_as_its_owner_allows(
    mature: str, policy: dict[str, str], first: tuple[str, str, str | None]
) -> None:
    # A proposal that nobody answers stays open; nothing else is told, though the evidence goes up and down.
    assert acts(decay(mature=mature, **policy).told()) == [first]


def test_evidence_and_words_say_that_the_comparison_is_with_the_past() -> None:
    decision = decay().told()[-1]
    comparison = compared(decision)
    assert (comparison.basis, comparison.target, comparison.role) == ("record", "v1", "live")
    assert comparison.evidence >= comparison.threshold == 10_000
    assert comparison.record
    assert comparison.record.n >= 2_000
    assert comparison.record.today.mean < comparison.candidate.mean
    assert comparison.target_since_change == MeanIfAny(None, 0.0)
    assert "when it served last" in sentence(decision)
    assert "nothing shows how good it would be now" in sentence(decision)
    text = page(decision)
    assert "by the past, yes" in text
    assert "no concurrent holdback or shadow" in text


def test_approved_proposal_from_the_past_is_done() -> None:
    story = decay()
    made = acts(story.told())
    assert made == [("RECORD_BETTER", "propose", "v1")]
    assert acts(story.act("approve").told()) == [*made, ("APPROVED", "rollback", "v1")]


def test_version_before_that_was_no_better_is_not_proposed() -> None:
    reference = {"zero_one": Reference(mean=0.06, n=2_000)}
    story = Story().live("v1").answers("v1", 2_500, 0.3).live("v2", reference=reference)
    told = story.answers("v2", 1_500, 0.05).answers("v2", 900, 0.3).told()
    assert acts(told) == [("NOT_CONFIRMED", "page", None)]
    assert [d.reason for d in told if d.version == "v2"] == ["LEARNING", "HEALTHY", "CONFIRMING", "NOT_CONFIRMED"]
    assert compared(told[-1]).evidence < 10


def test_harder_requests_are_a_mix_shift_and_no_reason_to_go_back() -> None:
    story = Story(without_control="act", confirm_within="1h").live("v1").answers("v1", 2_500, 0.1).live("v2")
    told = story.answers("v2", 1_500, 0.1).answers("v2", 3_000, 0.1, hard=0.9).told()
    assert acts(told) == [("MIX_SHIFT", "page", None)]


@pytest.mark.parametrize("why", ["first", "short", "retired", "old"])
def test_without_a_record_to_go_by_nobody_knows(why: str) -> None:
    story = Story()
    if why != "first":
        story.live("v1").answers("v1", 300 if why == "short" else 2_500, 0.05)
        story.wait(31 if why == "old" else 0, "v1")
    story.live("v2")
    if why == "retired":
        story.live("v1", "retired")
    told = story.answers("v2", 1_500, 0.05).answers("v2", 900, 0.3).told()
    assert acts(told) == [("TARGET_UNKNOWN", "page", None)]


def test_version_whose_own_period_ended_degraded_is_passed_over_for_the_one_before() -> None:
    story = Story().live("v0").answers("v0", 2_500, 0.05).live("v1").answers("v1", 1_500, 0.05)
    story.answers("v1", 100, 0.5).live("v2")
    told = story.answers("v2", 1_500, 0.05).answers("v2", 900, 0.3).told()
    assert [d.to for d in told if d.version == "v2" and d.action == "propose"] == ["v0"]


def test_version_that_answers_beside_keeps_the_past_out() -> None:
    story = Story(without_control="act").live("v1").answers("v1", 2_500, 0.05).live("v2").live("v1", "holdback")
    story.answers("v2", 1_500, 0.05)
    for _ in range(100):
        # The holdback got as bad, so what it did before does not count.
        story.answers("v2", 9, 0.3).answers("v1", 1, 0.3, role="holdback")
    told = [d for d in story.told() if d.version == "v2"]
    assert told
    assert {d.evidence.comparison.basis for d in told if d.evidence.comparison} == {"concurrent"}
    assert not [d for d in told if d.action in ("rollback", "propose")]


def test_labels_that_go_missing_at_the_same_time_prove_nothing_by_the_past() -> None:
    # From one moment on only a third is labelled, and what is labelled is wrong more often.
    story = Story("20s", without_control="act").live("v1").answers("v1", 2_500, 0.05).live("v2")
    told = story.answers("v2", 1_500, 0.05).answers("v2", 900, 0.3, labelled=0.35).told()
    assert "RECORD_BETTER" not in {d.reason for d in told}
    assert "COVERAGE_SHIFT" in {d.reason for d in told}


@pytest.mark.parametrize("told", ["bad news only", "how long it took"])
def test_losses_that_need_no_label_of_every_answer_are_held_against_the_past_as_well(told: str) -> None:
    latency = told == "how long it took"
    judged = "losses: [{latency: {objective_ms: 100}}]" if latency else "losses: [zero_one]"
    labels = "{mature_after: 20s}" if latency else "{mature_after: 20s, missing: negative}"
    story = Story()
    story.config = parse(
        f"models: {{m: {{{judged}, labels: {labels}, worse_by: 0.02, one_false_alarm_per: 10000, "
        "detectors: [e_detector], policy: {mode: act, without_control: act}}}"
    )
    for version, parts in (("v1", [(2_500, 0.05)]), ("v2", [(1_500, 0.05), (900, 0.3)])):
        story.live(version)
        for count, share in parts:
            for _ in range(count):
                story.now += STEP
                name, bad = str(story.now), bool(story.rng.random() < share)
                took = 500.0 if bad and latency else 20.0
                story.events.append(
                    Prediction(id=name, model="m", version=version, output=0, latency_ms=took, ts=story.now)
                )
                if bad and not latency:
                    story.events.append(Feedback(id=name, truth=1, ts=story.now))
    assert acts(story.told()) == [("RECORD_BETTER", "rollback", "v1")]


# The share of labels settles


def test_new_share_of_labels_is_usual_after_a_while_and_a_later_decay_is_found() -> None:
    story = Story("20s").live("v1").answers("v1", 2_500, 0.05, labelled=0.95).answers("v1", 6_000, 0.05, labelled=0.5)
    told = [d.reason for d in story.answers("v1", 1_500, 0.4, labelled=0.5).told()]
    assert told == ["LEARNING", "HEALTHY", "COVERAGE_SHIFT", "LEARNING", "HEALTHY", "TARGET_UNKNOWN"]


def test_share_that_keeps_moving_is_not_accepted() -> None:
    story = Story("20s").live("v1").answers("v1", 2_500, 0.05, labelled=0.95)
    for i in range(60):
        # Ten cohorts high, ten cohorts low: the mean of twenty is always about the same.
        story.answers("v1", 100, 0.05, labelled=0.5 + 0.3 * (-1) ** i)
    assert [d.reason for d in story.told()] == ["LEARNING", "HEALTHY", "COVERAGE_SHIFT"]


def test_known_decay_does_not_become_usual_by_a_shift_of_the_labels() -> None:
    story = Story("20s").live("v1").answers("v1", 2_500, 0.05, labelled=0.95)
    story.answers("v1", 600, 0.3, labelled=0.95).answers("v1", 9_000, 0.3, labelled=0.5)
    told = [d.reason for d in story.told()]
    assert told == ["LEARNING", "HEALTHY", "TARGET_UNKNOWN", "COVERAGE_SHIFT"]
    # An operator may still say that it is.
    assert [d.reason for d in story.act("approve").answers("v1", 2_500, 0.3, labelled=0.5).told()][4:] == [
        "LEARNING",
        "HEALTHY",
    ]


def test_shift_forgets_the_records_of_other_labels() -> None:
    story = Story("20s").live("v0").answers("v0", 2_500, 0.05, labelled=0.95).live("v1")
    story.answers("v1", 1_500, 0.05, labelled=0.95).answers("v1", 7_000, 0.05, labelled=0.5)
    told = [d.reason for d in story.answers("v1", 1_500, 0.4, labelled=0.5).told()]
    assert told[-1] == "TARGET_UNKNOWN"


# A reference that is too bad to be true


def test_ignored_reference_is_counted_and_shown() -> None:
    reference = {"zero_one": Reference(mean=0.5, n=2_000)}
    story = Story().live("v1", reference=reference).answers("v1", 2_000, 0.05).answers("v1", 900, 0.3)
    told = story.told()
    assert acts(told) == [("TARGET_UNKNOWN", "page", None)]
    shown = row(told[-1])
    assert (shown.ignored_reference, shown.basis) == (Mean(0.5, 2_000.0), "first outcomes")
    assert "is ignored: 0.5000 (n=2000)" in page(told[-1])


def test_plausible_reference_is_not_mentioned() -> None:
    reference = {"zero_one": Reference(mean=0.06, n=2_000)}
    told = Story().live("v1", reference=reference).answers("v1", 2_000, 0.05).answers("v1", 900, 0.3).told()
    shown = row(told[-1])
    assert (shown.basis, shown.ignored_reference) == ("reference", UNSET)
