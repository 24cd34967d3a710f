"""Compute the losses of numbers and rankings, and those of an answer's use and speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from detectors.base import Bools, Floats
from streams.losses.columns import FLOAT, INTEGER, JoinedColumns, LossSpec, Scalars, class_name


def absolute(pairs: JoinedColumns, spec: LossSpec, kind: str) -> Floats:
    """Return `min(|output - truth| / scale, 1)`.

    Example:
        >>> pairs = JoinedColumns([12.0, 3, "a"], [None] * 3, [None] * 3, [10, 30, 3])
        >>> absolute(pairs, LossSpec("absolute", 10.0), "regression")
        array([0.2, 1. , nan])
    """
    return np.minimum(_distances(pairs, spec.bound), 1.0)


def squared(pairs: JoinedColumns, spec: LossSpec, kind: str) -> Floats:
    """Return `min(((output - truth) / scale) ** 2, 1)`.

    Example:
        >>> squared(JoinedColumns([15.0, 3], [None] * 2, [None] * 2, [10, 30]), LossSpec("squared", 10.0), "regression")
        array([0.25, 1.  ])
    """
    # Cut before the square, so that no distance overflows a float.
    return np.minimum(_distances(pairs, spec.bound), 1.0) ** 2


def _distances(pairs: JoinedColumns, scale: float) -> Floats:
    with np.errstate(over="ignore"):
        return np.abs(_numbers(pairs.outputs) - _numbers(pairs.truths)) / scale


def _numbers(column: Sequence[Any]) -> Floats:
    if isinstance(column, Scalars):
        return np.where((column.kinds == INTEGER) | (column.kinds == FLOAT), column.numbers, np.nan)
    return np.fromiter(map(_number, column), np.float64, len(column))


def _number(value: Any) -> float:
    # True is a class, not a number.
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def ranking(pairs: JoinedColumns, spec: LossSpec, kind: str) -> Floats:
    """Return 1 - the reciprocal rank of the truth (Voorhees 1999); 1 where it is not among what was answered.

    Of several truths the one ranked first counts.

    Example:
        >>> columns = JoinedColumns([["a", "b"], ["a", "b"]], [None] * 2, [None] * 2, ["b", "c"])
        >>> ranking(columns, LossSpec("ranking"), "ranking")
        array([0.5, 1. ])
    """
    return np.fromiter(map(_below_first, pairs.outputs, pairs.truths), np.float64, len(pairs.truths))


def _below_first(output: Any, truth: Any) -> float:
    if not isinstance(output, list) or truth is None or truth == []:
        return math.nan
    wanted = {class_name(item) for item in (truth if isinstance(truth, list) else [truth])}
    place = next((place for place, item in enumerate(output, 1) if class_name(item) in wanted), math.inf)
    return 1.0 - 1.0 / place


def engagement(pairs: JoinedColumns, spec: LossSpec, kind: str) -> Floats:
    """Return 1 - how much the answer was used.

    Example:
        >>> pairs = JoinedColumns(["a", "b"], [None] * 2, [None] * 2, [None, 1], [0.25, None])
        >>> engagement(pairs, LossSpec("engagement"), "binary")
        array([0.75,  nan])
    """
    return 1.0 - np.array([math.nan if used is None else used for used in pairs.engagements], np.float64)


def not_used(pairs: JoinedColumns) -> Bools:
    """Return where no engagement was reported."""
    return np.array([used is None for used in pairs.engagements], np.bool_)


def latency(pairs: JoinedColumns, spec: LossSpec, kind: str) -> Floats:
    """Return 1 where the answer took longer than the objective, in ms, else 0.

    Example:
        >>> pairs = JoinedColumns([1] * 3, [None] * 3, [None] * 3, [None] * 3, (), [200, 201, None])
        >>> latency(pairs, LossSpec("latency", 200), "")
        array([ 0.,  1., nan])
    """
    took = np.array([math.nan if ms is None else ms for ms in pairs.latencies], np.float64)
    return np.where(np.isnan(took), np.nan, took > spec.bound)
