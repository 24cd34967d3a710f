"""Outcomes of one model as they reach its evaluation: rows that no earlier record brought."""

from __future__ import annotations

import msgspec

from detectors.base import Floats, Ints
from streams.ledger.records import Arm, Coded, PairRows, UnlabelledRows


class Outcomes(msgspec.Struct, frozen=True):
    """What one ledger record brings of a model, at the source clock `clock`.

    `losses` has shape (losses, outcomes), and `arm` indexes `arms`. `position` orders predictions made at one time,
    whatever partition they are from. `predictions` counts (arm, cohort, count) of the predictions first read here.
    `unlabelled` is there only for models that judge predictions without a label.
    """

    model: str
    clock: int
    arms: list[Arm]
    arm: Ints
    predicted_at: Ints
    labelled_at: Ints
    position: Ints
    losses: Floats
    slices: list[Coded]
    source: Coded
    predictions: list[tuple[int, int, int]]
    pairs: PairRows | None = None
    unlabelled: UnlabelledRows | None = None
