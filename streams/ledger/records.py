"""The ledger records: everything that a decision depends on, in one total order.

The join writes these records, and the fold reads nothing else. Columns are arrays, and strings are coded by a
dictionary inside the record, so that each record can be read alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from actions.facts import FleetFact, ReplicaChange
from detectors.base import Bools, Floats, Ints
from streams.ledger.coverage import Corner
from unship.budgets.table import REPLICA_CHANGES
from unship.events import At, Deployment, OperatorAct
from unship.signing import Revoked, SignedBy, Trust

Scalar: TypeAlias = bool | int | float | str
CHANGES_MAX = REPLICA_CHANGES.limit


class Coded(msgspec.Struct, frozen=True):
    """A column of few different values: `values[codes[i]]`, or no value where the code is -1."""

    values: list[Scalar]
    codes: Ints

    def chosen(self, use: Bools) -> Coded:
        """Return the entries that a mask chooses, with the same dictionary."""
        return Coded(self.values, self.codes[use])


class Pairs(msgspec.Struct, frozen=True):
    """A column of classes, of the answer and of the truth: `pairs[codes[i]]`, or not named here where the code is -1.

    A class that is null is a value that is none.
    """

    pairs: list[tuple[int | str | None, int | str | None]]
    codes: Ints

    def chosen(self, use: Bools) -> Pairs:
        """Return the entries that a mask chooses, with the same dictionary."""
        return Pairs(self.pairs, self.codes[use])


class Arm(msgspec.Struct, frozen=True):
    """A version in a role."""

    version: str
    role: str


class PredictionRows(msgspec.Struct, frozen=True):
    """Predictions that were read for the first time, one row each.

    `slices` and the class that was answered, `answer`, are there where somebody asks of which requests labels are
    missing; records of before are without.
    """

    arm: Ints
    predicted_at: Ints
    position: Ints
    slices: list[Coded] = []
    answer: Coded | None = None


def chosen_units(unit: Ints | UnsetType, use: Bools) -> Ints | UnsetType:
    """Return the numbers of units of the rows that a mask chooses, absent where no row has one."""
    return UNSET if unit is UNSET else unit[use]


class OutcomeRows(msgspec.Struct, frozen=True):
    """Outcomes, one row each; `losses` has shape (losses, outcomes).

    `position` is the offset of the prediction, `labelled_by` that of its feedback. `arm` indexes the part's `arms`.
    `classes` is there where the target has classes and a loss compares them; records of before are without. `unit` has
    the numbers of units, 0 for none, and is absent where no outcome has one.
    """

    arm: Ints
    predicted_at: Ints
    labelled_at: Ints
    position: Ints
    labelled_by: Ints
    losses: Floats
    slices: list[Coded]
    source: Coded
    classes: Pairs | None = None
    unit: Ints | UnsetType = UNSET

    def chosen(self, use: Bools) -> OutcomeRows:
        """Return the rows that a mask chooses."""
        return OutcomeRows(
            arm=self.arm[use],
            predicted_at=self.predicted_at[use],
            labelled_at=self.labelled_at[use],
            position=self.position[use],
            labelled_by=self.labelled_by[use],
            losses=self.losses[:, use],
            slices=[column.chosen(use) for column in self.slices],
            source=self.source.chosen(use),
            classes=None if self.classes is None else self.classes.chosen(use),
            unit=chosen_units(self.unit, use),
        )


class PairRows(msgspec.Struct, frozen=True):
    """Requests that a shadow and the live version answered, one row each.

    `excess` has shape (losses, pairs): loss of the live version minus loss of the shadow. `slices` are those of the
    live prediction, and `position` is its offset. `later` is the offset of the later prediction of the two, and
    `labelled_by` that of their feedback, -1 in a pair without a label.
    """

    shadow: Ints
    live: Ints
    predicted_at: Ints
    position: Ints
    later: Ints
    labelled_by: Ints
    excess: Floats
    slices: list[Coded]

    def chosen(self, use: Bools) -> PairRows:
        """Return the rows that a mask chooses."""
        return PairRows(
            shadow=self.shadow[use],
            live=self.live[use],
            predicted_at=self.predicted_at[use],
            position=self.position[use],
            later=self.later[use],
            labelled_by=self.labelled_by[use],
            excess=self.excess[:, use],
            slices=[column.chosen(use) for column in self.slices],
        )


class UnlabelledRows(msgspec.Struct, frozen=True):
    """Predictions that were read for the first time, as they are judged if no label comes in time.

    `losses` has shape (losses, predictions), NaN where a loss needs a label. `pairs` are the requests among them that a
    shadow and the live version answered; the earlier prediction of a pair may be in an earlier record. `unit` is as in
    `OutcomeRows`.
    """

    arm: Ints
    predicted_at: Ints
    position: Ints
    losses: Floats
    slices: list[Coded]
    pairs: PairRows | None = None
    answer: Coded | None = None
    unit: Ints | UnsetType = UNSET

    def chosen(self, use: Bools, pairs: PairRows | None) -> UnlabelledRows:
        """Return the rows that a mask chooses, with other pairs."""
        return UnlabelledRows(
            arm=self.arm[use],
            predicted_at=self.predicted_at[use],
            position=self.position[use],
            losses=self.losses[:, use],
            slices=[column.chosen(use) for column in self.slices],
            pairs=pairs,
            answer=None if self.answer is None else self.answer.chosen(use),
            unit=chosen_units(self.unit, use),
        )


class Part(msgspec.Struct, frozen=True):
    """What a batch holds of one model, each row with the places in the two logs that it comes from.

    The predictions that were read for the first time are in `unlabelled` where the model judges predictions without a
    label, and in `seen` where it does not.
    """

    model: str
    arms: list[Arm]
    outcomes: OutcomeRows
    seen: PredictionRows
    pairs: PairRows | None = None
    unlabelled: UnlabelledRows | None = None


class Counted(msgspec.Struct, frozen=True):
    """What was not used, by reason: changes of counts, each at the place (prediction, feedback) that caused it."""

    reason: Coded
    change: Ints
    prediction: Ints
    feedback: Ints


class Batch(msgspec.Struct, frozen=True, tag="batch", tag_field="kind"):
    """What one reader joined of one pair of source partitions between two corners; see `streams.ledger.coverage`.

    A batch holds everything of the ledger partition it is in, so that one record covers one range. `config` begins the
    digest of the configuration it was joined under; under another one its columns have other meanings. `clock` is the
    time up to which this partition was read. `source_digest` covers the values of both ranges, byte for byte
    (`streams.ledger.digests`). In a recording both logs are numbered by its source lines.
    """

    partition: int
    incarnation: int
    config: str
    base: Corner
    end: Corner
    clock: int
    source_digest: str
    parts: list[Part]
    counted: Counted


class Deployed(msgspec.Struct, frozen=True, omit_defaults=True, tag="deployment", tag_field="kind"):
    """A copy of a deployment event with its place (`event.at`), at the source clock of its arrival.

    A copier that does not read the sources has no clock; it writes -1, and the fold uses its own. `signed_by` is whose
    signature the copier found on the record, so that the fold needs no keys; None if that of nobody who is trusted.
    """

    clock: int
    event: Deployment
    signed_by: SignedBy | None = None


class Operated(msgspec.Struct, frozen=True, omit_defaults=True, tag="operator", tag_field="kind"):
    """A copy of an operator's act with its place, at the source clock of its arrival; -1 as in `Deployed`."""

    clock: int
    event: OperatorAct
    signed_by: SignedBy | None = None


class Refused(msgspec.Struct, frozen=True, tag="refused", tag_field="kind"):
    """A deployment, an act or an ack that a copier did not copy, by its place and the code; `clock` is -1.

    It belongs to no model, so that it is in the first ledger partition.
    """

    clock: int
    at: At
    code: str


class KnownKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """A key of `trust.json`: its id, what it may sign, and from when on it is revoked."""

    id: str
    roles: list[str]
    revoked: Revoked | None = None


class Trusted(msgspec.Struct, frozen=True, tag="trust", tag_field="kind"):
    """The keys that the monitor trusts from here on, written where its `trust.json` was replaced.

    A copier may have read an older one when it found who signed a record. `clock` is -1 as in `Deployed`.
    """

    clock: int
    audience: str
    keys: list[KnownKey]


class Tick(msgspec.Struct, frozen=True, tag="tick", tag_field="kind"):
    """The source clock reached `clock`: a cohort or a timer falls due.

    The monitor of an embedded log ends each round with a tick that states how far every source topic was read, and
    where `control` and `decisions` ended when the round began.
    """

    clock: int
    positions: dict[str, int] = {}


class Configured(msgspec.Struct, frozen=True, tag="configuration", tag_field="kind"):
    """The configuration in force from here on, with the version of the fold that reads it.

    The numbers of partitions, of the sources and of the ledger, are part of it: they decide which records are joined.
    `numbered` is true in a recording whose sources are numbered by their lines, whatever places the lines have.
    """

    clock: int
    fold_version: int
    digest: str
    config: dict[str, Any]
    partitions: int = 1
    ledger_partitions: int = 1
    numbered: bool = False


class Begun(msgspec.Struct, frozen=True, tag="incarnation", tag_field="kind"):
    """A new incarnation of a pair of source partitions: its topics were created again or truncated.

    An operator confirms it. Offsets name other records from here on, and batches of an earlier incarnation are refused.
    """

    clock: int
    partition: int
    incarnation: int


class ReplicaFacts(msgspec.Struct, frozen=True, tag="replicas", tag_field="kind"):
    """What changed at the replicas of one model up to the source clock `clock`, in the order of its log.

    `clock` is -1 as in `Deployed`.
    """

    clock: int
    model: str
    changes: list[ReplicaChange]


def replica_facts(clock: int, changes: Mapping[str, Sequence[ReplicaChange]]) -> list[ReplicaFacts]:
    """Return the records of what changed at the replicas of each model, none with more than `CHANGES_MAX`."""
    return [
        ReplicaFacts(clock, model, list(some[begin : begin + CHANGES_MAX]))
        for model, some in changes.items()
        for begin in range(0, len(some), CHANGES_MAX)
    ]


Record: TypeAlias = (
    Batch | Deployed | Operated | Refused | Trusted | Tick | Configured | Begun | ReplicaFacts | FleetFact
)


def trusted_of(trust: Trust) -> Trusted:
    """Return the record of what a `trust.json` holds."""
    return Trusted(-1, trust.audience, [KnownKey(key.id, list(key.roles), key.revoked) for key in trust.keys])
