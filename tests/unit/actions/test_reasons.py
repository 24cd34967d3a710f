"""The closed vocabulary: pinned, so that a change of it is a decision and no accident."""

from __future__ import annotations

import pytest

from actions.policy import GUARDS
from actions.reasons import Action, Reason, Verdict

CODES = {
    "ERROR": ("ERROR", "page"),
    "LEARNING": ("INCONCLUSIVE", "none"),
    "BLIND": ("INCONCLUSIVE", "page"),
    "IMPLAUSIBLE_LABELS": ("INCONCLUSIVE", "page"),
    "COVERAGE_SHIFT": ("INCONCLUSIVE", "page"),
    "HEALTHY": ("HEALTHY", "none"),
    "ALREADY_ROLLED_BACK": ("DEGRADED", "none"),
    "HELD": ("DEGRADED", "none"),
    "PINNED": ("DEGRADED", "none"),
    "TARGET_UNKNOWN": ("DEGRADED", "page"),
    "TARGET_UNFIT": ("DEGRADED", "page"),
    "LABEL_SOURCE_SUSPECT": ("DEGRADED", "page"),
    "COOLDOWN": ("DEGRADED", "none"),
    "SWITCH_LIMIT": ("DEGRADED", "page"),
    "FLEET_LIMIT": ("DEGRADED", "page"),
    "TARGET_BETTER": ("DEGRADED", "rollback"),
    "FEW_UNITS": ("DEGRADED", "rollback"),
    "MIX_SHIFT": ("DEGRADED", "page"),
    "ALL_DEGRADED": ("DEGRADED", "page"),
    "RECORD_BETTER": ("DEGRADED", "rollback"),
    "CONFIRMING": ("DEGRADED", "none"),
    "NOT_CONFIRMED": ("DEGRADED", "page"),
    "QUARANTINED": ("DEGRADED", "page"),
    "DEPLOYED_WHILE_PINNED": ("INCONCLUSIVE", "page"),
    "CHURN": ("INCONCLUSIVE", "page"),
    "UNANNOUNCED_VERSION": ("INCONCLUSIVE", "page"),
    "UNSIGNED_DEPLOYMENT": ("INCONCLUSIVE", "page"),
    "APPROVED": ("DEGRADED", "rollback"),
    "REJECTED": ("DEGRADED", "none"),
    "OPERATOR_ROLLBACK": ("INCONCLUSIVE", "rollback"),
    "OPERATOR_REFUSED": ("INCONCLUSIVE", "none"),
}


def test_vocabulary_with_its_verdicts_and_actions() -> None:
    assert {reason.value: (reason.verdict.value, reason.action.value) for reason in Reason} == CODES


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_says_what_it_means_in_a_sentence(reason: Reason) -> None:
    assert reason.meaning[0].isupper()
    assert reason.meaning.endswith(".")
    assert len(reason.meaning) > 20
    assert reason.value == reason.name == str(reason)


def test_no_two_reasons_mean_the_same() -> None:
    assert len({reason.meaning for reason in Reason}) == len(Reason)


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_every_guard_says_when_it_speaks(guard: object) -> None:
    assert guard.__doc__
    assert guard.__doc__.endswith(".")


def test_words_of_the_contract() -> None:
    assert [verdict.value for verdict in Verdict] == ["HEALTHY", "DEGRADED", "INCONCLUSIVE", "ERROR"]
    assert [action.value for action in Action] == ["rollback", "propose", "observe", "page", "none"]
