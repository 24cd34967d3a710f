"""Define facts that a decision reads and that the ledger carries: changes at replicas, rollbacks of other models."""

from __future__ import annotations

import msgspec


class ReplicaChange(msgspec.Struct, frozen=True):
    """Hold what one replica last acknowledged or was seen to do, where that differs from before.

    `shown` is true where its own predictions show it: then `stage` is `serving` for answers given live and `staged` for
    holdback and shadow ones, and `version` gave them. Otherwise the replica acknowledged it: `version` is what it
    claims to serve, and `epoch` the command that it acknowledges. `at` is the append time, in milliseconds; `place` the
    line's topic, partition and offset, or its number where a recording has no offsets.
    """

    replica: str
    shown: bool
    stage: str
    version: str | None
    epoch: tuple[int, int, int] | None
    code: str | None
    at: int
    place: tuple[str, int, int]


class FleetFact(msgspec.Struct, frozen=True, tag="fleet", tag_field="kind"):
    """An automatic rollback of `model` counts as under way until `until`, for the limit over all models.

    The record follows the decision that it names, so that other models learn of it from the ledger alone.
    """

    clock: int
    decision: str
    model: str
    until: int
