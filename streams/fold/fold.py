"""Fold ledger records into decisions: `Fold.step` is the whole of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from actions.checkpoints import Checkpoint, journal_digest
from actions.desired import DesiredState
from actions.facts import FleetFact
from actions.fleet_limit import FleetState
from actions.incidents import Alert, Incidents
from actions.journal import Decision
from actions.reconcile import unexplained
from streams.config.resolved import FOLD_VERSION, Config
from streams.config.units import NEVER
from streams.evaluation.outcomes import Outcomes
from streams.fold.arrivals import refuse_deployment, take_deployment, take_outcomes, take_replicas
from streams.fold.copies import Copies
from streams.fold.deciding import end_holdback_if_over, evaluate
from streams.fold.decision_writer import DecisionWriter
from streams.fold.dues import Dues
from streams.fold.judging import advance
from streams.fold.model import ModelFold, SavedModel, counting_width_of, width_of
from streams.fold.model_places import ModelPlaces, is_kept
from streams.fold.operator_acts import operate, refuse_unseen
from streams.fold.uncovered import counts_of, outcomes_of
from streams.ledger.coverage import Coverage
from streams.ledger.entries import Entry
from streams.ledger.records import (
    Batch,
    Begun,
    Configured,
    Deployed,
    Operated,
    Part,
    Refused,
    ReplicaFacts,
    Trusted,
)
from unship.budgets.table import DEPLOYED_MODELS, REPLICAS_OF_ALL
from unship.commands import Command
from unship.rejections import RejectCode
from unship.topics import SOURCES

REPLICAS_OF_ALL_MAX = REPLICAS_OF_ALL.limit


class LedgerMismatch(ValueError):
    """A ledger or a snapshot is of another version of the fold, or its configuration has another digest."""


class SavedFold(msgspec.Struct, frozen=True):
    """A `Fold` at rest: it carries its own position."""

    fold_version: int
    config: Config
    offset: int
    chain: bytes
    clock: int
    models: dict[str, SavedModel]
    partitions: int
    coverage: dict[int, Coverage]
    gaps: list[int]
    copies: Copies
    rejected: dict[str, int]
    fleet: FleetState
    places: ModelPlaces
    decided: int = 0
    incidents: Incidents = msgspec.field(default_factory=Incidents)


class Fold:
    """Fold one ledger partition. Two folds that step the same records hold the same bytes."""

    def __init__(self, config: Config) -> None:
        self.config = config.watched()
        self.config_digest = config.digest()
        self.offset = 0
        self.clock = -1
        self.models: dict[str, ModelFold] = {}
        self.partitions = 1
        self.coverage: dict[int, Coverage] = {}
        self.gaps: set[int] = set()
        self.copies = Copies()
        self.rejected: Counter[str] = Counter()
        self.fleet = FleetState(config.max_simultaneous)
        self.places = ModelPlaces()
        self._writer = DecisionWriter()
        self._dues = Dues()

    @property
    def written(self) -> list[Decision]:
        """Return the decisions that the last record led to, in order."""
        return self._writer.written

    @property
    def alerts(self) -> list[Alert]:
        """Return the alerts that the last record led to, in order."""
        return self._writer.alerts

    def checkpoint(self, audience: str, partition: int, ts: int, ends: Mapping[str, int]) -> Checkpoint:
        """Return what can be signed of everything that was folded; the arguments are fields of it."""
        newest = {name: model.state.written.digest for name, model in self.models.items()}
        journal = journal_digest((self.places.digests | newest).items())
        return Checkpoint(
            audience=audience,
            ts=ts,
            partition=partition,
            ledger=self.offset,
            chain=self._writer.chain.hex(),
            decisions=self._writer.count,
            journal=journal,
            ends=dict(sorted(ends.items())),
        )

    def go_to(self, offset: int) -> None:
        """Go to the offset of the next record, which an epoch names: a log may have gaps before it."""
        assert offset >= self.offset, (offset, self.offset)
        self.offset = offset

    def expect(self, parts: Mapping[str, Iterable[Part]], partition: int) -> None:
        """Expect that the next records have these parts, by model, and are of one source partition.

        They are then judged together, to the same end.
        """
        for name, some in parts.items():
            if name in self.models:
                self.models[name].expect(some, partition)

    def step(self, entry: Entry) -> list[Decision]:
        """Apply the next ledger record; return the decisions it leads to, in order.

        Raises:
            LedgerMismatch: this program cannot read what comes from this record on. Nothing was changed, so that one
                that can goes on from here.
        """
        for _ in self.pieces(entry):
            pass
        return self.written

    def pieces(self, entry: Entry) -> Iterator[None]:
        """Apply the next ledger record in pieces of a millisecond or less; `written` has the decisions at the end.

        For drivers that have other things to do as well. In between nothing may be asked of the fold. Raises what
        `step` does.
        """
        record = entry.record
        # Read before anything is changed.
        config = _config_of(record) if isinstance(record, Configured) else self.config
        self._writer.begin(self.offset, entry.value, self.config_digest, self.coverage)
        if not isinstance(record, Batch | FleetFact):
            self.clock = max(self.clock, record.clock)
        if isinstance(record, Configured):
            self._configure(record, config)
        elif isinstance(record, Batch):
            yield from self._take_batch(record)
        elif isinstance(record, Begun):
            self._begin_incarnation(record)
        elif isinstance(record, Deployed | Operated):
            self._take_control(record)
        elif isinstance(record, Refused):
            self.rejected[record.code] += not self.copies.is_read(record.at)
        elif isinstance(record, Trusted):
            self.copies.take_trust(record)
        elif isinstance(record, ReplicaFacts):
            self._take_replicas(record)
        elif isinstance(record, FleetFact):
            self._take_fleet(record)
        else:
            yield from self._pass_time(record.clock)
        self._writer.end(self.models, self.clock)
        self.offset += 1

    def _take_control(self, record: Deployed | Operated) -> None:
        if self.copies.is_copied(record):
            return
        if self.copies.is_revoked(record):
            if isinstance(record, Operated):
                self.rejected[RejectCode.UNSIGNED_ACT] += 1
                return
            record = msgspec.structs.replace(record, signed_by=None)
        if self.copies.is_repeated(record):
            self.rejected[RejectCode.ACT_REPEATED] += 1
            return
        place, name = record.event.at, record.event.model
        trusted = self.copies.is_trusted(record, self.config.of(name).deployments)
        if not trusted and name not in self.models and name not in self.config.models:
            # A name that a stranger invents is no model.
            self.rejected[RejectCode.UNSIGNED_DEPLOYMENT] += 1
            return
        if trusted and not self._admit_deployed(name):
            return
        unseen = name not in self.models and name not in self.config.models
        model = self._model(name)
        self._advance(model, self.clock)
        if record.clock < 0:
            # Its copier does not read the sources, which may be far behind: it counts from its own append time on.
            appended = 0 if place is None else place[3]
            record = msgspec.structs.replace(record, clock=max(self.clock, appended, 0))
        if not trusted:
            refuse_deployment(model, record, self._writer)
        elif isinstance(record, Deployed):
            take_deployment(model, record, self._writer)
        elif unseen and not record.event.override and record.event.act != "renew":
            known = sorted({*self.models, *self.config.models} - {name})
            refuse_unseen(model, record, known, self._writer)
            # Nothing is known of it now either, so that a second act on it is refused as well.
            self._forget(name)
            return
        else:
            operate(model, record, self._writer)
            self._writer.acted(name, record.event, record.clock)
        self._dues.note(model)

    def _take_batch(self, batch: Batch) -> Iterator[None]:
        """Apply what a batch has beyond what is covered; a batch that leaves something out opens a gap instead."""
        coverage = self.coverage.get(batch.partition, Coverage())
        known = batch.incarnation == coverage.incarnation and 0 <= batch.partition < self.partitions
        if not known or not self.config_digest.startswith(batch.config):
            self.rejected[RejectCode.FOREIGN_BATCH] += 1
            return
        self.coverage[batch.partition] = coverage
        coverage.clock = max(coverage.clock, batch.clock)
        # A partition without a batch holds time back.
        now = min(self.coverage[i].clock if i in self.coverage else -1 for i in range(self.partitions))
        self.clock = max(self.clock, now)
        if not coverage.reaches(batch.base):
            self.gaps.add(batch.partition)
            self.rejected[RejectCode.GAP] += 1
            return
        self.gaps.discard(batch.partition)
        for part in batch.parts:
            # Before every partition has a batch nothing matures, but what counts on arrival has a time.
            at = self.clock if self.clock >= 0 else batch.clock
            if part.model in self.models:
                self.models[part.model].arrive(part)
            outcomes = outcomes_of(part, batch, coverage, counting_width_of(self.config.of(part.model)), at)
            if self._admit(part.model, outcomes.events(), at):
                if outcomes.predictions:
                    self.places.predicted(part.model, at)
                self._take_outcomes(self._model(part.model), outcomes)
            yield
        for reason, change in counts_of(batch.counted, coverage):
            self.rejected[reason] += change
        coverage.add(batch.end)
        yield from self._pass_time(self.clock)
        for part in batch.parts:
            if part.model in self.models:
                self._advance(self.models[part.model], self.clock)

    def _take_outcomes(self, model: ModelFold, outcomes: Outcomes) -> None:
        take_outcomes(model, outcomes, self._writer)
        self._dues.note(model)

    def _begin_incarnation(self, record: Begun) -> None:
        known = self.coverage.get(record.partition, Coverage())
        if record.incarnation > known.incarnation:
            # Time goes on: how far a partition had come stays true.
            self.coverage[record.partition] = Coverage(record.incarnation, clock=known.clock)
            self.gaps.discard(record.partition)
            for model in self.models.values():
                model.state.replicas.begin_incarnation(SOURCES[0], record.partition)

    def _pass_time(self, clock: int) -> Iterator[None]:
        """Let time pass to `clock`, by each instant at which something is due.

        So what is decided does not depend on how much time a record covers: a reader that catches up covers much, and
        one that has caught up little.
        """
        while (due := self.due()) <= min(clock, NEVER - 1):
            for name in self._dues.until(due):
                self._advance(self._model(name), due)
                assert self._dues.at(name) > due, (name, due)
            yield

    def due(self) -> int:
        """Return the next instant at which a tick is needed."""
        return self._dues.next()

    def take_touched(self) -> list[str]:
        """Return the models that were touched, or forgotten, since the last call: of others nothing has changed."""
        return self._dues.take_touched()

    def commanded(self) -> dict[str, DesiredState]:
        """Return what is desired of every model that may be commanded; mode `observe` commands nothing."""
        return {name: model.state.desired for name, model in self.models.items() if model.commanded}

    def counts(self) -> Counter[str]:
        """Return what the models counted, by reason."""
        return sum((model.counts for model in self.models.values()), self.rejected.copy())

    def _configure(self, record: Configured, config: Config) -> None:
        """Take the configuration in force from here on; it is the ledger's own, not the reader's."""
        self.partitions = record.partitions
        self.copies.begin(as_given=record.numbered)
        for model in self.models.values():
            model.state.replicas.record(recorded=record.numbered)
        self.fleet.spread(record.ledger_partitions)
        if record.digest == self.config_digest:
            return
        self._adopt(config)
        for model in self.models.values():
            self._reconfigure(model)
        self.places.configure(self.models, config.models, self.clock)

    def _reconfigure(self, model: ModelFold) -> None:
        model.reconfigure(self.config.of(model.name), self.config.places, self.clock)
        end_holdback_if_over(model, self.clock, self._writer)
        self._dues.note(model)

    def _adopt(self, config: Config) -> None:
        self.config, self.config_digest = config.watched(), config.digest()
        self.fleet.configure(config.max_simultaneous)

    def _advance(self, model: ModelFold, clock: int) -> None:
        advance(model, clock, self._writer)
        self._dues.note(model)

    def _take_replicas(self, record: ReplicaFacts) -> None:
        if not self._admit(record.model, len(record.changes), max(self.clock, record.clock)):
            return
        model = self._model(record.model)
        self._advance(model, self.clock)
        take_replicas(model, record.changes, self.clock, self._writer)
        self.places.shed_replicas(self.models, REPLICAS_OF_ALL_MAX)
        self._dues.note(model)

    def _take_fleet(self, record: FleetFact) -> None:
        for name in self.fleet.take(record, self.clock):
            if name in self.models:
                evaluate(self.models[name], self.clock, self._writer)
        # A rollback elsewhere that ends is an instant at which a model that waits for it is asked again.
        for model in self.models.values():
            self._dues.note(model)

    def _model(self, name: str) -> ModelFold:
        model = self.models.get(name)
        if model is None:
            model = self.models[name] = self._new_model(name)
        return model

    def _new_model(self, name: str, saved: SavedModel | None = None) -> ModelFold:
        model = ModelFold(name, self.config.of(name), saved, self.fleet, self.config.places)
        model.state.replicas.record(recorded=self.copies.as_given)
        if saved is None:
            model.state.written.chain(self.places.digests.pop(name, ""))
        return model

    # Places

    def _admit(self, name: str, events: int, now: int) -> bool:
        """Return whether a model has a place at a time (ms); if there is none, its events are counted."""
        if name in self.models or name in self.config.models:
            return True
        if len(self.places.strangers) >= self.config.places.models:
            # Not before: a model that answers once a month is judged by what it did the month before.
            self._forget_silent()
        if self.places.admit(name, now, self.config.places.models):
            return True
        self.rejected[RejectCode.MODEL_LIMIT] += events
        return False

    def _admit_deployed(self, name: str) -> bool:
        """Return whether a model that is deployed or acted upon has a place; if there is none, that is counted."""
        places = self.places
        if name in self.config.models:
            return True
        if name not in places.deployed and len(places.deployed) >= DEPLOYED_MODELS.limit:
            silent = next(places.dispensable(self.models, self.clock - self._silence_ms), None)
            if silent is None:
                self.rejected[RejectCode.MODEL_LIMIT] += 1
                return False
            self._forget(silent)
        places.deploy(name, self.clock)
        return True

    @property
    def _silence_ms(self) -> int:
        """Return after how many milliseconds without a prediction a model of the defaults may be forgotten."""
        return self.config.defaults.horizon_ms + width_of(self.config.defaults)

    def _forget_silent(self) -> None:
        """Forget the models that only appeared in events, and do so no more; not one that a decision depends on."""
        for name in self.places.silent(self.clock - self._silence_ms):
            if is_kept(self.models[name]) and len(self.places.deployed) < DEPLOYED_MODELS.limit:
                self.places.deploy(name, self.clock)
            else:
                self._forget(name)

    def _forget(self, name: str) -> None:
        model = self.models.pop(name)
        self._dues.forget(name)
        self.rejected.update(model.counts)
        self.places.forget(name, model.state.written.digest)

    def save(self) -> SavedFold:
        """Return everything, to go on bit for bit."""
        return self.save_with({name: model.save() for name, model in self.models.items()})

    def save_with(self, models: dict[str, Any]) -> SavedFold:
        """Return the same with what was saved of each model before, in whatever form it is to be written."""
        return SavedFold(
            FOLD_VERSION,
            self.config,
            self.offset,
            self._writer.chain,
            self.clock,
            models,
            self.partitions,
            self.coverage,
            sorted(self.gaps),
            self.copies,
            dict(self.rejected),
            self.fleet,
            self.places,
            self._writer.count,
            self._writer.incidents,
        )

    def load(self, saved: SavedFold) -> None:
        """Take over what `save` returned, its configuration as well; `self` must be new.

        Raises:
            LedgerMismatch: if it was saved by another version of the fold.
        """
        if saved.fold_version != FOLD_VERSION:
            raise LedgerMismatch(
                f"the snapshot was saved by version {saved.fold_version} of the fold, this is {FOLD_VERSION}; start "
                "without it"
            )
        self.fleet, self.places = saved.fleet, saved.places
        self._adopt(saved.config)
        self.offset, self.clock = saved.offset, saved.clock
        self._writer.go_on(saved.chain, saved.decided, saved.incidents)
        self.partitions, self.coverage, self.gaps = saved.partitions, saved.coverage, set(saved.gaps)
        self.copies = saved.copies
        self.rejected.update(saved.rejected)
        for name, model in saved.models.items():
            self.models[name] = self._new_model(name, model)
            self._dues.note(self.models[name])


def unexplained_models(fold: Fold, published: Mapping[str, Command]) -> list[str]:
    """Return a sentence for each model of which commands or most replicas know a higher epoch than this ledger."""
    found = []
    for name, desired in sorted(fold.commanded().items()):
        last, state = published.get(name), fold.models[name].state
        refused = state.replicas.refuse(state.clock, desired.epoch)
        if (sentence := unexplained(name, None if last is None else last.epoch, refused, desired)) is not None:
            found.append(sentence)
    return found


def _config_of(record: Configured) -> Config:
    """Return the configuration of a ledger record, if this program folds as its writer did."""
    if record.fold_version != FOLD_VERSION:
        raise LedgerMismatch(
            f"the ledger was written by version {record.fold_version} of the fold, this is {FOLD_VERSION}: only the "
            "program that wrote it can go on with it or audit it; begin a new ledger, as docs/how-to/upgrade.md shows"
        )
    try:
        config = msgspec.convert(record.config, Config)
    except msgspec.ValidationError as error:
        raise LedgerMismatch(f"the ledger's configuration cannot be read: {error}") from error
    if config.digest() != record.digest:
        raise LedgerMismatch(
            f"the ledger's configuration has digest {config.digest()[:12]}, the record has {record.digest[:12]}"
        )
    return config
