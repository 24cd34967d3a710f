"""Build the parts of one model in many consecutive batches at once: the same parts, in a few array operations.

A slow source makes a batch for every few records, and what a part costs whatever its size would be most of what an
event costs. What is built here are views of columns that are computed for all batches together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np

from detectors.base import Ints
from streams.config.resolved import ModelConfig
from streams.join.rows import NOTHING_SEEN, PartBuilder, given, limited
from streams.ledger.places import places_of
from streams.ledger.records import Arm, Coded, OutcomeRows, Pairs, Part, PredictionRows
from streams.losses.catalogue import LOSSES
from streams.losses.pairs import pairs_of
from streams.window.joined import (
    ANSWER,
    AT,
    CELL,
    LABELLED_AT,
    LABELLED_BY,
    LINE,
    POSITION,
    SOURCE,
    UNIT,
    Outcomes,
    Seen,
)
from streams.window.series import SeriesTable

_TABLE_MAX: Final = 262_144
"""A table of batches by codes that is larger is built over the codes that occur."""


class Parts(NamedTuple):
    """The part of one model in each batch, None where it has no row; `unfit` are batches to be built by themselves."""

    parts: list[Part | None]
    unfit: set[int]


def is_plain(config: ModelConfig) -> bool:
    """Return whether each row of a model's part depends on that row alone, and all rows are labels of predictions."""
    own = any(spec.name not in LOSSES or spec.name == "log" for spec in config.losses)
    return not (own or config.judges_unlabelled or config.latency_losses or config.revises)


def parts_of(
    model: str, config: ModelConfig, series: SeriesTable, joined: tuple[Outcomes | None, Seen | None], lines: Ints
) -> Parts:
    """Return the parts of a model in the batches that end with these lines, as `PartBuilder.part` builds them one by
    one from the rows of each."""
    outcomes, seen = (None if rows is None else _until(rows, int(lines[-1])) for rows in joined)
    builder, count = PartBuilder(config, series), lines.size
    codes, batch = [], []
    seen_edges, edges = [0] * (count + 1), [0] * (count + 1)
    if seen is not None:
        seen_edges = _edges(seen, lines)
        codes.append(seen.cells.series_of(seen.columns[CELL]))
        batch.append(_batch_of(seen_edges))
    if outcomes is not None:
        edges = _edges(outcomes, lines)
        codes.append(outcomes.cells.series_of(outcomes.columns[CELL]))
        batch.append(_batch_of(edges))
    if not codes:
        return Parts([None] * count, set())
    arms, numbers = _arms(series, codes, batch, count)
    seen_rows = _seen_rows(config, seen, numbers[0] if seen is not None else None, seen_edges)
    rows, unfit = _outcome_rows(builder, outcomes, (codes[-1], numbers[-1]), edges)
    found = [
        Part(model, arms[k], rows[k], seen_rows[k]) if arms[k] else None
        for k in range(count)
    ]  # fmt: skip
    return Parts(found, unfit)


def _until(rows: Any, line: int) -> Any:
    end = int(np.searchsorted(rows.columns[LINE], line, side="right"))
    return rows.part(slice(0, end)) if end else None


def _edges(rows: Outcomes | Seen, lines: Ints) -> list[int]:
    return [0, *np.searchsorted(rows.columns[LINE], lines, side="right").tolist()]


def _batch_of(edges: list[int]) -> Ints:
    return np.repeat(np.arange(len(edges) - 1), np.diff(edges))


def _arms(series: SeriesTable, codes: list[Ints], batch: list[Ints], count: int) -> tuple[list[list[Arm]], list[Ints]]:
    """Return the arms of each batch by first appearance, predictions ahead of outcomes, and the numbers of both."""
    every, where = np.concatenate(codes), np.concatenate(batch)
    order = np.argsort(where, kind="stable")
    numbers = np.empty_like(every)
    numbers[order], occurring, bounds = numbered(every[order], where[order], count)
    known = {code: Arm(series[code].version, series[code].role) for code in set(occurring)}
    arms = [known[code] for code in occurring]
    split = np.split(numbers, [codes[0].size]) if len(codes) > 1 else [numbers]
    return [arms[bounds[k] : bounds[k + 1]] for k in range(count)], split


def _seen_rows(config: ModelConfig, seen: Seen | None, numbers: Ints | None, edges: list[int]) -> list[PredictionRows]:
    if seen is None or numbers is None:
        return [NOTHING_SEEN] * (len(edges) - 1)
    at, places, batch = seen.columns[AT], places_of(seen.columns[POSITION]), _batch_of(edges)
    slices = [
        _coded(*seen.cells.numbers_of(name, seen.columns[CELL]), batch, edges) for name in config.slices_by_seen
    ]  # fmt: skip
    answers: Sequence[Coded | None] = [None] * (len(edges) - 1)
    if config.compares_classes:
        answers = _coded(seen.columns[ANSWER], seen.answers, batch, edges)
    return [
        PredictionRows(
            numbers[begin:end], at[begin:end], places[begin:end], [column[k] for column in slices], answers[k]
        )
        if end > begin
        else NOTHING_SEEN
        for k, (begin, end) in enumerate(pairwise(edges))
    ]


def _outcome_rows(
    builder: PartBuilder, outcomes: Outcomes | None, coded: tuple[Ints, Ints], edges: list[int]
) -> tuple[list[OutcomeRows], set[int]]:
    config, nothing, count = builder.config, builder.no_outcomes(), len(edges) - 1
    if outcomes is None:
        return [nothing] * count, set()
    (codes, arm), columns, batch = coded, outcomes.columns, _batch_of(edges)
    losses = builder.losses_of(outcomes, codes)
    counted = np.isnan(losses).any(axis=0)
    if config.mature_after_ms:
        counted |= columns[LABELLED_AT] - columns[AT] > config.mature_after_ms
    places, labelled_by = places_of(columns[POSITION]), places_of(columns[LABELLED_BY])
    slices = [
        _coded(*outcomes.cells.numbers_of(name, columns[CELL]), batch, edges) for name in config.slices_by
    ]  # fmt: skip
    source = _coded(columns[SOURCE], outcomes.sources, batch, edges)
    classes = _classes(config, outcomes, batch, edges)
    units = columns[UNIT]
    rows = [
        OutcomeRows(
            arm[begin:end],
            columns[AT, begin:end],
            columns[LABELLED_AT, begin:end],
            places[begin:end],
            labelled_by[begin:end],
            losses[:, begin:end],
            [column[k] for column in slices],
            source[k],
            classes[k],
            given(units[begin:end]),
        )
        if end > begin
        else nothing
        for k, (begin, end) in enumerate(pairwise(edges))
    ]
    return rows, set(batch[counted].tolist())


def _classes(config: ModelConfig, outcomes: Outcomes, batch: Ints, edges: list[int]) -> Sequence[Pairs | None]:
    """Return the classes of each batch's outcomes."""
    count = len(edges) - 1
    if not config.compares_classes:
        return [None] * count
    codes, pairs = pairs_of(outcomes.output, outcomes.truth, config.kind)
    numbers, occurring, bounds = numbered(codes, batch, count)
    named = [pairs[code] for code in occurring]
    return [limited(numbers[edges[k] : edges[k + 1]], named[bounds[k] : bounds[k + 1]]) for k in range(count)]


def _coded(codes: Ints, values: Sequence[Any], batch: Ints, edges: list[int]) -> list[Coded]:
    """Return the part of a column in each batch, coded by first occurrence there."""
    count = len(edges) - 1
    numbers, occurring, bounds = numbered(codes, batch, count)
    named = [values[code] for code in occurring]
    return [Coded(named[bounds[k] : bounds[k + 1]], numbers[edges[k] : edges[k + 1]]) for k in range(count)]


def numbered(codes: Ints, batch: Ints, count: int) -> tuple[Ints, list[int], list[int]]:
    """Number the codes of each batch by first occurrence; a code of -1 keeps it.

    Args:
        codes: One of each row.
        batch: The batch that each row is in; rows of a batch lie side by side.
        count: How many batches there are.

    Returns:
        The numbers, the codes in the order of their numbers, batch by batch, and where each batch begins among these.

    >>> numbers, occurring, bounds = numbered(np.array([7, -1, 2, 7, 2]), np.array([0, 0, 0, 2, 2]), 3)
    >>> numbers.tolist(), occurring, bounds
    ([0, -1, 1, 0, 1], [7, 2, 7, 2], [0, 2, 2, 4])
    """
    span = int(codes.max(initial=0)) + 1
    if count * span > _TABLE_MAX:
        return _numbered_by_sorting(codes, batch, count, span)
    unknown = count * span
    key = batch * span + codes
    key[codes < 0] = unknown
    # In reverse, so that the first occurrence is written last.
    first = np.full(unknown + 1, codes.size)
    first[key[::-1]] = np.arange(codes.size - 1, -1, -1)
    found = np.flatnonzero(first[:-1] < codes.size)
    found = found[np.argsort(first[found])]
    own = found // span
    bounds = np.searchsorted(own, np.arange(count + 1))
    table = np.full(unknown + 1, -1)
    table[found] = np.arange(found.size) - bounds[own]
    return table[key], (found % span).tolist(), bounds.tolist()


def _numbered_by_sorting(codes: Ints, batch: Ints, count: int, span: int) -> tuple[Ints, list[int], list[int]]:
    """Do the same as `numbered` where a table of batches by codes would be too large."""
    use = codes >= 0
    known, first, inverse = np.unique(batch[use] * span + codes[use], return_index=True, return_inverse=True)
    order = np.argsort(first)
    own = known[order] // span
    bounds = np.searchsorted(own, np.arange(count + 1))
    number = np.empty(known.size, np.int64)
    number[order] = np.arange(known.size) - bounds[own]
    numbers = np.full(codes.size, -1)
    numbers[use] = number[inverse]
    return numbers, (known[order] % span).tolist(), bounds.tolist()
