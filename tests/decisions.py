"""Decisions for tests: one with every part of the evidence, and what else a test makes of it."""

from __future__ import annotations

from typing import Any

import msgspec

from actions.evidence_tree import (
    AlarmReport,
    ClassesReport,
    ComparisonReport,
    CoverageReport,
    DetectableReport,
    DetectorReport,
    Evidence,
    FleetReport,
    Lead,
    LearningReport,
    Mean,
    MeanIfAny,
    MixReport,
    OperatorReport,
    RecordReport,
    RecordToday,
    SliceReport,
    SourceReport,
    TogetherReport,
    Without,
)
from actions.journal import Decision, Digests, Provenance
from actions.reasons import Action, Reason, Verdict

MEAN = Mean(0.25, 40.0)
CONCURRENT = ComparisonReport(
    basis="concurrent",
    target="v1",
    role="shadow",
    evidence=9.5,
    threshold=100.0,
    candidate=MEAN,
    target_since_change=MeanIfAny(None, 0.0),
    difference=None,
    target_degraded=False,
)
RECORD = RecordReport(0.1, 2_000.0, 5, None, RecordToday(0.12, 1_500.0, None))
FULL = Evidence(
    detectors={
        "e_detector": {"zero_one": DetectorReport(0.5, None, "learning", MEAN), "threshold": 100.0},
        "adwin": {"zero_one": DetectorReport(alarms=0, last_ts=None)},
        "promise": "not promised",
        "decides": "adwin",
    },
    maturity="10m",
    sources={
        "crm": SourceReport(
            0.5, Without(20.0, -0.01, 0.0, False), True, Lead(None, False), Without(20.0, 0.01, None, True)
        )
    },
    label_coverage=0.9,
    alarm=AlarmReport("adwin", "zero_one", {"new": True}, 9, 5, 0.0, 0.0, MEAN, None, "learning"),
    slices=[SliceReport({"n": 1.0}, 3.0, True, MEAN, MEAN, "previous")],
    comparison=msgspec.structs.replace(CONCURRENT, basis="record", role="live", record=RECORD),
    mix=MixReport("new", True),
    unfit={"v0": "every replica that answered refused it"},
    fleet=FleetReport(1, {"m2": "d-1"}),
    operator=OperatorReport("approve", "me", "why", False),
    missing="the version",
    serving=None,
    deployed="v9",
    together=[TogetherReport(["crm", "__other__"], Without(20.0, -0.01, None, False))],
    detectable=DetectableReport("zero_one", 0.04, 600, 0.0312, 2_400.0),
    learning=LearningReport(380, 60_000),
    classes=ClassesReport(["fraud", "ok"], ["0", "1"], 500, 500),
    lost=CoverageReport({"country": "DE"}, None, Mean(0.9, 400.0), MEAN),
    implied=True,
)


def decision(evidence: Evidence, **changes: Any) -> Decision:
    made = Decision(
        id="d-5-0-44e680",
        model="m",
        version="v2",
        action=Action.PAGE,
        to=None,
        verdict=Verdict.DEGRADED,
        reason=Reason.NOT_CONFIRMED,
        mode="act",
        epoch=(0, 5, 0),
        ts=9,
        slice={"new": True},
        outcomes=40,
        evidence=evidence,
        provenance=Provenance(ledger=(0, 5), lines=(0, 70)),
        digests=Digests(previous="", ledger="aa", config="bb"),
    )
    return msgspec.structs.replace(made, **changes)
