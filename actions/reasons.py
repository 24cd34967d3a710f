"""Define the closed vocabulary of why something was done or not done.

A reason is a field in the journal and a row in the documentation; there is no other.
"""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """Name what the evidence shows of a version."""

    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"


class Action(StrEnum):
    """Name what a decision does about it."""

    ROLLBACK = "rollback"
    PROPOSE = "propose"
    OBSERVE = "observe"
    PAGE = "page"
    NONE = "none"


class Reason(StrEnum):
    """Name why; `meaning` is the sentence for people, `action` what follows before the mode is applied."""

    meaning: str
    verdict: Verdict
    action: Action

    def __new__(cls, code: str, verdict: Verdict, action: Action, meaning: str) -> Reason:
        """Attach the sentence to the code, so that the two cannot drift apart."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning, member.verdict, member.action = meaning, verdict, action
        return member

    ERROR = (
        "ERROR",
        Verdict.ERROR,
        Action.PAGE,
        "No loss can be computed from the labels that arrive, so nothing is known.",
    )
    BLIND = "BLIND", Verdict.INCONCLUSIVE, Action.PAGE, "Predictions are made, but no labels come any more."
    IMPLAUSIBLE_LABELS = (
        "IMPLAUSIBLE_LABELS",
        Verdict.INCONCLUSIVE,
        Action.PAGE,
        "Answers and labels have no class in common, or nearly all answers are wrong from the first on: one of the two "
        "is probably coded in another way.",
    )
    COVERAGE_SHIFT = (
        "COVERAGE_SHIFT",
        Verdict.INCONCLUSIVE,
        Action.PAGE,
        "Another share of predictions gets a label than before, so the outcomes cannot be compared with earlier ones.",
    )
    LEARNING = (
        "LEARNING",
        Verdict.INCONCLUSIVE,
        Action.NONE,
        "Too few outcomes were judged yet to know what is usual, or whether the version got worse.",
    )
    HEALTHY = (
        "HEALTHY",
        Verdict.HEALTHY,
        Action.NONE,
        "There is no sign that the version got worse; the evidence has the smallest rise that would have shown.",
    )
    ALREADY_ROLLED_BACK = (
        "ALREADY_ROLLED_BACK",
        Verdict.DEGRADED,
        Action.NONE,
        "The version was rolled back before and serves again by an operator's order.",
    )
    HELD = "HELD", Verdict.DEGRADED, Action.NONE, "An operator has put automatic acts on hold."
    PINNED = "PINNED", Verdict.DEGRADED, Action.NONE, "An operator has pinned the version."
    TARGET_UNKNOWN = (
        "TARGET_UNKNOWN",
        Verdict.DEGRADED,
        Action.PAGE,
        "The version got worse, but no other version answers next to it and none has a record to compare with, so it "
        "is not known whether going back would help.",
    )
    TARGET_UNFIT = (
        "TARGET_UNFIT",
        Verdict.DEGRADED,
        Action.PAGE,
        "The version got worse, but no other one can be served: replicas refuse it, or nothing shows that one has it.",
    )
    LABEL_SOURCE_SUSPECT = (
        "LABEL_SOURCE_SUSPECT",
        Verdict.DEGRADED,
        Action.PAGE,
        "What it takes to act rests on one source of labels, or on sources that are not listed: without it nothing "
        "shows.",
    )
    COOLDOWN = "COOLDOWN", Verdict.DEGRADED, Action.NONE, "The last rollback was too short a while ago."
    SWITCH_LIMIT = (
        "SWITCH_LIMIT",
        Verdict.DEGRADED,
        Action.PAGE,
        "There were as many rollbacks lately as are allowed; automatic acts stop until an operator resumes them.",
    )
    FLEET_LIMIT = (
        "FLEET_LIMIT",
        Verdict.DEGRADED,
        Action.PAGE,
        "Many models got worse together, so the labels are suspect: as many as allowed were rolled back just now, and "
        "automatic acts on this one stop until an operator resumes them.",
    )
    TARGET_BETTER = (
        "TARGET_BETTER",
        Verdict.DEGRADED,
        Action.ROLLBACK,
        "The version got worse, and the one to go back to is better now.",
    )
    FEW_UNITS = (
        "FEW_UNITS",
        Verdict.DEGRADED,
        Action.ROLLBACK,
        "The version got worse, and the one to go back to is better now, but one of the two has answered fewer than "
        "5,000 units: it may be that the same few users differ.",
    )
    MIX_SHIFT = (
        "MIX_SHIFT",
        Verdict.DEGRADED,
        Action.PAGE,
        "Other, harder requests come than before; the version itself is not worse, so going back would not help.",
    )
    ALL_DEGRADED = (
        "ALL_DEGRADED",
        Verdict.DEGRADED,
        Action.PAGE,
        "Every version that could serve got worse: the world or the labels changed.",
    )
    RECORD_BETTER = (
        "RECORD_BETTER",
        Verdict.DEGRADED,
        Action.ROLLBACK,
        "The version got worse, and the one to go back to was better when it served last; there is no concurrent "
        "holdback or shadow to show whether it still is.",
    )
    CONFIRMING = (
        "CONFIRMING",
        Verdict.DEGRADED,
        Action.NONE,
        "The version got worse; whether the other one is better is being found out.",
    )
    NOT_CONFIRMED = (
        "NOT_CONFIRMED",
        Verdict.DEGRADED,
        Action.PAGE,
        "The version got worse, and in the time allowed nothing showed that the other one is better.",
    )
    QUARANTINED = (
        "QUARANTINED",
        Verdict.DEGRADED,
        Action.PAGE,
        "A version that was rolled back was deployed again, or one without a digest that may be the same bytes; it is "
        "not served.",
    )
    DEPLOYED_WHILE_PINNED = (
        "DEPLOYED_WHILE_PINNED",
        Verdict.INCONCLUSIVE,
        Action.PAGE,
        "A version was deployed while an operator holds or has pinned another; the operator's order holds.",
    )
    CHURN = (
        "CHURN",
        Verdict.INCONCLUSIVE,
        Action.PAGE,
        "Versions that were live a moment ago are deployed again; from here on each goes on with what is known "
        "of it, so that none escapes its verdict.",
    )
    UNANNOUNCED_VERSION = (
        "UNANNOUNCED_VERSION",
        Verdict.INCONCLUSIVE,
        Action.PAGE,
        "The version answers live, and no deployment names it: it is judged, and nothing goes back to it. Announce it "
        "with `unship emit deployment`, or find out who sends it.",
    )
    UNSIGNED_DEPLOYMENT = (
        "UNSIGNED_DEPLOYMENT",
        Verdict.INCONCLUSIVE,
        Action.PAGE,
        "A deployment that no deployer or operator signed was ignored. Sign it: `unship emit deployment` "
        "uses the deployer.key in `keys`, Fleet.deployed takes it as key=...; or set policy.deployments to any.",
    )
    APPROVED = "APPROVED", Verdict.DEGRADED, Action.ROLLBACK, "An operator approved the proposal."
    REJECTED = "REJECTED", Verdict.DEGRADED, Action.NONE, "An operator rejected the proposal."
    OPERATOR_ROLLBACK = "OPERATOR_ROLLBACK", Verdict.INCONCLUSIVE, Action.ROLLBACK, "An operator ordered it."
    OPERATOR_REFUSED = (
        "OPERATOR_REFUSED",
        Verdict.INCONCLUSIVE,
        Action.NONE,
        "An operator's order could not be followed: see the evidence for what is missing.",
    )
