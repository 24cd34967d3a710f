"""List the losses, with the bound that each needs and the targets that it fits, and read those of a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np

from detectors.base import Bools, Floats
from streams.losses.classes import answered_no, brier, log_loss, precision, recall, truly_no, zero_one
from streams.losses.columns import NOTHING, JoinedColumns, LossSpec, Scalars, class_of
from streams.losses.custom import own_loss
from streams.losses.numbers import absolute, engagement, latency, not_used, ranking, squared
from unship.errors import ConfigurationError
from unship.rejections import RejectCode


class Loss(msgspec.Struct, frozen=True):
    """Describe a loss: its function, the kinds of target that it fits, and its bound, if it needs one.

    `not_about` returns the outcomes on which the loss is undefined by intent.
    """

    compute: Callable[[JoinedColumns, LossSpec, str], Floats]
    kinds: tuple[str, ...]
    bound: str = ""
    example: float = 1.0
    bound_below: float = 1e6
    not_about: Callable[[JoinedColumns], Bools] | None = None


OF_CLASSES = ("binary", "multiclass")
KINDS = (*OF_CLASSES, "regression", "ranking", "custom")
LoadOwnLoss: TypeAlias = Callable[[str, str], str]
"""Takes the name of a user's own loss and its path in the configuration, and returns the digest of its source."""

_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
LOSSES: dict[str, Loss] = {
    "zero_one": Loss(zero_one, OF_CLASSES),
    "brier": Loss(brier, OF_CLASSES),
    "log": Loss(log_loss, OF_CLASSES, "cap", 4),
    "precision": Loss(precision, ("binary",), not_about=answered_no),
    "recall": Loss(recall, ("binary",), not_about=truly_no),
    # Amounts of money or bytes need a larger scale than any cap of a logarithm.
    "absolute": Loss(absolute, ("regression",), "scale", 10, 1e15),
    "squared": Loss(squared, ("regression",), "scale", 10, 1e15),
    "ranking": Loss(ranking, ("ranking",)),
    "engagement": Loss(engagement, KINDS, not_about=not_used),
    "latency": Loss(latency, KINDS, "objective_ms", 200, 1e9),
}
_INSTEAD = {"regression": "{absolute: {scale: 10}}", "ranking": "ranking", "custom": '"pkg.mod:fn"'}
"""The loss to propose by kind of target, in the error about one that does not fit."""


def loss_specs(
    entries: Sequence[str | dict[str, Any]], kind: str, path: str, load: LoadOwnLoss | None = None
) -> list[LossSpec]:
    """Return the configured losses of a target of this kind; the first is the primary one.

    `load` imports a user's own loss; None refuses such a loss.

    Raises:
        ConfigurationError: A loss is unknown, repeated or does not fit the kind of target, or its bound is missing or
            out of range.

    Example:
        >>> loss_specs([{"absolute": {"scale": 10}}], "regression", "losses")
        [LossSpec(name='absolute', bound=10.0, code_digest=UNSET)]
    """
    specs = [_loss_spec(entry, kind, f"{path}[{i}]", load) for i, entry in enumerate(entries)]
    names = [spec.name for spec in specs]
    if not specs or len(set(names)) != len(names):
        raise ConfigurationError(f"{path}: expected at least one loss, each once, was {names}")
    return specs


def _loss_spec(entry: str | dict[str, Any], kind: str, path: str, load: LoadOwnLoss | None) -> LossSpec:
    if isinstance(entry, dict) and len(entry) != 1:
        raise ConfigurationError(
            f"{path}: expected one loss such as {{log: {{cap: 4}}}}, was {sorted(map(str, entry))}"
        )
    name, options = (entry, None) if isinstance(entry, str) else next(iter(entry.items()))
    if isinstance(name, str) and _OWN.fullmatch(name):
        if options:
            raise ConfigurationError(f"{path}: {name} takes no options, was {options}")
        if load is None:
            raise ConfigurationError(f"{path}: {name} is a function of yours, and no code can be loaded here")
        return LossSpec(name, code_digest=load(name, path))
    if name not in LOSSES:
        raise ConfigurationError(f'{path}: unknown loss {name!r}; known are {", ".join(LOSSES)}, "pkg.mod:fn"')
    loss = LOSSES[name]
    if kind not in loss.kinds:
        raise ConfigurationError(
            f"{path}: {name} judges targets of kind {' or '.join(loss.kinds)}, and target.kind is {kind}; "
            f"write losses: [{_INSTEAD.get(kind, 'zero_one')}], or correct target.kind"
        )
    if not loss.bound:
        if options:
            raise ConfigurationError(f"{path}: {name} takes no options, was {options}")
        return LossSpec(name)
    if not isinstance(options, dict) or set(options) != {loss.bound}:
        raise ConfigurationError(
            f"{path}: {name} needs its bound, for example {{{name}: {{{loss.bound}: {loss.example:g}}}}}; was {options}"
        )
    bound = options[loss.bound]
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not 0 < bound < loss.bound_below:
        raise ConfigurationError(
            f"{path}.{loss.bound}: expected a number above 0 and below {loss.bound_below:.0f}, was {bound!r}"
        )
    return LossSpec(name, float(bound))


def loss_columns(pairs: JoinedColumns, specs: Sequence[LossSpec], kind: str) -> Floats:
    """Return an array of shape (losses, pairs)."""
    rows = [
        LOSSES[spec.name].compute(pairs, spec, kind) if spec.name in LOSSES else own_loss(pairs, spec) for spec in specs
    ]
    return np.stack(rows) if rows and len(pairs.truths) else np.zeros((len(specs), len(pairs.truths)))


def unusable(pairs: JoinedColumns, spec: LossSpec, column: Floats) -> Bools:
    """Return which entries of a loss's column are NaN although the loss is defined on them."""
    missing = np.isnan(column)
    if not spec.of_engagement:
        # A missing truth is not a truth of the wrong kind.
        missing &= _known(pairs.truths)
    not_about = LOSSES[spec.name].not_about if spec.name in LOSSES else None
    if not_about is not None and missing.any():
        missing &= ~not_about(pairs)
    return missing


def why_unusable(output: Any, spec: LossSpec, kind: str) -> RejectCode:
    """Return the code of an outcome of which a loss cannot be computed.

    >>> [str(why_unusable(output, LossSpec("zero_one"), "binary")) for output in (2.7, 1)]
    ['UNUSABLE_OUTPUT', 'UNUSABLE_TRUTH']
    """
    if spec.of_scores:
        return RejectCode.MISSING_SCORE
    return RejectCode.UNUSABLE_TRUTH if _FITS[kind](output) else RejectCode.UNUSABLE_OUTPUT


_FITS: dict[str, Callable[[Any], bool]] = {
    "binary": lambda output: class_of(output) is not None,
    "multiclass": lambda output: not isinstance(output, list),
    "regression": lambda output: isinstance(output, int | float) and not isinstance(output, bool),
    "ranking": lambda output: isinstance(output, list),
    "custom": lambda output: True,
}
"""Whether an answer is of the kind that a target of this kind needs."""


def _known(truths: Sequence[Any]) -> Bools:
    if isinstance(truths, Scalars):
        return np.not_equal(truths.kinds, NOTHING)
    return np.fromiter((truth is not None for truth in truths), np.bool_, len(truths))
