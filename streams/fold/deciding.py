"""Decide about a model: findings meet the policy, and a decision changes what is desired."""

from __future__ import annotations

import msgspec

from actions.desired import Proposal
from actions.evidence import Findings, View
from actions.evidence_tree import FleetReport
from actions.fleet_limit import fleet_fact
from actions.journal import Decision
from actions.policy import Ruling, decide
from actions.reasons import Action, Reason, Verdict
from streams.evaluation.findings import find, is_blind
from streams.evaluation.periods import LivePeriod, Standing
from streams.evaluation.report import comparison_of, evidence_of
from streams.fold.decision_writer import DecisionWriter
from streams.fold.model import ModelFold

#: Written once in a live period, however often they come and go.
WRITTEN_ONCE_PER_PERIOD = (Reason.LEARNING, Reason.CONFIRMING, Reason.COVERAGE_SHIFT)
#: Reasons by which nothing is shown yet.
UNDECIDED_REASONS = (Reason.CONFIRMING, Reason.NOT_CONFIRMED, Reason.MIX_SHIFT, Reason.ALL_DEGRADED)


def view(model: ModelFold, now: int, mode: str | None = None, override: bool = False) -> View:
    """Return what bears on an act besides the evidence; `mode` and `override` are those of an operator's approval."""
    desired, config, live = model.state.desired, model.config, model.state.live
    degraded = live is not None and live.health.degraded
    return View(
        now=now,
        mode=mode or config.mode,
        held=desired.locks.held and not override,
        pinned=desired.locks.pinned and not override,
        last_switch=desired.changes.switches[-1] if desired.changes.switches else None,
        cooldown_ms=config.cooldown_ms,
        switches=len(desired.recent_switches(now, config.switches_span_ms)),
        switches_max=config.switches_max,
        stopped=desired.locks.stopped,
        confirm_within_ms=config.confirm_within_ms,
        # An operator's approval is enough for a comparison with the past.
        without_control=config.without_control if mode is None else "act",
        # Nothing is done about a version that is well, and counting takes time.
        others=len(model.fleet.others(model.name, now)) if mode or degraded else 0,
        others_max=model.fleet.limit,
        frozen=desired.locks.frozen,
    )


def evaluate(model: ModelFold, now: int, writer: DecisionWriter) -> None:
    """Ask the policy, and write a decision if it differs from the last one."""
    live, fleet = model.state.live, model.fleet
    if live is None or (live.health.outcomes == 0 and not is_blind(model.state, live, model.config)):
        return
    rules = model.rules(True)
    findings, chosen = find(model.state, live, model.config, rules)
    if _is_well(model, findings):
        return
    if chosen is not None:
        live.compare(comparison_of(live, model.config, chosen, model.state.clock))
    ruling = decide(findings, view(model, now))
    if ruling.verdict is Verdict.HEALTHY:
        model.state.desired.close_proposal()
    if not _is_new(model, ruling, live):
        return
    fleet.waiting.pop(model.name, None)
    if ruling.action is Action.ROLLBACK and now < fleet.busy_until(model.name, now):
        # The limit over all models needs the rollbacks decided last elsewhere, and the ledger does not hold them yet.
        fleet.waiting[model.name] = None
        return
    evidence = evidence_of(model.state, live, model.config, rules, model.opinions, chosen)
    if ruling.reason is Reason.FLEET_LIMIT:
        under_way = {fact.model: fact.decision for fact in fleet.others(model.name, now)}
        evidence = msgspec.structs.replace(evidence, fleet=FleetReport(fleet.limit, under_way))
    _settle(model, ruling, live, writer.write(model, live.version, ruling, evidence, now), findings.target)


def _is_well(model: ModelFold, findings: Findings) -> bool:
    """Return whether nothing was found and that is written already: by far the usual case, of every record."""
    standing = model.state.written.standing
    well = standing is not None and (standing.verdict, standing.version) == (Verdict.HEALTHY, findings.version)
    return well and model.state.desired.proposal is None and findings == Findings(version=findings.version)


def _is_new(model: ModelFold, ruling: Ruling, live: LivePeriod) -> bool:
    """Return whether a ruling is to be written."""
    standing = model.state.written.standing
    if ruling.reason in WRITTEN_ONCE_PER_PERIOD and ruling.reason in live.written_once:
        return False
    if ruling.reason in UNDECIDED_REASONS and (model.state.desired.proposal is not None or live.observed is not None):
        # What was proposed or observed is not withdrawn, though the evidence for the target may sink again.
        return False
    if ruling.action is Action.OBSERVE and live.observed == ruling.to:
        return False
    return standing != standing_of(ruling, live.version)


def _settle(model: ModelFold, ruling: Ruling, live: LivePeriod, decision: Decision, target: str | None) -> None:
    """Change what follows from a decision: what is written last, what is desired, and what counts for other models."""
    desired, now = model.state.desired, decision.ts
    model.state.written.settle(standing_of(ruling, live.version))
    if ruling.reason in WRITTEN_ONCE_PER_PERIOD:
        live.written_once.append(ruling.reason)
    if ruling.reason is Reason.SWITCH_LIMIT:
        desired.locks.stop()
    elif ruling.reason is Reason.FLEET_LIMIT:
        desired.locks.freeze()
    paged = ruling.reason is Reason.RECORD_BETTER and ruling.action is Action.PAGE
    if ruling.action is Action.OBSERVE or paged:
        live.observe(target)
    elif ruling.action is Action.PROPOSE and ruling.to is not None:
        desired.propose(Proposal(decision.id, live.version, ruling.to, now))
    elif ruling.action is Action.ROLLBACK and ruling.to is not None:
        model.fleet.owe(fleet_fact(decision, model.config.cooldown_ms))
        desired.roll_back(ruling.to, decision.epoch, now, automatic=True, decision=decision.id)
        model.start_period(ruling.to, now)


def standing_of(ruling: Ruling, version: str) -> Standing:
    """Return what of a ruling makes another decision new."""
    return Standing(ruling.verdict, ruling.reason, ruling.action, version, ruling.to, ruling.slice)
