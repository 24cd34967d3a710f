"""The demo shows the evidence that counts: that of the alarm before it, and what is waited for afterwards."""

from __future__ import annotations

import msgspec

from actions.evidence_tree import ComparisonReport, Mean, MeanIfAny
from console.census.scenarios import MODEL
from console.demo.course import Progress
from console.demo.views import evidence
from streams.fold.status import ModelStatus, Status

START = 1_767_571_200_000
BEFORE = ModelStatus("HEALTHY", "v42", (0, 1, 0), {}, None, 0.25, [], True, {})
COMPARISON = ComparisonReport(
    basis="concurrent",
    target="v41",
    role="holdback",
    evidence=3e5,
    threshold=1e6,
    candidate=Mean(0.3, 900.0),
    target_since_change=MeanIfAny(0.2, 90.0),
    difference=0.1,
    target_degraded=False,
    expected_ts=START + 60_000,
)


def shown(model: ModelStatus) -> str:
    return evidence(Progress(START, status=Status(START, {MODEL: model}, {})))


def test_before_the_alarm_it_is_the_evidence_that_the_version_got_worse() -> None:
    assert shown(BEFORE) == "evidence that v42 got worse: 0.25 of 1"


def test_after_the_alarm_it_is_the_comparison_with_its_expected_time() -> None:
    after = msgspec.structs.replace(BEFORE, state="CONFIRMING", comparison=COMPARISON)
    assert shown(after) == "evidence that v41 is better than v42: 0.3 of 1, expected by 00:01"
