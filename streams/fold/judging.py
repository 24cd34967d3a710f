"""Judge a model as time passes: cohorts close, their outcomes step detectors, and the policy is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np

from detectors.base import Ints
from detectors.rows.concurrent import new_comparison
from detectors.rows.label_share import LabelHealth, new_label_health
from detectors.rows.types import Entries
from detectors.rows.watch import new_health
from streams.config.units import NEVER
from streams.evaluation.cohorts import (
    ARM,
    PREDICTED_AT,
    SOURCE,
    STREAMS,
    Closed,
    OpenCohort,
    close_cohort,
    in_force,
    labelled_by_arm,
)
from streams.evaluation.findings import is_blind
from streams.evaluation.periods import Beside, Concurrent, LivePeriod
from streams.fold.deciding import end_holdback_if_over, evaluate
from streams.fold.decision_writer import DecisionWriter
from streams.fold.model import ModelFold
from streams.ledger.records import Arm
from unship.budgets.table import JUDGED
from unship.rejections import RejectCode

#: Versions that are judged next to the live one; outcomes of further ones are counted and left out.
CONCURRENT_MAX = JUDGED.limit
#: Outcomes that decide which are judged, where outcomes count on arrival.
NEWEST_OUTCOMES = 1_000
#: A version that is judged keeps its place against another with no more than so many times its outcomes, as chance
#: would make the two take turns.
STAYS = 2


def due_at(model: ModelFold) -> int:
    """Return the next instant at which something happens by the passing of time alone."""
    state, config = model.state, model.config
    due = NEVER
    if model.width and state.open_cohorts:
        due = (min(state.open_cohorts) + 1) * model.width + config.mature_after_ms
    live, now = state.live, state.clock
    for other in () if live is None else live.concurrent.values():
        if other.beside is not None and other.health.degraded:
            confirmed_by = other.health.alarms[0].at + config.confirm_within_ms
            due = min(due, confirmed_by if confirmed_by > now else NEVER)
    if live is not None and live.health.degraded:
        waits = [live.health.alarms[0].at + config.confirm_within_ms]
        if state.desired.changes.switches:
            waits.append(state.desired.changes.switches[-1] + config.cooldown_ms)
        waits += [fact.until for fact in model.fleet.others(model.name, now)]
        if model.name in model.fleet.waiting:
            waits.append(model.fleet.busy_until(model.name, now))
        due = min([due, *(at for at in waits if at > now)])
    if state.desired.holdback.version is not None:
        due = min(due, state.desired.holdback.until)
    if state.desired.proposal is not None:
        due = min(due, max(state.desired.proposal.made_at + config.proposal_ttl_ms, now + 1))
    return due


def advance(model: ModelFold, now: int, writer: DecisionWriter) -> None:
    """Let the clock reach `now`: close the cohorts that are due, then ask whether a timer changes anything."""
    state, config = model.state, model.config
    timed = due_at(model) <= now
    state.reach(now)
    if model.width:
        last = (now - config.mature_after_ms) // model.width - 1
        for number in sorted(state.open_cohorts):
            if number > last:
                break
            judge(model, state.open_cohorts.pop(number), number, now, writer)
        state.close_until(last + 1)
    elif _falls_silent(model, now):
        timed = True
    end_holdback_if_over(model, now, writer)
    if _lapse(model, now) or timed:
        evaluate(model, now, writer)


def _falls_silent(model: ModelFold, now: int) -> bool:
    """Close what is matured, without a maturity; return whether the live version has become blind, or is it no more."""
    state, live = model.state, model.state.live
    was = live is not None and is_blind(state, live, model.config)
    state.labels.waiting.close(now, state.labels.silence)
    return live is not None and is_blind(state, live, model.config) != was


def _lapse(model: ModelFold, now: int) -> bool:
    """Close a proposal that is too old; return whether there was one."""
    proposal = model.state.desired.proposal
    if proposal is not None and now >= proposal.made_at + model.config.proposal_ttl_ms:
        model.state.desired.close_proposal()
        # A version that is still worse is proposed again.
        model.state.reopen(proposal.version)
        return True
    return False


def judge(model: ModelFold, cohort: OpenCohort, number: int, now: int, writer: DecisionWriter) -> None:
    """Close a cohort at `now` (ms), judge its outcomes and decide."""
    state, config = model.state, model.config
    state.reach(now)
    closed = _close(model, cohort, number)
    live, layout = state.live, state.layout
    if live is not None and _are_plausible_now(model, live, cohort):
        # What was learned from labels of another coding is not usual.
        model.judge_afresh(live.version, now)
        live = state.live
    left = np.bincount(closed.columns[ARM], minlength=len(layout.arms))
    if live is None:
        model.leave_out(left)
        return
    streams, sources = len(layout.slices.streams), layout.sources.places
    if state.past.replaced is not None:
        old = state.past.replaced
        old.fit(streams, sources)
        number = layout.number_of(old.version, "live")
        rest = closed.of(number, old.since, live.since)
        old.absorb(rest)
        left[number] -= rest.source.size
    mine = layout.number_of(live.version, "live")
    entries = closed.of(mine, live.since)
    left[mine] -= entries.source.size
    live.health.fit(streams, sources)
    if not live.health.rows.fixed and (entries.source.size or closed.begin >= live.since):
        _fix(model, live)
    if model.width and closed.begin >= live.since:
        _close_labels(model, live.labels, closed, mine, entries, now)
        if mine in cohort.parts:
            live.coverage.close(cohort.parts[mine])
    if entries.source.size:
        rules, before = model.rules(model.opinions.deciding is None), live.health.outcomes
        model.judge(live.health, entries, rules, now)
        if (outcomes := live.health.outcomes - before) > 0:
            begin = live.since or int(entries.predicted_at.min())
            live.pace.add(outcomes, now, begin + config.mature_after_ms)
        model.opinions.step(entries, live.health, rules, now)
        ignored = live.health.check_references(config.worse_by)
        if ignored:
            model.counts[RejectCode.REFERENCE_IMPLAUSIBLE] += ignored
    _judge_concurrent(model, live, closed, mine, entries, now, left)
    _judge_parked(model, closed, now)
    model.leave_out(left)
    if live.labels.settled and not _stands(model, live):
        model.judge_afresh(live.version, now)
    evaluate(model, now, writer)


def _are_plausible_now(model: ModelFold, live: LivePeriod, cohort: OpenCohort) -> bool:
    """Take the classes of a cohort's outcomes; return whether labels are plausible that were not before."""
    config = model.config
    counts = cohort.classes.get(model.state.layout.number_of(live.version, "live"), [])
    if config.losses[0].partial:
        live.kinds.count(counts)
    return not config.negative and model.state.labels.classes.take(counts, binary=config.kind == "binary")


def _stands(model: ModelFold, live: LivePeriod) -> bool:
    """Return whether something is known of the live version that a shift of the label coverage must not erase."""
    alarms = live.health.alarms
    return bool(alarms and alarms[0].at < live.labels.shifted_at) or model.state.desired.proposal is not None


def _close(model: ModelFold, cohort: OpenCohort, number: int) -> Closed:
    """Return a cohort's outcomes, and count those that become outcomes only now."""
    state, config = model.state, model.config
    silent: list[int] = []
    revised: dict[int, int] = {}
    if config.revises:
        rows = STREAMS + 1 + len(config.slices_by)
        cohort, revised = in_force(cohort, rows, len(config.losses))
    if model.width and config.needs_labels:
        state.labels.silence.close(cohort.predictions, labelled_by_arm(cohort))
    if config.negative:
        silent = state.labels.silence.arms()
    closed = close_cohort(cohort, number, model.width, len(config.losses), len(config.slices_by), silent)
    if config.revises:
        # Which labels are in force is known only now.
        state.count_outcomes(state.layout.arms, closed.columns[ARM])
    elif model.width and config.judges_unlabelled and config.outcomes_labelled is None:
        # These became outcomes only now; those with a label were counted when it came.
        state.count_outcomes(state.layout.arms, closed.columns[ARM, closed.columns[SOURCE] < 0])
    return msgspec.structs.replace(closed, revised=revised) if revised else closed


def _close_labels(model: ModelFold, labels: LabelHealth, closed: Closed, arm: int, entries: Entries, now: int) -> None:
    """Take a cohort into the label coverage of an arm."""
    config = model.config
    if config.judges_unlabelled:
        if not config.needs_labels:
            return
        labelled = int((entries.source >= 0).sum())
    else:
        labelled = entries.source.size
    predictions, rise, fall = closed.predictions.get(arm, 0), not config.negative, not config.tells_use
    labels.close(predictions, labelled, config.promise, now, rise=rise, fall=fall)
    labels.note_revised(closed.revised.get(arm, 0))


def _fix(model: ModelFold, live: LivePeriod) -> None:
    """Give the live version its first baselines, once the last outcomes of the one before it are counted."""
    state = model.state
    previous = state.past.leave_replaced()
    reference = state.desired.facts(live.version).reference
    by_loss = {i: reference[spec.name] for i, spec in enumerate(model.config.losses) if spec.name in reference}
    earlier = state.past.left_healthy.get(live.version)
    live.health.fix_baselines(by_loss, earlier, previous)


def _judge_parked(model: ModelFold, closed: Closed, now: int) -> None:
    """Judge versions that may come back by what they answered when they were live: the last outcomes mature later."""
    state = model.state
    for period in state.past.churn.periods(now - model.config.confirm_within_ms):
        entries = closed.of(state.layout.number_of(period.version, "live"), period.since)
        if not entries.source.size:
            continue
        period.health.fit(len(state.layout.slices.streams), state.layout.sources.places)
        if not period.health.rows.fixed:
            known = state.past.left_healthy
            others = [baselines for version, baselines in known.items() if version != period.version]
            period.health.fix_baselines({}, known.get(period.version), others[-1] if others else None)
        period.health.judge(entries, model.rules(model.opinions.deciding is None), now)


def _judge_concurrent(
    model: ModelFold, live: LivePeriod, closed: Closed, mine: int, own: Entries, now: int, left: Ints
) -> None:
    """Judge the versions that answer next to the live one, and compare them with it (arm `mine`, outcomes `own`).

    What is judged is taken off `left`, the outcomes by arm.
    """
    state = model.state
    rules = model.rules(True)
    streams, sources = len(state.layout.slices.streams), state.layout.sources.places
    versions = state.desired.versions
    for number in _judged_arms(model, live, closed):
        arm = state.layout.arms[number]
        other = live.concurrent.get(arm.version)
        if other is None or _has_changed_role(model, other, arm, closed):
            other = _begin_concurrent(model, live, arm)
        if other.role != arm.role or (other.beside and not left[number] and not versions.answers(arm.version)):
            # A version that has stopped answering live costs nothing.
            continue
        entries = closed.of(number, live.since)
        left[number] -= entries.source.size
        if model.width and closed.begin >= live.since:
            _close_labels(model, other.labels, closed, number, entries, now)
        # An alarm of a version that answers live is asked for by label source, as one of the live version is.
        other.health.fit(streams, sources if other.beside else 0)
        other.comparison.fit(streams)
        if entries.source.size:
            model.judge(other.health, entries, rules, now)
        if other.beside is not None:
            other.beside.comparison.fit(streams)
            if versions.answers(arm.version):
                other.comparison.add(entries, own, closed.begin, closed.width)
                other.beside.comparison.add(own, entries, closed.begin, closed.width)
        elif arm.role == "holdback":
            other.comparison.add(entries, own, closed.begin, closed.width)
        else:
            other.comparison.step_pairs(*closed.pairs_of(mine, number, live.since))


def _has_changed_role(model: ModelFold, other: Concurrent, arm: Arm, closed: Closed) -> bool:
    """Return whether a version is to be judged by what it answers in the role of `arm` from now on.

    What it is deployed as decides, and otherwise what it does: answers of the role that it leaves are still to come.
    """
    state = model.state
    if other.role == arm.role or "live" not in (other.role, arm.role):
        return False
    status = state.desired.role_of(arm.version)
    if status in ("holdback", "shadow"):
        return arm.role == status
    if state.desired.versions.answers(arm.version) != (arm.role == "live"):
        return False
    return not (closed.columns[ARM] == state.layout.number_of(arm.version, other.role)).any()


def _judged_arms(model: ModelFold, live: LivePeriod, closed: Closed) -> list[int]:
    """Return the arms that are judged as well as the live one; the others are counted and forgotten.

    If there are more than `CONCURRENT_MAX` versions, the deployed ones come first, then those with most outcomes: in
    the cohort, or among the newest ones where outcomes count on arrival.
    """
    layout = model.state.layout
    rows = np.bincount(closed.columns[ARM, closed.columns[PREDICTED_AT] >= live.since], minlength=len(layout.arms))
    found = {number for number in rows.nonzero()[0].tolist() if _is_concurrent(model, layout.arms[number], live)}
    found.update(
        number for name, other in live.concurrent.items() if (number := layout.number_of(name, other.role)) >= 0
    )
    outcomes = Counter[str]()
    for number in sorted(found):
        outcomes[layout.arms[number].version] += int(rows[number])
    if not model.width:
        live.add_newest(outcomes, NEWEST_OUTCOMES)
    if len(outcomes) > CONCURRENT_MAX:
        chosen = _chosen(model, live, outcomes, outcomes if model.width else live.newest_outcomes())
        for version in sorted(live.concurrent.keys() - chosen):
            model.state.drop_concurrent(version)
        found = {number for number in found if layout.arms[number].version in chosen}
    # The role that a version is deployed as comes first: answers of the role that it had are still to come.
    role_of = model.state.desired.role_of
    return sorted(found, key=lambda number: (layout.arms[number].role != role_of(layout.arms[number].version), number))


def _is_concurrent(model: ModelFold, arm: Arm, live: LivePeriod) -> bool:
    if arm.version == live.version:
        return False
    # What was rolled back and still serves is judged no more.
    return arm.role != "live" or not model.state.desired.is_quarantined(arm.version)


def _chosen(model: ModelFold, live: LivePeriod, versions: Iterable[str], outcomes: Mapping[str, int]) -> set[str]:
    """Return which of some versions, and of those that are judged, are judged as well as the live one."""

    def rank(version: str) -> tuple[bool, int]:
        deployed = model.state.desired.facts(version).status not in (None, "retired")
        return deployed, outcomes.get(version, 0) * (STAYS if version in live.concurrent else 1)

    # Sorting is stable, so that of equals those that are judged come first.
    known = dict.fromkeys((*live.concurrent, *versions))
    return set(sorted(known, key=rank, reverse=True)[:CONCURRENT_MAX])


def _begin_concurrent(model: ModelFold, live: LivePeriod, arm: Arm) -> Concurrent:
    state = model.state
    if state.past.replaced is not None and state.past.replaced.version == arm.version:
        # What it was as the live version is its baseline now; later outcomes of that time are still absorbed.
        state.past.leave(state.past.replaced, state.past.replaced_coverage)
    streams, losses = len(state.layout.slices.streams), len(model.config.losses)
    binary = [spec.binary for spec in model.config.losses]
    health = new_health(arm.version, arm.role, live.since, binary, streams, model.config.outcomes_labelled)
    beside, previous = None, None
    if arm.role == "live":
        # A version that answers as the live one does is measured by what was usual before it came.
        health.fit(streams, state.layout.sources.places)
        previous = live.health.leave()
        beside = Beside(new_comparison(arm.version, arm.role, losses, streams))
    health.fix_baselines({}, state.past.left_healthy.get(arm.version), previous)
    comparison = new_comparison(arm.version, arm.role, losses, streams)
    other = live.concurrent[arm.version] = Concurrent(arm.role, health, new_label_health(), comparison, beside)
    return other
