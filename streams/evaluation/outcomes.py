"""Outcomes of one model as they reach its evaluation: rows that no earlier record brought."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from detectors.base import Bools, Floats, Ints
from streams.ledger.records import Arm, Coded, PairRows, Pairs, UnlabelledRows, chosen_units


class Asked(msgspec.Struct, frozen=True):
    """The predictions first read in a record, in the order of the ledger: the arm and the time (ms) of each, and as far
    as labels may be missing by these, its slices and the class answered."""

    arm: Ints
    predicted_at: Ints
    slices: list[Coded]
    answer: Coded | None

    def chosen(self, use: Bools) -> Asked:
        """Return some of them."""
        answer = None if self.answer is None else self.answer.chosen(use)
        return Asked(self.arm[use], self.predicted_at[use], [each.chosen(use) for each in self.slices], answer)


class Outcomes(msgspec.Struct, frozen=True):
    """What one ledger record brings of a model, at the source clock `clock`.

    `losses` has shape (losses, outcomes), and `arm` indexes `arms`. `position` orders predictions made at one time,
    whatever partition they are from. `predictions` counts (arm, interval, count) of the predictions first read here, by
    cohorts, or where there are none by the intervals in which they wait for their labels.
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
    asked: Asked
    pairs: PairRows | None = None
    unlabelled: UnlabelledRows | None = None
    classes: Pairs | None = None
    unit: Ints | UnsetType = UNSET

    def of_arms(self, arms: Bools) -> Outcomes:
        """Return the rows of some arms; `arms` has one entry for each."""
        use, pairs, unlabelled = arms[self.arm], self.pairs, self.unlabelled
        if unlabelled is not None:
            both = None if unlabelled.pairs is None else _pairs(unlabelled.pairs, arms)
            unlabelled = unlabelled.chosen(arms[unlabelled.arm], both)
        return msgspec.structs.replace(
            self,
            arm=self.arm[use],
            predicted_at=self.predicted_at[use],
            labelled_at=self.labelled_at[use],
            position=self.position[use],
            losses=self.losses[:, use],
            slices=[column.chosen(use) for column in self.slices],
            source=self.source.chosen(use),
            predictions=[entry for entry in self.predictions if arms[entry[0]]],
            pairs=None if pairs is None else _pairs(pairs, arms),
            unlabelled=unlabelled,
            classes=None if self.classes is None else self.classes.chosen(use),
            asked=self.asked.chosen(arms[self.asked.arm]),
            unit=chosen_units(self.unit, use),
        )

    def events(self) -> int:
        """Return how many events its rows come from: predictions, and labels."""
        return self.arm.size + sum(count for _, _, count in self.predictions)


def _pairs(pairs: PairRows, arms: Bools) -> PairRows:
    return pairs.chosen(arms[pairs.shadow] & arms[pairs.live])
