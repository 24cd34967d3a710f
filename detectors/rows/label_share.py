"""Watch the labels themselves: the labelled share of each closed cohort is a stream of its own.

A share that moves by more than five points in either direction means that the outcomes seen are another sample than
before: then no verdict on the model is possible, whatever the losses are. Only cohorts of equal label age are compared,
so this exists only with a maturity.

Where only bad news is reported, no label is an answer, and the labelled share of the predictions is the share of bad
news. A rise of it is about the world, not about the labels. Where only use is reported, such as clicks, the share is
that of good news, and neither direction is about the labels.

Whether labels have ended altogether is asked of every model, and judged by chance: see `Silence`.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.base import rounded
from detectors.betting import GRID_LOW_VARIANCE, advance, factors, total

COHORTS = 20
SHIFT = 0.05
#: A silence as improbable as this many powers of e is none of chance: a million to one.
IMPROBABLE = math.log(1e6)
#: Fewer predictions without a label are no silence, and neither are those that are not so many times as many as the
#: longest run that ended: labels that rest every night have runs that chance does not explain.
RUN_LEAST = 500
LONGER = 1.5
#: Predictions without a label after which a model is silent that has never had one.
NEVER_LABELLED = 2_000
#: Newest-weighted predictions that the usual share of labels rests on.
USUAL_CAP = 20_000.0


class LabelHealth(msgspec.Struct):
    """Label coverage of the live version. `evidence` has two rows: the share fell, the share rose.

    `shifted_at` is the clock (ms) at which the shift was found, and `since_shift` counts the cohorts since.
    """

    evidence: NDArray[np.float64]
    cohorts: int = 0
    share_sum: float = 0.0
    unlabelled: int = 0
    shifted: bool = False
    shifted_at: int = -1
    since_shift: int = 0
    recent: list[tuple[int, int]] = []
    labelled: int = 0
    revised: int = 0

    @property
    def revised_share(self) -> float | None:
        """Share of all labels that were replaced or taken back before they counted, None before the first label."""
        return self.revised / self.labelled if self.labelled else None

    @property
    def share(self) -> float | None:
        """Labelled share of the newest cohorts, None before the first."""
        predictions = sum(entry[0] for entry in self.recent)
        return sum(entry[1] for entry in self.recent) / predictions if predictions else None

    @property
    def settled(self) -> bool:
        """Return whether the share, since it shifted, has stayed at one level long enough to be the normal one.

        The newest 20 cohorts, all after the shift was found, have one level if every run of them, be it one cohort or
        ten, lies within five points of their mean, what chance does to so many predictions aside. A share that keeps
        moving never settles, and no labels at all is no level.
        """
        if self.since_shift < COHORTS or self.unlabelled >= COHORTS:
            return False
        mean = self.share or 0.0
        for first in range(COHORTS):
            predictions, labelled = 0, 0
            for more, of_these in self.recent[first:]:
                predictions, labelled = predictions + more, labelled + of_these
                if abs(labelled / predictions - mean) > SHIFT + by_chance(mean, predictions):
                    return False
        return True

    def close(
        self, predictions: int, labelled: int, promise: float, now: int = 0, rise: bool = True, fall: bool = True
    ) -> None:
        """Take a cohort closed at `now`: how many predictions it has, and how many of them have a label.

        `rise` and `fall` are whether the one and the other of the share are a shift.
        """
        if predictions <= 0:
            return
        labelled = min(labelled, predictions)
        self.labelled += labelled
        self.since_shift += self.shifted
        share = labelled / predictions
        self.unlabelled = 0 if labelled else self.unlabelled + 1
        self.recent = [*self.recent[-(COHORTS - 1) :], (predictions, labelled)]
        if self.cohorts < COHORTS:
            self.cohorts += 1
            self.share_sum += share
            return
        base = self.share_sum / COHORTS
        means = np.array([min(1 - base + SHIFT, 1 - 1e-9), min(base + SHIFT, 1 - 1e-9)])
        factor = factors(np.array([1 - share, share]), means, GRID_LOW_VARIANCE)
        self.evidence = advance(self.evidence, np.ones(2), factor)
        fell, rose = total(self.evidence).tolist()
        # Two directions share the promise.
        found = [each for each, counts in ((fell, fall), (rose, rise)) if counts]
        reached = bool(found) and rounded(sum(found) / len(found)) >= rounded(promise)
        if not self.shifted and reached:
            self.shifted, self.shifted_at = True, now

    def note_revised(self, labels: int) -> None:
        """Note how many labels of the cohort that was closed were replaced or taken back."""
        self.revised += labels

    def agrees_with_record(self, usual: float | None, rise: bool = True) -> bool:
        """Return whether labels are as complete as they were on record; else the outcomes are samples of another kind.

        The newest cohort alone must fit as well, for an alarm may be younger than the others. Without `rise` more
        labels are no objection: where only bad news is reported, they are the decay itself.
        """
        mine = self.share
        if usual is None or mine is None:
            return False
        predictions, labelled = self.recent[-1]
        gaps = (labelled / predictions - usual, mine - usual)
        newest, whole = (abs(gap) if rise else -gap for gap in gaps)
        return newest <= SHIFT + by_chance(usual, predictions) and whole <= SHIFT

    def agrees_with(self, other: LabelHealth) -> bool:
        """Return whether two arms have the same label coverage, so that comparing them is fair all the same."""
        mine, theirs = self.share, other.share
        return mine is not None and theirs is not None and abs(mine - theirs) <= SHIFT


class Silence(msgspec.Struct):
    """How long each arm of a model has had no label, though labels of its predictions should have come.

    `asked` and `labelled` count predictions and their labels while labels came, the older ones fading; `lasting` the
    predictions of each arm that were made since its last label, and `longest` the most there were when one came again.
    """

    asked: float = 0.0
    labelled: float = 0.0
    lasting: dict[int, int] = {}
    longest: int = 0

    def close(self, predictions: dict[int, int], labels: dict[int, int]) -> None:
        """Take predictions of an interval whose labels should have come: predictions and labels of each arm."""
        for arm, count in predictions.items():
            labelled = labels.get(arm, 0)
            if labelled:
                self.end(arm)
                self.asked += count
                self.labelled += labelled
            else:
                self.lasting[arm] = self.lasting.get(arm, 0) + count
        if self.asked > USUAL_CAP:
            self.asked, self.labelled = USUAL_CAP, self.labelled * USUAL_CAP / self.asked

    def end(self, arm: int) -> None:
        """Note that a label of an arm came."""
        silence = self.lasting.pop(arm, 0)
        # What was longer than chance allows was no answer, so it is no part of what is usual.
        self.asked += 0 if self.labelled and self._is_no_chance(silence) else silence
        self.longest = max(self.longest, silence)

    def forget(self, arm: int) -> None:
        """Forget an arm."""
        self.lasting.pop(arm, None)

    def _is_no_chance(self, predictions: int) -> bool:
        """Return whether so many predictions without a label are improbable, given how many labels there were before.

        If nothing has changed, each label is as likely to belong to any of all these predictions; that every one of
        them belongs to the earlier ones has the probability (asked / (asked + predictions)) ** labelled.
        """
        if not self.labelled:
            return predictions >= NEVER_LABELLED
        if predictions < RUN_LEAST or predictions <= LONGER * self.longest:
            return False
        return rounded(self.labelled * math.log1p(predictions / self.asked)) > rounded(IMPROBABLE)

    def arms(self) -> list[int]:
        """Return the arms whose silence has lasted longer than chance allows.

        >>> silence = Silence()
        >>> silence.close({0: 1_000}, {0: 30})
        >>> silence.close({0: 584}, {})
        >>> silence.arms()
        []
        >>> silence.close({0: 1}, {})
        >>> silence.arms()
        [0]
        """
        return [arm for arm, count in self.lasting.items() if self._is_no_chance(count)]


def by_chance(share: float, predictions: int) -> float:
    """Return how far a labelled share may stray by chance: two standard deviations and one prediction.

    >>> round(by_chance(0.9, 100), 3)
    0.07
    """
    return 2.0 * math.sqrt(share * (1.0 - share) / predictions) + 1.0 / predictions


def new_label_health() -> LabelHealth:
    """Return label health before the first cohort.

    >>> health = new_label_health()
    >>> health.close(100, 90, 1e6)
    >>> health.share, health.settled
    (0.9, False)
    """
    return LabelHealth(np.zeros((2, GRID_LOW_VARIANCE.size)))
