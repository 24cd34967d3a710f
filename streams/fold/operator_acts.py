"""Apply operators' acts to a model: they are ledger records like any other, and the guards are asked again."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from actions.evidence_tree import Evidence, OperatorReport
from actions.policy import Ruling, decide
from actions.reasons import Action, Reason, Verdict
from streams.evaluation.findings import find, is_blind
from streams.evaluation.periods import LivePeriod
from streams.evaluation.report import evidence_of
from streams.fold.deciding import UNCONFIRMED, beside_of, evaluate, opinions_beside, view
from streams.fold.decision_writer import DecisionWriter
from streams.fold.model import ModelFold
from streams.ledger.records import Operated
from unship.events import OperatorAct

INCARNATIONS_AHEAD_MAX = 1_000
"""How far one act may raise the incarnation: a stolen key must not use up all there are."""


NAMED_MAX = 20
"""So many names are listed in a sentence."""


def operate(model: ModelFold, record: Operated, writer: DecisionWriter) -> None:
    """Apply an operator's act; one that cannot be followed leads to a decision that gives the reason."""
    event, desired = record.event, model.state.desired
    if event.act == "renew":
        _renew(model, event, writer, record.clock)
    elif event.act == "hold":
        desired.locks.hold()
        desired.end_holdback(writer.epoch(model.name, desired))
    elif event.act == "resume":
        _resume(model, event, writer, record.clock)
    elif desired.locks.held and not event.override:
        why = "automatic and manual acts are on hold: resume them first, or repeat the act with --override"
        _refuse(model, event, writer, record.clock, why)
    elif event.act == "unpin":
        _unpin(model, event, writer, record.clock)
    elif event.act == "release":
        _release(model, event, writer, record.clock)
    elif event.act == "pin":
        _pin(model, event, writer, record.clock)
    elif event.act == "rollback":
        _roll_back(model, event, writer, record.clock)
    elif event.act == "reject":
        _reject(model, event, writer, record.clock)
    else:
        _approve(model, event, writer, record.clock)
    if event.act in ("resume", "unpin", "release"):
        evaluate(model, record.clock, writer)


def refuse_unseen(model: ModelFold, record: Operated, known: Iterable[str], writer: DecisionWriter) -> None:
    """Refuse an act on a model that nothing is known of: most are mistyped."""
    event, found = record.event, _listed(known)
    why = f"no model {event.model} is known; known are {found}: correct it, or repeat the act with --override"
    _refuse(model, event, writer, record.clock, why)


def known_versions(model: ModelFold) -> list[str]:
    """Return the versions that were deployed, ordered or seen, or that a replica has loaded, in the order of names."""
    state = model.state
    desired = state.desired
    found = {*desired.versions.deployed, *desired.versions.strangers, *desired.changes.earlier, *state.outcomes}
    found.update(entry.version for entry in desired.quarantine)
    found.update(version for replica in state.replicas.known.values() for version in replica.ready)
    return sorted(found)


def _listed(names: Iterable[str]) -> str:
    """Return names as a list in a sentence, `none` if there are none."""
    every = list(names)
    return ", ".join(every[:NAMED_MAX]) + (", ..." if len(every) > NAMED_MAX else "") if every else "none"


def _why_unknown(model: ModelFold, version: str) -> str | None:
    """Return why a version is most likely mistyped, None if it is known."""
    known = known_versions(model)
    if version in known:
        return None
    return f"no version {version} is known; known are {_listed(known)}: correct it"


def _by(event: OperatorAct) -> OperatorReport:
    return OperatorReport(event.act, event.by, event.reason, event.override)


def _refuse(model: ModelFold, event: OperatorAct, writer: DecisionWriter, now: int, why: str) -> None:
    live = model.state.live
    ruling = Ruling(Verdict.INCONCLUSIVE, Reason.OPERATOR_REFUSED, Action.NONE, None, None)
    writer.write(
        model, live.version if live else event.version or "", ruling, Evidence(operator=_by(event), missing=why), now
    )


def _resume(model: ModelFold, event: OperatorAct, writer: DecisionWriter, now: int) -> None:
    locks = model.state.desired.locks
    if not (locks.held or locks.stopped or locks.frozen):
        why = "nothing is on hold, and no limit has stopped automatic acts, so there is nothing to resume: hold first"
        _refuse(model, event, writer, now, why)
        return
    locks.resume()


def _unpin(model: ModelFold, event: OperatorAct, writer: DecisionWriter, now: int) -> None:
    locks = model.state.desired.locks
    if not locks.pinned:
        _refuse(model, event, writer, now, "no version is pinned, so there is nothing to unpin: pin one first")
        return
    locks.unpin()


def _renew(model: ModelFold, event: OperatorAct, writer: DecisionWriter, now: int) -> None:
    """Begin another incarnation; it changes nothing of what should serve, so that no hold forbids it."""
    desired = model.state.desired
    least = desired.incarnation + 1
    if event.incarnation is None or not least <= event.incarnation < least + INCARNATIONS_AHEAD_MAX:
        most = least + INCARNATIONS_AHEAD_MAX - 1
        _refuse(model, event, writer, now, f"renew needs an incarnation from {least} to {most}")
        return
    desired.renew(event.incarnation, writer.epoch(model.name, desired))


def _release(model: ModelFold, event: OperatorAct, writer: DecisionWriter, now: int) -> None:
    desired, live = model.state.desired, model.state.live
    quarantined = list(dict.fromkeys(entry.version for entry in desired.quarantine))
    if event.version is None:
        why = f"release needs the version, --version V: in quarantine are {_listed(quarantined)}"
        _refuse(model, event, writer, now, why)
        return
    if event.version not in quarantined:
        why = f"{event.version} is not in quarantine, so there is nothing to release; there are {_listed(quarantined)}"
        _refuse(model, event, writer, now, why)
        return
    desired.release(event.version, writer.epoch(model.name, desired))
    if live is not None and live.version == event.version:
        # A released version is judged afresh.
        model.start_period(event.version, now)


def _pin(model: ModelFold, event: OperatorAct, writer: DecisionWriter, now: int) -> None:
    desired = model.state.desired
    version = event.version or event.to or desired.serve
    if version is None:
        _refuse(model, event, writer, now, "nothing serves yet; name the version: --version V")
        return
    if (barred := _why_not(model, version)) is not None and not event.override:
        _refuse(model, event, writer, now, f"{barred}, or repeat with --override")
        return
    desired.locks.pin()
    desired.end_holdback(writer.epoch(model.name, desired))
    if version != desired.serve:
        desired.change(version, writer.epoch(model.name, desired), "pin")
        model.start_period(version, now)


def _roll_back(model: ModelFold, event: OperatorAct, writer: DecisionWriter, now: int) -> None:
    desired, live = model.state.desired, model.state.live
    if live is None:
        why = "no version serves yet, so there is none to go back from: pin the one that should, with --version V"
        _refuse(model, event, writer, now, why)
        return
    if event.to is None or event.to == desired.serve:
        served = "" if event.to is None else f"{event.to} serves already; "
        others = _listed(version for version in known_versions(model) if version != desired.serve)
        why = f"{served}rollback needs a version other than the one that serves, --to V: known are {others}"
        _refuse(model, event, writer, now, why)
        return
    if (barred := _why_not(model, event.to)) is not None and not event.override:
        _refuse(model, event, writer, now, f"{barred}, or repeat with --override")
        return
    ruling = Ruling(Verdict.INCONCLUSIVE, Reason.OPERATOR_ROLLBACK, Action.ROLLBACK, event.to, None)
    decision = writer.write(model, live.version, ruling, Evidence(operator=_by(event)), now)
    desired.roll_back(event.to, decision.epoch, now, automatic=False, decision=decision.id)
    model.start_period(event.to, now)


def _why_not(model: ModelFold, version: str) -> str | None:
    """Return why an operator needs `override` for a version, None if it may serve."""
    return _why_unknown(model, version) or model.state.desired.why_barred(version)


def _no_proposal(model: ModelFold, event: OperatorAct) -> str:
    """Return why there is no proposal to approve or reject, with what to do."""
    proposal = model.state.desired.proposal
    if proposal is not None:
        return f"proposal {event.decision} is not open, {proposal.decision} is: name that one, or none"
    return (
        f"no proposal is open, so there is nothing to {event.act}: it may have lapsed, or been followed or withdrawn; "
        "to go back all the same: rollback --to V"
    )


def _reject(model: ModelFold, event: OperatorAct, writer: DecisionWriter, now: int) -> None:
    proposal = model.state.desired.proposal
    if proposal is None or (event.decision is not None and event.decision != proposal.decision):
        _refuse(model, event, writer, now, _no_proposal(model, event))
        return
    model.state.desired.close_proposal()
    ruling = Ruling(Verdict.DEGRADED, Reason.REJECTED, Action.NONE, None, None)
    writer.write(model, proposal.version, ruling, Evidence(operator=_by(event)), now)


def _approve(model: ModelFold, event: OperatorAct, writer: DecisionWriter, now: int) -> None:
    state = model.state
    proposal, live = state.desired.proposal, state.live
    wanted = proposal is not None and (event.decision is None or event.decision == proposal.decision)
    if wanted and proposal is not None and proposal.share is not None and live is not None:
        _approve_share(model, event, live, proposal.share, writer, now)
    elif wanted and proposal is not None and live is not None:
        beside = beside_of(model, proposal.version)
        judged, opinions = (live, model.opinions) if beside is None else (beside, opinions_beside(model))
        rules = model.rules(True)
        findings, chosen = find(state, judged, model.config, rules)
        # The evidence may have gone since the proposal was made, so the guards are asked again.
        ruling = decide(findings, view(model, now, mode="act", override=event.override))
        if ruling.action is not Action.ROLLBACK or ruling.to is None:
            locked = ruling.reason is Reason.PINNED
            why = "the version is pinned: unpin it first, or repeat with --override" if locked else _changed(ruling)
            _refuse(model, event, writer, now, why)
            return
        evidence = evidence_of(state, judged, model.config, rules, opinions, chosen)
        evidence = msgspec.structs.replace(evidence, operator=_by(event))
        approved = Ruling(ruling.verdict, Reason.APPROVED, Action.ROLLBACK, ruling.to, ruling.slice)
        version = judged.version
        decision = writer.write(model, version, approved, evidence, now)
        state.desired.roll_back(ruling.to, decision.epoch, now, automatic=False, decision=decision.id, left=version)
        if beside is not None:
            state.drop_concurrent(version)
        if ruling.to != live.version:
            model.start_period(ruling.to, now)
    elif live is not None and (live.labels.shifted or is_blind(state, live, model.config)):
        model.judge_afresh(live.version, now)
    else:
        _refuse(model, event, writer, now, _no_proposal(model, event))


def _approve_share(
    model: ModelFold, event: OperatorAct, live: LivePeriod, share: float, writer: DecisionWriter, now: int
) -> None:
    """Raise the share of the version held back, if there is still something to find out by that."""
    state, rules = model.state, model.rules(True)
    findings, chosen = find(state, live, model.config, rules)
    ruling = decide(findings, view(model, now, mode="act", override=event.override))
    if findings.confirmed or ruling.reason not in UNCONFIRMED or not state.desired.holdback.may_rise_to(share):
        _refuse(model, event, writer, now, _changed(ruling))
        return
    evidence = evidence_of(state, live, model.config, rules, model.opinions, chosen, share)
    approved = Ruling(ruling.verdict, Reason.CONFIRMING, Action.NONE, None, ruling.slice)
    decision = writer.write(model, live.version, approved, msgspec.structs.replace(evidence, operator=_by(event)), now)
    state.desired.raise_share(share, decision.epoch, decision.id)


def _changed(ruling: Ruling) -> str:
    return f"the evidence has changed since, now it is {ruling.reason.value}; to go back all the same: rollback --to V"
