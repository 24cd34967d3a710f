"""Write the decisions of one ledger partition: each with its id, its epoch, and the digests of what it rests on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from actions.desired import DesiredState
from actions.evidence_tree import Evidence
from actions.incidents import Alert, Incidents, Switch
from actions.journal import Decision, Digests, Provenance, decision_bytes, decision_id, digest_of
from actions.policy import Ruling
from actions.reasons import Action
from actions.replicas import ANSWERS_PROVE_MS, fault_of
from streams.evaluation.outlook import detectable_of
from streams.evaluation.periods import LastAct
from streams.fold.model import ModelFold
from streams.ledger.coverage import Coverage
from unship.events import Epoch, OperatorAct


def _act_of(decision: Decision) -> LastAct | None:
    """Return what a decision did or asked for, None for nothing."""
    if decision.action is Action.NONE:
        return None
    return LastAct(decision.id, decision.ts, decision.version, decision.action, decision.to, decision.reason)


class DecisionWriter:
    """Write what the records of a ledger lead to; `written` holds the decisions of the present record, in order.

    `count` is how many were written so far. `alerts` holds the changes of `incidents` by the present record.
    """

    def __init__(self) -> None:
        self.written: list[Decision] = []
        self.count = 0
        self.incidents = Incidents()
        self.alerts: list[Alert] = []
        self._offset = 0
        self.chain = b""
        self._config_digest = ""
        self._coverage: Mapping[int, Coverage] = {}

    def begin(self, offset: int, value: bytes, config_digest: str, coverage: Mapping[int, Coverage]) -> None:
        """Go to the next record of the ledger.

        Args:
            offset: where it is.
            value: the record; `chain` becomes the digest of all records up to and with it.
            config_digest: digest of the configuration that is in force.
            coverage: what has been applied of each partition; it may grow while the record is applied.
        """
        self.written, self.alerts = [], []
        self.chain = hashlib.sha256(self.chain + hashlib.sha256(value).digest()).digest()
        self._offset, self._config_digest, self._coverage = offset, config_digest, coverage

    def go_on(self, chain: bytes, count: int, incidents: Incidents) -> None:
        """Go on after the record up to which a digest was taken, after so many decisions, with what is open."""
        self.chain, self.count, self.incidents = chain, count, incidents

    def acted(self, model: str, event: OperatorAct, now: int) -> None:
        """Note that an operator's act on a model was taken, by the clock `now` (ms)."""
        self.alerts += self.incidents.acted(model, event.act, event.version, self.written, now)

    def end(self, models: Mapping[str, ModelFold], now: int) -> None:
        """End the record: what was decided, and what replicas obey by the clock `now` (ms), changes incidents."""
        incidents = self.incidents
        if self.written:
            self.alerts += incidents.decided(self.written, lambda name: _desired(models, name), now)
        for name in [each for each in incidents.open if each not in models]:
            self.alerts += incidents.forgotten(name, now)
        if incidents.open:
            self.alerts += incidents.switched(lambda name, left: _switch(models[name], left, now), now)

    def epoch(self, model: str, desired: DesiredState) -> Epoch:
        """Return the epoch of a change that the record makes: that of the model's decision before it, if there is one.

        Only the last state after a record is commanded, so that no two commands share an epoch.
        """
        before = next((decision.epoch for decision in reversed(self.written) if decision.model == model), None)
        return before or self._next(desired)

    def _next(self, desired: DesiredState) -> Epoch:
        return (desired.incarnation, self._offset, len(self.written))

    def write(self, model: ModelFold, version: str, ruling: Ruling, evidence: Evidence, now: int) -> Decision:
        """Write a decision on a version of a model at `now` (ms), and return it."""
        written = model.state.written
        evidence = _with_detectable(model, version, evidence)
        epoch = self._next(model.state.desired)
        decision = Decision(
            id=decision_id(model.name, epoch, written.digest),
            model=model.name,
            version=version,
            action=ruling.action,
            to=ruling.to,
            verdict=ruling.verdict,
            reason=ruling.reason,
            mode=model.config.mode,
            epoch=epoch,
            ts=now,
            slice=ruling.slice,
            outcomes=_judged(model, version),
            evidence=evidence,
            provenance=self._provenance(),
            digests=Digests(previous=written.digest, ledger=self.chain.hex(), config=self._config_digest),
        )
        written.chain(digest_of(decision_bytes(decision)), _act_of(decision))
        self.written.append(decision)
        self.count += 1
        return decision

    def _provenance(self) -> Provenance:
        """Return which source records everything so far rests on: ranges of offsets by partition."""
        covered = sorted(self._coverage.items())
        return Provenance(
            ledger=(0, self._offset),
            predictions={str(i): (0, coverage.predictions) for i, coverage in covered},
            feedback={str(i): (0, coverage.feedback) for i, coverage in covered},
        )


def _judged(model: ModelFold, version: str) -> int:
    """Return how many outcomes of a version that answers live are judged at present."""
    live = model.state.live
    if live is None or live.version == version:
        return 0 if live is None else live.health.outcomes
    other = live.concurrent.get(version)
    return 0 if other is None or other.beside is None else other.health.outcomes


def _with_detectable(model: ModelFold, version: str, evidence: Evidence) -> Evidence:
    """Return evidence that states which rise would have shown, if it is about the live version."""
    live = model.state.live
    if live is None or live.version != version:
        return evidence
    detectable = detectable_of(live.health, model.config, live.pace.per_day(model.state.clock))
    return msgspec.structs.replace(evidence, detectable=detectable)


def _desired(models: Mapping[str, ModelFold], name: str) -> str | None:
    return models[name].state.desired.serve if name in models else None


def _switch(model: ModelFold, left: str | None, now: int) -> Switch | None:
    """Return the switch away from a version if it is obeyed at a source clock, None if there is none."""
    desired, replicas = model.state.desired, model.state.replicas
    if desired.serve in (None, left):
        return None
    epoch, alive = desired.epoch if model.commanded else None, 0
    for _, replica in replicas.alive(now):
        # Of a large fleet one that does not obey is usually found soon; this is asked after every record.
        if fault_of(replica, desired.serve, epoch) is not None:
            return None
        alive += 1
    if not alive and left is not None and desired.facts(left).answered_at >= now - ANSWERS_PROVE_MS:
        return None
    return Switch(desired.serve, alive)
