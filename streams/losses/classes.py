"""Compute the losses of classes and probabilities: numbers in [0, 1], where 0 is right and 1 is as wrong as possible.

A loss works on whole columns. Where it cannot be computed (no score, a truth of the wrong kind) it is NaN: that outcome
then steps no row of this loss, and is counted.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from detectors.base import Bools, Floats
from streams.losses.columns import FLOAT, NOTHING, OTHER, JoinedColumns, LossSpec, Scalars, class_name, class_of


def zero_one(pairs: JoinedColumns, spec: LossSpec, kind: str) -> Floats:
    """Return 1 where the answer differs from the truth.

    For a binary target a number between 0 and 1 is read as a probability and cut at one half, -1 as 0, and with any
    other number the loss cannot be computed.

    Example:
        >>> columns = JoinedColumns([1, 0.8, "a", -1, 2.7], [None] * 5, [None] * 5, [0, 1, "b", 0, 1])
        >>> zero_one(columns, LossSpec("zero_one"), "binary")
        array([ 1.,  0.,  1.,  0., nan])
    """
    answers, truths = pairs.outputs, pairs.truths
    if isinstance(answers, Scalars) and isinstance(truths, Scalars) and answers.numeric and truths.numeric:
        return _wrong_numbers(answers, truths, binary=kind == "binary")
    compare = _wrong_binary if kind == "binary" else _wrong_class
    return np.fromiter(map(compare, pairs.outputs, pairs.truths), np.float64, len(pairs.truths))


def _wrong_numbers(answers: Scalars, truths: Scalars, *, binary: bool) -> Floats:
    """Return what `_wrong_binary` or `_wrong_class` return, of numbers."""
    if binary:
        # NaN where either is no class.
        return np.abs(classes_of_numbers(answers) - classes_of_numbers(truths))
    # Equal numbers are one class whatever their kinds, and different ones have different names.
    return np.not_equal(answers.numbers, truths.numbers).astype(np.float64)


def classes_of_numbers(column: Scalars) -> Floats:
    """Return what `class_of` returns, of numbers; NaN where that is None."""
    numbers = column.numbers
    usual = (numbers >= 0) & (numbers <= 1)
    if usual.all():
        return (numbers >= 0.5).astype(np.float64)
    return np.where(usual, numbers >= 0.5, np.where(numbers == -1, 0.0, np.nan))


def _wrong_binary(output: Any, truth: Any) -> float:
    answer, real = class_of(output), class_of(truth)
    # Text against a number is a truth of another kind, not a wrong answer.
    if answer is None or real is None or isinstance(answer, str) != isinstance(real, str):
        return math.nan
    return 1.0 if answer != real else 0.0


def precision(pairs: JoinedColumns, spec: LossSpec, kind: str) -> Floats:
    """Return 1 - truth where the answer was yes: the mean is the share of false alarms among the alarms.

    Example:
        >>> precision(JoinedColumns([1, 0.9, 0], [None] * 3, [None] * 3, [1, 0, 1]), LossSpec("precision"), "binary")
        array([ 0.,  1., nan])
    """
    return np.fromiter(map(_not_among, pairs.outputs, pairs.truths), np.float64, len(pairs.truths))


def recall(pairs: JoinedColumns, spec: LossSpec, kind: str) -> Floats:
    """Return 1 - answer where the truth is yes: the mean is the share of positives that were missed.

    Example:
        >>> recall(JoinedColumns([1, 0.9, 0], [None] * 3, [None] * 3, [1, 0, 1]), LossSpec("recall"), "binary")
        array([ 0., nan,  1.])
    """
    return np.fromiter(map(_not_among, pairs.truths, pairs.outputs), np.float64, len(pairs.truths))


def _not_among(chosen: Any, other: Any) -> float:
    if class_of(chosen) != 1:
        return math.nan
    real = class_of(other)
    return 1.0 - real if real in (0, 1) else math.nan


def answered_no(pairs: JoinedColumns) -> Bools:
    """Return where the answer was no: precision is undefined there."""
    return np.fromiter((class_of(output) == 0 for output in pairs.outputs), np.bool_, len(pairs.truths))


def truly_no(pairs: JoinedColumns) -> Bools:
    """Return where the truth is no: recall is undefined there."""
    return np.fromiter((class_of(truth) == 0 for truth in pairs.truths), np.bool_, len(pairs.truths))


def _wrong_class(output: Any, truth: Any) -> float:
    if isinstance(output, list) or isinstance(truth, list) or truth is None:
        return math.nan
    if output == truth:
        return 0.0
    return 0.0 if class_name(output) == class_name(truth) else 1.0


def _probabilities(pairs: JoinedColumns) -> tuple[Floats, Floats]:
    """Return the probability of the positive class and the truth as 0 or 1, NaN where either is missing."""
    scores, answers, truths = pairs.scores, pairs.outputs, pairs.truths
    if isinstance(scores, Scalars) and isinstance(answers, Scalars):
        # An answer that is a fraction is the probability itself.
        stated = (answers.kinds == FLOAT) & (answers.numbers >= 0) & (answers.numbers <= 1)
        score = np.where(stated, answers.numbers, np.nan)
        np.copyto(score, scores.numbers, where=scores.kinds != NOTHING)
    else:
        score = np.fromiter(map(_score, scores, answers), np.float64, len(truths))
    if isinstance(truths, Scalars):
        numbers = truths.numbers
        certain = (truths.kinds < NOTHING) & ((numbers == 0) | (np.abs(numbers) == 1))
        truth = np.where(certain, numbers == 1, np.nan)
        if truths.others is not None:
            texts = np.flatnonzero(truths.kinds == OTHER)
            truth[texts] = [_truth(truths.others[place]) for place in texts.tolist()]
        return score, truth
    return score, np.fromiter(map(_truth, truths), np.float64, len(truths))


def _score(score: float | None, output: Any) -> float:
    if score is not None:
        return score
    return output if type(output) is float and 0 <= output <= 1 else math.nan


def _truth(truth: Any) -> float:
    # A probability is no outcome.
    if isinstance(truth, float) and not truth.is_integer():
        return math.nan
    real = class_of(truth)
    return float(real) if isinstance(real, int) else math.nan


def brier(pairs: JoinedColumns, spec: LossSpec, kind: str) -> Floats:
    """Return the squared distance of the stated probabilities from what happened (Brier 1950), scaled into [0, 1].

    Example:
        >>> brier(JoinedColumns([1], [0.9], [None], [0]), LossSpec("brier"), "binary").round(2)
        array([0.81])
    """
    if kind == "binary":
        score, truth = _probabilities(pairs)
        return (score - truth) ** 2
    return np.fromiter(map(_brier_classes, pairs.class_scores, pairs.truths), np.float64, len(pairs.truths))


def _brier_classes(scores: dict[str, float] | None, truth: Any) -> float:
    if not scores or truth is None or isinstance(truth, list):
        return math.nan
    real = class_name(truth)
    squares = math.fsum((p - (name == real)) ** 2 for name, p in scores.items()) + (real not in scores)
    # Half the sum is the usual scaling: 1 is reached only by certainty in a wrong class.
    return min(squares / 2, 1.0)


def log_loss(pairs: JoinedColumns, spec: LossSpec, kind: str) -> Floats:
    """Return `min(-ln p(truth), cap) / cap`.

    Example:
        >>> log_loss(JoinedColumns([1], [0.5], [None], [1]), LossSpec("log", 4.0), "binary").round(3)
        array([0.173])
    """
    if kind == "binary":
        score, truth = _probabilities(pairs)
        chosen = np.where(truth == 1, score, 1 - score)
        chosen[np.isnan(truth)] = np.nan
    else:
        chosen = np.fromiter(map(_class_probability, pairs.class_scores, pairs.truths), np.float64, len(pairs.truths))
    with np.errstate(divide="ignore"):
        return np.minimum(np.maximum(-np.log(chosen), 0.0), spec.bound) / spec.bound


def _class_probability(scores: dict[str, float] | None, truth: Any) -> float:
    if not scores or truth is None or isinstance(truth, list):
        return math.nan
    return scores.get(class_name(truth), 0.0)
