"""Count labels by what was asked, so that a shift of the label coverage names which slice or output lost its labels.

A *part* is a slice, by the number of its stream, or an output, by a number below 0. A class that is answered and of
which no truth ever comes is found by the same counts.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
import numpy as np

from actions.evidence_tree import CoverageReport, Mean
from detectors.base import Ints, rounded
from detectors.rows.label_share import COHORTS, SHIFT, by_chance
from streams.evaluation.outcomes import Outcomes
from streams.evaluation.slices import SliceTable, Stream
from streams.ledger.records import Coded, Pairs

Counts: TypeAlias = dict[int, list[int]]
"""By part: predictions, and those of them that have a label."""

OUTPUTS_MAX = 64
#: Truths of other outputs after which one without any is named, and how many it should have had itself: none of so many
#: expected ones is not by chance.
OTHERS_MIN = 500
EXPECTED_MIN = 14
#: Predictions that the present share rests on, and the fewest that a part needs.
NOW_MIN, PART_MIN = 500, 20
FEW = 32


class Output(msgspec.Struct):
    """Hold how often a class was answered, how often a truth came for it, and how often for others.

    Of others those count whose prediction was made later than the first one of this class (ms): truths of both have had
    the same time to come.
    """

    name: str
    first_at: int
    asked: int = 0
    told: int = 0
    others: int = 0

    def count(self, asked: int = 0, told: int = 0, others: int = 0) -> None:
        """Count predictions and truths."""
        self.asked += asked
        self.told += told
        self.others += others


class Outputs(msgspec.Struct):
    """Number the classes that are answered by first appearance; those beyond the limit are not counted."""

    known: list[Output] = []
    unnamed: int = 0

    def numbers(self, column: Coded) -> Ints:
        """Return the part of each entry of a column, 0 for none: -1 for the first class, -2 for the second."""
        return np.array([*(self._part(str(name)) for name in column.values), 0], np.int64)[column.codes]

    def parts_of_pairs(self, classes: Pairs) -> Ints:
        """Return the part of each answer of a column of pairs."""
        found = [0 if answer is None else self._part(str(answer)) for answer, _ in classes.pairs]
        return np.array([*found, 0], np.int64)[classes.codes]

    def _part(self, name: str) -> int:
        for place, output in enumerate(self.known):
            if output.name == name:
                return -1 - place
        return 0

    def ask(self, answer: Coded, predicted_at: Ints) -> None:
        """Count predictions."""
        for code, name in enumerate(answer.values):
            rows = answer.codes == code
            part, count = self._part(str(name)), int(np.count_nonzero(rows))
            if not part and count and len(self.known) < OUTPUTS_MAX:
                self.known = [*self.known, Output(str(name), int(predicted_at[rows].min()))]
                part = -len(self.known)
            if part:
                self.known[-1 - part].count(asked=count)

    def tell(self, classes: Pairs, predicted_at: Ints) -> None:
        """Count truths."""
        parts = self.parts_of_pairs(classes)
        self.unnamed += int(np.count_nonzero(classes.codes < 0))
        for place, output in enumerate(self.known):
            own = int(np.count_nonzero(parts == -1 - place))
            if own:
                output.count(told=own)
            elif not output.told:
                output.count(others=int(np.count_nonzero(predicted_at >= output.first_at)))

    def unseen(self) -> list[str]:
        """Return the classes that are answered and of which no truth ever came, though truths of others do."""
        asked, told = sum(each.asked for each in self.known), sum(each.told for each in self.known)
        if not told or self.unnamed > told // 100:
            return []
        return [
            each.name
            for each in self.known
            if not each.told
            and each.others >= OTHERS_MIN
            and each.asked * told >= EXPECTED_MIN * max(asked - each.asked, 1)
        ]


class Coverage(msgspec.Struct):
    """Hold the counts of a version's first cohorts, and of each of its newest ones."""

    first: Counts = {}
    cohorts: int = 0
    recent: list[Counts] = []

    def close(self, counts: Counts) -> None:
        """Take a closed cohort."""
        if self.cohorts < COHORTS:
            self.cohorts += 1
            add_counts(self.first, counts)
        self.recent = [*self.recent[-(COHORTS - 1) :], counts]

    def lost(self, streams: list[Stream], outputs: list[Output]) -> CoverageReport | None:
        """Return the part whose share of labels moved while that of the others stayed, None if there is none."""
        now: Counts = {}
        for counts in reversed(self.recent):
            add_counts(now, counts)
            if now.get(0, [0, 0])[0] >= NOW_MIN:
                break
        groups: dict[str, list[int]] = {}
        for part in sorted(now.keys() & self.first.keys()):
            if part:
                groups.setdefault(streams[part].dimension if part > 0 else "", []).append(part)
        found = [each for parts in groups.values() for part in parts if (each := self._moved(part, parts, now))]
        if not found:
            return None
        _, part, before, after = max(found, key=lambda each: (each[0], -abs(each[1]), each[1]))
        where = streams[part].describe() if part > 0 else None
        return CoverageReport(where, outputs[-1 - part].name if part < 0 else None, before, after)

    def _moved(self, part: int, group: list[int], now: Counts) -> tuple[float, int, Mean, Mean] | None:
        """Return (points of the coverage, part, share before, share now) if it is this part that moved."""
        rest = [other for other in group if other != part]
        (first, labelled), (asked, told) = self.first[part], now[part]
        if min(first, asked) < PART_MIN:
            return None
        before, after = labelled / first, told / asked
        change, others = after - before, _share(now, rest) - _share(self.first, rest)
        if abs(change) <= SHIFT + by_chance(before, asked) or abs(others) > abs(change) / 2:
            return None
        points = abs(change - others) * asked / sum(now[other][0] for other in group)
        return points, part, Mean(rounded(before), first), Mean(rounded(after), asked)


def _share(counts: Counts, parts: list[int]) -> float:
    asked = sum(counts[part][0] for part in parts)
    return sum(counts[part][1] for part in parts) / asked if asked else 0.0


def add_counts(counts: Counts, more: Counts) -> None:
    """Add counts to others."""
    for part, (asked, told) in more.items():
        known = counts.setdefault(part, [0, 0])
        counts[part] = [known[0] + asked, known[1] + told]


def counts_in(record: Outcomes, table: SliceTable, outputs: Outputs, width: int) -> dict[tuple[int, int], Counts]:
    """Return by interval and arm of a record how many predictions each part has, and how many labels came."""
    found: dict[tuple[int, int], Counts] = {}
    asked = record.asked
    if asked.arm.size and (asked.slices or asked.answer is not None):
        columns = [table.find(i, column) for i, column in enumerate(asked.slices)]
        answers = None if asked.answer is None else outputs.numbers(asked.answer)
        _add(found, asked.predicted_at // width, asked.arm, columns, answers, 0)
    if record.arm.size:
        columns = [table.find(i, column) for i, column in enumerate(record.slices)]
        answers = None if record.classes is None else outputs.parts_of_pairs(record.classes)
        _add(found, record.predicted_at // width, record.arm, columns, answers, 1)
    return found


def _add(
    found: dict[tuple[int, int], Counts], interval: Ints, arm: Ints, slices: list[Ints], answers: Ints | None, kind: int
) -> None:
    """Add rows; `kind` is 0 for predictions and 1 for labels."""
    _add_column(found, interval, arm, np.zeros_like(arm), kind)
    for column in slices:
        use = column > 0
        _add_column(found, interval[use], arm[use], column[use], kind)
    if answers is not None:
        use = answers < 0
        _add_column(found, interval[use], arm[use], answers[use], kind)


def _add_column(found: dict[tuple[int, int], Counts], interval: Ints, arm: Ints, part: Ints, kind: int) -> None:
    if part.size > FEW:
        first, least = int(interval.min()), int(part.min())
        arms, parts = int(arm.max()) + 1, int(part.max()) - least + 1
        keys, counts = np.unique(((interval - first) * arms + arm) * parts + part - least, return_counts=True)
        rest, part = keys // parts, keys % parts + least
        interval, arm = rest // arms + first, rest % arms
        rows = zip(interval.tolist(), arm.tolist(), part.tolist(), counts.tolist(), strict=True)
    else:
        # Of so few rows, a loop takes less time.
        rows = zip(interval.tolist(), arm.tolist(), part.tolist(), [1] * part.size, strict=True)
    for one, number, name, count in rows:
        found.setdefault((one, number), {}).setdefault(name, [0, 0])[kind] += count
