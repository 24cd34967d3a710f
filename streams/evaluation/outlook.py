"""State what an absence of alarms means so far, and how long what is still missing will take."""

from __future__ import annotations

import math

import msgspec
from msgspec import UNSET

from actions.desired import Holdback
from actions.evidence_tree import ComparisonReport, DetectableReport, HoldbackReport, LearningReport, MeanIfAny
from detectors.base import rounded
from detectors.detectable import smallest_rise
from detectors.rows.bank import LEARN
from detectors.rows.watch import Health
from streams.config.resolved import ModelConfig
from streams.config.units import DURATION_MS_MAX, NEVER
from streams.evaluation.opinions import E_DETECTOR
from streams.evaluation.periods import LivePeriod

#: Judged outcomes of a live period from which on an absence of alarms is a finding.
OUTCOMES_LEAST = 500


def missing_outcomes(health: Health) -> int:
    """Return how many more outcomes it takes until a verdict is possible without an alarm, 0 if there are enough."""
    missing = OUTCOMES_LEAST - health.outcomes
    if health.rows.learning:
        missing = max(missing, math.ceil(LEARN - float(health.rows.banks[0].n[0])), 1)
    return max(missing, 0)


def learning_of(live: LivePeriod, now: int) -> LearningReport | None:
    """Return what is missing at `now` (ms) before a verdict is possible; None if nothing is, or after an alarm."""
    missing = missing_outcomes(live.health)
    if live.health.degraded or not missing:
        return None
    return LearningReport(missing, live.pace.reached_at(missing, now))


def detectable_of(health: Health, config: ModelConfig, a_day: float | None) -> DetectableReport:
    """Return which rise would have shown in the outcomes so far, and which shows in those of a day.

    Without a baseline there is none, nor where another detector decides, of which nothing is promised.
    """

    def rise(outcomes: float | None) -> float | None:
        if outcomes is None or health.rows.learning or config.detectors[0] != E_DETECTOR:
            return None
        return smallest_rise(health.rows.baseline(0, 0)[0], config.worse_by, outcomes, config.promise)

    return DetectableReport(config.losses[0].name, rise(health.outcomes), health.outcomes, rise(a_day), a_day)


def with_expectation(report: ComparisonReport, passed_ms: int, now: int) -> ComparisonReport:
    """Return a comparison with when its evidence reaches the threshold, if it has not.

    Args:
        report: the comparison so far.
        passed_ms: in how long a time the outcomes since the change point were predicted.
        now: the source clock.
    """
    if report.evidence >= report.threshold:
        return report
    wait = _wait_ms(report, max(passed_ms, 1))
    return msgspec.structs.replace(report, expected_ts=None if wait is None else now + wait)


def holdback_of(
    holdback: Holdback,
    comparison: ComparisonReport | None = None,
    passed_ms: int = 0,
    now: int = 0,
    rise: float | None = None,
    proposed: bool = False,
) -> HoldbackReport | None:
    """Return which share holds from now on, and how long the comparison takes with it; None where there is none.

    Args:
        holdback: as it is before the decision.
        comparison: what is waited for, None while nothing is.
        passed_ms: in how long a time the outcomes since the change point were predicted.
        now: the source clock.
        rise: what the share is to be; the outcomes so far came at the share of before.
        proposed: whether it is only proposed.
    """
    version, share = holdback.version, holdback.share
    if version is None:
        return None
    until = None if holdback.until >= NEVER else holdback.until
    if rise is None or proposed:
        raised = UNSET if holdback.raised_from is None else holdback.raised_from
        report = HoldbackReport(version, share, until, raised, UNSET if rise is None else rise)
    else:
        report = HoldbackReport(version, rise, until, raised_from=share)
    if comparison is None or comparison.target != version or comparison.evidence >= comparison.threshold:
        return report
    wait = _wait_ms(_at_share(comparison, share, report.share), max(passed_ms, 1))
    return msgspec.structs.replace(report, expected_ts=None if wait is None else now + wait)


def _at_share(comparison: ComparisonReport, before: float, share: float) -> ComparisonReport:
    """Return a comparison with as many outcomes of either version as another share would have given."""
    arm, other = comparison.candidate, comparison.target_since_change
    candidate = msgspec.structs.replace(arm, n=arm.n * (1.0 - share) / (1.0 - before))
    target = MeanIfAny(other.mean, other.n * share / before)
    return msgspec.structs.replace(comparison, candidate=candidate, target_since_change=target)


def _wait_ms(report: ComparisonReport, passed_ms: int) -> int | None:
    """Return how long the evidence still needs if both arms go on like this.

    It then grows by their divergence from what they have in common. A record is finite, and against one the evidence
    does not grow for ever.
    """
    arm, other = report.candidate, report.target_since_change
    if report.record or other.mean is None or not arm.n or not other.n or arm.mean <= other.mean:
        return None
    common = (arm.n * arm.mean + other.n * other.mean) / (arm.n + other.n)
    grown = arm.n * _divergence(arm.mean, common) + other.n * _divergence(other.mean, common)
    missing = math.log(report.threshold) - math.log(max(report.evidence, 1.0))
    wait = missing / grown * passed_ms
    return round(rounded(wait)) if wait <= DURATION_MS_MAX else None


def _divergence(mean: float, other: float) -> float:
    """Return the divergence of two 0/1 losses, `other` being neither 0 nor 1."""
    wrong = mean * math.log(mean / other) if mean else 0.0
    right = (1.0 - mean) * math.log((1.0 - mean) / (1.0 - other)) if mean < 1.0 else 0.0
    return wrong + right
