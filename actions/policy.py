"""Decide by one ordered tuple of pure guards. The first that has a reason decides; the mode is applied once, at the
end.

No guard reads another, so each can be understood, tested and moved alone. The last one always has a reason.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actions.evidence import Findings, Quorum, View
from actions.reasons import Action, Reason, Verdict

Guard = Callable[[Findings, View], Reason | None]

_BY_MODE = {"observe": Action.OBSERVE, "approve": Action.PROPOSE, "act": Action.ROLLBACK}


class Ruling(msgspec.Struct, frozen=True):
    """Hold a decision before it is written."""

    verdict: Verdict
    reason: Reason
    action: Action
    to: str | None
    slice: dict[str, bool | int | float | str] | None


def incomputable(findings: Findings, view: View) -> Reason | None:
    """Labels arrive, but none can be turned into a loss."""
    return Reason.ERROR if findings.incomputable else None


def blind(findings: Findings, view: View) -> Reason | None:
    """No labels come any more."""
    return Reason.BLIND if findings.blind else None


def implausible_labels(findings: Findings, view: View) -> Reason | None:
    """The first outcomes share no class, or for yes and no nearly all of them are wrong."""
    return Reason.IMPLAUSIBLE_LABELS if findings.implausible else None


def coverage_shift(findings: Findings, view: View) -> Reason | None:
    """Another share of predictions gets a label; the fold clears this where both arms still have equal coverage."""
    return Reason.COVERAGE_SHIFT if findings.coverage_shift else None


def learning(findings: Findings, view: View) -> Reason | None:
    """No alarm has latched, and there is no baseline yet, or too few outcomes were judged in this live period."""
    return Reason.LEARNING if findings.learning and not findings.degraded else None


def healthy(findings: Findings, view: View) -> Reason | None:
    """No alarm has latched, among enough outcomes to know."""
    return None if findings.degraded else Reason.HEALTHY


def already_rolled_back(findings: Findings, view: View) -> Reason | None:
    """The version is in quarantine and serves by an operator's order."""
    return Reason.ALREADY_ROLLED_BACK if findings.quarantined else None


def held(findings: Findings, view: View) -> Reason | None:
    """Automatic acts are on hold."""
    return Reason.HELD if view.held else None


def pinned(findings: Findings, view: View) -> Reason | None:
    """An operator pinned the version."""
    return Reason.PINNED if view.pinned else None


def target_unknown(findings: Findings, view: View) -> Reason | None:
    """There is no concurrent holdback or shadow, and no earlier live version has a record to compare with."""
    return None if findings.any_target else Reason.TARGET_UNKNOWN


def target_unfit(findings: Findings, view: View) -> Reason | None:
    """Other versions are known, but the replicas cannot serve them."""
    return Reason.TARGET_UNFIT if findings.all_unfit else None


def _goes_back(findings: Findings) -> bool:
    """Return whether to go back: to a version that is better now, else to one that was, if nothing explains more."""
    return findings.confirmed or (findings.on_record and findings.mix is None and not findings.all_degraded)


def label_source_suspect(findings: Findings, view: View) -> Reason | None:
    """The rise or the target's lead is gone without one label source, or most labels are of sources not listed."""
    return Reason.LABEL_SOURCE_SUSPECT if _goes_back(findings) and findings.quorum is Quorum.FAILED else None


def quorum_waiting(findings: Findings, view: View) -> Reason | None:
    """The rise, or the target's lead, without each label source still has to show."""
    return Reason.CONFIRMING if _goes_back(findings) and findings.quorum is Quorum.WAITING else None


def cooldown(findings: Findings, view: View) -> Reason | None:
    """The last rollback of this model is too recent."""
    recent = view.last_switch is not None and view.now < view.last_switch + view.cooldown_ms
    return Reason.COOLDOWN if _goes_back(findings) and recent else None


def switch_limit(findings: Findings, view: View) -> Reason | None:
    """There were too many rollbacks; this stays until an operator resumes."""
    too_many = view.stopped or view.switches >= view.switches_max
    return Reason.SWITCH_LIMIT if _goes_back(findings) and too_many else None


def fleet_limit(findings: Findings, view: View) -> Reason | None:
    """Too many other models were rolled back just now; this stays until an operator resumes."""
    too_many = view.frozen or view.others >= view.others_max
    return Reason.FLEET_LIMIT if _goes_back(findings) and too_many else None


def few_units(findings: Findings, view: View) -> Reason | None:
    """The target is better now, but one of the two versions has answered too few units for a sample."""
    return Reason.FEW_UNITS if findings.confirmed and findings.few_units else None


def target_better(findings: Findings, view: View) -> Reason | None:
    """The target is better now, and no other guard objects."""
    return Reason.TARGET_BETTER if findings.confirmed else None


def mix_shift(findings: Findings, view: View) -> Reason | None:
    """Other requests explain the rise."""
    return Reason.MIX_SHIFT if findings.mix is not None else None


def others_suspect(findings: Findings, view: View) -> Reason | None:
    """Every other version got worse by one source of labels alone, so that not the versions are in question."""
    suspect = findings.all_degraded and findings.others_quorum is Quorum.FAILED
    return Reason.LABEL_SOURCE_SUSPECT if suspect else None


def others_waiting(findings: Findings, view: View) -> Reason | None:
    """Whether every other version got worse without each label source too still has to show, and there is time."""
    waiting = findings.all_degraded and findings.others_quorum is Quorum.WAITING
    return Reason.CONFIRMING if waiting and view.now < findings.degraded_since + view.confirm_within_ms else None


def all_degraded(findings: Findings, view: View) -> Reason | None:
    """Every version that could serve got worse."""
    return Reason.ALL_DEGRADED if findings.all_degraded else None


def record_better(findings: Findings, view: View) -> Reason | None:
    """There is no concurrent holdback or shadow, and by its record an earlier live version was better."""
    return Reason.RECORD_BETTER if findings.on_record else None


def confirming(findings: Findings, view: View) -> Reason | None:
    """There is still time to find out whether the target is better."""
    return Reason.CONFIRMING if view.now < findings.degraded_since + view.confirm_within_ms else None


def not_confirmed(findings: Findings, view: View) -> Reason:
    """The time to find out has passed."""
    return Reason.NOT_CONFIRMED


GUARDS: tuple[Guard, ...] = (
    incomputable,
    blind,
    implausible_labels,
    coverage_shift,
    learning,
    healthy,
    already_rolled_back,
    held,
    pinned,
    target_unknown,
    target_unfit,
    label_source_suspect,
    quorum_waiting,
    cooldown,
    switch_limit,
    fleet_limit,
    few_units,
    target_better,
    mix_shift,
    others_suspect,
    others_waiting,
    all_degraded,
    record_better,
    confirming,
    not_confirmed,
)


def _capped(action: Action, without_control: str) -> Action:
    """Return what may follow from a comparison with the past."""
    if without_control == "page":
        return Action.PAGE
    return Action.PROPOSE if without_control == "propose" and action is Action.ROLLBACK else action


def decide(findings: Findings, view: View) -> Ruling:
    """Return what follows from the findings.

    >>> decide(Findings(version="v42"), View(now=0)).reason.value
    'HEALTHY'
    >>> bad = Findings(version="v42", degraded=True, any_target=True, target="v41", confirmed=True)
    >>> decide(bad, View(now=0)).action.value, decide(bad, View(now=0, mode="observe")).action.value
    ('rollback', 'observe')
    """
    reason = next(found for guard in GUARDS if (found := guard(findings, view)) is not None)
    action = _BY_MODE[view.mode] if reason.action is Action.ROLLBACK else reason.action
    if reason is Reason.RECORD_BETTER:
        action = _capped(action, view.without_control)
    proposed = findings.only_proposed or reason is Reason.FEW_UNITS
    if proposed and not view.approved and action is Action.ROLLBACK:
        action = Action.PROPOSE
    degraded = reason.verdict is Verdict.DEGRADED
    where = findings.mix if reason is Reason.MIX_SHIFT else findings.slice
    to = findings.target if degraded and action in _BY_MODE.values() else None
    return Ruling(reason.verdict, reason, action, to, where if degraded else None)
