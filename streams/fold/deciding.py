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
from streams.config.units import NEVER
from streams.evaluation.findings import find, is_blind
from streams.evaluation.opinions import E_DETECTOR, Opinions
from streams.evaluation.periods import Beside, Concurrent, LivePeriod, Standing
from streams.evaluation.report import evidence_of
from streams.fold.decision_writer import DecisionWriter
from streams.fold.model import ModelFold

#: Written once in a live period, however often they come and go.
WRITTEN_ONCE_PER_PERIOD = (Reason.LEARNING, Reason.CONFIRMING, Reason.COVERAGE_SHIFT)
#: Reasons by which a version got worse, and nothing shows yet that another one is better now.
UNCONFIRMED = (Reason.CONFIRMING, Reason.NOT_CONFIRMED, Reason.MIX_SHIFT, Reason.RECORD_BETTER)
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
        approved=mode is not None,
    )


def evaluate(model: ModelFold, now: int, writer: DecisionWriter) -> None:
    """Ask the policy, and write a decision on each version that answers live if it differs from the last one."""
    _evaluate_live(model, now, writer)
    live = model.state.live
    for version in [] if live is None else list(live.concurrent):
        if live is model.state.live:
            _evaluate_beside(model, version, now, writer)


def _evaluate_live(model: ModelFold, now: int, writer: DecisionWriter) -> None:
    live, fleet = model.state.live, model.fleet
    if live is None or (live.health.outcomes == 0 and not is_blind(model.state, live, model.config)):
        return
    rules = model.rules(True)
    findings, chosen = find(model.state, live, model.config, rules)
    if _is_well(model, findings):
        return
    ruling = decide(findings, view(model, now))
    if ruling.verdict is Verdict.HEALTHY and _proposed(model, live.version):
        model.state.desired.close_proposal()
    rise = _rise(model, findings, ruling)
    proposed = rise is not None and model.config.mode == "approve"
    if proposed:
        ruling = msgspec.structs.replace(ruling, action=Action.PROPOSE)
    raises = rise is not None and not proposed
    if not raises and not _is_new(model, ruling, live, model.state.written.standing):
        return
    fleet.waiting.pop(model.name, None)
    if ruling.action is Action.ROLLBACK and now < fleet.busy_until(model.name, now):
        # The limit over all models needs the rollbacks decided last elsewhere, and the ledger does not hold them yet.
        fleet.waiting[model.name] = None
        return
    evidence = evidence_of(model.state, live, model.config, rules, model.opinions, chosen, rise, proposed)
    if ruling.reason is Reason.FLEET_LIMIT:
        under_way = {fact.model: fact.decision for fact in fleet.others(model.name, now)}
        evidence = msgspec.structs.replace(evidence, fleet=FleetReport(fleet.limit, under_way))
    decision = writer.write(model, live.version, ruling, evidence, now)
    _settle(model, ruling, live, decision, findings.target)
    if rise is not None:
        _settle_share(model, decision, rise, proposed)


def _rise(model: ModelFold, findings: Findings, ruling: Ruling) -> float | None:
    """Return what the share of the version held back becomes by a ruling, None if it stays."""
    policy, holdback = model.config.holdback, model.state.desired.holdback
    if policy is None or findings.confirmed or ruling.reason not in UNCONFIRMED or ruling.action is Action.ROLLBACK:
        return None
    # What is paged or proposed otherwise needs a person already, who has one thing to decide.
    asks = {"act": True, "approve": ruling.reason is Reason.CONFIRMING}.get(model.config.mode, False)
    return policy.raise_to if asks and holdback.may_rise_to(policy.raise_to) else None


def _settle_share(model: ModelFold, decision: Decision, share: float, proposed: bool) -> None:
    """Raise the share of the version held back by a decision, or let an operator approve it."""
    desired = model.state.desired
    if not proposed:
        desired.raise_share(share, decision.epoch, decision.id)
    elif desired.holdback.version is not None:
        desired.propose(Proposal(decision.id, decision.version, desired.holdback.version, decision.ts, share))


def to_hold_back(model: ModelFold, version: str, now: int) -> str | None:
    """Return the version that keeps a share if another one is deployed as live now, None if there is none.

    It has to be known as healthy, and it must not answer by an order or a deployment of its own already. What was never
    deployed or ordered is commanded to nobody.
    """
    state, config = model.state, model.config
    desired, live = state.desired, state.live
    serve = desired.serve
    if config.holdback is None or not model.commanded or live is None or live.version != serve or version == serve:
        return None
    status = desired.facts(serve).status
    if status not in (None, "live") or desired.why_barred(serve) is not None:
        return None
    findings, _ = find(state, live, config, model.rules(True))
    return serve if decide(findings, view(model, now)).verdict is Verdict.HEALTHY else None


def hold_back(model: ModelFold, version: str, now: int) -> None:
    """Let a version that was replaced at `now` (ms) answer its share."""
    policy = model.config.holdback
    assert policy is not None
    model.state.desired.hold_back(version, policy.share, min(now + policy.keep_ms, NEVER))


def end_holdback_if_over(model: ModelFold, now: int, writer: DecisionWriter) -> None:
    """End a holdback that was kept for its time, that is not configured, or whose version may not answer by it."""
    desired = model.state.desired
    holdback = desired.holdback
    if holdback.version is None:
        return
    facts, quarantined = desired.facts(holdback.version), desired.is_quarantined(holdback.version)
    if model.config.holdback is None or now >= holdback.until or holdback.is_moot(facts, quarantined):
        desired.end_holdback(writer.epoch(model.name, desired))


def beside_of(model: ModelFold, version: str) -> LivePeriod | None:
    """Return a version that answers live next to the live one as if it were that one, and the live one next to it."""
    live = model.state.live
    other = None if live is None else live.concurrent.get(version)
    if live is None or other is None or other.beside is None:
        return None
    mine, standard = other.beside, Beside(other.comparison)
    others = {live.version: Concurrent("live", live.health, live.labels, mine.comparison, standard)}
    return LivePeriod(version, live.since, other.health, other.labels, others, mine.written_once, mine.observed)


def opinions_beside(model: ModelFold) -> Opinions:
    """Return the opinions on a version next to the live one: the e-detector alone judges it."""
    return Opinions([E_DETECTOR], len(model.config.losses))


def _evaluate_beside(model: ModelFold, version: str, now: int, writer: DecisionWriter) -> None:
    """Ask the policy about a version that answers live next to the live one, once it got worse."""
    state = model.state
    assert state.live is not None
    other = state.live.concurrent[version]
    if other.beside is None or not other.health.degraded or not state.desired.versions.answers(version):
        return
    period = beside_of(model, version)
    assert period is not None
    rules = model.rules(True)
    findings, chosen = find(state, period, model.config, rules)
    ruling = decide(findings, view(model, now))
    if not _is_new(model, ruling, period, other.beside.standing):
        return
    if ruling.action is Action.PROPOSE and state.desired.proposal is not None:
        # One proposal at a time: what an operator approves must be what was read.
        return
    evidence = evidence_of(state, period, model.config, rules, opinions_beside(model), chosen)
    decision = writer.write(model, version, ruling, evidence, now)
    other.beside.settle(standing_of(ruling, version))
    if ruling.reason in WRITTEN_ONCE_PER_PERIOD:
        period.written_once.append(ruling.reason)
    if _names_target(ruling):
        other.beside.observe(findings.target)
    elif ruling.action is Action.PROPOSE and ruling.to is not None:
        state.desired.propose(Proposal(decision.id, version, ruling.to, now))


def _proposed(model: ModelFold, version: str) -> bool:
    """Return whether a proposal about a version is open."""
    proposal = model.state.desired.proposal
    return proposal is not None and proposal.version == version


def _names_target(ruling: Ruling) -> bool:
    """Return whether a ruling names a target and changes nothing."""
    paged = ruling.reason is Reason.RECORD_BETTER and ruling.action is Action.PAGE
    return ruling.action is Action.OBSERVE or paged


def _is_well(model: ModelFold, findings: Findings) -> bool:
    """Return whether nothing was found and that is written already: by far the usual case, of every record."""
    standing = model.state.written.standing
    well = standing is not None and (standing.verdict, standing.version) == (Verdict.HEALTHY, findings.version)
    return well and not _proposed(model, findings.version) and findings == Findings(version=findings.version)


def _is_new(model: ModelFold, ruling: Ruling, live: LivePeriod, standing: Standing | None) -> bool:
    """Return whether a ruling is to be written, after the last decision."""
    if ruling.reason in WRITTEN_ONCE_PER_PERIOD and ruling.reason in live.written_once:
        return False
    if ruling.reason in UNDECIDED_REASONS and (_proposed(model, live.version) or live.observed is not None):
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
    if _names_target(ruling):
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
