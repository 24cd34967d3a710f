"""The fold of one model: outcomes fill cohorts, closed cohorts are judged, findings meet the policy, decisions change
what is desired.

Everything here is a function of the ledger's records in their order. Nothing is read from outside, and all that has to
be remembered stands in `ModelState` and the detectors' snapshots.
"""

from collections import Counter
from collections.abc import Callable, Iterable

import msgspec
import numpy as np

from actions.desired import DeploymentResult, Proposal, deploy
from actions.evidence import Findings, View
from actions.evidence_tree import Evidence, FleetReport
from actions.facts import ReplicaChange
from actions.fleet_limit import FleetState
from actions.policy import Ruling, decide
from actions.reasons import Action, Reason, Verdict
from detectors.base import Floats, Ints
from detectors.rows.concurrent import new_comparison
from detectors.rows.label_share import LabelHealth, new_label_health
from detectors.rows.types import Entries, Rules
from detectors.rows.watch import new_health
from streams.config.resolved import ModelConfig
from streams.config.units import NEVER
from streams.evaluation.cohorts import (
    ARM,
    PREDICTED_AT,
    SOURCE,
    Closed,
    OpenCohort,
    add_outcomes,
    add_pairs,
    close_cohort,
    labelled_by_arm,
    new_cohort,
)
from streams.evaluation.findings import find, is_blind
from streams.evaluation.opinions import Opinions, SavedOpinion
from streams.evaluation.outcomes import Outcomes
from streams.evaluation.periods import (
    Beside,
    LivePeriod,
    ModelState,
    Standing,
    forget_all,
    hand_over,
    leave,
    new_model_state,
    new_period,
    rules_for,
)
from streams.evaluation.report import evidence_of
from streams.ledger.records import Arm, Deployed, PairRows
from unship.rejections import RejectCode

#: Written once in a live period, however often they come and go.
ONCE = (Reason.LEARNING, Reason.CONFIRMING, Reason.COVERAGE_SHIFT)
#: Reasons that only say that nothing is shown yet.
UNDECIDED = (Reason.CONFIRMING, Reason.NOT_CONFIRMED, Reason.MIX_SHIFT, Reason.ALL_DEGRADED)
#: Versions that are judged beside the live one; further ones are counted and left out.
BESIDE_MAX = 8
#: Writes a decision down and returns its id; given by the fold, which knows the position in the ledger.
Write = Callable[["ModelFold", str, Ruling, Evidence, int], str]


class SavedModel(msgspec.Struct):
    """A `ModelFold` at rest."""

    state: ModelState
    opinions: list[SavedOpinion]


class ModelFold:
    """Folds the ledger records of one model. `epoch` is the epoch of the next change; the fold sets it for each
    record."""

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        write: Write,
        saved: SavedModel | None = None,
        fleet: FleetState | None = None,
    ) -> None:
        self.name = name
        self.fleet = FleetState(1) if fleet is None else fleet
        self.config = config
        self.state = new_model_state(config) if saved is None else saved.state
        self.opinions = Opinions(config.detectors, len(config.losses))
        if saved is not None:
            self.opinions.load(saved.opinions)
        self.counts: Counter[str] = Counter(self.state.counts)
        self.epoch = (0, 0, 0)
        self._writer = write
        self._rules: dict[bool, Rules] = {}
        self.width = width_of(config)

    def save(self) -> SavedModel:
        """Return everything, to go on bit for bit."""
        self.state.counts = dict(self.counts)
        return SavedModel(self.state, self.opinions.save())

    def rules(self, alarming: bool) -> Rules:
        """Return what an alarm takes at present; it changes only with the configuration and with new slices."""
        rules = self._rules.get(alarming)
        if rules is None or rules.weights.size != len(self.state.layout.slices.streams):
            rules = self._rules[alarming] = rules_for(self.state, self.config, alarming)
        return rules

    def write(self, version: str, ruling: Ruling, evidence: Evidence, now: int) -> str:
        """Write a decision down; return its id."""
        return self._writer(self, version, ruling, evidence, now)

    # What arrives

    def take_outcomes(self, record: Outcomes) -> None:
        """Put a record's outcomes into their cohorts; without a maturity, judge them at once."""
        state = self.state
        numbers = state.layout.arm_numbers(record)
        for arm, _, count in record.predictions:
            self._notice(record.arms[arm], count, record.clock)
        if not self.width and not record.arm.size and record.unlabelled is None and record.pairs is None:
            return
        if self.config.outcomes_labelled is not False:
            self._count_outcomes(record.arms, record.arm)
        for arm, cohort, count in record.predictions:
            if self.width and cohort >= state.closed_until:
                predictions = state.open_cohorts.setdefault(cohort, new_cohort()).predictions
                number = int(numbers[arm])
                predictions[number] = predictions.get(number, 0) + count
        self._add(state.layout.columns(record, numbers), record.losses, record.pairs, numbers, True)
        without = record.unlabelled
        if without is not None:
            if self.config.outcomes_labelled is False:
                self._count_outcomes(record.arms, without.arm)
            self._add(state.layout.unlabelled_columns(without, numbers), without.losses, without.pairs, numbers, False)
        if not self.width and state.open_cohorts:
            self._judge(state.open_cohorts.pop(0), 0, record.clock)

    def _add(self, columns: Ints, losses: Floats, paired: PairRows | None, numbers: Ints, labelled: bool) -> None:
        state = self.state
        pairs = state.layout.pair_columns(paired, numbers)
        excess = losses[:, :0] if paired is None else paired.excess
        if self.width:
            # A partition that appears late brings outcomes of cohorts that are judged already.
            open_ = columns[PREDICTED_AT] // self.width >= state.closed_until
            if not open_.all():
                self.counts[RejectCode.NOT_JUDGED] += int((~open_).sum())
                columns, losses = columns[:, open_], losses[:, open_]
            if pairs is not None and not labelled:
                # A shadow may answer long after the live version.
                open_ = pairs[PREDICTED_AT] // self.width >= state.closed_until
                pairs, excess = pairs[:, open_], excess[:, open_]
        add_outcomes(state.open_cohorts, columns, losses, self.width, labelled)
        if pairs is not None and pairs.size:
            add_pairs(state.open_cohorts, pairs, excess, self.width, labelled)

    def _count_outcomes(self, arms: list[Arm], arm: Ints) -> None:
        outcomes = self.state.outcomes
        for number, count in enumerate(np.bincount(arm, minlength=len(arms)).tolist()):
            version = arms[number].version
            outcomes[version] = outcomes.get(version, 0) + count

    def _notice(self, arm: Arm, count: int, now: int) -> None:
        """Take note of who answers; the first version ever seen live, without a deployment, becomes the live one."""
        desired = self.state.desired
        facts = desired.facts(arm.version)
        if facts.first_role is None:
            facts.first_role = arm.role
        facts.answered_at = max(facts.answered_at, now)
        if arm.role == "live" and desired.serve is None and facts.status is None:
            desired.change(arm.version, self.epoch)
            # It was live from its first prediction on, which is older than the record that tells of it.
            self.start_period(arm.version, 0)
        if arm.role == "live" and arm.version != desired.serve and desired.is_quarantined(arm.version):
            self.counts[RejectCode.STILL_SERVED] += count
        elif facts.status is not None and (arm.role == "live") != (arm.version == desired.serve):
            self.counts[RejectCode.ROLE_MISMATCH] += count

    def take_deployment(self, record: Deployed) -> None:
        """Take a deployment; a new live version starts a live period."""
        desired, event = self.state.desired, record.event
        result = deploy(desired, event, record.clock, self.epoch)
        if result is DeploymentResult.LIVE:
            self.start_period(event.version, record.clock)
        elif result is DeploymentResult.STALE:
            self.counts[RejectCode.STALE_DEPLOYMENT] += 1
        elif result is DeploymentResult.REPEATED:
            self.counts[RejectCode.DUPLICATE_DEPLOYMENT] += 1
        elif result in (DeploymentResult.QUARANTINED, DeploymentResult.PINNED):
            reason = Reason.QUARANTINED if result is DeploymentResult.QUARANTINED else Reason.DEPLOYED_WHILE_PINNED
            ruling = Ruling(reason.verdict, reason, Action.PAGE, None, None)
            refused = _standing(ruling, event.version)
            if refused == self.state.refused:
                # Every replica that starts says so again; one page is enough until another deployment is taken.
                return
            self.state.refused = refused
            evidence = Evidence(serving=desired.serve, deployed=event.version)
            self.write(event.version, ruling, evidence, record.clock)

    def take_replicas(self, changes: Iterable[ReplicaChange], now: int) -> None:
        """Take what changed at the model's replicas; a target that can be served no more is seen at once."""
        state = self.state
        state.replicas.take(changes, now, state.desired.ordered, self.counts)
        if state.live is not None and state.live.health.degraded:
            self.evaluate(now)

    def begin_anew(self, topic: str, partition: int) -> None:
        """Forget how far the replicas were read in a partition that was made again."""
        self.state.replicas.begin_anew(topic, partition)

    def start_period(self, version: str, now: int) -> None:
        """Let a version be live from now on; what it replaces is remembered."""
        state = self.state
        state.refused = None
        hand_over(state)
        state.live = new_period(state, self.config, version, now)
        self.opinions = Opinions(self.config.detectors, len(self.config.losses))

    def judge_afresh(self, version: str, now: int) -> None:
        """Take the present label coverage as the normal one: from here on everything is learned again."""
        self.start_period(version, now)
        forget_all(self.state)

    def reconfigure(self, config: ModelConfig, now: int) -> None:
        """Go on under another configuration: judged afresh if it changes what is seen; what is desired stays."""
        if config == self.config:
            return
        old, self.config, self.width = self.config, config, width_of(config)
        self._rules.clear()
        if config.judges_as(old):
            return
        state = self.state
        fresh = new_model_state(config)
        # Outcomes under the old one were computed from other losses or slices, or counted by another rule.
        state.layout, state.open_cohorts, state.closed_until = fresh.layout, {}, -1
        forget_all(state)
        state.silence = fresh.silence
        if state.live is not None:
            state.live = new_period(state, config, state.live.version, now)
        state.desired.proposal = None
        self.opinions = Opinions(config.detectors, len(config.losses))

    # Time

    def due(self) -> int:
        """Return the next instant at which something happens by the passing of time alone."""
        state, config = self.state, self.config
        due = NEVER
        if self.width and state.open_cohorts:
            due = (min(state.open_cohorts) + 1) * self.width + config.mature_after_ms
        live, now = state.live, state.clock
        if live is not None and live.health.degraded:
            waits = [live.health.alarms[0].at + config.confirm_within_ms]
            if state.desired.switches:
                waits.append(state.desired.switches[-1] + config.cooldown_ms)
            waits += [fact.until for fact in self.fleet.others(self.name, now)]
            if self.name in self.fleet.waiting:
                waits.append(self.fleet.busy_until(self.name, now))
            due = min([due, *(at for at in waits if at > now)])
        if state.desired.proposal is not None:
            due = min(due, max(state.desired.proposal.made_at + config.proposal_ttl_ms, now + 1))
        return due

    def advance(self, now: int) -> None:
        """Let the clock reach `now`: close the cohorts that are due, then ask whether a timer changes anything."""
        state, config = self.state, self.config
        timed = self.due() <= now
        state.clock = max(state.clock, now)
        if self.width:
            last = (now - config.mature_after_ms) // self.width - 1
            for number in sorted(state.open_cohorts):
                if number > last:
                    break
                self._judge(state.open_cohorts.pop(number), number, now)
            state.closed_until = max(state.closed_until, last + 1)
        if self._lapse(now) or timed:
            self.evaluate(now)

    def _lapse(self, now: int) -> bool:
        proposal = self.state.desired.proposal
        if proposal is not None and now >= proposal.made_at + self.config.proposal_ttl_ms:
            self.state.desired.proposal = None
            # A version that is still worse is proposed again: silence must not bury it.
            self.state.standing = None
            return True
        return False

    # Judging

    def _judge(self, cohort: OpenCohort, number: int, now: int) -> None:
        state, config = self.state, self.config
        state.clock = max(state.clock, now)
        closed = self._close(cohort, number)
        live = state.live
        if live is None:
            self.counts[RejectCode.NOT_JUDGED] += closed.columns.shape[1]
            return
        arms = state.layout.arms
        streams, sources = len(state.layout.slices.streams), len(state.layout.sources.names)
        if state.replaced is not None:
            old = state.replaced
            old.fit(streams, sources)
            old.absorb(closed.of(_number(arms, old.version, "live"), old.since, live.since))
        mine = _number(arms, live.version, "live")
        entries = closed.of(mine, live.since)
        live.health.fit(streams, sources)
        if not live.health.rows.fixed and (entries.source.size or closed.begin >= live.since):
            self._fix(live)
        if self.width and closed.begin >= live.since:
            self._close_labels(live.labels, closed, mine, entries, now)
        if entries.source.size:
            rules = self.rules(self.opinions.deciding is None)
            live.health.judge(entries, rules, now)
            self.opinions.step(entries, live.health, rules, now)
            ignored = live.health.check_references(config.worse_by)
            if ignored:
                self.counts[RejectCode.REFERENCE_IMPLAUSIBLE] += ignored
        self._judge_beside(live, closed, mine, entries, now)
        if live.labels.settled and not self._stands(live):
            self.judge_afresh(live.version, now)
        self.evaluate(now)

    def _stands(self, live: LivePeriod) -> bool:
        """Whether something is known of the live version that a shift of the label coverage must not bury."""
        alarms = live.health.alarms
        return bool(alarms and alarms[0].at < live.labels.shifted_at) or self.state.desired.proposal is not None

    def _close(self, cohort: OpenCohort, number: int) -> Closed:
        state, config = self.state, self.config
        silent: list[int] = []
        if config.negative:
            state.silence.close(cohort.predictions, labelled_by_arm(cohort))
            silent = state.silence.arms()
        closed = close_cohort(cohort, number, self.width, len(config.losses), len(config.slices_by), silent)
        if self.width and config.judges_unlabelled and config.outcomes_labelled is None:
            # These became outcomes only now; those with a label were counted when it came.
            self._count_outcomes(state.layout.arms, closed.columns[ARM, closed.columns[SOURCE] < 0])
        return closed

    def _close_labels(self, labels: LabelHealth, closed: Closed, arm: int, entries: Entries, now: int) -> None:
        """Take a cohort into the label coverage of an arm."""
        config = self.config
        if config.judges_unlabelled:
            if len(config.latency_losses) == len(config.losses):
                # No loss needs a label.
                return
            labelled = int((entries.source >= 0).sum())
        else:
            labelled = entries.source.size
        labels.close(closed.predictions.get(arm, 0), labelled, config.promise, now, rise=not config.negative)

    def _fix(self, live: LivePeriod) -> None:
        state = self.state
        previous = None
        if state.replaced is not None:
            previous = state.replaced.version
            leave(state, state.replaced)
            state.replaced = None
        reference = state.desired.facts(live.version).reference
        by_loss = {i: reference[spec.name] for i, spec in enumerate(self.config.losses) if spec.name in reference}
        earlier = state.left_healthy.get(live.version)
        live.health.fix_baselines(by_loss, earlier, state.left.get(previous) if previous is not None else None)

    def _judge_beside(self, live: LivePeriod, closed: Closed, mine: int, own: Entries, now: int) -> None:
        """Judge holdback and shadow versions, and compare them with the live one (arm `mine`, outcomes `own`)."""
        state = self.state
        rules = self.rules(True)
        streams = len(state.layout.slices.streams)
        for number, arm in enumerate(state.layout.arms):
            if arm.role == "live" or arm.version == live.version:
                continue
            entries = closed.of(number, live.since)
            if not entries.source.size and arm.version not in live.beside:
                continue
            if arm.version not in live.beside and len(live.beside) >= BESIDE_MAX:
                self.counts[RejectCode.NOT_JUDGED] += entries.source.size
                continue
            beside = live.beside.get(arm.version) or self._begin_beside(live, arm)
            if beside.role != arm.role:
                continue
            if self.width and closed.begin >= live.since:
                self._close_labels(beside.labels, closed, number, entries, now)
            beside.health.fit(streams, 0)
            beside.comparison.fit(streams)
            if entries.source.size:
                beside.health.judge(entries, rules, now)
            if arm.role == "holdback":
                beside.comparison.step_blocks(entries, own, closed.begin, closed.width)
            else:
                beside.comparison.step_pairs(*closed.pairs_of(mine, number, live.since))

    def _begin_beside(self, live: LivePeriod, arm: Arm) -> Beside:
        state = self.state
        if state.replaced is not None and state.replaced.version == arm.version:
            # What it was as the live version is its baseline now; later outcomes of that time are still absorbed.
            leave(state, state.replaced)
        streams = len(state.layout.slices.streams)
        binary = [spec.binary for spec in self.config.losses]
        health = new_health(arm.version, arm.role, live.since, binary, streams, self.config.outcomes_labelled)
        health.fix_baselines({}, state.left_healthy.get(arm.version), None)
        comparison = new_comparison(arm.version, arm.role, len(self.config.losses), streams)
        beside = live.beside[arm.version] = Beside(arm.role, health, new_label_health(), comparison)
        return beside

    # Deciding

    def view(self, now: int, mode: str | None = None, override: bool = False) -> View:
        """Return what bears on an act beside the evidence."""
        desired, config = self.state.desired, self.config
        return View(
            now=now,
            mode=mode or config.mode,
            held=desired.held and not override,
            pinned=desired.pinned and not override,
            last_switch=desired.switches[-1] if desired.switches else None,
            cooldown_ms=config.cooldown_ms,
            switches=len(desired.recent_switches(now, config.switches_span_ms)),
            switches_max=config.switches_max,
            stopped=desired.stopped,
            confirm_within_ms=config.confirm_within_ms,
            # An operator who approves has the last word on a comparison with the past.
            without_control=config.without_control if mode is None else "act",
            # Nothing is done about a version that is well, so nobody asks.
            others=len(self.fleet.others(self.name, now)) if mode or self._degraded() else 0,
            others_max=self.fleet.limit,
            frozen=desired.frozen,
        )

    def _degraded(self) -> bool:
        return self.state.live is not None and self.state.live.health.degraded

    def evaluate(self, now: int) -> None:
        """Ask the policy, and write a decision if it says something new."""
        live, standing = self.state.live, self.state.standing
        if live is None or (live.health.outcomes == 0 and not is_blind(self.state, live, self.config)):
            return
        rules = self.rules(True)
        findings, chosen = find(self.state, live, self.config, rules)
        ruling = decide(findings, self.view(now))
        if ruling.verdict is Verdict.HEALTHY:
            self.state.desired.proposal = None
        if not self._is_new(ruling, live, standing):
            return
        self.fleet.waiting.pop(self.name, None)
        if ruling.action is Action.ROLLBACK and now < self.fleet.busy_until(self.name, now):
            # The ledger does not say yet what was decided last elsewhere, and the limit over all models needs it.
            self.fleet.waiting[self.name] = None
            return
        evidence = evidence_of(self.state, live, self.config, rules, self.opinions, chosen)
        if ruling.reason is Reason.FLEET_LIMIT:
            under_way = {fact.model: fact.decision for fact in self.fleet.others(self.name, now)}
            evidence = msgspec.structs.replace(evidence, fleet=FleetReport(self.fleet.limit, under_way))
        self._settle(ruling, findings, live, evidence, now)

    def _is_new(self, ruling: Ruling, live: LivePeriod, standing: Standing | None) -> bool:
        if ruling.reason in ONCE and ruling.reason in live.written_once:
            return False
        if ruling.reason in UNDECIDED and (self.state.desired.proposal is not None or live.observed is not None):
            # What was proposed or observed stands, though the evidence for the target may sink again.
            return False
        if ruling.action is Action.OBSERVE and live.observed == ruling.to:
            return False
        if ruling.verdict is Verdict.HEALTHY and (standing is None or standing.verdict == Verdict.HEALTHY):
            return False
        return standing != _standing(ruling, live.version)

    def _settle(self, ruling: Ruling, findings: Findings, live: LivePeriod, evidence: Evidence, now: int) -> None:
        desired = self.state.desired
        self.state.standing = _standing(ruling, live.version)
        if ruling.reason in ONCE:
            live.written_once.append(ruling.reason)
        if ruling.reason is Reason.SWITCH_LIMIT:
            desired.stopped = True
        elif ruling.reason is Reason.FLEET_LIMIT:
            desired.frozen = True
        decision = self.write(live.version, ruling, evidence, now)
        said = ruling.reason is Reason.RECORD_BETTER and ruling.action is Action.PAGE
        if ruling.action is Action.OBSERVE or said:
            live.observed = findings.target
        elif ruling.action is Action.PROPOSE and ruling.to is not None:
            desired.proposal = Proposal(decision, live.version, ruling.to, now)
        elif ruling.action is Action.ROLLBACK and ruling.to is not None:
            desired.roll_back(ruling.to, self.epoch, now, automatic=True, decision=decision)
            self.start_period(ruling.to, now)


def width_of(config: ModelConfig) -> int:
    """Return the width of a model's cohorts in milliseconds, 0 without a maturity."""
    return config.cohort_ms if config.mature_after_ms else 0


def _standing(ruling: Ruling, version: str) -> Standing:
    return Standing(ruling.verdict, ruling.reason, ruling.action, version, ruling.to, ruling.slice)


def _number(arms: list[Arm], version: str, role: str) -> int:
    """Return the number of an arm, -1 if it has not answered yet."""
    return next((i for i, arm in enumerate(arms) if arm.version == version and arm.role == role), -1)
