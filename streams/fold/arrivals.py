"""Take what a ledger record brings of a model: outcomes fill cohorts, deployments and replicas change what is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from msgspec import UNSET

from actions.desired import DeploymentResult, deploy
from actions.evidence_tree import Evidence
from actions.facts import ReplicaChange
from actions.policy import Ruling
from actions.reasons import Action, Reason
from actions.versions import NEWEST, NewestAnswers
from detectors.base import Floats, Ints
from streams.evaluation.cohorts import ARM, PREDICTED_AT, add_outcomes, add_pairs, new_cohort
from streams.evaluation.label_parts import counts_in
from streams.evaluation.outcomes import Outcomes
from streams.evaluation.periods import CHURN_RETURNS
from streams.evaluation.plausibility import pair_counts
from streams.fold.deciding import end_holdback_if_over, evaluate, hold_back, standing_of, to_hold_back
from streams.fold.decision_writer import DecisionWriter
from streams.fold.judging import judge
from streams.fold.model import ModelFold
from streams.ledger.records import Deployed, Operated, PairRows
from unship.budgets.table import DEPLOYED_VERSIONS, JUDGED
from unship.rejections import RejectCode

DEPLOYED_VERSIONS_MAX = DEPLOYED_VERSIONS.limit
#: Where nothing is deployed, a version is live from so many live predictions on,
FIRST_LEAST = 100
#: and another one becomes so when it gave so many of the newest ones.
CHALLENGER_LEAST = 3 * NEWEST // 4
#: A version that answers live without a deployment, where others have one, is noticed from so many predictions and so
#: many milliseconds on: less may be a test.
UNANNOUNCED_LEAST = 100
UNANNOUNCED_MS = 60_000


def take_outcomes(model: ModelFold, record: Outcomes, writer: DecisionWriter) -> None:
    """Put a record's outcomes into their cohorts; without a maturity, judge them at once."""
    model.reseat_sources()
    record, numbers = _admitted(model, record)
    _take_answers(model, record, writer)
    _count_outputs(model, record)
    if not model.width and model.config.needs_labels:
        _wait(model, record, numbers)
    if model.width or record.arm.size or record.unlabelled is not None or record.pairs is not None:
        _take_rows(model, record, numbers, writer)
    _follow(model, record, writer)


def _take_rows(model: ModelFold, record: Outcomes, numbers: Ints, writer: DecisionWriter) -> None:
    state = model.state
    if model.config.outcomes_labelled is not False and not model.config.revises:
        state.count_outcomes(record.arms, record.arm)
    for arm, cohort, count in record.predictions:
        if model.width and cohort >= state.closed_until:
            predictions = state.open_cohorts.setdefault(cohort, new_cohort()).predictions
            number = int(numbers[arm])
            predictions[number] = predictions.get(number, 0) + count
    _add(model, state.layout.columns(record, numbers), record.losses, record.pairs, numbers, True)
    _count_classes(model, record, numbers)
    if model.width and model.config.needs_labels:
        _count_parts(model, record, numbers)
    without = record.unlabelled
    if without is not None:
        if model.config.outcomes_labelled is False:
            state.count_outcomes(record.arms, without.arm)
        columns = state.layout.unlabelled_columns(without, numbers)
        _add(model, columns, without.losses, without.pairs, numbers, False)
    if not model.width and state.open_cohorts:
        judge(model, state.open_cohorts.pop(0), 0, record.clock, writer)


def _wait(model: ModelFold, record: Outcomes, numbers: Ints) -> None:
    """Let predictions wait for their labels, where there is no maturity."""
    labels = model.state.labels
    for arm, interval, count in record.predictions:
        labels.waiting.predicted(int(numbers[arm]), interval, count)
    if record.arm.size:
        labels.waiting.labelled(numbers[record.arm], record.predicted_at, record.labelled_at, labels.silence)


def _count_classes(model: ModelFold, record: Outcomes, numbers: Ints) -> None:
    """Count the classes of outcomes in their cohorts, as long as anybody asks for them."""
    if record.classes is None or not record.arm.size or not model.asks_for_classes:
        return
    cohorts = record.predicted_at // model.width if model.width else np.zeros_like(record.arm)
    for cohort in np.unique(cohorts).tolist():
        known = model.state.open_cohorts.get(cohort)
        if known is not None:
            for arm in np.unique(record.arm[cohorts == cohort]).tolist():
                use = (cohorts == cohort) & (record.arm == arm)
                known.add_classes(int(numbers[arm]), pair_counts(record.classes.chosen(use)))


def _count_outputs(model: ModelFold, record: Outcomes) -> None:
    """Count how often each class is answered, and how often a truth comes for it."""
    outputs, asked = model.state.labels.outputs, record.asked
    if asked.answer is not None and asked.arm.size:
        outputs.ask(asked.answer, asked.predicted_at)
    if record.classes is not None and record.arm.size:
        outputs.tell(record.classes, record.predicted_at)


def _count_parts(model: ModelFold, record: Outcomes, numbers: Ints) -> None:
    """Count predictions and labels by what labels may be missing by, in their cohorts."""
    state = model.state
    found = counts_in(record, state.layout.slices, state.labels.outputs, model.width)
    for (cohort, arm), counts in found.items():
        if cohort >= state.closed_until:
            state.open_cohorts.setdefault(cohort, new_cohort()).add_parts(int(numbers[arm]), counts)


def _admitted(model: ModelFold, record: Outcomes) -> tuple[Outcomes, Ints]:
    """Return what a record has of versions that have a place, and the model's number of each arm; count the rest."""
    state, silence_ms, limit = model.state, model.silence_ms, model.places.versions
    kept = np.array([state.admit(arm.version, record.clock, silence_ms, limit) for arm in record.arms], np.bool_)
    numbers = state.layout.arm_numbers(record.arms, kept)
    if not kept.all():
        model.counts[RejectCode.VERSION_LIMIT] += record.of_arms(~kept).events()
        record = record.of_arms(kept)
    return record, numbers


def _add(
    model: ModelFold, columns: Ints, losses: Floats, paired: PairRows | None, numbers: Ints, labelled: bool
) -> None:
    """Put outcomes and pairs into their cohorts, except those that are judged already."""
    state = model.state
    pairs = state.layout.pair_columns(paired, numbers)
    excess = losses[:, :0] if paired is None else paired.excess
    if model.width:
        # A partition that appears late brings outcomes of cohorts that are judged already.
        open_ = columns[PREDICTED_AT] // model.width >= state.closed_until
        if not open_.all():
            model.leave_out(np.bincount(columns[ARM, ~open_], minlength=len(state.layout.arms)))
            columns, losses = columns[:, open_], losses[:, open_]
        if pairs is not None and not labelled:
            # A shadow may answer long after the live version.
            open_ = pairs[PREDICTED_AT] // model.width >= state.closed_until
            pairs, excess = pairs[:, open_], excess[:, open_]
    add_outcomes(state.open_cohorts, columns, losses, model.width, labelled)
    if pairs is not None and pairs.size:
        add_pairs(state.open_cohorts, pairs, excess, model.width, labelled)


def _take_answers(model: ModelFold, record: Outcomes, writer: DecisionWriter) -> None:
    """Note which versions answer; the first version ever seen live is judged as the live one from then on."""
    if not record.predictions:
        return
    desired = model.state.desired
    for number, _, count in record.predictions:
        arm = record.arms[number]
        facts = desired.versions.answered(arm.version, arm.role, count, record.clock)
        if arm.role == "live" and arm.version != desired.serve and desired.is_quarantined(arm.version):
            model.counts[RejectCode.STILL_SERVED] += count
        elif facts.status is not None and (arm.role == "live") != (arm.version == desired.serve):
            model.counts[RejectCode.ROLE_MISMATCH] += count
        if arm.role != "live":
            continue
        if desired.serve is None and model.state.live is None and facts.status is None:
            # It was live from its first prediction on, which is older than the record.
            model.start_period(arm.version, 0)
        if desired.versions.announced and facts.status is None:
            _notice_unannounced(model, arm.version, count, record.clock, writer)
    _add_newest(desired.versions.newest, record)


def _add_newest(newest: NewestAnswers, record: Outcomes) -> None:
    """Add a record's live predictions to the newest ones, in their order."""
    counts = Counter[int]()
    for number, _, count in record.predictions:
        if record.arms[number].role == "live":
            counts[number] += count
    by, at = record.asked.arm, record.asked.predicted_at
    names = {number: record.arms[number].version for number in counts}
    began = {name: int(at[by == number].min()) for number, name in names.items() if not newest.count(name)}
    if len(counts) < 2:
        # By far the usual case.
        newest.add([(names[number], min(count, NEWEST)) for number, count in counts.items()], began)
        return
    by = by[np.isin(by, list(counts))][-NEWEST:]
    edges = [0, *((by[1:] != by[:-1]).nonzero()[0] + 1).tolist(), by.size]
    newest.add([(names[int(by[begin])], end - begin) for begin, end in pairwise(edges)], began)


def _notice_unannounced(model: ModelFold, version: str, count: int, now: int, writer: DecisionWriter) -> None:
    """Count live answers of a version that no deployment names, where others are; write it once they are no chance."""
    desired = model.state.desired
    if version in (desired.serve, *desired.changes.earlier) or desired.is_quarantined(version):
        return
    seen = desired.versions.facts(version).answered_unannounced(count, now)
    if seen.noticed or seen.predictions < UNANNOUNCED_LEAST or now < seen.since + UNANNOUNCED_MS:
        return
    seen.notice()
    if not desired.versions.may_notice(JUDGED.limit):
        return
    reason = Reason.UNANNOUNCED_VERSION
    ruling = Ruling(reason.verdict, reason, reason.action, None, None)
    writer.write(model, version, ruling, Evidence(serving=desired.serve, implied=True), now)


def _follow(model: ModelFold, record: Outcomes, writer: DecisionWriter) -> None:
    """Let a version be live because it answers most, where nothing was ever deployed or ordered."""
    state, desired = model.state, model.state.desired
    if not record.predictions or state.live is None or not desired.is_followed:
        return
    newest, counts = desired.versions.newest, dict[str, int]()
    for number, _, _ in record.predictions:
        arm = record.arms[number]
        if arm.role != "live" or arm.version == desired.serve or desired.why_barred(arm.version) is not None:
            continue
        if desired.serve is None:
            counts[arm.version] = desired.facts(arm.version).live
        elif newest.count(arm.version) >= CHALLENGER_LEAST:
            counts[arm.version] = newest.count(arm.version)
    if desired.serve is None:
        counts = {version: count for version, count in counts.items() if count >= FIRST_LEAST}
    if not counts:
        return
    version = state.live.version if state.live.version in counts else max(sorted(counts), key=counts.__getitem__)
    if not state.make_room(version, DEPLOYED_VERSIONS_MAX):
        model.counts[RejectCode.VERSION_LIMIT] += 1
        return
    desired.change(version, writer.epoch(model.name, desired))
    if version != state.live.version:
        model.take_over(version, newest.since.get(version, record.clock))
    evaluate(model, record.clock, writer)


def take_deployment(model: ModelFold, record: Deployed, writer: DecisionWriter) -> None:
    """Take a deployment; a new live version starts a live period."""
    desired, event = model.state.desired, record.event
    if not model.state.make_room(event.version, DEPLOYED_VERSIONS_MAX):
        model.counts[RejectCode.VERSION_LIMIT] += 1
        return
    before = desired.serve
    kept = to_hold_back(model, event.version, record.clock) if event.status == "live" else None
    result = deploy(desired, event, record.clock, writer.epoch(model.name, desired))
    if result is DeploymentResult.LIVE:
        if kept is not None:
            hold_back(model, kept, record.clock)
        _go_live(model, event.version, before, record.clock, writer)
    elif result is DeploymentResult.STALE:
        model.counts[RejectCode.STALE_DEPLOYMENT] += 1
    elif result is DeploymentResult.REPEATED:
        model.counts[RejectCode.DUPLICATE_DEPLOYMENT] += 1
    elif result in (DeploymentResult.QUARANTINED, DeploymentResult.PINNED):
        reason = Reason.QUARANTINED if result is DeploymentResult.QUARANTINED else Reason.DEPLOYED_WHILE_PINNED
        ruling = Ruling(reason.verdict, reason, Action.PAGE, None, None)
        refused = standing_of(ruling, event.version)
        if refused == model.state.written.refused:
            # Every replica that starts deploys it again; one page is enough until another deployment is taken.
            return
        model.state.written.refuse(refused)
        barred = None if desired.is_quarantined(event.version) else desired.why_barred(event.version)
        evidence = Evidence(serving=desired.serve, deployed=event.version, missing=barred or UNSET)
        writer.write(model, event.version, ruling, evidence, record.clock)
    end_holdback_if_over(model, record.clock, writer)


def _go_live(model: ModelFold, version: str, before: str | None, now: int, writer: DecisionWriter) -> None:
    """Begin the live period of a deployed version, or go on with the one it had if versions come and go."""
    if before is None and model.state.live is not None and model.state.live.version == version:
        # It has answered before the first deployment came, and is judged from its first prediction on.
        return
    churn = model.state.past.churn
    if churn.count(version, now, model.config.confirm_within_ms) < CHURN_RETURNS:
        model.start_period(version, now)
        return
    if churn.page():
        ruling = Ruling(Reason.CHURN.verdict, Reason.CHURN, Action.PAGE, None, None)
        writer.write(model, version, ruling, Evidence(serving=before, deployed=version), now)
    if not model.resume_period(version, now):
        model.start_period(version, now)
        return
    # Its outcomes were judged while another version was live.
    evaluate(model, now, writer)


def refuse_deployment(model: ModelFold, record: Deployed | Operated, writer: DecisionWriter) -> None:
    """Count an unsigned deployment; the first of a model is written, because nothing of it will serve until then."""
    model.counts[RejectCode.UNSIGNED_DEPLOYMENT] += 1
    if model.counts[RejectCode.UNSIGNED_DEPLOYMENT] > 1:
        return
    reason, version = Reason.UNSIGNED_DEPLOYMENT, record.event.version or ""
    ruling = Ruling(reason.verdict, reason, Action.PAGE, None, None)
    evidence = Evidence(serving=model.state.desired.serve, deployed=version)
    writer.write(model, version, ruling, evidence, record.clock)


def take_replicas(model: ModelFold, changes: Iterable[ReplicaChange], now: int, writer: DecisionWriter) -> None:
    """Take what changed at the model's replicas, and ask the policy again: the target may not be servable any more."""
    state = model.state
    state.replicas.take(changes, now, state.desired.ordered, model.counts, model.places.replicas)
    if state.live is not None and state.live.health.degraded:
        evaluate(model, now, writer)
