"""Apply operators' acts to a model: they are ledger records like any other, and the guards are asked again."""

from __future__ import annotations

import msgspec

from actions.evidence_tree import Evidence, OperatorReport
from actions.policy import Ruling, decide
from actions.reasons import Action, Reason, Verdict
from streams.evaluation.findings import find, is_blind
from streams.evaluation.report import evidence_of
from streams.fold.deciding import beside_of, evaluate, opinions_beside, view
from streams.fold.decision_writer import DecisionWriter
from streams.fold.model import ModelFold
from streams.ledger.records import Operated
from unship.events import OperatorAct

INCARNATIONS_AHEAD_MAX = 1_000
"""How far one act may raise the incarnation: a stolen key must not use up all there are."""


def operate(model: ModelFold, record: Operated, writer: DecisionWriter) -> None:
    """Apply an operator's act; one that cannot be followed leads to a decision that gives the reason."""
    event, desired = record.event, model.state.desired
    if event.act == "renew":
        _renew(model, event, writer, record.clock)
    elif event.act == "hold":
        desired.locks.hold()
    elif event.act == "resume":
        desired.locks.resume()
    elif desired.locks.held and not event.override:
        _refuse(
            model, event, writer, record.clock, "automatic and manual acts are on hold; repeat the act with --override"
        )
    elif event.act == "unpin":
        desired.locks.unpin()
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


def _by(event: OperatorAct) -> OperatorReport:
    return OperatorReport(event.act, event.by, event.reason, event.override)


def _refuse(model: ModelFold, event: OperatorAct, writer: DecisionWriter, now: int, why: str) -> None:
    live = model.state.live
    ruling = Ruling(Verdict.INCONCLUSIVE, Reason.OPERATOR_REFUSED, Action.NONE, None, None)
    writer.write(
        model, live.version if live else event.version or "", ruling, Evidence(operator=_by(event), missing=why), now
    )


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
    if event.version is None:
        _refuse(model, event, writer, now, "release needs the version: --version V")
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
    if (barred := desired.why_barred(version)) is not None and not event.override:
        _refuse(model, event, writer, now, f"{barred}, or repeat with --override")
        return
    desired.locks.pin()
    if version != desired.serve:
        desired.change(version, writer.epoch(model.name, desired), "pin")
        model.start_period(version, now)


def _roll_back(model: ModelFold, event: OperatorAct, writer: DecisionWriter, now: int) -> None:
    desired, live = model.state.desired, model.state.live
    if event.to is None or live is None or event.to == desired.serve:
        _refuse(
            model,
            event,
            writer,
            now,
            f"rollback needs a version other than the one that serves ({desired.serve}): --to V",
        )
        return
    if (barred := desired.why_barred(event.to)) is not None and not event.override:
        _refuse(model, event, writer, now, f"{barred}, or repeat with --override")
        return
    ruling = Ruling(Verdict.INCONCLUSIVE, Reason.OPERATOR_ROLLBACK, Action.ROLLBACK, event.to, None)
    decision = writer.write(model, live.version, ruling, Evidence(operator=_by(event)), now)
    desired.roll_back(event.to, decision.epoch, now, automatic=False, decision=decision.id)
    model.start_period(event.to, now)


def _reject(model: ModelFold, event: OperatorAct, writer: DecisionWriter, now: int) -> None:
    proposal = model.state.desired.proposal
    if proposal is None or (event.decision is not None and event.decision != proposal.decision):
        _refuse(model, event, writer, now, "no such proposal is open; it may have lapsed")
        return
    model.state.desired.close_proposal()
    ruling = Ruling(Verdict.DEGRADED, Reason.REJECTED, Action.NONE, None, None)
    writer.write(model, proposal.version, ruling, Evidence(operator=_by(event)), now)


def _approve(model: ModelFold, event: OperatorAct, writer: DecisionWriter, now: int) -> None:
    state = model.state
    proposal, live = state.desired.proposal, state.live
    if proposal is not None and (event.decision is None or event.decision == proposal.decision) and live is not None:
        beside = beside_of(model, proposal.version)
        judged, opinions = (live, model.opinions) if beside is None else (beside, opinions_beside(model))
        rules = model.rules(True)
        findings, chosen = find(state, judged, model.config, rules)
        # The evidence may have gone since the proposal was made, so the guards are asked again.
        ruling = decide(findings, view(model, now, mode="act", override=event.override))
        if ruling.action is not Action.ROLLBACK or ruling.to is None:
            _refuse(model, event, writer, now, f"the evidence has changed since: {ruling.reason.value}")
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
        _refuse(model, event, writer, now, "no such proposal is open; it may have lapsed")
