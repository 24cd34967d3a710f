"""Ask of a model's first outcomes whether answers and labels can be about the same thing at all.

Words against numbers, or yes and no exchanged, make nearly every answer wrong: a model that is usually wrong never gets
worse, so it would be called healthy for ever.
"""

from __future__ import annotations

import msgspec

from actions.evidence_tree import ClassesReport
from streams.ledger.records import Pairs

#: So many outcomes are asked at a time.
ASKED = 500
#: With so large a share of wrong answers yes and no are exchanged, or the labels belong to other answers.
WRONG = 0.9
#: Values of either side that a person is shown.
SHOWN = 5
#: So many pairs of classes are counted at a time; each outcome brings one at most.
COUNTED_MAX = ASKED


class PairCount(msgspec.Struct):
    """Hold how many outcomes have an answer and a truth."""

    answer: int | str | None
    truth: int | str | None
    count: int

    @property
    def known(self) -> bool:
        """Return whether both are classes."""
        return self.answer is not None and self.truth is not None

    @property
    def yes_or_no(self) -> bool:
        """Return whether both are yes or no, as numbers."""
        return isinstance(self.answer, int) and isinstance(self.truth, int)


class Plausibility(msgspec.Struct):
    """Hold the classes of the outcomes that are asked; `passed` once they could be about the same thing."""

    counts: list[PairCount] = []
    asked: int = 0
    passed: bool = False
    implausible: ClassesReport | None = None

    def take(self, counts: list[PairCount], *, binary: bool) -> bool:
        """Take judged outcomes of the live version; return whether labels are plausible that were not before."""
        if self.passed:
            return False
        for count in counts:
            if count.known:
                self.counts = add_pair(self.counts, count, COUNTED_MAX)
                self.asked += count.count
        if self.asked < ASKED:
            return False
        found, self.counts, self.asked = self.counts, [], 0
        mistaken = self.implausible is not None
        self.implausible = _report(found) if _implausible(found, binary) else None
        self.passed = self.implausible is None
        return mistaken and self.passed


def _implausible(counts: list[PairCount], binary: bool) -> bool:
    answers, truths = {each.answer for each in counts}, {each.truth for each in counts}
    if not answers & truths:
        return True
    wrong = sum(each.count for each in counts if each.answer != each.truth)
    return binary and wrong >= WRONG * sum(each.count for each in counts)


def _report(counts: list[PairCount]) -> ClassesReport:
    wrong = sum(each.count for each in counts if each.answer != each.truth)
    total = sum(each.count for each in counts)
    answers: dict[int | str | None, int] = {}
    truths: dict[int | str | None, int] = {}
    for each in counts:
        answers[each.answer] = answers.get(each.answer, 0) + each.count
        truths[each.truth] = truths.get(each.truth, 0) + each.count
    return ClassesReport(_most(answers), _most(truths), wrong, total)


def _most(counts: dict[int | str | None, int]) -> list[str]:
    """Return the values that occur most, as text."""
    return [str(value) for value in sorted(counts, key=lambda value: (-counts[value], str(value)))[:SHOWN]]


def add_pair(counts: list[PairCount], more: PairCount, limit: int) -> list[PairCount]:
    """Return counts with one more; a pair beyond the limit is left out."""
    for place, each in enumerate(counts):
        if each.answer == more.answer and each.truth == more.truth:
            summed = PairCount(each.answer, each.truth, each.count + more.count)
            return [*counts[:place], summed, *counts[place + 1 :]]
    return [*counts, more] if len(counts) < limit else counts


def pair_counts(classes: Pairs) -> list[PairCount]:
    """Return how often each pair of a column occurs.

    >>> import numpy as np
    >>> pair_counts(Pairs([("ok", 0), (1, 1)], np.array([1, -1, 1])))
    [PairCount(answer=1, truth=1, count=2)]
    """
    counts = [0] * len(classes.pairs)
    for code in classes.codes.tolist():
        if code >= 0:
            counts[code] += 1
    return [PairCount(*pair, n) for pair, n in zip(classes.pairs, counts, strict=True) if n]
