"""Define the evidence of a decision: a typed tree, in the order of the journal.

The order of the fields is the order of the keys in a decision's bytes, which are digested: a field is added at its
end, and none is moved. What a decision has no number for is UNSET and left out; null is written where there was
something to compute and nothing to compute it from.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from actions.evidence import Scalar

Slice: TypeAlias = dict[str, Scalar]


class Mean(msgspec.Struct, frozen=True):
    """Hold a mean loss and the number of outcomes it rests on."""

    mean: float
    n: float


class MeanIfAny(msgspec.Struct, frozen=True):
    """Hold a mean loss, null where there was no outcome."""

    mean: float | None
    n: float


class DetectorReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hold what one detector has of one loss, on all requests.

    The e-detector has `evidence`, `baseline`, `basis` and, where the deployment's reference is implausible,
    `ignored_reference`. Any other detector has `alarms` and `last_ts`.
    """

    evidence: float | UnsetType = UNSET
    baseline: Mean | UnsetType | None = UNSET
    basis: str | UnsetType = UNSET
    ignored_reference: Mean | UnsetType = UNSET
    alarms: int | UnsetType = UNSET
    last_ts: int | UnsetType | None = UNSET


Detectors: TypeAlias = dict[str, dict[str, DetectorReport | float] | str]
"""By detector, then by loss. The e-detector has `threshold` besides its losses, and besides the detectors there are
`promise` and `decides`, as text."""


class AlarmReport(msgspec.Struct, frozen=True):
    """Hold the alarm that the decision rests on; `slice` is null for all requests, times are milliseconds."""

    detector: str
    loss: str
    slice: Slice | None
    ts: int
    change_ts: int
    evidence: float
    threshold: float
    since_change: Mean
    baseline: Mean | None
    basis: str


class SliceReport(msgspec.Struct, frozen=True):
    """Hold one of the slices with most evidence."""

    slice: Slice | None
    evidence: float
    singled_out: bool
    since_change: Mean
    baseline: Mean | None
    basis: str


class RecordToday(msgspec.Struct, frozen=True):
    """Hold a record's mean loss as it would be for the requests of today, reweighted on one dimension."""

    mean: float
    n: float
    dimension: str | None


class RecordReport(msgspec.Struct, frozen=True):
    """Hold what the target has on record from when it was live."""

    mean: float
    n: float
    since_ts: int
    label_coverage: float | None
    today: RecordToday


class ComparisonReport(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Hold the comparison with the target; `basis` is `concurrent`, or `record` where `record` is there.

    `expected_ts` is when the evidence reaches the threshold if both arms go on like this (ms), null if it then never
    does, or if there is nothing of the target since the change; it is absent once it has.
    """

    basis: str
    target: str
    role: str
    evidence: float
    threshold: float
    candidate: Mean
    target_since_change: MeanIfAny
    record: RecordReport | UnsetType = UNSET
    difference: float | None
    target_degraded: bool
    expected_ts: int | UnsetType | None = UNSET


class Without(msgspec.Struct, frozen=True):
    """Hold the rise since the change with label sources left out, and whether it still is one; `evidence` is null where
    no row of detectors leaves them out."""

    outcomes: float
    rise: float
    evidence: float | None
    agrees: bool


class Lead(msgspec.Struct, frozen=True):
    """Hold how much better the target was with a label source left out, null if nothing is left, and whether at least
    half of the lead is left."""

    difference: float | None
    agrees: bool


class SourceReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hold a label source's share of the labels since the change, and what shows without it.

    `listed` is whether the configuration lists it; where nothing is listed, names are what their writers declare, and
    it is absent. `lead` is about the target's lead, `target` about its own rise, if it got worse.
    """

    share: float
    without: Without
    listed: bool | UnsetType = UNSET
    lead: Lead | UnsetType = UNSET
    target: Without | UnsetType = UNSET


class TogetherReport(msgspec.Struct, frozen=True):
    """Hold label sources that are left out together, and what shows without them."""

    sources: list[str]
    without: Without


class MixReport(msgspec.Struct, frozen=True):
    """Hold the property of the requests that explains the rise, and its value that explains most."""

    dimension: str
    value: Scalar


class ClassesReport(msgspec.Struct, frozen=True):
    """Hold the classes that occur most among the answers and among the truths of the first outcomes, as text, and how
    many of so many answers differ from their truth."""

    answers: list[str]
    truths: list[str]
    wrong: int
    outcomes: int


class CoverageReport(msgspec.Struct, frozen=True):
    """Hold the slice, or the class that was answered, whose share of labels moved: what it was, what it is, of how many
    predictions."""

    slice: Slice | None
    output: str | None
    before: Mean
    now: Mean


class FleetReport(msgspec.Struct, frozen=True):
    """Hold the limit over all models and the decision of each other model that is being rolled back."""

    limit: int
    under_way: dict[str, str]


class OperatorReport(msgspec.Struct, frozen=True):
    """Hold what an operator ordered."""

    act: str
    by: str
    reason: str
    override: bool


class DetectableReport(msgspec.Struct, frozen=True):
    """Hold the smallest rise of the primary loss that would have shown in so many outcomes, and what a day gives.

    Each rise is of the mean loss on all requests, at the promise; null where none would show. The outcomes of a day are
    those at the present rate, null where there is no rate yet.
    """

    loss: str
    rise: float | None
    outcomes: int
    rise_in_a_day: float | None
    outcomes_in_a_day: float | None


class LearningReport(msgspec.Struct, frozen=True):
    """Hold how many outcomes are missing, and when they will have been judged at the present rate (ms), if known."""

    missing: int
    expected_ts: int | None


class HoldbackReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """Hold the share of the units that a version answers next to the one that serves, until a time (ms), null for good.

    `raised_from` is what the share was, from this decision or an earlier one on; `proposed` what it should become.
    `expected_ts` is when the comparison is decided with the share that holds from here on, if both versions go on like
    this (ms): null if that is not known yet, absent where nothing is waited for.
    """

    version: str
    share: float
    until_ts: int | None
    raised_from: float | UnsetType = UNSET
    proposed: float | UnsetType = UNSET
    expected_ts: int | UnsetType | None = UNSET


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Hold every number that a decision weighed; `sources` is a count where there was nothing to weigh of them, and
    `implied` is true where no deployment made the version live."""

    detectors: Detectors | UnsetType = UNSET
    maturity: str | UnsetType = UNSET
    sources: int | dict[str, SourceReport] | UnsetType = UNSET
    label_coverage: float | UnsetType = UNSET
    alarm: AlarmReport | UnsetType = UNSET
    slices: list[SliceReport] | UnsetType = UNSET
    comparison: ComparisonReport | UnsetType | None = UNSET
    mix: MixReport | UnsetType = UNSET
    unfit: dict[str, str] | UnsetType = UNSET
    fleet: FleetReport | UnsetType = UNSET
    operator: OperatorReport | UnsetType = UNSET
    missing: str | UnsetType = UNSET
    serving: str | UnsetType | None = UNSET
    deployed: str | UnsetType = UNSET
    together: list[TogetherReport] | UnsetType = UNSET
    detectable: DetectableReport | UnsetType = UNSET
    learning: LearningReport | UnsetType = UNSET
    classes: ClassesReport | UnsetType = UNSET
    lost: CoverageReport | UnsetType = UNSET
    implied: bool | UnsetType = UNSET
    holdback: HoldbackReport | UnsetType = UNSET
