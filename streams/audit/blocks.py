"""Compare the rows of many batches with the rows that were joined again, all at once and as columns.

Consecutive batches of one source partition have their rows in regions that do not overlap: what is below the corner of
a batch and not below the one before it. So they hold exactly what was joined if each row is in the region of its own
batch, and all rows together are those that were joined. Where this does not hold, nothing more is known:
`streams.audit.rejoin` then compares row by row, and names the first difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray

from detectors.base import Floats, Ints
from streams.ledger.places import offset_of, offsets_of
from streams.ledger.records import Batch, Coded, Counted, OutcomeRows, PairRows, Pairs, Part, UnlabelledRows
from unship.rejections import RejectCode

NOTICED: Final = frozenset({RejectCode.UNMATCHED_FEEDBACK, RejectCode.LATE_FEEDBACK, RejectCode.HOLE})
"""Codes that are not compared: at which place a reader counts them depends on when it reads."""

CLASSES: Final = "classes"
ANSWERED: Final = "answered class"
"""Rows that are compared where both sides name a class: how many are named depends on which others came before."""

Kind: TypeAlias = tuple[str, str, int]
"""The model, the kind of a row, and how many columns it has."""

Columns: TypeAlias = list[Ints]
"""Rows of one kind: their offsets in both logs, then what they hold, all as integers of 64 bits."""


def hold_the_same(batches: Sequence[Batch], joined: Batch) -> bool:
    """Return whether consecutive batches hold the rows that were joined, no other, and each in its batch.

    Args:
        batches: Batches of one source partition; each starts at the corner that the one before it reaches.
        joined: What was joined of the same range.
    """
    numbers: dict[Any, int] = {}
    recorded, computed = _tables(batches, numbers), _tables([joined], numbers)
    return (
        recorded.keys() == computed.keys()
        and all(_in_their_regions(owner, columns, batches) for owner, columns in recorded.values())
        and all(_same(columns, computed[kind][1], kind[1]) for kind, (_, columns) in recorded.items())
        and _same_counts(batches, joined)
    )


def changes_in(counted: Counted) -> Iterator[tuple[str, int, int, int]]:
    """Yield the changes of counts that are compared, as reason, place in both logs, and change."""
    columns = (counted.reason.codes, counted.change, counted.prediction, counted.feedback)
    for code, change, p, f in zip(*(column.tolist() for column in columns), strict=True):
        reason = str(counted.reason.values[code])
        # What comes from neither log is counted by the reader of another topic.
        if reason not in NOTICED and (p, f) != (-1, -1):
            yield reason, p, f, change


def _same_counts(batches: Sequence[Batch], joined: Batch) -> bool:
    totals: Counter[tuple[str, int, int]] = Counter()
    for batch in batches:
        (base_p, base_f), (end_p, end_f) = batch.base, batch.end
        for reason, p, f, change in changes_in(batch.counted):
            offsets = offset_of(p), offset_of(f)
            if offsets[0] >= end_p or offsets[1] >= end_f or (offsets[0] < base_p and offsets[1] < base_f):
                return False
            totals[reason, p, f] += change
    for reason, p, f, change in changes_in(joined.counted):
        totals[reason, p, f] -= change
    return not any(totals.values())


def _tables(batches: Sequence[Batch], numbers: dict[Any, int]) -> dict[Kind, tuple[Ints, Columns]]:
    """Return the rows of each kind, with the number of the batch that each is in.

    `numbers` has the number of each value of a coded column; both sides of a comparison share it.
    """
    pieces: dict[Kind, list[Columns]] = {}
    owners: dict[Kind, list[int]] = {}
    for owner, batch in enumerate(batches):
        for part in batch.parts:
            for name, columns in _rows_of(part, numbers):
                if columns[0].size:
                    kind = part.model, name, len(columns)
                    pieces.setdefault(kind, []).append(columns)
                    owners.setdefault(kind, []).append(owner)
    found = {}
    for kind, parts in pieces.items():
        owner_of = np.repeat(np.array(owners[kind], np.int64), [columns[0].size for columns in parts])
        found[kind] = owner_of, [np.concatenate(column) for column in zip(*parts, strict=True)]
    return found


def _rows_of(part: Part, numbers: dict[Any, int]) -> Iterator[tuple[str, Columns]]:
    arms = np.array([numbers.setdefault((arm.version, arm.role), len(numbers)) for arm in part.arms], np.int64)
    seen, rows, unlabelled = part.seen, part.outcomes, part.unlabelled
    if seen.arm.size:
        columns = [seen.position, _without(seen.position), arms[seen.arm], seen.predicted_at]
        yield "prediction", columns + [_numbered(column, numbers) for column in seen.slices]
        yield from _answers(seen.position, seen.answer, numbers)
    if rows.arm.size:
        columns = [rows.position, rows.labelled_by, arms[rows.arm], rows.predicted_at, rows.labelled_at, units_in(rows)]
        columns += [_numbered(column, numbers) for column in (rows.source, *rows.slices)]
        yield "outcome", columns + _bits(rows.losses)
        if rows.classes is not None:
            yield CLASSES, [rows.position, rows.labelled_by, _of_pairs(rows.classes, numbers)]
    if part.pairs is not None:
        yield "pair", _pairs(part.pairs, arms, numbers)
    if unlabelled is not None and unlabelled.arm.size:
        columns = [unlabelled.position, _without(unlabelled.position), arms[unlabelled.arm], unlabelled.predicted_at]
        columns += [units_in(unlabelled), *(_numbered(column, numbers) for column in unlabelled.slices)]
        yield "unlabelled prediction", columns + _bits(unlabelled.losses)
        yield from _answers(unlabelled.position, unlabelled.answer, numbers)
        if unlabelled.pairs is not None:
            yield "unlabelled pair", _pairs(unlabelled.pairs, arms, numbers)


def units_in(rows: OutcomeRows | UnlabelledRows) -> Ints:
    """Return the numbers of units, 0 where there is none."""
    return np.zeros_like(rows.arm) if rows.unit is UNSET else rows.unit


def _answers(position: Ints, answer: Coded | None, numbers: dict[Any, int]) -> Iterator[tuple[str, Columns]]:
    if answer is not None:
        yield ANSWERED, [position, _without(position), _numbered(answer, numbers)]


def _pairs(pairs: PairRows, arms: Ints, numbers: dict[Any, int]) -> Columns:
    columns = [pairs.later, pairs.labelled_by, arms[pairs.live], arms[pairs.shadow], pairs.position, pairs.predicted_at]
    columns += [_numbered(column, numbers) for column in pairs.slices]
    return columns + _bits(pairs.excess)


def _without(positions: Ints) -> Ints:
    return np.full(positions.size, -1, np.int64)


def _numbered(column: Coded, numbers: dict[Any, int]) -> Ints:
    """Return a coded column by the numbers of its values, -1 where it has no value."""
    # With its type, because True equals 1, but they are two values of a slice.
    known = [numbers.setdefault((type(value), value), len(numbers)) for value in column.values]
    return np.array([*known, -1], np.int64)[column.codes]


def _of_pairs(classes: Pairs, numbers: dict[Any, int]) -> Ints:
    """Return a column of classes by the numbers of its pairs, -1 where it names none."""
    known = [numbers.setdefault((CLASSES, type(pair[0]), type(pair[1]), pair), len(numbers)) for pair in classes.pairs]
    return np.array([*known, -1], np.int64)[classes.codes]


def _bits(losses: Floats) -> Columns:
    """Return each loss as a column of the bits of its numbers: no number equals NaN."""
    return list(np.ascontiguousarray(losses).view(np.int64))


def _in_their_regions(owner: Ints, columns: Columns, batches: Sequence[Batch]) -> bool:
    corners = np.array([(*batch.base, *batch.end) for batch in batches], np.int64)[owner]
    p, f = offsets_of(columns[0]), offsets_of(columns[1])
    below = f < 0
    inside = (p < corners[:, 2]) & (f < corners[:, 3])
    # A prediction alone belongs to the prefix of predictions, however far the feedback was read.
    before = (p < corners[:, 0]) & (below | (f < corners[:, 1]))
    return bool((inside & ~before).all())


def _same(recorded: Columns, computed: Columns, name: str) -> bool:
    if recorded[0].size != computed[0].size:
        return False
    orders = [_order(columns) for columns in (recorded, computed)]
    if name in (CLASSES, ANSWERED):
        ours, theirs = (columns[-1][order] for columns, order in zip((recorded, computed), orders, strict=True))
        return bool(((ours == theirs) | (ours < 0) | (theirs < 0)).all())
    return all(np.array_equal(a[orders[0]], b[orders[1]]) for a, b in zip(recorded, computed, strict=True))


def _order(columns: Columns) -> NDArray[np.intp]:
    """Return the order of rows by their places; two rows of one place and kind stay as they are."""
    return np.lexsort((columns[1], columns[0]))
