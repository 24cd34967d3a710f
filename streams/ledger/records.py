"""The ledger: the one total order of everything a decision reads.

The join writes these records, the fold reads them, and nothing else passes between the two. Columns are arrays, strings
are coded by a dictionary inside the record, so that a record stands alone.
"""

import hashlib
from typing import Any

import msgspec

from actions.facts import FleetFact, ReplicaChange
from detectors.base import Floats, Ints
from streams.ledger.coverage import Corner
from streams.ledger.encoding import pack
from unship.events import Deployment, OperatorAct

Scalar = bool | int | float | str

ROLES = ("live", "holdback", "shadow")


class Coded(msgspec.Struct, frozen=True):
    """A column of few different values: `values[codes[i]]`, or nothing where the code is -1."""

    values: list[Scalar]
    codes: Ints


class Arm(msgspec.Struct, frozen=True):
    """Who answered: a version in a role."""

    version: str
    role: str


class PairColumns(msgspec.Struct, frozen=True):
    """Outcomes of one request answered by a shadow and by the live version.

    `excess` has shape (losses, pairs): loss of the live version minus loss of the shadow. `slices` are those of the
    live prediction, one column for each configured name.
    """

    shadow: Ints
    live: Ints
    predicted_at: Ints
    position: Ints
    excess: Floats
    slices: list[Coded]


class Unlabelled(msgspec.Struct, frozen=True):
    """Predictions first read here, as they are judged if no label comes in time.

    `losses` has shape (losses, predictions), NaN where a loss needs a label. `pairs` are the requests among them that a
    shadow and the live version answered; the earlier one of the two may stand in an earlier record.
    """

    arm: Ints
    predicted_at: Ints
    position: Ints
    losses: Floats
    slices: list[Coded]
    pairs: PairColumns | None = None


class Outcomes(msgspec.Struct, frozen=True, tag="outcomes", tag_field="kind"):
    """Outcomes of one model, joined while the source clock went to `clock`.

    `losses` has shape (losses, outcomes); `arm` indexes `arms`; `lines` is the range of source lines (first, last)
    whose raw bytes, in order, have the SHA-256 `source_digest`. `predictions` counts (arm, cohort, count) of the
    predictions first seen here, `late` counts (arm, count) of truths that came after maturity. `unlabelled` is there
    only for models that judge predictions without a label.
    """

    model: str
    clock: int
    lines: tuple[int, int]
    source_digest: str
    arms: list[Arm]
    arm: Ints
    predicted_at: Ints
    labelled_at: Ints
    position: Ints
    losses: Floats
    slices: list[Coded]
    source: Coded
    predictions: list[tuple[int, int, int]]
    late: list[tuple[int, int]]
    pairs: PairColumns | None = None
    unlabelled: Unlabelled | None = None


class Seen(msgspec.Struct, frozen=True):
    """Predictions that were read for the first time, one row each."""

    arm: Ints
    predicted_at: Ints
    position: Ints


class Part(msgspec.Struct, frozen=True):
    """What a batch holds of one model, with the places in the two logs that each row comes from.

    `outcomes.position` is a prediction's offset, `answered` that of its feedback; `pair_predictions` is the later one
    of a pair's two predictions, `pair_answered` their feedback. `outcomes.predictions` is empty: `seen` has the rows,
    or `outcomes.unlabelled` where that is there. `pair_seen` is the later prediction of each pair in it.
    """

    outcomes: Outcomes
    answered: Ints
    pair_predictions: Ints
    pair_answered: Ints
    seen: Seen
    pair_seen: Ints


class Counted(msgspec.Struct, frozen=True):
    """What was not used, by reason: changes of counts, each at the place (prediction, feedback) that made it."""

    reason: Coded
    change: Ints
    prediction: Ints
    feedback: Ints


class Batch(msgspec.Struct, frozen=True, tag="batch", tag_field="kind"):
    """What one reader joined of one pair of source partitions between two corners; `streams.ledger.coverage` says why.

    A batch stands alone: it holds everything of the ledger partition it is in, so that one record covers one range.
    `config` begins the digest of the configuration it was joined under; under another its columns mean other things.
    `clock` is the time up to which this partition was read. `source_digest` is the SHA-256 of the digests of both
    ranges' values, `predictions` and `feedback` in this order.
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


class Deployed(msgspec.Struct, frozen=True, tag="deployment", tag_field="kind"):
    """A deployment event, at the source clock it arrived at."""

    clock: int
    lines: tuple[int, int]
    source_digest: str
    event: Deployment


class Operated(msgspec.Struct, frozen=True, tag="operator", tag_field="kind"):
    """An operator's act, at the source clock it arrived at."""

    clock: int
    lines: tuple[int, int]
    source_digest: str
    event: OperatorAct


class Tick(msgspec.Struct, frozen=True, tag="tick", tag_field="kind"):
    """The source clock reached `clock`: a cohort or a timer falls due.

    A live monitor ends each round with a tick that states how far every source topic was read.
    """

    clock: int
    positions: dict[str, int] = {}


class Configured(msgspec.Struct, frozen=True, tag="configuration", tag_field="kind"):
    """The configuration in force from here on, with the version of the fold that reads it.

    The numbers of partitions, of the sources and of the ledger, are part of it: with others, other records meet.
    """

    clock: int
    fold_version: int
    digest: str
    config: dict[str, Any]
    partitions: int = 1
    ledger_partitions: int = 1


class Begun(msgspec.Struct, frozen=True, tag="incarnation", tag_field="kind"):
    """A pair of source partitions begins anew: an operator says that its topics were made again, or were cut off.

    Offsets mean other records from here on. Batches of an earlier incarnation are refused.
    """

    clock: int
    partition: int
    incarnation: int


class ReplicaFacts(msgspec.Struct, frozen=True, tag="replicas", tag_field="kind"):
    """What changed at the replicas of one model while the source clock went to `clock`, in the order of the lines."""

    clock: int
    lines: tuple[int, int]
    source_digest: str
    model: str
    changes: list[ReplicaChange]


Record = Outcomes | Batch | Deployed | Operated | Tick | Configured | Begun | ReplicaFacts | FleetFact


def record_digest(record: Record) -> bytes:
    """Return the SHA-256 of everything a record says; the fold chains these."""
    return hashlib.sha256(pack(record)).digest()
